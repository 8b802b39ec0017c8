"""The product's prices against the reference rater's, equal to the micro-unit: catalogues as operators write them, read
and charged by the code that a server runs (``occ.rate``), however usage is cut into quotas and reports.
"""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from balance.model import Unit
from occ.rate import Question, rate
from occ.rating.catalogue import Catalogue as ProductCatalogue
from occ.rating.catalogue import read_catalogue
from occ.rating.criteria import RequestFacts
from occ.yamlmap import parse_yaml
from tests.reference_rater import Catalogue, Customer, PriceSpec, Promotion, ReferenceRater

CONTEXT = b"32260@3gpp.org"
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
    ends = sorted(draw(st.sets(st.integers(1, 1500), max_size=3)))
    return {"tiers": [(up_to, draw(steps())) for up_to in (*ends, None)], "counted": counted}


@st.composite
def prices(draw: st.DrawFn) -> PriceSpec:
    kind = draw(st.sampled_from(["steps", "call", "tiers", "call", "tiers", "month"]))
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
    count = draw(st.sampled_from([3, 2, 4, 1, 3]))
    sold = draw(st.lists(prices(), min_size=min(count, 3), max_size=3))
    if count == 1:
        return [(EVERY_DAY, 0, sold[0])]
    # Close together, so that one call can last over several.
    first, quarters = draw(minutes_of_day), draw(st.permutations(range(4)))
    times = [(draw(weekdays), (first + 15 * quarter) % 1440) for quarter in quarters[:count]]
    found: list[tuple[set[int], int, PriceSpec]] = []
    for days, minute in times:
        found.append((days, minute, sold[len(found)] if len(found) < len(sold) else draw(st.sampled_from(sold))))
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
    seconds = draw(st.sampled_from([2100, 1500, 1200, 900, 301, 1]) | st.integers(60, 2100))
    hours = [minute for each in catalogue.promotions if each.hours for minute in each.hours[1:]]
    minute = draw(st.sampled_from([*(minute for _, minute, _ in catalogue.tariff), *hours, 0]))
    day = draw(SUNDAYS | st.integers(0, 364).map(lambda days: date(2026, 1, 1) + timedelta(days=days)))
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=catalogue.zone)
    part = draw(st.sampled_from([50, 10, 90, 100, 0, -5]) | st.integers(1, 99))
    before_ms = seconds * 10 * part + draw(st.sampled_from([0, 0, 1, 999]))
    return local.astimezone(UTC) - timedelta(milliseconds=before_ms), seconds


# -- the same, as the product reads it -------------------------------------------------------------------------------


def written_step(step: Any, size: str) -> str:
    return "free" if step == "free" else f"{step[0]} per {step[1]} {size}"


def written_price(price: PriceSpec, size: str) -> str:
    parts = []
    for key, value in price.items():
        if key in ("price", "first", "then"):
            parts.append(f"{key}: {written_step(value, size)}")
        elif key == "tiers":
            each = [
                f"{{{f'up_to: {up_to} {size}, ' if up_to else ''}price: {written_step(step, size)}}}"
                for up_to, step in value
            ]
            parts.append(f"tiers: [{', '.join(each)}]")
        else:
            parts.append(f"{key}: {value}{f' {size}' if key == 'free' else ''}")
    return f"{{{', '.join(parts)}}}"


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def written_tariff(tariff: list[tuple[set[int], int, PriceSpec]], size: str) -> str:
    if len(tariff) == 1:
        return written_price(tariff[0][2], size)
    lines = (
        f"{','.join(DAYS[day] for day in sorted(days))} {clock(minute)}: {written_price(price, size)}"
        for days, minute, price in tariff
    )
    return "\n".join(lines)


