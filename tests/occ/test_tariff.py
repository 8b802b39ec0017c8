"""Tariffs: which price holds at a moment and until when, by the operator's clock, and how mistakes are reported."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.local_time import UTC_CALENDAR, Calendar, read_calendar
from occ.rating.price import FreePrice, StepPrice
from occ.rating.tariff import (
    DENIED,
    EVERY_DAY,
    FORBIDDEN,
    HOLIDAY,
    UNCONTROLLED,
    Beginning,
    Price,
    Refusal,
    Tariff,
    read_tariff,
)
from occ.yamlmap import ConfigError, parse_yaml
from tests.plain import PLAIN_ONLY

BERLIN = ZoneInfo("Europe/Berlin")
CHRISTMAS = Calendar(BERLIN, (date(2026, 12, 25), date(2026, 12, 26)))
MIB = 1 << 20
DAY, NIGHT, FREE = StepPrice(Unit.OCTETS, MIB, 20_000), StepPrice(Unit.OCTETS, MIB, 10_000), FreePrice(Unit.OCTETS)

WEEK = """\
Mo-Fr 07:00: 0.02 per 1 MiB
Mo-Fr 19:00: 0.01 per 1 MiB
Sa-Su 00:00: 0.01 per 1 MiB
holidays 00:00: free
"""


def read(text: str, calendar: Calendar = CHRISTMAS, unit: Unit = Unit.OCTETS) -> Tariff:
    return read_tariff(parse_yaml(text, "catalogue.yaml", Path()), unit, calendar)


def ms(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def berlin(written: str, fold: int = 0) -> int:
    return ms(datetime.fromisoformat(written).replace(tzinfo=BERLIN, fold=fold))


def utc(written: str) -> int:
    return ms(datetime.fromisoformat(written).replace(tzinfo=UTC))


def periods(tariff: Tariff, from_ms: int, to_ms: int) -> Iterator[tuple[int, Price]]:
    """Every period that begins in between, the first cut to ``from_ms``."""
    while from_ms < to_ms:
        price, until_ms = tariff.at(from_ms)
        yield from_ms, price
        if not until_ms:
            return
        from_ms = until_ms


# -- what holds when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("0.01 per 1 MiB", NIGHT),
        ("free", FREE),
        ("uncontrolled", UNCONTROLLED),
        ("denied", DENIED),
        ("forbidden", FORBIDDEN),
    ],
)
def test_one_price_holds_always(written: str, price: Price) -> None:
    tariff = read(written)
    assert tariff.at(0) == tariff.at(berlin("2026-06-01 12:00")) == tariff.at(1 << 60) == (price, 0)
    assert Tariff.of(price).at(0) == (price, 0)


def test_refusals_are_the_codes_of_row_28() -> None:
    assert [refusal.result_code for refusal in (UNCONTROLLED, DENIED, FORBIDDEN)] == [4011, 4010, 5003]


def test_the_week_of_the_sample() -> None:
    """Christmas 2026 is a Friday and a Saturday."""
    tariff = read(WEEK)
    found = list(periods(tariff, berlin("2026-12-23 12:00"), berlin("2026-12-30 00:00")))
    assert found == [
        (berlin("2026-12-23 12:00"), DAY),
        (berlin("2026-12-23 19:00"), NIGHT),
        (berlin("2026-12-24 07:00"), DAY),
        (berlin("2026-12-24 19:00"), NIGHT),
        (berlin("2026-12-25 00:00"), FREE),
        (berlin("2026-12-27 00:00"), NIGHT),  # both days are over; Saturday, Sunday and the night are one period
        (berlin("2026-12-28 07:00"), DAY),
        (berlin("2026-12-28 19:00"), NIGHT),
        (berlin("2026-12-29 07:00"), DAY),
        (berlin("2026-12-29 19:00"), NIGHT),
    ]


def test_a_beginning_without_days_is_for_every_day() -> None:
    tariff = read("20:00: 0.01 per 1 MiB\n08:00: 0.02 per 1 MiB\n")
    for day in range(1, 15):
        assert tariff.at(berlin(f"2026-03-{day:02} 07:59")) == (NIGHT, berlin(f"2026-03-{day:02} 08:00"))
        assert tariff.at(berlin(f"2026-03-{day:02} 08:00")) == (DAY, berlin(f"2026-03-{day:02} 20:00"))
    assert tariff.at(berlin("2026-03-02 20:00") - 1) == (DAY, berlin("2026-03-02 20:00"))


def test_a_price_goes_on_until_the_week_says_otherwise() -> None:
    tariff = read("Mo 06:00: 0.02 per 1 MiB\nWe,Fr-Sa 22:00: 0.01 per 1 MiB\n")
    assert tariff.at(berlin("2026-06-07 23:59"))[0] == NIGHT  # a Sunday
    assert tariff.at(berlin("2026-06-08 06:00")) == (DAY, berlin("2026-06-10 22:00"))
    assert tariff.at(berlin("2026-06-10 22:00")) == (NIGHT, berlin("2026-06-15 06:00"))


def test_ranges_of_days_go_over_the_end_of_the_week() -> None:
    days = [each.days for each in read("Sa-Mo 00:00: free\nTu-Fr 00:00: 0.01 per 1 MiB\n").beginnings]
    assert days == [frozenset({5, 6, 0}), frozenset({1, 2, 3, 4})]
    assert read("Mo, We ,holidays 00:00: free\n").beginnings[0].days == frozenset({0, 2, HOLIDAY})


def test_holidays_lie_over_the_week_from_their_first_beginning_to_midnight() -> None:
    tariff = read(
        "06:00: 0.02 per 1 MiB\n22:00: 0.01 per 1 MiB\nholidays 10:00: free\nholidays 18:00: denied\n",
        Calendar(BERLIN, (date(2026, 12, 24),)),
    )
    found = list(periods(tariff, berlin("2026-12-23 22:00"), berlin("2026-12-25 12:00")))
    assert found == [
        (berlin("2026-12-23 22:00"), NIGHT),
        (berlin("2026-12-24 06:00"), DAY),
        (berlin("2026-12-24 10:00"), FREE),
        (berlin("2026-12-24 18:00"), DENIED),  # nothing of 22:00: from 10:00 on the holiday has its own prices
        (berlin("2026-12-25 00:00"), NIGHT),  # and these end with it
        (berlin("2026-12-25 06:00"), DAY),
    ]


def test_a_holiday_that_a_tariff_does_not_name_is_a_day_like_others() -> None:
    tariff = read("Mo-Su 08:00: 0.02 per 1 MiB\nMo-Su 20:00: 0.01 per 1 MiB\n")
    assert tariff.at(berlin("2026-12-25 08:00")) == (DAY, berlin("2026-12-25 20:00"))


def test_beginnings_that_change_nothing_are_no_switch() -> None:
    tariff = read("Mo 08:00: 0.01 per 1 MiB\nTh 12:00: 0.01 per 1 MiB\nholidays 00:00: 0.01 per 1 MiB\n")
    assert tariff.at(berlin("2026-06-01 00:00")) == (NIGHT, 0)


def test_the_next_switch_may_be_a_holiday_far_away_or_never_come() -> None:
    calendar = Calendar(BERLIN, (date(2026, 12, 25), date(2031, 5, 1)))
    tariff = read("Mo-Su 00:00: 0.01 per 1 MiB\nholidays 12:00: free\n", calendar)
    assert tariff.at(berlin("2026-01-01 00:00")) == (NIGHT, berlin("2026-12-25 12:00"))
    assert tariff.at(berlin("2026-12-25 12:00")) == (FREE, berlin("2026-12-26 00:00"))
    assert tariff.at(berlin("2026-12-26 00:00")) == (NIGHT, berlin("2031-05-01 12:00"))
    assert tariff.at(berlin("2031-05-02 00:00")) == (NIGHT, 0)
    assert tariff.at(berlin("2026-12-25 13:00")) == (FREE, berlin("2026-12-26 00:00"))


def test_holidays_do_not_hide_the_days_of_the_week_after_them() -> None:
    """One Friday and Saturday are holidays; the next Friday is not."""
    calendar = Calendar(BERLIN, (date(2026, 5, 1), date(2026, 5, 2)))
    tariff = read("Fr 00:00: free\nSa 00:00: 0.01 per 1 MiB\nholidays 00:00: 0.01 per 1 MiB\n", calendar)
    assert tariff.at(berlin("2026-04-30 00:00")) == (NIGHT, berlin("2026-05-08 00:00"))


def test_the_next_switch_may_be_almost_a_week_ahead() -> None:
    tariff = read("Mo 06:00: 0.02 per 1 MiB\nMo 08:00: 0.01 per 1 MiB\n")
    assert tariff.at(berlin("2026-06-01 12:00")) == (NIGHT, berlin("2026-06-08 06:00"))


# -- clocks put forward and back -----------------------------------------------------------------------------------

NIGHTLY = "02:30: 0.02 per 1 MiB\n04:00: 0.01 per 1 MiB\n"


def test_a_beginning_that_the_clock_leaps_over_takes_effect_at_the_leap() -> None:
    """29 March 2026, Berlin: 02:00 is followed by 03:00, at 01:00 UTC."""
    assert list(periods(read(NIGHTLY), utc("2026-03-29 00:59:59"), utc("2026-03-29 03:00"))) == [
        (utc("2026-03-29 00:59:59"), NIGHT),
        (utc("2026-03-29 01:00"), DAY),
        (utc("2026-03-29 02:00"), NIGHT),
    ]


def test_of_several_beginnings_in_the_leap_the_last_counts() -> None:
    tariff = read("02:10: free\n02:20: 0.01 per 1 MiB\n02:50: 0.02 per 1 MiB\n03:00: denied\n12:00: 0.02 per 1 MiB\n")
    assert tariff.at(utc("2026-03-29 00:59:59")) == (DAY, utc("2026-03-29 01:00"))
    assert tariff.at(utc("2026-03-29 01:00")) == (DENIED, utc("2026-03-29 10:00"))
    tariff = read("02:10: free\n02:50: 0.01 per 1 MiB\n12:00: 0.02 per 1 MiB\n22:00: 0.01 per 1 MiB\n")
    assert tariff.at(utc("2026-03-28 22:00")) == (NIGHT, utc("2026-03-29 10:00"))  # free for no time at all


def test_of_an_hour_that_comes_twice_the_first_counts() -> None:
    """25 October 2026, Berlin: 03:00 is followed by 02:00, at 01:00 UTC."""
    assert list(periods(read(NIGHTLY), utc("2026-10-25 00:00"), utc("2026-10-25 04:00"))) == [
        (utc("2026-10-25 00:00"), NIGHT),
        (utc("2026-10-25 00:30"), DAY),  # and it stays, though the clock shows 02:00 to 02:30 once more
        (utc("2026-10-25 03:00"), NIGHT),
    ]


def test_days_of_23_and_25_hours() -> None:
    hour_ms = 3_600_000
    tariff = read("Mo-Sa 00:00: 0.01 per 1 MiB\nSu 00:00: 0.02 per 1 MiB\n")
    lengths = []
    for begins in ("2026-03-29 00:00", "2026-03-22 00:00", "2026-10-25 00:00"):
        price, until_ms = tariff.at(berlin(begins))
        assert price == DAY
        lengths.append((until_ms - berlin(begins)) // hour_ms)
    assert lengths == [23, 24, 25]


def test_a_midnight_that_the_clock_leaps_over() -> None:
    """4 November 2018, Sao Paulo: Saturday 24:00 was followed by Sunday 01:00, at 03:00 UTC."""
    tariff = read("Mo-Sa 00:00: 0.01 per 1 MiB\nSu 00:00: 0.02 per 1 MiB\n", Calendar(ZoneInfo("America/Sao_Paulo")))
    assert tariff.at(utc("2018-11-04 02:59")) == (NIGHT, utc("2018-11-04 03:00"))
    assert tariff.at(utc("2018-11-04 03:00")) == (DAY, utc("2018-11-05 02:00"))


def test_a_day_that_began_before_the_clock_was_put_back_into_the_day_before() -> None:
    """29 October 2006, St. John's: Sunday 00:01 was followed by Saturday 23:01, at 02:31 UTC."""
    calendar = Calendar(ZoneInfo("America/St_Johns"))
    sunday = (DAY, utc("2006-10-30 03:30"))
    for minute, expected in (
        ("02:29", (NIGHT, utc("2006-10-29 02:30"))),
        ("02:30", sunday),
        ("02:31", sunday),
        ("03:00", sunday),
        ("03:31", sunday),
    ):
        tariff = read("Mo-Sa 00:00: 0.01 per 1 MiB\nSu 00:00: 0.02 per 1 MiB\n", calendar)
        assert tariff.at(utc(f"2006-10-29 {minute}")) == expected


