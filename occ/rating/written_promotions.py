"""Promotions as they are written in the catalogue.

A list, in the order in which they are gone through (``occ.rating.promotions``). Each has a name and one effect::

    promotions:
      - name: welcome
        top_up_bonus: {from: 10.00, gives: 20 %, at_most: 50.00, bucket: talk, valid: 30 d}
        budget: 1000.00
      - name: long-evenings
        discount: 20 %
        happy_hour: {days: Sa-Su, from: 20:00, to: 23:00}
        when: {segment: student, from: 2026-12-01, until: 2026-12-31, services: [national-voice], plans: [standard]}
        stacks: yes
      - name: heavy-use
        discount: 10 %
        when: {services: [internet], usage_above: 10 GiB per month, active_for: 90 d}
      - name: five-minutes
        free: 5 min per day
      - name: family
        friends: 50 %
      - name: faithful
        loyalty: {after: 365 d, gives: 5.00 each month, bucket: talk, given: by the clock}

What is given names its ``bucket``: one of the ``bonuses`` for money, one of the ``allowances`` for units; priority and
validity are those of the bucket where ``valid`` does not say otherwise. ``until`` is the last day.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from balance.model import Unit
from occ.rating.allowances import Allowance, Bonus, Validity, read_money, read_validity
from occ.rating.currency import parse_amount
from occ.rating.happy_hours import WHOLE_DAY, HappyHours
from occ.rating.local_time import Calendar
from occ.rating.percent import PPM, read_percent
from occ.rating.periods import WORDS, Period, counter_of
from occ.rating.promotions import (
    FREE_UNITS_OF,
    USAGE_FOR,
    Budget,
    Conditions,
    FreeUnits,
    Loyalty,
    Off,
    Promotion,
    Promotions,
    TopUpBonus,
    Usage,
)
from occ.rating.service import Service
from occ.rating.sizes import SIZES, parse_size, single_value
from occ.rating.tariff import EVERY_DAY, HOLIDAY, parse_days
from occ.yamlmap import Node, nearest

EFFECTS: Final = ("top_up_bonus", "discount", "free", "friends", "loyalty")
PROMOTION_KEYS: Final = ("name", *EFFECTS, "happy_hour", "when", "budget", "stacks")
WHEN_KEYS: Final = (
    "segment",
    "from",
    "until",
    "services",
    "plans",
    "usage_above",
    "active_for",
    "active_less_than",
)
GIVEN_WITHOUT_USE: Final = ("top_up_bonus", "loyalty")
LARGEST_BONUS_PPM: Final = 10 * PPM

BY_THE_CLOCK: Final = "by the clock"
AT_TOP_UP: Final = "at a top-up"
_GIVEN: Final = (BY_THE_CLOCK, AT_TOP_UP)
"""When a loyalty bonus is given."""
_EVERY_MONTHS: Final = {"month": 1, "year": 12}
_DAY_S: Final = 86_400
_ONE_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Known:
    """What of the rest of the catalogue promotions can name."""

    services: Mapping[str, Service]
    plans: Collection[str]
    allowances: Mapping[str, Allowance]
    bonuses: Mapping[str, Bonus]
    calendar: Calendar


def read_promotions(node: Node | None, known: Known) -> Promotions:
    """The promotions of a catalogue; none where null stands. Raises ConfigError."""
    found: dict[str, Promotion] = {}
    for item in () if node is None else node.items():
        promotion = _promotion(item, known)
        if promotion.name in found:
            raise item.error(f"{item.path}: there is a promotion {promotion.name} already")
        found[promotion.name] = promotion
    return Promotions(found.values(), known.calendar)


def _promotion(node: Node, known: Known) -> Promotion:
    values = node.mapping(PROMOTION_KEYS, required=("name",))
    name = values["name"].text()
    effects = [key for key in EFFECTS if key in values]
    if len(effects) != 1:
        raise node.error(
            f"{node.path} must have one of the keys {', '.join(EFFECTS)}, not {' and '.join(effects) or 'none of them'}"
        )
    kind = effects[0]
    written = values[kind]
    unit: Unit | None = None
    effect: Off | FreeUnits | TopUpBonus | Loyalty
    if kind == "top_up_bonus":
        effect = _top_up_bonus(written, known)
    elif kind == "loyalty":
        effect = _loyalty(written, known)
    elif kind == "free":
        unit, units, period = _size_per(written, ("call", *WORDS))
        effect = FreeUnits(units, period, counter_of(f"{FREE_UNITS_OF}{name}", period))
    else:
        effect = Off(read_percent(written), friends_only=kind == "friends")
    conditions = _conditions(values, kind, name, unit, known)
    return Promotion(name, effect, conditions, _budget(values.get("budget"), effect), _stacks(values.get("stacks")))


def _stacks(node: Node | None) -> bool:
    return node is not None and node.boolean()


# -- conditions ------------------------------------------------------------------------------------------------------


def _conditions(values: Mapping[str, Node], kind: str, name: str, unit: Unit | None, known: Known) -> Conditions:
    when = values["when"].mapping(WHEN_KEYS) if "when" in values else {}
    if kind in GIVEN_WITHOUT_USE:
        for key in ("services", "usage_above"):
            if key in when:
                raise when[key].error(f"{when[key].path} cannot be asked of a {kind}: it is given without any use")
    if kind == "loyalty" and "happy_hour" in values:
        raise values["happy_hour"].error(f"{values['happy_hour'].path}: loyalty is rewarded at midnight, at no hour")
    usage: Usage | None = None
    if "usage_above" in when:
        counted, units, period = _size_per(when["usage_above"], tuple(WORDS))
        if unit is not None and counted != unit:
            raise when["usage_above"].error(
                f"{when['usage_above'].path} is an amount of {counted.name.lower()}, but what is free is one of "
                f"{unit.name.lower()}"
            )
        unit = counted
        usage = Usage(units, counter_of(f"{USAGE_FOR}{name}", period))
    from_ms, until_ms = _dates(when, known.calendar)
    return Conditions(
        segments=_words(when.get("segment")),
        services=_services(when.get("services"), unit, known),
        plans=_plans(when.get("plans"), known),
        from_ms=from_ms,
        until_ms=until_ms,
        active_for_ms=_days(when.get("active_for")) * _DAY_S * 1000,
        active_less_than_ms=_days(when.get("active_less_than")) * _DAY_S * 1000,
        usage=usage,
        hours=_happy_hour(values.get("happy_hour"), known.calendar),
    )


def _words(node: Node | None) -> frozenset[str] | None:
    """One word, or a list."""
    if node is None:
        return None
    if single_value(node) is not None:
        return frozenset((node.text(),))
    words = [item.text() for item in node.items()]
    if not words:
        raise node.error(f"{node.path} must name at least one; leave it out to mean any")
    return frozenset(words)


def _services(node: Node | None, unit: Unit | None, known: Known) -> frozenset[str] | None:
    """The services named, all counted in ``unit``; where none is named, all that are, or None for simply all."""
    if node is None:
        if unit is None:
            return None
        return frozenset(name for name, service in known.services.items() if service.unit == unit)
    found: set[str] = set()
    for item in node.items():
        name = item.text()
        if name not in known.services:
            raise item.error(f"{item.path}: there is no service {name[:60]!r}{nearest(name, known.services)}")
        if unit is not None and known.services[name].unit != unit:
            raise item.error(
                f"{item.path}: {name} is counted in {known.services[name].unit.name.lower()}, the promotion in "
                f"{unit.name.lower()}"
            )
        found.add(name)
    if not found:
        raise node.error(f"{node.path} must name at least one service; leave it out to mean any")
    return frozenset(found)


def _plans(node: Node | None, known: Known) -> frozenset[str] | None:
    if node is None:
        return None
    for item in node.items():
        if item.text() not in known.plans:
            raise item.error(f"{item.path}: there is no plan {item.text()[:60]!r}{nearest(item.text(), known.plans)}")
    return _words(node)


def _dates(when: Mapping[str, Node], calendar: Calendar) -> tuple[int, int]:
    first = _date(when["from"]) if "from" in when else None
    last = _date(when["until"]) if "until" in when else None
    if first is not None and last is not None and last < first:
        raise when["until"].error(f"{when['until'].path} must not be before from")
    return (
        calendar.moment(first, 0) if first is not None else 0,
        calendar.moment(last + _ONE_DAY, 0) if last is not None else 0,
    )


def _date(node: Node) -> date:
    written = node.text()
    try:
        day = date.fromisoformat(written)
    except ValueError:
        day = None
    if day is None or day.isoformat() != written or not 1970 <= day.year < 2200:
        raise node.error(f"{node.path} must be a date such as 2026-12-25, not {written[:40]!r}")
    return day


def _days(node: Node | None) -> int:
    """Whole days of "90 d"."""
    if node is None:
        return 0
    try:
        seconds = parse_size(node.text(), Unit.SECONDS)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if seconds % _DAY_S or seconds > 36_600 * _DAY_S:
        raise node.error(f"{node.path} must be whole days such as '90 d', 100 years at most")
    return seconds // _DAY_S


def _happy_hour(node: Node | None, calendar: Calendar) -> HappyHours | None:
    if node is None:
        return None
    values = node.mapping(("days", "from", "to"), required=("from", "to"))
    days = parse_days(values["days"], values["days"].text()) if "days" in values else EVERY_DAY
    if HOLIDAY in days and not calendar.holidays:
        raise values["days"].error("the catalogue lists no holidays; list them at its top")
    begin, end = _minute(values["from"], 0), _minute(values["to"], WHOLE_DAY)
    try:
        return HappyHours(days, begin, end, calendar)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _minute(node: Node, midnight: int) -> int:
    """Minutes since midnight of "20:00"; "24:00", and "00:00" as an end, is the midnight at the end of the day."""
    written = node.text()
    hours, colon, minutes = written.partition(":")
    well_formed = colon and len(hours) == len(minutes) == 2 and (hours + minutes).isascii()
    if well_formed and hours.isdigit() and minutes.isdigit() and int(minutes) < 60:
        minute = int(hours) * 60 + int(minutes)
        if minute <= (WHOLE_DAY if midnight else WHOLE_DAY - 1):
            return minute or midnight
    raise node.error(f"{node.path} must be a time of day such as 20:00, not {written[:40]!r}")


# -- what is given ---------------------------------------------------------------------------------------------------


def _top_up_bonus(node: Node, known: Known) -> TopUpBonus:
    values = node.mapping(("from", "gives", "at_most", "bucket", "valid"), required=("from", "gives", "bucket"))
    gives = values["gives"]
    from_micro = read_money(values["from"])
    if not gives.text().endswith("%"):
        if "at_most" in values:
            raise values["at_most"].error(f"{values['at_most'].path} is for a bonus that is a percentage")
        unit, amount = _gift(gives, gives.text())
        return TopUpBonus(from_micro, *_bucket(values, unit, known), unit=unit, amount=amount)
    ppm = read_percent(gives, LARGEST_BONUS_PPM)
    at_most = read_money(values["at_most"]) if "at_most" in values else 0
    return TopUpBonus(from_micro, *_bucket(values, Unit.MONEY, known), ppm=ppm, at_most_micro=at_most)


def _loyalty(node: Node, known: Known) -> Loyalty:
    values = node.mapping(("after", "gives", "bucket", "valid", "given"), required=("after", "gives", "bucket"))
    gives = values["gives"]
    amount_written, each, period = gives.text().partition(" each ")
    if each and period not in _EVERY_MONTHS:
        raise gives.error(f"{gives.path} can be given each month or each year, not each {period[:40]!r}")
    unit, amount = _gift(gives, amount_written)
    return Loyalty(
        _days(values["after"]),
        *_bucket(values, unit, known),
        amount=amount,
        unit=unit,
        every_months=_EVERY_MONTHS[period] if each else 0,
        at_top_up="given" in values and values["given"].choice(_GIVEN) == AT_TOP_UP,
    )


def _gift(node: Node, written: str) -> tuple[Unit, int]:
    """Unit and amount of "2.00" or "1 GiB"."""
    if " " in written:
        return _size(node, written)
    try:
        micro = parse_amount(written)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro <= 0:
        raise node.error(f"{node.path} must be more than zero")
    return Unit.MONEY, micro


def _bucket(values: Mapping[str, Node], unit: Unit, known: Known) -> tuple[str, int, Validity]:
    """Name, priority and validity of the bucket that something is given as."""
    node = values["bucket"]
    name = node.text()
    kinds: Mapping[str, Bonus] | Mapping[str, Allowance] = known.bonuses if unit == Unit.MONEY else known.allowances
    kind = kinds.get(name)
    if kind is None:
        what = "bonus" if unit == Unit.MONEY else "allowance"
        raise node.error(f"{node.path}: there is no {what} {name[:60]!r}{nearest(name, kinds)}")
    if isinstance(kind, Allowance) and kind.unit != unit:
        raise node.error(f"{node.path}: {name} is an allowance of {kind.unit.name.lower()}, not of {unit.name.lower()}")
    validity = read_validity(values["valid"]) if "valid" in values else kind.validity
    return name, kind.priority, validity


def _budget(node: Node | None, effect: Off | FreeUnits | TopUpBonus | Loyalty) -> Budget | None:
    if node is None:
        return None
    written = node.text()
    if written.endswith(" times"):
        number = Node.scalar(written.removesuffix(" times"), node.source, node.path, node.base)
        number.line = node.line
        return Budget(number.integer(1, 10**12), in_times=True)
    if isinstance(effect, FreeUnits) or (isinstance(effect, TopUpBonus | Loyalty) and effect.unit != Unit.MONEY):
        raise node.error(f"{node.path} must be a number of times such as '500 times': what is given here is not money")
    return Budget(read_money(node))


def _size_per(node: Node, periods: tuple[str, ...]) -> tuple[Unit, int, Period]:
    """Unit, units and period of "5 min per day"; "call" stands for a session."""
    size, _, period = node.text().rpartition(" per ")
    if period not in periods:
        raise node.error(
            f"{node.path} must be an amount and what it is for such as '5 min per {periods[0]}' "
            f"(or {', '.join(periods[1:])}), not {node.text()[:40]!r}"
        )
    return *_size(node, size), WORDS.get(period, Period.SESSION)


def _size(node: Node, written: str) -> tuple[Unit, int]:
    """Unit and units of a size: its word says which unit it is of."""
    word = written.rpartition(" ")[2]
    for unit, words in SIZES.items():
        if word in words:
            try:
                return unit, parse_size(written, unit)
            except ValueError as error:
                raise node.error(f"{node.path}: {error}") from None
    known = ", ".join(word for words in SIZES.values() for word in words)
    raise node.error(f"{node.path}: {written[:40]!r} is no amount such as '5 min' or '1 GiB'; known: {known}")
