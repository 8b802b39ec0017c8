"""Gateway and IMS against the real server: every answer comes, and the ledger agrees to the last micro-unit."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from balance.model import IdentityType, Unit
from simulators import gateway, ims
from simulators.driver import SimulationOptions
from simulators.gateway import GatewayOptions
from simulators.ims import ImsOptions
from simulators.population import Population
from simulators.summary import Summary
from tests.live_server import LiveServer

PREPAID, POSTPAID = 12, 6
BALANCE_MICRO, LIMIT_MICRO = 10_000_000, 50_000_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server with a population of its own: 10.00 each, or 50.00 of credit."""
    with LiveServer(tmp_path) as server:
        population = Population(PREPAID, POSTPAID)
        for number in range(1, len(population) + 1):
            subscriber = population.subscriber(number)
            server.add_account(
                subscriber.msisdn,
                ((IdentityType.E164, subscriber.msisdn), (IdentityType.IMSI, subscriber.imsi)),
                balance_micro=0 if subscriber.postpaid else BALANCE_MICRO,
                credit_limit_micro=LIMIT_MICRO if subscriber.postpaid else None,
            )
        yield server


def run_gateway(server: LiveServer, **options: object) -> Summary:
    progress: list[tuple[int, int]] = []
    chosen = {"sessions": 60, "prepaid": PREPAID, "postpaid": POSTPAID, **options}
    settings = GatewayOptions(port=server.port, **chosen)  # type: ignore[arg-type]
    summary = asyncio.run(gateway.run(settings, lambda done, total: progress.append((done, total))))
    assert progress == [(done, settings.sessions) for done in range(settings.sessions + 1)]
    return summary


def run_ims(server: LiveServer, **options: object) -> Summary:
    chosen = {"sessions": 80, "prepaid": PREPAID, "postpaid": POSTPAID, **options}
    settings = ImsOptions(port=server.port, **chosen)  # type: ignore[arg-type]
    return asyncio.run(ims.run(settings, lambda done, total: None))


def assert_sound(server: LiveServer, *summaries: Summary) -> None:
    """Everything was answered, nothing twice in two ways, and the ledger holds what the clients reckon."""
    for summary in summaries:
        assert summary.answers == summary.requests
        assert (summary.unanswered, summary.disagreements, summary.malformed, summary.uncertain_micro) == (0, 0, 0, 0)
    report = server.verify()
    assert report.discrepancies == []
    assert (report.open_sessions, report.open_reservations) == (0, 0)
    (money,) = (total for total in report.totals if total.unit == Unit.MONEY)
    assert money.debited == sum(summary.debited_micro for summary in summaries) > 0
    assert money.reserved == 0


@pytest.mark.shows("row 19", "row 20")
def test_data_sessions_are_charged_as_the_clients_reckon(server: LiveServer) -> None:
    summary = run_gateway(server)
    assert_sound(server, summary)
    assert summary.sessions == 60
    assert summary.grants > 60
    assert summary.refusals == {}


@pytest.mark.shows("row 19", "row 20")
def test_calls_and_messages_are_charged_as_the_clients_reckon(server: LiveServer) -> None:
    summary = run_ims(server)
    assert_sound(server, summary)
    assert summary.sessions == 80
    assert summary.refusals == {}


@pytest.mark.shows("row 16", "operators-repeat-once")
def test_repeats_of_every_kind_debit_once(server: LiveServer) -> None:
    """Row 16: T flag, new End-to-End Identifier, before and after the answer, also of the last request."""
    data = run_gateway(server, repeats=1.0, sessions=30)
    voice = run_ims(server, repeats=1.0, sessions=40)
    assert data.repeats == data.requests
    assert voice.repeats == voice.requests
    assert_sound(server, data, voice)


@pytest.mark.shows("row 20", "row 28", "operators-grants-follow-balance")
def test_grants_follow_the_balance_to_the_last_unit_and_then_4012(server: LiveServer) -> None:
    """Rows 20 and 28: final units are told, later requests refused, and no prepaid account goes below zero."""
    volume = 300 << 20
    summary = run_gateway(server, volume_octets=volume, sessions=40, postpaid=0, concurrency=6)
    assert_sound(server, summary)
    assert summary.final_grants > 0
    assert summary.refusals[4012] > 0
    balances = [server.account(Population().subscriber(number).msisdn).buckets[0] for number in range(1, PREPAID + 1)]
    assert all(bucket.balance >= 0 for bucket in balances)
    assert any(bucket.balance == 0 for bucket in balances)


@pytest.mark.shows("row 22", "kamailio-termination-after-refusal")
def test_calls_of_a_caller_without_credit_are_refused_and_ended_all_the_same(server: LiveServer) -> None:
    """Kamailio sends a T after a refused I; it is answered (5002) and debits nothing."""
    summary = run_ims(server, sessions=150, prepaid=1, postpaid=0, call_seconds=3600, concurrency=2)
    assert_sound(server, summary)
    assert summary.refusals[4012] > 0
    assert summary.refusals[5002] > 0


@pytest.mark.shows("row 28")
def test_strangers_get_5030_and_pay_nothing(server: LiveServer) -> None:
    """Row 28: unknown subscribers; half of this population is not in the store."""
    summary = run_gateway(server, prepaid=2 * (PREPAID + POSTPAID), postpaid=0)
    assert_sound(server, summary)
    assert summary.refusals[5030] > 0


def test_the_same_seed_uses_and_pays_the_same(server: LiveServer) -> None:
    summaries = [run_gateway(server, seed=5, sessions=25, concurrency=1) for _ in range(2)]
    assert_sound(server, *summaries)
    assert summaries[0].debited_micro == summaries[1].debited_micro
    assert summaries[0].requests == summaries[1].requests


@pytest.mark.shows("row 20")
def test_usage_beyond_the_grant_is_debited_while_credit_lasts(server: LiveServer) -> None:
    summary = run_gateway(server, overshoot=0.1, sessions=20, prepaid=PREPAID, postpaid=0, concurrency=1)
    assert_sound(server, summary)


@pytest.mark.parametrize(
    ("name", "value"),
    [("port", 0), ("sessions", 0), ("concurrency", 0), ("rate", -1), ("repeats", 1.5), ("pace", -1)],
)
def test_impossible_options_are_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{name} is "):
        SimulationOptions(**{name: value})  # type: ignore[arg-type]


def test_shares_must_add_up() -> None:
    with pytest.raises(ValueError, match="shares of 1 together"):
        ImsOptions(event_share=0.7, message_session_share=0.7)
