"""``occ rate``: what a use would cost and why; the same as a server would charge, as it is charged by the same code."""

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from balance.model import IdentityType, Unit
from occ.cli import app
from occ.rate import NotRatedError, Question, rate
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.criteria import RequestFacts
from occ.rating.explain import explain
from occ.rating.price import price_of
from tests.asked_client import REALM, AskedClient
from tests.live_server import LiveServer
from tests.occ.test_catalogue_reference import write_examples

VOICE = b"32260@3gpp.org"
MS = 1000
GIB = 1 << 30

Asked = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples of docs/catalogue.md, and settings that name them."""
    root = tmp_path_factory.mktemp("rate")
    (root / "catalogue").mkdir()
    write_examples(root / "catalogue")
    (root / "occ.yaml").write_text("catalogue: catalogue\nstore:\n  data_dir: data\n")
    return root


@pytest.fixture(scope="module")
def catalogue(folder: Path) -> Catalogue:
    return load_catalogue(folder / "catalogue")


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--config", str(folder / "occ.yaml"), "rate", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def asked(folder: Path, service: str, units: str, *more: str, plan: str = "standard") -> Any:
    code, output = run(folder, "--plan", plan, "--service", service, "--units", units, "--json", *more)
    answer = json.loads(output)
    assert code == (0 if answer["cost"] is not None else 1)
    return answer


def steps(answer: Any) -> list[list[tuple[str, str]]]:
    """What and cost of every step of every period."""
    return [[(step["what"], step["cost"]) for step in period["steps"]] for period in answer["periods"]]


def test_a_call_over_a_tariff_switch_is_split_by_the_clock(folder: Path) -> None:
    """The switch is at 20:00:00: 30 seconds before it, 60 after it, steps begin anew, the connection is paid once."""
    answer = asked(folder, "international", "90 s", "--called", "0077123456", "--at", "2026-12-24 19:59:30")
    assert [(period["from"], period["until"], period["units"]) for period in answer["periods"]] == [
        ("2026-12-24 19:59:30 CET", "2026-12-24 20:00:00 CET", 30),
        ("2026-12-24 20:00:00 CET", "2026-12-24 20:01:00 CET", 60),
    ]
    assert steps(answer) == [
        [("connection", "0.10"), ("1 × 60 s at 0.49", "0.49")],
        [("1 × 60 s at 0.29", "0.29")],
    ]
    assert (answer["cost"], answer["cost_micro"], answer["tax"]) == ("0.88", 880_000, "0.140504")
    assert (answer["zone"], answer["prefix"], answer["called"]) == ("kazakhstan", "77", "+77123456")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        # The clock goes from 01:59:59 to 03:00:00 on 29 March, a Sunday: cheap all day. From Sunday to Monday 08:00.
        ("2026-03-30 07:59:00", [("07:59:00 CEST", "0.05"), ("08:00:00 CEST", "0.09")]),
        # The hour from two to three comes twice on 25 October; nothing switches in it.
        ("2026-10-25 02:59:30", [("02:59:30 CEST", "0.10")]),
        # From a working day into a holiday, at its midnight.
        ("2026-12-24 23:59:00", [("23:59:00 CET", "0.05"), ("00:00:00 CET", "0.00")]),
    ],
)
def test_nights_of_the_changing_clock_and_holidays(folder: Path, at: str, expected: list[tuple[str, str]]) -> None:
    answer = asked(folder, "call", "120 s", "--at", at)
    found = [(period["from"].split(" ", 1)[1], period["cost"]) for period in answer["periods"]]
    assert found == expected


def test_first_and_following_increments(folder: Path) -> None:
    answer = asked(folder, "international", "61 s", "--called", "+33123456", "--at", "2026-11-23 10:00:00")
    assert steps(answer) == [[("connection", "0.05"), ("first 60 s", "0.20"), ("1 × 1 s at 0.0033", "0.0033")]]
    assert answer["cost"] == "0.2533"


def test_a_minimum(folder: Path) -> None:
    answer = asked(folder, "roaming-call", "61 s", "--network", "20801")
    assert steps(answer) == [[("2 × 60 s at 0.04", "0.08"), ("minimum 0.10", "0.02")]]


def test_tiers_go_on_from_what_was_used_already(folder: Path) -> None:
    answer = asked(folder, "internet", "3 GiB", "--already", "9 GiB", plan="heavy")
    assert steps(answer) == [
        [("up to 10 GiB: 1024 × 1 MiB at 0.005", "5.12"), ("beyond 10 GiB: 2048 × 1 MiB at 0.001", "2.048")]
    ]


def test_a_cap(folder: Path) -> None:
    answer = asked(folder, "internet", "1 GiB")
    assert steps(answer) == [[("1024 × 1 MiB at 0.01", "10.24"), ("beyond the cap, of internet, all", "-5.24")]]
    assert answer["cost"] == "5.00"
    assert asked(folder, "internet", "1 GiB", "--already", "1 GiB")["cost"] == "0.00"


def test_promotions_are_named_where_they_apply(folder: Path) -> None:
    student = ("--segment", "student", "--called", "030123456")
    answer = asked(folder, "call", "3 h", *student, "--at", "2026-12-05 22:00:00")
    assert [(period["promotions"], period["cost"]) for period in answer["periods"]] == [
        (["long-evenings"], "2.40"),
        ([], "6.00"),
    ]
    assert steps(answer)[0] == [("60 × 60 s at 0.05", "3.00"), ("discount 20 %", "-0.60")]
    friend = asked(
        folder, "call", "60 s", "--called", "030123456", "--friend", "+4930123456", "--at", "2026-12-01 21:00"
    )
    assert (friend["periods"][0]["promotions"], friend["cost"]) == (["family"], "0.025")
    new = asked(folder, "call", "6 min", "--activated", "2026-11-20", "--at", "2026-12-01 21:00", "--already", "1 min")
    assert [(period["promotions"], period["cost"]) for period in new["periods"]] == [(["newcomers"], "0.10")]


@pytest.mark.parametrize(
    ("service", "more", "found", "other", "reason"),
    [
        (
            "call",
            "--called 030-12345",
            "call",
            "international",
            "the destination eu or kazakhstan or world, not national",
        ),
        ("call", "--called 0033123456", "international", "message", "MESSAGE, and none is named"),
        ("call", "--called 110", "emergency-call", "internet", "32251@3gpp.org"),
        ("emergency-call", "", "emergency-call", "internet", "32251@3gpp.org"),
        ("call", "--network 234-15", "call", "roaming-call", "the network eu-roaming or world-roaming, not home"),
        ("call", "--network 20801 --role terminating", "roaming-call", "internet", "32251@3gpp.org"),
        (
            "roaming-call",
            "--network 20801",
            "roaming-call",
            "emergency-call",
            "the destination emergency, and none is named",
        ),
        ("call", "--network 20801", "call", "roaming-call", "terminating calls, and none is named"),
        ("call", "--network 20801 --role originating", "call", "roaming-call", "terminating calls, not originating"),
        ("internet", "--apn ims", None, "internet", "the APN internet or *.corp, not ims"),
        ("internet", "--rating-group 11", None, "internet", "Rating-Group none or 10, not 11"),
        ("internet", "--service-identifier 7", None, "internet", "Service-Identifier none or 1, not 7"),
    ],
)
def test_which_service_and_why_not_the_others(
    folder: Path, service: str, more: str, found: str | None, other: str, reason: str
) -> None:
    answer = asked(folder, service, "1 MiB" if service == "internet" else "60 s", *more.split())
    assert answer["service"] == found
    assert answer["not"][other] == f"it is for {reason}"
    assert (answer["cost"] is None) == (found is None)
    assert answer["result_code"] == (2001 if found else 5031)


def test_in_words(folder: Path) -> None:
    at = ("--at", "2026-12-24 19:59:30")
    code, output = run(
        folder, "--plan", "standard", "--service", "international", "--units", "90 s", "--called", "0077123456", *at
    )
    shown = [re.sub(" {2,}", " | ", line.strip()) for line in output.splitlines()]
    assert code == 0
    assert shown[0].startswith(
        "Request: 90 s from 2026-12-24 19:59:30 CET, 32260@3gpp.org, called +77123456, zone kazakhstan, prefix 77, Kaz"
    )
    for line in (
        "Service: international, the first that fits.",
        "not message: it is for MESSAGE, and none is named",
        "2026-12-24 19:59:30 CET to 2026-12-24 20:00:00 CET: 30 s at 0.10 for the connection, then 0.49 per 60 s",
        "connection | 0.10 EUR",
        "1 × 60 s at 0.49 | 0.49 EUR",
        "1 × 60 s at 0.29 | 0.29 EUR",
        "Total | 0.88 EUR",
        "of which 19 % tax | 0.140504 EUR",
    ):
        assert line in shown
    assert any(line.startswith("Tariff: plan standard of catalogue example-1 (") for line in shown)
    assert any(line.endswith("), by destination: kazakhstan.") for line in shown)


def test_what_is_not_sold_is_said(folder: Path) -> None:
    code, output = run(folder, "--plan", "heavy", "--service", "roaming-call", "--units", "60 s", "--network", "20801")
    assert code == 1
    assert "does not sell it" in output
    assert "refused with Result-Code 5031" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--plan", "standart", "--service", "call", "--units", "1 s"), "did you mean 'standard'"),
        (("--plan", "standard", "--service", "cal", "--units", "1 s"), "did you mean 'call'"),
        (("--plan", "standard", "--units", "1 s"), "give either --service or --context"),
        (("--plan", "standard", "--service", "call", "--units", "1 MiB"), "no unit for seconds"),
        (("--plan", "standard", "--service", "call", "--units", "1 s", "--at", "noon"), "'2026-12-24 19:59:30'"),
        (
            ("--plan", "standard", "--service", "call", "--units", "1 s", "--role", "caller"),
            "must be one of originating",
        ),
        (("--plan", "standard", "--context", "32251@3gpp.org", "--units", "1 s"), "counted in octets, not in seconds"),
        (("--plan", "standard", "--service", "internet", "--units", "9 TiB", "--apn", "internet"), "ask about less"),
    ],
)
def test_mistakes_on_the_command_line(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    if "--context" in arguments:
        arguments += ("--apn", "internet")
    code, output = run(folder, *arguments)
    assert code == 2
    assert said in " ".join(output.split())


@settings(max_examples=60, deadline=None)
@given(
    plan=st.sampled_from(["standard", "heavy"]),
    called=st.sampled_from([b"030123456", b"0033123", b"+7712", b"112", b"sip:a@b", None]),
    role=st.sampled_from([None, 1]),
    network=st.sampled_from([None, b"20801", b"310410"]),
    units=st.integers(1, 7200),
    already=st.integers(0, 600),
    at_s=st.integers(1_774_000_000, 1_800_000_000),
    segment=st.sampled_from(["", "student"]),
)
def test_the_steps_add_up_to_what_is_charged(
    catalogue: Catalogue,
    plan: str,
    called: bytes | None,
    role: int | None,
    network: bytes | None,
    units: int,
    already: int,
    at_s: int,
    segment: str,
) -> None:
    """But for caps; and the service that charging has found is the one that is shown."""
    facts = RequestFacts(VOICE, None, called, None, None, role, network)
    question = Question(plan, facts, Unit.SECONDS, units, at_s * MS, already_units=already, segment=segment)
    rated = rate(catalogue, question)
    assert rated.service is not None
    if not rated.record:
        assert rated.result_code == 5031
        assert catalogue.tariff(plan, rated.service.name, rated.zone) is None
        return
    assert (rated.record["service"], rated.record["zone"] or "") == (rated.service.name, rated.zone)
    assert sum(period["units"] for period in rated.record["periods"]) == units
    total = 0
    for period in rated.record["periods"]:
        price = price_of(Unit.SECONDS, period["step_units"], period["step_price_micro"], tuple(period["terms"]))
        micro = sum(line.micro for line in explain(price, period["counted_from"], period["counted_to"]))
        assert micro == period["cost_micro"] or catalogue.caps(plan, rated.service.name)
        assert micro >= period["cost_micro"]
        total += period["cost_micro"]
    assert total == rated.cost_micro


def test_more_requests_than_can_be_waited_for(catalogue: Catalogue) -> None:
    facts = RequestFacts(b"32251@3gpp.org", b"internet")
    with pytest.raises(NotRatedError, match="more than"):
        rate(catalogue, Question("standard", facts, Unit.OCTETS, 10**15, 0))
    with pytest.raises(NotRatedError, match="counted in octets, not in seconds"):
        rate(catalogue, Question("standard", facts, Unit.SECONDS, 1, 0))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.mark.parametrize("used_mib", [1, 7, 45])
async def test_a_server_charges_the_same(server: LiveServer, used_mib: int) -> None:
    """With the catalogue that comes with the project."""
    sample = load_catalogue(server.settings.catalogue)
    name = f"acc-{used_mib}"
    msisdn = f"49170000{used_mib:04}"
    server.add_account(name, [(IdentityType.E164, msisdn)], balance_micro=10_000_000)
    client = await AskedClient(f"pgw{used_mib}.{REALM}").connect(server.port)
    session = f"pgw;1;{used_mib}"
    await client.begin(session, msisdn)
    left = used_mib
    while left > 10:
        await client.update(session, 10)
        left -= 10
    await client.end(session, left)
    await client.close()
    spent = 10_000_000 - (await asyncio.to_thread(server.account, name)).buckets[0].balance
    facts = RequestFacts(b"32251@3gpp.org")
    rated = rate(sample, Question("standard", facts, Unit.OCTETS, used_mib << 20, server.now_ms(), rating_group=10))
    assert rated.cost_micro == spent
