"""The auditor of the simulators: started units over a whole session and service, by the sample tariff."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.audit import DATA, SMS, VOICE, Audit, SessionAudit, Tariff

MIB = 1 << 20


@pytest.mark.parametrize(
    ("tariff", "units", "price_micro"),
    [
        (DATA, 0, 0),
        (DATA, 1, 10_000),
        (DATA, MIB, 10_000),
        (DATA, MIB + 1, 20_000),
        (VOICE, 60, 90_000),
        (VOICE, 61, 180_000),
        (SMS, 3, 150_000),
    ],
)
def test_a_started_block_is_paid_whole(tariff: Tariff, units: int, price_micro: int) -> None:
    assert tariff.price_micro(units) == price_micro


def test_three_halves_of_a_mib_in_one_session_are_two_started_mib() -> None:
    audit = Audit()
    session = SessionAudit(audit, DATA)
    for _ in range(3):
        session.debited((10, -1), MIB // 2)
    assert audit.debited_micro == 20_000


def test_services_and_sessions_start_blocks_of_their_own() -> None:
    audit = Audit()
    for _ in range(2):
        session = SessionAudit(audit, DATA)
        session.debited((10, -1), 1)
        session.debited((-1, -1), 1)
    assert audit.debited_micro == 4 * 10_000


@given(st.lists(st.integers(0, 5 * MIB), max_size=30))
def test_a_session_costs_the_same_however_its_usage_is_cut(reports: list[int]) -> None:
    audit = Audit()
    session = SessionAudit(audit, DATA)
    for octets in reports:
        session.debited((10, -1), octets)
    assert audit.debited_micro == DATA.price_micro(sum(reports))
    assert session.used((10, -1)) == sum(reports)


def test_an_unanswered_report_is_uncertain_and_not_debited() -> None:
    audit = Audit()
    session = SessionAudit(audit, VOICE)
    session.debited((100, 1000), 30)
    session.unanswered((100, 1000), 40)
    assert (audit.debited_micro, audit.uncertain_micro) == (90_000, 90_000)


def test_negative_usage_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        SessionAudit(Audit(), DATA).debited((10, -1), -1)