def test_a_day_that_was_left_out() -> None:
    """Apia had no 30 December 2011, a Friday."""
    tariff = read(
        "Mo-Th 00:00: 0.01 per 1 MiB\nFr 12:00: free\nSa 08:00: 0.02 per 1 MiB\n", Calendar(ZoneInfo("Pacific/Apia"))
    )
    assert tariff.at(utc("2011-12-30 09:59")) == (NIGHT, utc("2011-12-30 10:00"))
    assert tariff.at(utc("2011-12-30 10:00")) == (FREE, utc("2011-12-30 18:00"))


# -- against an oracle that reads the clock minute by minute ---------------------------------------------------------

WINDOWS = [
    ("Europe/Berlin", "2026-03-29 01:00"),
    ("Europe/Berlin", "2026-10-25 01:00"),
    ("America/New_York", "2026-03-08 07:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),  # half an hour back
    ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("America/Sao_Paulo", "2018-02-18 02:00"),  # midnight comes twice
    ("America/Sao_Paulo", "2018-11-04 03:00"),
    ("America/St_Johns", "2006-10-29 02:31"),
    ("Pacific/Apia", "2011-12-30 10:00"),
    ("Asia/Kathmandu", "2026-01-01 00:00"),
    ("UTC", "2026-12-25 00:00"),
]
STEP = timedelta(minutes=15)
PRICES = [StepPrice(Unit.OCTETS, 1, micro) for micro in (1, 2, 3)]

beginnings = st.lists(
    st.builds(
        Beginning,
        st.sampled_from(PRICES),
        st.integers(0, 95).map(lambda quarter: quarter * 15),
        st.frozensets(st.integers(0, HOLIDAY), min_size=1),
    ),
    min_size=1,
    max_size=8,
).filter(lambda given: any(each.days & EVERY_DAY for each in given))


def price_on_the_clock(written: list[Beginning], holidays: set[date], local: datetime) -> Price:
    """What the rules say for a time that the local clock shows, read literally."""

    def last(day: int, until: int) -> Price | None:
        found = sorted(
            (
                (each.minute, position)
                for position, each in enumerate(written)
                if day in each.days and each.minute <= until
            )
        )
        return written[found[-1][1]].price if found else None

    minute = local.hour * 60 + local.minute
    price = last(HOLIDAY, minute) if local.date() in holidays else None
    for days_ago in range(8):
        if price is None:
            price = last((local.weekday() - days_ago) % 7, 1439 if days_ago else minute)
    assert price is not None
    return price


@settings(max_examples=150)
@given(
    written=beginnings,
    window=st.sampled_from(WINDOWS),
    holidays=st.sets(st.integers(-3, 3)),
    starts=st.lists(st.integers(0, 400), min_size=1, max_size=6),
)
def test_prices_and_ends_are_those_of_the_clock(
    written: list[Beginning], window: tuple[str, str], holidays: set[int], starts: list[int]
) -> None:
    zone, around = ZoneInfo(window[0]), datetime.fromisoformat(window[1]).replace(tzinfo=UTC)
    days = {around.astimezone(zone).date() + timedelta(days=offset) for offset in holidays}
    tariff = Tariff(tuple(written), Calendar(zone, tuple(sorted(days))))
    first = around - timedelta(days=2)
    first -= timedelta(minutes=first.minute % 15)
    latest = datetime(1, 1, 1)  # noqa: DTZ001 - what a clock on the wall shows
    expected: list[Price] = []
    for quarter in range(600):
        # A clock that is put back shows old times again; what has begun has begun.
        latest = max(latest, (first + quarter * STEP).astimezone(zone).replace(tzinfo=None))
        expected.append(price_on_the_clock(written, days, latest))
    for start in starts:
        at_ms = ms(first + start * STEP)
        price, until_ms = tariff.at(at_ms)
        assert price == expected[start]
        if until_ms:
            assert tariff.at(until_ms)[0] != price
            assert tariff.at(until_ms - 1) == (price, until_ms)
        for quarter in range(start, 600):
            moment_ms = ms(first + quarter * STEP)
            if until_ms and moment_ms >= until_ms:
                assert expected[quarter] == tariff.at(moment_ms)[0]
                break
            assert expected[quarter] == price


@given(st.lists(st.integers(0, 10_000), min_size=2, max_size=20))
def test_what_is_asked_first_does_not_matter(hours: list[int]) -> None:
    tariff = read(WEEK)
    start_ms = berlin("2026-10-01 00:00")
    for hour in hours:
        at_ms = start_ms + hour * 3_600_000
        assert tariff.at(at_ms) == read(WEEK).at(at_ms)


@pytest.mark.parametrize("reverse", [False, True])
def test_the_band_is_the_beginning_in_force(reverse: bool) -> None:
    """Whatever was asked before: of neighbours of one price each keeps its name."""
    tariff = read(WEEK)
    expected = {
        "2026-12-24 18:59:59": "Mo-Fr 07:00",
        "2026-12-24 19:00:00": "Mo-Fr 19:00",
        "2026-12-25 00:00:00": "holidays 00:00",
        "2026-12-26 23:59:59": "holidays 00:00",
        "2026-12-27 12:00:00": "Sa-Su 00:00",
        "2026-12-28 06:59:59": "Sa-Su 00:00",
        "2026-12-28 07:00:00": "Mo-Fr 07:00",
        "2027-01-01 23:00:00": "Mo-Fr 19:00",
        "2027-01-02 00:00:00": "Sa-Su 00:00",
    }
    for moment, band in sorted(expected.items(), reverse=reverse):
        tariff.at(berlin(moment))
        assert tariff.band(berlin(moment)) == band
    prices = {each.written: each.price for each in tariff.beginnings}
    for hour in range(24 * 400):
        at_ms = berlin("2026-01-01") + hour * 3_600_000
        assert prices[tariff.band(at_ms)] == tariff.at(at_ms)[0]


@pytest.mark.parametrize("written", ["0.01 per 1 MiB", "{08:00: 0.01 per 1 MiB, 20:00: 0.01 per 1 MiB}", "denied"])
def test_a_price_that_never_changes_has_no_band(written: str) -> None:
    assert read(written).band(berlin("2026-06-01 12:00")) == ""


@PLAIN_ONLY
def test_the_price_now_and_the_next_are_both_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request near a switch asks for both: neither may be worked out each time."""
    tariff = read(WEEK)
    now_ms = berlin("2026-06-01 12:00")
    next_ms = tariff.at(now_ms)[1]
    tariff.at(next_ms)
    looked_up: list[int] = []
    monkeypatch.setattr(Tariff, "_look_up", lambda tariff, at_ms: looked_up.append(at_ms))
    for _ in range(3):
        assert tariff.at(now_ms)[1] == next_ms
        assert tariff.at(next_ms)[0] == NIGHT
    assert not looked_up


# -- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("8:00: free\n", 1, "'08:00' or 'Mo-Fr 07:00'"),
        ("24:00: free\n", 1, "00:00 to 23:59"),
        ("00:00: free\n12:60: free\n", 2, "'12:60'"),
        ("Mo-Su: free\n", 1, "a price begins at a time"),
        ("Mo 00:00: free\nmo 12:00: free\n", 2, "'mo' is no day: days are Mo, Tu, We"),
        ("Mo-Feb 00:00: free\n", 1, "'Mo-Feb' is no day"),
        ("Mo-holidays 00:00: free\n", 1, "no day"),
        ("holidays-Mo 00:00: free\n", 1, "no day"),
        ("Mo,,Tu 00:00: free\n", 1, "'' is no day"),
        (
            "Mo-Fr 08:00: free\nFr 20:00: denied\nWe-Fr 08:00: denied\n",
            3,
            "'We-Fr 08:00' begins when 'Mo-Fr 08:00' does",
        ),
        ("08:00: free\nSu 08:30: denied\n", 2, "name the days in all beginnings"),
        ("holidays 08:00: free\n", 1, "holidays alone"),
        ("08:00: free\n20:00: denied\n08:00: forbidden\n", 3, "twice"),
        ("08:00: fre\n", 1, "did you mean 'free'?"),
        ("08:00: free\n20:00: forbiden\n", 2, "did you mean 'forbidden'?"),
        ("08:00: free\n20:00: 0.01 per 60 s\n", 2, "no unit for octets"),
        ("08:00: free\n20:00: 0.01 per 1 event\n", 2, "no unit for octets"),
        ("08:00: free\n20:00:\n", 2, "must not be empty"),
        ("08:00:\n  20:00: free\n", 2, "single value"),
        ("- free\n", 1, "mapping"),
        ("{}\n", 1, "mapping of beginnings"),
        ("", 1, "mapping of beginnings"),
    ],
)
def test_a_mistake_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert str(caught.value).startswith(f"catalogue.yaml:{line}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_holidays_must_be_listed_before_they_have_prices() -> None:
    with pytest.raises(ConfigError, match=r"^catalogue.yaml:4: .*lists no holidays"):
        read(WEEK, UTC_CALENDAR)


def test_without_a_beginning_in_the_week_there_is_no_tariff() -> None:
    with pytest.raises(ValueError, match="holidays alone"):
        Tariff((Beginning(FREE, 0, frozenset({HOLIDAY})),), CHRISTMAS)


def calendar(text: str) -> Calendar:
    values = parse_yaml(text, "catalogue.yaml", Path()).mapping(("time_zone", "holidays"))
    return read_calendar(values.get("time_zone"), values.get("holidays"))


def test_calendars() -> None:
    assert calendar("{}") == UTC_CALENDAR
    found = calendar("time_zone: Europe/Berlin\nholidays: [2026-12-26, 2026-12-25]\n")
    assert found == CHRISTMAS
    assert str(found.time_zone) == "Europe/Berlin"
    assert str(UTC_CALENDAR.time_zone) == "UTC"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("time_zone: Europe/Berlim", "did you mean 'Europe/Berlin'?"),
        ("time_zone: Europe", "IANA"),
        ("time_zone: ../../etc/passwd", "IANA"),
        ("time_zone: /etc/localtime", "IANA"),
        ('time_zone: "Europe/Berl\\0in"', "IANA"),
        ("time_zone: +02:00", "IANA"),
        ("time_zone: [UTC]", "single value"),
        ("holidays: 2026-12-25", "a list"),
        ("holidays: [2026-02-29]", "2026-02-29"),
        ("holidays: [25.12.2026]", "2026-12-25"),
        ("holidays: [20261225]", "2026-12-25"),
        ("holidays: [1969-12-25]", "1970 to 2199"),
        ("holidays: [2026-12-25, 2026-12-25]", "twice"),
    ],
)
def test_mistakes_in_the_calendar(text: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        calendar(text)
    assert str(caught.value).startswith("catalogue.yaml:1: ")
    assert reason in str(caught.value)


def test_a_refusal_is_not_a_rate() -> None:
    """What is sold for units is told from what is not by its type."""
    kinds = [isinstance(read(word).at(0)[0], Refusal) for word in ("free", "0.01 per 1 MiB", "denied", "forbidden")]
    assert kinds == [False, False, True, True]
