"""The product's prices against the reference rater's: equal to the micro-unit, however usage is cut into reports."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.caps import Cap
from occ.rating.local_time import Calendar
from occ.rating.offered import effective
from occ.rating.periods import Counter, Period, Periods
from occ.rating.promotions import NOBODY, Applied
from occ.rating.service import Service
from occ.rating.tariff import read_tariff
from occ.rating.tax import read_tax
from occ.rating.written_promotions import Known, read_promotions
from occ.yamlmap import parse_yaml
from tests.quote import Meters, quote
from tests.reference_rater import Catalogue, Customer, PriceSpec, Promotion, ReferenceRater

VOICE = Service("voice", b"32260@3gpp.org", None, Unit.SECONDS, 60, 300, 300)
DAYS = ("Mo", "Tu", "We", "Th", "Fr", "Sa", "Su")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Santiago", "Asia/Kolkata")

# Sundays that clocks change on: Europe, America, Lord Howe (by half an hour), Chile.
SUNDAYS = st.sampled_from(
    [date(2026, month, day) for month, day in ((3, 29), (10, 25), (3, 8), (11, 1), (4, 5), (10, 4), (9, 6))]
)
amounts = st.integers(1, 2_000_000).map(lambda micro: str(Decimal(micro) / 1_000_000)) | st.sampled_from(["0.09", "1"])
step_lengths = st.sampled_from([1, 6, 30, 60, 47])
minutes_of_day = st.integers(0, 95).map(lambda quarter: quarter * 15)
EVERY_DAY = set(range(7))
weekdays = st.sampled_from([EVERY_DAY, EVERY_DAY, {4, 5, 6}]) | st.sets(st.integers(0, 6), min_size=1)


def steps() -> st.SearchStrategy[Any]:
    return st.just("free") | st.tuples(amounts, step_lengths)


@st.composite
def tiers(draw: st.DrawFn, counted: str) -> PriceSpec:
    ends = sorted(draw(st.sets(st.integers(1, 900), max_size=3)))
    return {"tiers": [(up_to, draw(steps())) for up_to in (*ends, None)], "counted": counted}


@st.composite
def prices(draw: st.DrawFn) -> PriceSpec:
    kind = draw(st.sampled_from(["steps", "steps", "call", "call", "tiers", "month"]))
    if kind == "steps":
        return {"price": draw(steps())}
    if kind == "month":
        return draw(tiers("month"))
    found: PriceSpec = draw(tiers("session")) if kind == "tiers" else {"price": draw(steps())}
    if "price" in found and draw(st.booleans()):
        found = {"first": (draw(amounts | st.just("0")), draw(step_lengths)), "then": found["price"]}
    for key, value in {"connection": amounts, "minimum": amounts, "free": st.integers(1, 200)}.items():
        if draw(st.booleans()):
            found[key] = draw(value)
    return found


@st.composite
def tariffs(draw: st.DrawFn) -> list[tuple[set[int], int, PriceSpec]]:
    count = draw(st.sampled_from([1, 2, 2, 3, 4]))
    sold = draw(st.lists(prices(), min_size=min(count, 3), max_size=3))
    if count == 1:
        return [(EVERY_DAY, 0, sold[0])]
    times = draw(st.lists(st.tuples(weekdays, minutes_of_day), min_size=count, max_size=count))
    found: list[tuple[set[int], int, PriceSpec]] = []
    for days, minute in times:
        if not any(minute == other and days & others for others, other, _ in found):
            found.append((days, minute, sold[len(found)] if len(found) < 2 else draw(st.sampled_from(sold))))
    return found


@st.composite
def promotions(draw: st.DrawFn) -> list[Promotion]:
    found = []
    for _ in range(draw(st.integers(0, 3))):
        hours = None
        begins, ends = draw(minutes_of_day), draw(minutes_of_day.filter(bool))
        if draw(st.booleans()) and begins != ends:
            hours = draw(weekdays), begins, ends
        stacks = draw(st.booleans())
        if draw(st.booleans()):
            percent = draw(st.sampled_from(["20", "33.3333", "50", "100", "0.0001"]))
            found.append(Promotion(percent=Decimal(percent), stacks=stacks, hours=hours))
        else:
            free, per = draw(st.integers(1, 400)), draw(st.sampled_from(["call", "day"]))
            found.append(Promotion(free=free, per=per, stacks=stacks, hours=hours))
    return found


@st.composite
def catalogues(draw: st.DrawFn) -> Catalogue:
    return Catalogue(
        draw(tariffs()),
        ZoneInfo(draw(st.sampled_from(ZONES))),
        Decimal(draw(st.sampled_from(["19", "7.7", "0.5", "100"]))),
        draw(st.booleans()),
        draw(promotions()),
    )


@st.composite
def calls(draw: st.DrawFn, catalogue: Catalogue) -> tuple[datetime, int]:
    """When a call begins, UTC, and its seconds; most of them last while something changes: tariff, hours, day."""
    seconds = draw(st.sampled_from([1500, 1200, 900, 600, 301, 60, 1]) | st.integers(60, 1500))
    hours = [minute for each in catalogue.promotions if each.hours for minute in each.hours[1:]]
    minute = draw(st.sampled_from([*[minute for _, minute, _ in catalogue.tariff] * 2, *hours, 0]))
    day = draw(SUNDAYS | st.integers(0, 364).map(lambda days: date(2026, 1, 1) + timedelta(days=days)))
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=catalogue.zone)
    part = draw(st.sampled_from([50, 10, 90, 100, 0, -5]) | st.integers(1, 99))
    before_ms = seconds * 10 * part + draw(st.sampled_from([0, 0, 1, 999]))
    return local.astimezone(UTC) - timedelta(milliseconds=before_ms), seconds


# -- the same, as the product reads it -------------------------------------------------------------------------------


def written_step(step: Any) -> str:
    return "free" if step == "free" else f"{step[0]} per {step[1]} s"


def written_price(price: PriceSpec) -> str:
    parts = []
    for key, value in price.items():
        if key in ("price", "first", "then"):
            parts.append(f"{key}: {written_step(value)}")
        elif key == "tiers":
            each = [f"{{{f'up_to: {up_to} s, ' if up_to else ''}price: {written_step(step)}}}" for up_to, step in value]
            parts.append(f"tiers: [{', '.join(each)}]")
        else:
            parts.append(f"{key}: {value}{' s' if key == 'free' else ''}")
    return f"{{{', '.join(parts)}}}"


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def written_tariff(tariff: list[tuple[set[int], int, PriceSpec]]) -> str:
    if len(tariff) == 1:
        return written_price(tariff[0][2])
    lines = (
        f"{','.join(DAYS[day] for day in sorted(days))} {clock(minute)}: {written_price(price)}"
        for days, minute, price in tariff
    )
    return "\n".join(lines)


def written_promotions(promotions: list[Promotion]) -> str:
    lines = []
    for place, each in enumerate(promotions):
        effect = f"discount: {each.percent} %" if each.percent else f"free: {each.free} s per {each.per}"
        hours = ""
        if each.hours is not None:
            days, begins, ends = each.hours
            named = ",".join(DAYS[day] for day in sorted(days))
            hours = f", happy_hour: {{days: '{named}', from: '{clock(begins)}', to: '{clock(ends)}'}}"
        lines.append(f"- {{name: p{place}, {effect}, stacks: {'yes' if each.stacks else 'no'}{hours}}}")
    return "\n".join(lines) or "[]"


def read(text: str) -> Any:
    return parse_yaml(text, "catalogue.yaml", Path())


def product_price(
    catalogue: Catalogue,
    begins: datetime,
    units: int,
    counted: int,
    cap_left: list[int],
    reports: list[int],
    running: bool,
) -> int:
    """What the product asks for; ``running``: seconds of a call, else all at once."""
    calendar = Calendar(catalogue.zone)
    prices_are = "exclusive" if catalogue.exclusive else "inclusive"
    tax = read_tax(read(f"{{rate: {catalogue.tax_percent} %, prices: {prices_are}}}"))
    tariff = read_tariff(read(written_tariff(catalogue.tariff)), Unit.SECONDS, calendar, tax)
    promotions = read_promotions(
        read(written_promotions(catalogue.promotions)), Known({"voice": VOICE}, (), {}, {}, calendar)
    )
    began_ms = (begins - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    meters = Meters(Periods(calendar))

    def applied(at_ms: int, used: int) -> Applied:
        return promotions.for_use("voice", "standard", NOBODY, at_ms, count=meters.count, used_units=used)

    return quote(
        lambda at_ms, used, cost: effective(tariff, at_ms, lambda moment: applied(moment, used), used, cost),
        Unit.SECONDS if running else Unit.OCTETS,
        began_ms,
        units,
        meters,
        counted,
        [(Cap("cap", left, Counter("cap", Period.DAY)), 0) for left in cap_left],
        reports,
    ).micro


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    catalogue=catalogues(),
    counted=st.integers(0, 1000),
    cap_left=st.lists(st.integers(0, 5_000_000), max_size=2),
    reports=st.lists(st.integers(1, 700), max_size=4),
)
def test_a_call_costs_what_the_reference_says(
    data: st.DataObject, catalogue: Catalogue, counted: int, cap_left: list[int], reports: list[int]
) -> None:
    begins, seconds = data.draw(calls(catalogue))
    product = product_price(catalogue, begins, seconds, counted, cap_left, reports, running=True)
    customer = Customer(counted, [Decimal(left) / 1_000_000 for left in cap_left])
    assert Decimal(product) / 1_000_000 == ReferenceRater(catalogue, customer).call(begins, seconds)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    catalogue=catalogues(),
    units=st.integers(1, 2500),
    counted=st.integers(0, 1000),
    cap_left=st.lists(st.integers(0, 5_000_000), max_size=2),
    reports=st.lists(st.integers(1, 700), max_size=4),
)
def test_what_is_used_at_once_costs_what_the_reference_says(
    data: st.DataObject, catalogue: Catalogue, units: int, counted: int, cap_left: list[int], reports: list[int]
) -> None:
    at, _ = data.draw(calls(catalogue))
    product = product_price(catalogue, at, units, counted, cap_left, reports, running=False)
    customer = Customer(counted, [Decimal(left) / 1_000_000 for left in cap_left])
    assert Decimal(product) / 1_000_000 == ReferenceRater(catalogue, customer).at_once(at, units)
