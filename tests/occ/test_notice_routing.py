"""Which way a notice goes, when quiet hours end, how long to wait: pure decisions."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.contacts import Contact
from balance.notices import Notice
from occ.masking import masked_address, masked_numbers
from occ.notices.pacing import Pacer, backoff_ms
from occ.notices.routing import Decision, Decline, GiveUp, Hold, Send, decide, quiet_until
from occ.notices.settings import RetrySettings

ALL = ("smpp", "sms_http", "email", "telegram", "webhook", "log")
DEFAULTS = Contact(language="en", quiet=(21 * 60, 8 * 60), time_zone="Europe/Berlin")
MAIL_THEN_SMS = Contact(channels=(("email", "a@example.net"), ("sms", "4917")), consent={"marketing": True})


def ms(written: str, zone: str = "Europe/Berlin") -> int:
    return int(datetime.fromisoformat(written).replace(tzinfo=ZoneInfo(zone)).timestamp()) * 1000


NOON = ms("2026-03-05 12:00")
NIGHT = ms("2026-03-05 23:00")


def decision(
    contact: Contact = MAIL_THEN_SMS,
    klass: str = "account-state",
    enabled: tuple[str, ...] = ALL,
    given_up: tuple[str, ...] = (),
    now_ms: int = NOON,
) -> Decision:
    notice = Notice(b"n", b"a", b"", klass, "restored", {}, now_ms)
    return decide(notice, contact, DEFAULTS, enabled, given_up, now_ms, now_ms + 1)


@pytest.mark.parametrize(
    ("enabled", "given_up", "wanted"),
    [
        (ALL, (), Send("email", "a@example.net")),
        (ALL, ("email",), Send("smpp", "4917")),
        (ALL, ("email", "smpp"), Send("sms_http", "4917")),
        (ALL, ("email", "smpp", "sms_http"), GiveUp("no channel could deliver it")),
        (("sms_http", "log"), (), Send("sms_http", "4917")),
        (("telegram", "log"), (), Send("log", "a@example.net")),
        (("log",), ("log",), GiveUp("no channel could deliver it")),
        (("telegram",), (), GiveUp("none of the customer's channels is enabled")),
    ],
)
def test_channels_in_the_order_of_the_contact(
    enabled: tuple[str, ...], given_up: tuple[str, ...], wanted: Decision
) -> None:
    assert decision(enabled=enabled, given_up=given_up) == wanted


def test_nobody_to_tell() -> None:
    assert decision(Contact(), enabled=("smpp",)) == GiveUp("the customer has no address")
    assert decision(Contact()) == Send("log", "")


def test_consent_and_quiet_hours() -> None:
    assert decision(klass="marketing") == Send("email", "a@example.net")
    assert decision(Contact(channels=MAIL_THEN_SMS.channels), "marketing") == Decline()
    assert decision(klass="marketing", now_ms=NIGHT) == Hold(ms("2026-03-06 08:00"))
    for klass in ("account-state", "billing"):
        assert isinstance(decision(klass=klass, now_ms=NIGHT), Send)
    # What cannot be sent anyway is not held for it.
    assert isinstance(decision(klass="marketing", now_ms=NIGHT, enabled=("telegram",)), GiveUp)


def test_age() -> None:
    notice = Notice(b"n", b"a", b"", "billing", "restored", {}, NOON)
    assert isinstance(decide(notice, MAIL_THEN_SMS, DEFAULTS, ALL, (), NOON + 10, NOON + 10), GiveUp)
    assert isinstance(decide(notice, MAIL_THEN_SMS, DEFAULTS, ALL, (), NOON + 9, NOON + 10), Send)


@pytest.mark.parametrize(
    ("quiet", "now", "until"),
    [
        ((21 * 60, 8 * 60), "2026-03-05 20:59", None),
        ((21 * 60, 8 * 60), "2026-03-05 21:00", "2026-03-06 08:00"),
        ((21 * 60, 8 * 60), "2026-03-06 07:59", "2026-03-06 08:00"),
        ((21 * 60, 8 * 60), "2026-03-06 08:00", None),
        ((13 * 60, 14 * 60), "2026-03-05 13:30", "2026-03-05 14:00"),
        ((0, 0), "2026-03-05 23:00", None),
        # Over the night in which the clock is put forward, and the one in which it is put back.
        ((21 * 60, 8 * 60), "2026-03-28 22:00", "2026-03-29 08:00"),
        ((21 * 60, 8 * 60), "2026-10-24 22:00", "2026-10-25 08:00"),
        ((21 * 60, 150), "2026-03-28 22:00", "2026-03-29 03:30"),
    ],
)
def test_when_quiet_hours_end(quiet: tuple[int, int], now: str, until: str | None) -> None:
    assert quiet_until(Contact(quiet=quiet), DEFAULTS, ms(now)) == (0 if until is None else ms(until))


def test_quiet_hours_are_by_the_customers_clock() -> None:
    assert quiet_until(Contact(time_zone="Asia/Vladivostok"), DEFAULTS, ms("2026-03-05 22:00", "Asia/Vladivostok")) == (
        ms("2026-03-06 08:00", "Asia/Vladivostok")
    )
    assert quiet_until(Contact(), Contact(), NIGHT) == 0


@given(
    st.tuples(st.integers(0, 1439), st.integers(0, 1439)),
    st.integers(NOON, NOON + 366 * 86_400_000),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia", "UTC"]),
)
def test_quiet_hours_end_ahead_and_at_their_end(quiet: tuple[int, int], now_ms: int, zone: str) -> None:
    contact = Contact(quiet=quiet, time_zone=zone)
    until_ms = quiet_until(contact, DEFAULTS, now_ms)
    if not until_ms:
        return
    assert now_ms < until_ms <= now_ms + 25 * 3_600_000
    ends = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=until_ms)
    minute = ends.astimezone(ZoneInfo(zone)).hour * 60 + ends.astimezone(ZoneInfo(zone)).minute
    assert minute == quiet[1] or until_ms == now_ms + 1 or minute - quiet[1] == 60


# -- waiting -----------------------------------------------------------------------------------------------------------


def test_attempts_come_twice_as_late_each_time_up_to_a_bound() -> None:
    retry = RetrySettings(attempts=8, first_seconds=2, longest_seconds=60)
    latest = [backoff_ms(attempt, retry, lambda: 0.0) for attempt in range(1, 9)]
    assert latest == [2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000]
    assert [backoff_ms(attempt, retry, lambda: 1.0) for attempt in range(1, 9)] == [each // 2 for each in latest]
    assert backoff_ms(10_000, retry, lambda: 0.5) == 45_000


def test_a_channel_begins_so_many_messages_a_second() -> None:
    pacer = Pacer(10)
    assert [round(pacer.wait_s(100.0), 3) for _ in range(4)] == [0, 0.1, 0.2, 0.3]
    assert pacer.wait_s(200.0) == 0
    pacer.close_for(5.0, 200.0)
    assert pacer.wait_s(201.0) == pytest.approx(4.0)
    assert pacer.wait_s(201.0) == pytest.approx(4.1)


# -- what logs show of people ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        ("491700000001", "4917****0001"),
        ("+491700000001", "+4917****0001"),
        ("12345", "1****"),
        ("ann@example.net", "a****@example.net"),
        ("https://user:pw@example.net/hook?token=secret", "https://example.net/****"),
        ("@channel", "@****"),
        ("", ""),
    ],
)
def test_identities_are_masked(identity: str, shown: str) -> None:
    assert masked_address(identity) == shown


def test_numbers_in_texts_are_masked() -> None:
    assert (
        masked_numbers("call +491700000001 for 3.20 EUR by 2026-03-05")
        == "call +4917****0001 for 3.20 EUR by 2026-03-05"
    )
