"""Levels as the rules file writes them: ``{when: balance below 2.00, until: balance at least 3.00}``.

A condition is a measure, a comparison and an amount. Measures::

    balance                         money that may be spent on anything; below zero: owed
    credit                          the same and the credit limit: what is left until nothing can be spent any more
    bucket data-5gb                 what is left in buckets of an allowance or bonus of the catalogue; an account that
                                    has none, or none that has not expired, is at none of its levels
    counter internet per month      units of a service used in the calendar month, or per day, by the catalogue's clock
    spent internet per month        what these cost

Comparisons are ``below``, ``at most``, ``above`` and ``at least``. Money is written as in the catalogue, and counts in
whatever currency an account is kept in; units are written with theirs (``5 GiB``, ``10 min``, ``3 events``, or ``0``).
"""

import re
from typing import Final, NamedTuple

from balance.model import AccountKind, Unit
from occ.rating.catalogue import Catalogue
from occ.rating.currency import currency_name, parse_amount
from occ.rating.periods import WORDS, Counter, counter_of
from occ.rating.sizes import SIZES, parse_size, single_value
from occ.yamlmap import Node, nearest
from policies.levels import LIFE_LEVELS, Level, Measure, Measured, Range

KINDS: Final = {"prepaid": int(AccountKind.PREPAID), "postpaid": int(AccountKind.POSTPAID)}
"""AccountKind by the word that stands for it."""
MOST_LEVELS: Final = 64
"""An account keeps the names of those it is at."""
COMPARISONS: Final = ("below", "at most", "above", "at least")

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_CONDITION: Final = re.compile(r"(?P<measure>.+?) (?P<comparison>below|at most|above|at least) (?P<amount>.+)")
_EXAMPLE: Final = "'balance below 2.00', 'bucket data-5gb at most 0' or 'counter internet per month at least 50 GiB'"
_LIFE_NAMES: Final = tuple(each.name for each in LIFE_LEVELS)


def meter_of(service: str, period: str) -> Counter:
    """The meter of an account that counts all use of a service: its units, whoever paid for them, and what they cost.

    ``period``: "day" or "month".
    """
    return counter_of(f"use of {service}", WORDS[period])


def read_levels(node: Node, catalogue: Catalogue) -> tuple[Level, ...]:
    """The section ``levels``, in the order of the file. Raises ConfigError."""
    found: list[Level] = []
    for key, value in node.table():
        name = key.text()
        if not _NAME.fullmatch(name):
            raise key.error(
                "a level's name is made of small letters, digits, '-', '_' and '.', at most 64 of them, not "
                f"{name[:80]!r}"
            )
        if name in _LIFE_NAMES:
            raise key.error(
                f"the level {name} is always there, by the state of the account; give this one another name"
            )
        if len(found) == MOST_LEVELS:
            raise key.error(f"there can be at most {MOST_LEVELS} levels")
        found.append(_level(name, value, catalogue))
    return tuple(found)


class _Condition(NamedTuple):
    measure: Measure
    below: bool
    bound: int
    """The highest value that it holds for, or the lowest."""


def _level(name: str, node: Node, catalogue: Catalogue) -> Level:
    values = node.mapping(("when", "until", "accounts"), required=("when",))
    when = _condition(values["when"], catalogue)
    kinds = read_kinds(values["accounts"]) if "accounts" in values else ()
    stays = when.bound if "until" not in values else _end(values["until"], values["when"], when, catalogue)
    if when.below:
        return Level(name, when.measure, Range(high=when.bound), Range(high=stays), kinds)
    return Level(name, when.measure, Range(low=when.bound), Range(low=stays), kinds)


def _end(node: Node, begins: Node, when: _Condition, catalogue: Catalogue) -> int:
    """The last value before a level is left."""
    until = _condition(node, catalogue)
    if until.measure != when.measure:
        raise node.error(f"{node.path} must look at what {begins.text()!r} looks at")
    if until.below == when.below:
        wanted = "'at least' or 'above'" if when.below else "'at most' or 'below'"
        raise node.error(f"{node.path} must say {wanted}: it says when the level that begins {begins.text()!r} ends")
    last = until.bound - 1 if when.below else until.bound + 1
    if last < when.bound if when.below else last > when.bound:
        raise node.error(
            f"{node.path}: the level would be left where it is entered ({begins.text()!r}); it must end beyond that"
        )
    return last


