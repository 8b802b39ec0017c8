"""``occ catalogue check`` says what it understood, in the catalogue's own words."""

import json
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from occ.cli import app
from tests.occ.test_catalogue_reference import write_examples

CATALOGUE = """\
version: test
currency: EUR
time_zone: Europe/Berlin
holidays: [2026-12-25]
services:
  internet:
    context: 32251@3gpp.org
    unit: octets
    quota: 10 MiB
    validity: 30 min
    report_early: 1 MiB
    holding_time: none
    pool: 3
    reauthorise_on: [change-in-rat, change-in-qos]
    client_failure: continue
    failover: no
    usage_beyond_grant: waive
    tariff_switch: two-quotas
    when_used_up:
      redirect_to: http://top-up.example.net/
      restrict_to: portal-only
      allow: permit in ip from any to 192.0.2.10
      bandwidth: 64 kbit/s
  calls:
    context: 32260@3gpp.org
    unit: seconds
    quota: 60 s
    validity: 5 min
    consumption_time: 10 s
    debit_failure: continue
    when_used_up: restrict
    when_store_is_away:
      {grant: 60 s, per_session: 10 min, grants_per_session: 9, sessions: 1_000, grants: 9_000, for: 10 min}
  sms:
    context: 32274@3gpp.org
    unit: events
    quota: 1 event
    validity: 5 min
plans:
  standard:
    internet:
      08:00: 0.02 per 1 MiB
      holidays 00:00: free
    calls: denied
    sms: 0.05 per 1 event
"""


LIMITS = "grants_per_session 9; sessions 1000; grants 9000; for 600 s"
RESTRICTED = "allow permit in ip from any to 192.0.2.10; bandwidth 64000 bit/s; qos_indication; ask_again_after 300 s"


