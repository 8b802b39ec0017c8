"""When offers are due and allowances expire, by the operator's calendar; shares of what is not whole."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.rating.allowances import Lasting, Validity
from occ.rating.local_time import Calendar
from occ.rating.offers import Every, Offer, Share, Starts, prorated_fee, prorated_units

BERLIN = ZoneInfo("Europe/Berlin")
CALENDAR = Calendar(BERLIN)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY_MS = 86_400_000


def ms(written: str) -> int:
    """A moment by the clock of Berlin."""
    return (datetime.fromisoformat(written).replace(tzinfo=BERLIN) - EPOCH) // timedelta(milliseconds=1)


def clock(at_ms: int) -> str:
    return (EPOCH + timedelta(milliseconds=at_ms)).astimezone(BERLIN).strftime("%Y-%m-%d %H:%M:%S")


def offer(every: Every, starts: Starts = Starts.AT_ONCE, period_s: int = 0) -> Offer:
    return Offer("offer", every=every, starts=starts, period_s=period_s, prorated=starts is Starts.FIRST_OF_MONTH)


def dates(each: Offer, since: str, count: int) -> list[str]:
    """When the periods after the first begin."""
    found, at_ms = [], ms(since)
    for _ in range(count):
        at_ms = each.next_ms(ms(since), at_ms, CALENDAR)
        found.append(clock(at_ms))
    return found


@pytest.mark.parametrize(
    ("each", "since", "expected"),
    [
        (
            offer(Every.MONTH),
            "2026-01-31 10:20:30",
            ["2026-02-28 10:20:30", "2026-03-31 10:20:30", "2026-04-30 10:20:30", "2026-05-31 10:20:30"],
        ),
        (offer(Every.MONTH), "2027-12-29 00:00:00", ["2028-01-29 00:00:00", "2028-02-29 00:00:00"]),
        (
            offer(Every.MONTH, Starts.FIRST_OF_MONTH),
            "2026-11-30 23:59:59",
            ["2026-12-01 00:00:00", "2027-01-01 00:00:00"],
        ),
        (offer(Every.MONTH, Starts.FIRST_OF_MONTH), "2026-12-01 00:00:00", ["2027-01-01 00:00:00"]),
        # The clock leaps from 02:00 to 03:00 on 29 March and back from 03:00 to 02:00 on 25 October.
        (offer(Every.DAY), "2026-03-28 02:30:00", ["2026-03-29 03:00:00", "2026-03-30 02:30:00"]),
        (offer(Every.DAY), "2026-10-24 02:30:00", ["2026-10-25 02:30:00", "2026-10-26 02:30:00"]),
        (offer(Every.WEEK), "2026-12-24 19:00:00", ["2026-12-31 19:00:00", "2027-01-07 19:00:00"]),
        # 30 days are 720 hours, over the change of the clock.
        (
            offer(Every.TIME, period_s=30 * 86_400),
            "2026-10-01 12:00:00",
            ["2026-10-31 11:00:00", "2026-11-30 11:00:00"],
        ),
    ],
)
def test_periods_by_the_operators_clock(each: Offer, since: str, expected: list[str]) -> None:
    assert dates(each, since, len(expected)) == expected


def test_what_is_charged_once_is_never_due_again() -> None:
    assert offer(Every.ONCE).next_ms(ms("2026-01-01 00:00:00"), ms("2026-01-01 00:00:00"), CALENDAR) == 0


def test_before_it_is_taken_the_first_period_is_next() -> None:
    since_ms = ms("2026-06-01 00:00:00")
    assert offer(Every.MONTH).next_ms(since_ms, since_ms - 1, CALENDAR) == since_ms


moments = st.integers(ms("2020-01-01 00:00:00"), ms("2040-01-01 00:00:00"))
kinds = st.sampled_from(
    [
        offer(Every.DAY),
        offer(Every.WEEK),
        offer(Every.MONTH),
        offer(Every.MONTH, Starts.FIRST_OF_MONTH),
        offer(Every.TIME, period_s=12 * 3600),
        offer(Every.TIME, period_s=30 * 86_400),
    ]
)


@given(kinds, moments, st.integers(0, 3 * 366 * DAY_MS))
def test_the_next_period_is_the_first_that_begins_later(each: Offer, since_ms: int, passed_ms: int) -> None:
    """Asking at any moment of a period gives its end, and asking there the end of the next."""
    at_ms = since_ms + passed_ms
    next_ms = each.next_ms(since_ms, at_ms, CALENDAR)
    assert next_ms > at_ms
    assert each.next_ms(since_ms, next_ms - 1, CALENDAR) == next_ms
    assert next_ms - at_ms <= 31 * DAY_MS + 2 * 3_600_000
    share = each.share_left(since_ms, at_ms, CALENDAR)
    assert 1 <= share.days_left <= share.days <= 31
    assert each.first_share(since_ms, CALENDAR).days_left >= 1


@pytest.mark.parametrize(
    ("since", "share"),
    [
        ("2026-12-01 00:00:00", Share(31, 31)),
        ("2026-12-01 23:59:59", Share(31, 31)),
        ("2026-12-15 12:00:00", Share(17, 31)),
        ("2026-12-31 23:59:59", Share(1, 31)),
        ("2028-02-29 08:00:00", Share(1, 29)),
        ("2026-10-25 23:59:59", Share(7, 31)),
    ],
)
def test_a_first_month_costs_its_days_today_among_them(since: str, share: Share) -> None:
    first = offer(Every.MONTH, Starts.FIRST_OF_MONTH)
    assert first.first_share(ms(since), CALENDAR) == share
    assert Offer("whole", every=Every.MONTH, starts=Starts.FIRST_OF_MONTH).first_share(ms(since), CALENDAR) == (1, 1)


def test_what_is_left_of_a_period_that_began_when_it_was_taken() -> None:
    """Taken on 15 January at noon: the period is the 31 days until 15 February at noon."""
    month = offer(Every.MONTH)
    since_ms = ms("2026-01-15 12:00:00")
    for at, left in (("2026-01-15 12:00:00", 31), ("2026-02-01 00:00:00", 14), ("2026-02-15 11:59:59", 1)):
        assert month.share_left(since_ms, ms(at), CALENDAR) == (left, 31)
    assert month.share_left(since_ms, ms("2026-02-15 12:00:00"), CALENDAR) == (28, 28)
    assert offer(Every.ONCE).share_left(since_ms, since_ms, CALENDAR) == (1, 1)


@given(st.integers(0, 10**12), st.integers(1, 31), st.integers(0, 30))
def test_shares_are_rounded_in_the_customers_favour(amount: int, days: int, used: int) -> None:
    """The rules: a fee down to a micro-unit, what is given up to a whole unit; by less than one."""
    share = Share(max(1, days - used), days)
    exact = amount * share.days_left
    assert prorated_fee(amount, share) * days <= exact < (prorated_fee(amount, share) + 1) * days
    assert (prorated_units(amount, share) - 1) * days < exact <= prorated_units(amount, share) * days
    assert prorated_fee(amount, Share(days, days)) == prorated_units(amount, Share(days, days)) == amount


@pytest.mark.parametrize(
    ("validity", "given_at", "ends"),
    [
        (Validity(Lasting.TIME, 86_400), "2026-10-24 12:00:00", "2026-10-25 11:00:00"),
        (Validity(Lasting.END_OF_DAY), "2026-10-25 00:00:00", "2026-10-26 00:00:00"),
        (Validity(Lasting.END_OF_DAY), "2026-10-25 23:59:59", "2026-10-26 00:00:00"),
        (Validity(Lasting.END_OF_MONTH), "2026-12-31 23:59:59", "2027-01-01 00:00:00"),
        (Validity(Lasting.END_OF_MONTH), "2028-02-01 00:00:00", "2028-03-01 00:00:00"),
    ],
)
def test_until_when_something_is_valid(validity: Validity, given_at: str, ends: str) -> None:
    assert clock(validity.ends_ms(ms(given_at), CALENDAR, renewal_ms=1)) == ends


def test_without_a_word_it_is_valid_until_it_is_renewed() -> None:
    assert Validity().ends_ms(ms("2026-12-31 23:59:59"), CALENDAR, renewal_ms=77) == 77
    assert Validity().ends_ms(ms("2026-12-31 23:59:59"), CALENDAR) == 0