def written_promotions(promotions: list[Promotion], size: str) -> str:
    lines = []
    for place, each in enumerate(promotions):
        effect = f"discount: {each.percent} %" if each.percent else f"free: {each.free} {size} per {each.per}"
        hours = ""
        if each.hours is not None:
            days, begins, ends = each.hours
            named = ",".join(DAYS[day] for day in sorted(days))
            hours = f", happy_hour: {{days: '{named}', from: '{clock(begins)}', to: '{clock(ends)}'}}"
        lines.append(f"- {{name: p{place}, {effect}, stacks: {'yes' if each.stacks else 'no'}{hours}}}")
    return "\n".join(lines) or "[]"


def product_catalogue(catalogue: Catalogue, unit: str, quota: int, cap: int) -> ProductCatalogue:
    """A catalogue of one service and one plan, read from the text that an operator would write."""
    size = {"seconds": "s", "octets": "B"}[unit]
    prices_are = "exclusive" if catalogue.exclusive else "inclusive"
    tariff = indented(written_tariff(catalogue.tariff, size))
    capped = f"    caps: {{service: {Decimal(cap) / 1_000_000:f} per month}}\n" if cap else ""
    return read_catalogue(
        parse_yaml(
            f"""\
version: random
currency: EUR
time_zone: {catalogue.zone.key}
tax: {{rate: {catalogue.tax_percent} %, prices: {prices_are}}}
services:
  service: {{context: {CONTEXT.decode()}, unit: {unit}, quota: {quota} {size}, validity: 10 min}}
plans:
  standard:
{capped}    service:
{tariff}
promotions:
{indented(written_promotions(catalogue.promotions, size))}
""",
            "catalogue.yaml",
            Path(),
        )
    )


def indented(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())


def question(unit: Unit, at: datetime, units: int, already: int) -> Question:
    at_ms = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    return Question("standard", RequestFacts(CONTEXT), unit, units, at_ms, already_units=already)


def limits(catalogue: Catalogue, cap: int) -> list[Decimal]:
    """What is left of a cap, which is raised by the tax as prices are; none for 0."""
    if not cap:
        return []
    return [ReferenceRater(catalogue, Customer()).gross(f"{Decimal(cap) / 1_000_000:f}")]


@settings(derandomize=True, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    catalogue=catalogues(),
    already=st.sampled_from([0, 0, 30, 500]),
    cap=st.just(0) | st.integers(1, 5_000_000),
    quota=st.sampled_from([7, 60, 100, 1000]),
)
def test_a_call_costs_what_the_reference_says(
    data: st.DataObject, catalogue: Catalogue, already: int, cap: int, quota: int
) -> None:
    """Whatever quotas it is granted and reports, after another call that has used something already."""
    begins, seconds = data.draw(calls(catalogue))
    answered = begins + timedelta(seconds=already)
    ends = answered + timedelta(seconds=seconds)
    # What is reported in the next month counts for the cap and the tiers of that month: reports are not for this test.
    assume(begins.astimezone(catalogue.zone).month == ends.astimezone(catalogue.zone).month)
    product = rate(
        product_catalogue(catalogue, "seconds", quota, cap), question(Unit.SECONDS, begins, seconds, already)
    )
    customer = Customer(0, limits(catalogue, cap))
    reference = ReferenceRater(catalogue, customer)
    reference.call(begins, already)
    assert Decimal(product.cost_micro) / 1_000_000 == reference.call(answered, seconds)


@settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    data=st.data(),
    catalogue=catalogues(),
    already=st.sampled_from([0, 0, 30, 500]),
    cap=st.just(0) | st.integers(1, 5_000_000),
    quota=st.sampled_from([7, 60, 100, 1000]),
)
def test_what_is_used_at_once_costs_what_the_reference_says(
    data: st.DataObject, catalogue: Catalogue, already: int, cap: int, quota: int
) -> None:
    at, units = data.draw(calls(catalogue))
    product = rate(product_catalogue(catalogue, "octets", quota, cap), question(Unit.OCTETS, at, units, already))
    customer = Customer(0, limits(catalogue, cap))
    reference = ReferenceRater(catalogue, customer)
    reference.at_once(at, already)
    assert Decimal(product.cost_micro) / 1_000_000 == reference.at_once(at, units)