def check(tmp_path: Path, *options: str) -> str:
    file = tmp_path / "catalogue.yaml"
    file.write_text(CATALOGUE)
    result = CliRunner().invoke(app, ["catalogue", "check", str(file), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_settings_and_prices_by_time_are_shown(tmp_path: Path) -> None:
    shown = [re.sub(" {2,}", " | ", line.strip()) for line in check(tmp_path).splitlines()]
    for line in (
        "internet | report_early | 1 MiB",
        "internet | holding_time | none",
        "internet | pool | 3",
        "internet | reauthorise_on | change-in-qos, change-in-rat",
        "internet | client_failure | continue",
        "internet | failover | no",
        "internet | usage_beyond_grant | waive",
        "internet | tariff_switch | two-quotas",
        f"internet | when_used_up | redirect_to http://top-up.example.net/; restrict_to portal-only; {RESTRICTED}",
        "calls | consumption_time | 10 s",
        "calls | debit_failure | continue",
        "calls | when_used_up | restrict; ask_again_after 300 s",
        f"calls | when_store_is_away | grant 60 s; per_session 600 s; {LIMITS}",
        "standard | internet | 0.02 EUR | 1 MiB | 08:00",
        "standard | internet | free | holidays 00:00",
        "standard | calls | denied",
        "standard | sms | 0.05 EUR | 1 event",
        "Times are those of Europe/Berlin; holidays: 2026-12-25.",
    ):
        assert line in shown
    assert not any(line.startswith("sms | ") and "@" not in line for line in shown)


def test_the_same_as_json(tmp_path: Path) -> None:
    checked: dict[str, Any] = json.loads(check(tmp_path, "--json"))
    assert (checked["time_zone"], checked["holidays"]) == ("Europe/Berlin", ["2026-12-25"])
    internet, calls, sms = checked["services"]
    assert internet["threshold_units"] == 1 << 20
    assert (internet["holding_time_s"], calls["holding_time_s"]) == (0, None)
    assert internet["triggers"] == [2, 4]
    assert internet["final_units"] == {
        "action": 1,
        "redirect_address_type": 2,
        "redirect_address": "http://top-up.example.net/",
        "filter_ids": ["portal-only"],
        "rules": ["permit in ip from any to 192.0.2.10"],
        "bandwidth_bit_s": 64_000,
        "with_qos": True,
        "ask_again_s": 300,
    }
    assert (sms["final_units"]["action"], sms["final_units"]["redirect_address"]) == (0, None)
    assert checked["plans"]["standard"] == {
        "internet": [
            {"from": "08:00", "price": "0.02", "step_units": 1 << 20},
            {"from": "holidays 00:00", "price": "0.00", "step_units": 1},
        ],
        "calls": {"result_code": 4010},
        "sms": {"price": "0.05", "step_units": 1},
    }


# -- the examples of docs/catalogue.md ------------------------------------------------------------------------------


def examples(tmp_path: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["catalogue", "check", str(write_examples(tmp_path)), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_criteria_zones_and_what_is_given_are_shown(tmp_path: Path) -> None:
    shown = [re.sub(" {2,}", " | ", line.strip()) for line in examples(tmp_path).splitlines()]
    assert re.fullmatch(r"Version example-1 \([0-9a-f]{8}\), prices in EUR, written with 19 % tax\.", shown[0])
    for line in (
        "internet | apn | internet, *.corp",
        "emergency-call | destinations | emergency",
        "emergency-call | essential | yes",
        "roaming-call | networks | eu-roaming, world-roaming",
        "roaming-call | role | terminating",
        "message | sip_methods | MESSAGE",
        "Destinations, 7 prefixes: emergency, eu, kazakhstan, national, premium, world.",
        "Networks: eu-roaming, home, world-roaming.",
        "standard | international | kazakhstan | 0.10 for the connection, then 0.49 per 60 s | 08:00",
        "standard | international | kazakhstan | 0.29 EUR | 60 s | 20:00",
        "standard | international | others | 0.99 EUR | 60 s",
        "standard | roaming-call | eu-roaming | 0.04 per 60 s, 0.10 at least",
        "heavy | internet | 0.005 per 1 MiB up to 10 GiB, 0.001 per 1 MiB beyond, counted over the month",
        "abroad | call | uncontrolled",
        "standard | internet | internet | 5.00 EUR | day",
        "standard | all | call | 200.00 EUR | month",
        "data-5gb | 5 GiB | internet | 10 | 2592000 s | 1 GiB | yes",
        "talk | 2.00 EUR | call, international | 5 | 1209600 s",
        "small | 9.99 EUR | month | first of month, prorated | data-5gb, talk | retry every 86400 s | heavy",
        "Promotions, tried in this order: welcome, long-evenings, heavy-use, newcomers, family, faithful.",
    ):
        assert line in shown


def test_criteria_zones_and_what_is_given_as_json(tmp_path: Path) -> None:
    checked: dict[str, Any] = json.loads(examples(tmp_path, "--json"))
    assert checked["tax"] == {"rate_ppm": 190_000, "exclusive": False}
    assert checked["networks"] == ["eu-roaming", "home", "world-roaming"]
    assert checked["prefixes"] == 7
    services = {service["name"]: service for service in checked["services"]}
    assert services["internet"]["apns"] == ["internet", "*.corp"]
    assert services["international"]["destinations"] == ["eu", "kazakhstan", "world"]
    assert services["message"]["sip_methods"] == ["MESSAGE"]
    assert (services["roaming-call"]["role"], services["emergency-call"]["essential"]) == (1, True)
    standard, heavy, abroad = (checked["plans"][plan] for plan in ("standard", "heavy", "abroad"))
    assert standard["international"]["by_destination"]["others"] == {"price": "0.99", "step_units": 60}
    assert standard["roaming-call"]["by_network"]["world-roaming"]["free_units"] == 10
    assert heavy["internet"]["counted"] == "month"
    assert [tier["up_to_units"] for tier in heavy["internet"]["tiers"]] == [10 << 30, None]
    assert abroad["call"] == {"result_code": 4011}
    assert checked["currencies"] == {"standard": "EUR", "heavy": "EUR", "abroad": "USD"}
    assert checked["includes"]["heavy"] == ["small"]
    assert checked["caps"]["standard"]["internet"][0] == {"name": "internet", "limit": "5.00", "per": "day"}
    assert checked["allowances"][0]["validity"] == "2592000 s"
    assert (checked["offers"][0]["fee"], checked["offers"][0]["every"]) == ("9.99", "month")
    assert checked["bonuses"][0]["name"] == "talk"
    assert checked["promotions"][0] == "welcome"


def test_what_is_allowed_but_seldom_meant_is_noted(tmp_path: Path) -> None:
    write_examples(tmp_path)
    for file in tmp_path.glob("*.yaml"):
        text = file.read_text().replace("        others: 0.99 per 60 s ", "# ").replace("message: 0.05", "# ")
        file.write_text(text.replace("message: denied", "# "))
    (tmp_path / "heavy.csv").write_text("service,price\ncall,free\n")
    result = CliRunner().invoke(app, ["catalogue", "check", str(tmp_path)])
    assert result.exit_code == 0
    notes = [line for line in result.output.splitlines() if line.startswith("Note: ")]
    assert notes == ["Note: no plan sells the service message."]
    (tmp_path / "world.csv").write_text("zone,price\nworld,free\n")
    result = CliRunner().invoke(app, ["catalogue", "check", str(tmp_path), "--json"])
    assert json.loads(result.output)["remarks"] == [
        "no plan sells the service message",
        "plan standard does not sell international in kazakhstan",
    ]