def _condition(node: Node, catalogue: Catalogue) -> _Condition:
    written = " ".join(node.text().split())
    match = _CONDITION.fullmatch(written)
    if match is None:
        raise node.error(
            f"{node.path} must be a measure, a comparison ({', '.join(COMPARISONS)}) and an amount, such as "
            f"{_EXAMPLE}, not {written[:60]!r}"
        )
    measure = read_measure(node, match["measure"], catalogue)
    amount = read_amount(node, match["amount"], Unit(measure.unit), catalogue)
    comparison = match["comparison"]
    below = comparison in ("below", "at most")
    return _Condition(measure, below, amount + {"below": -1, "above": 1}.get(comparison, 0))


def read_measure(node: Node, written: str, catalogue: Catalogue) -> Measure:
    """What ``written``, at ``node``, says is measured: "balance", "counter internet per month". Raises ConfigError."""
    word, _, rest = written.partition(" ")
    if written == "balance":
        return Measure(Measured.BALANCE)
    if written == "credit":
        return Measure(Measured.CREDIT)
    if word == "bucket" and rest:
        return _bucket(node, rest, catalogue)
    if word in ("counter", "spent") and rest:
        return _used(node, word, rest, catalogue)
    raise node.error(
        f"{node.path}: {written[:60]!r} is nothing of an account that can be measured; known: balance, credit, "
        "bucket NAME, counter SERVICE per day or month, spent SERVICE per day or month"
    )


def _bucket(node: Node, name: str, catalogue: Catalogue) -> Measure:
    allowance, bonus = catalogue.allowance(name), catalogue.bonus(name)
    if allowance is not None:
        return Measure(Measured.BUCKET, name, int(allowance.unit), allowance.serves)
    if bonus is not None:
        every = tuple(service.name for service in catalogue.services)
        return Measure(Measured.BUCKET, name, int(Unit.MONEY), every if bonus.serves is None else bonus.serves)
    known = (*catalogue.allowances, *catalogue.bonuses)
    raise node.error(f"{node.path}: the catalogue has no allowance or bonus {name[:60]!r}{nearest(name, known)}")


def _used(node: Node, word: str, rest: str, catalogue: Catalogue) -> Measure:
    name, per, period = rest.partition(" per ")
    if not per or period not in WORDS:
        raise node.error(f"{node.path}: a {word} is of a service per {' or per '.join(WORDS)}, not {rest[:60]!r}")
    service = catalogue.by_name.get(name)
    if service is None:
        known = [each.name for each in catalogue.services]
        raise node.error(f"{node.path}: the catalogue has no service {name[:60]!r}{nearest(name, known)}")
    meter = meter_of(name, period).name
    if word == "spent":
        return Measure(Measured.SPENT, meter, int(Unit.MONEY), (name,))
    return Measure(Measured.COUNTER, meter, int(service.unit), (name,))


def read_amount(node: Node, written: str, unit: Unit, catalogue: Catalogue) -> int:
    """An amount of money or of units, micro-units or units, as ``written`` at ``node`` says. Raises ConfigError."""
    try:
        if unit != Unit.MONEY:
            return 0 if written in ("0", *(f"0 {word}" for word in SIZES[unit])) else parse_size(written, unit)
        number, _, currency = written.partition(" ")
        if currency and currency != currency_name(catalogue.currency):
            raise ValueError(f"amounts are in {currency_name(catalogue.currency)}, the catalogue's currency")
        return parse_amount(number)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def read_kinds(node: Node) -> tuple[int, ...]:
    """``accounts``: prepaid, postpaid, or a list of these. Raises ConfigError."""
    items = [node] if single_value(node) is not None else node.items()
    found = tuple(KINDS[item.choice(tuple(KINDS))] for item in items)
    if not found or len(set(found)) != len(found):
        raise node.error(f"{node.path} must name each kind of account that it is about once; leave it out to mean both")
    return found
