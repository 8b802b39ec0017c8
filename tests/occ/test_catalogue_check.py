"""``occ catalogue check`` says what it understood, in the catalogue's own words."""

import json
import re
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from occ.cli import app

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
