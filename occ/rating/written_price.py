"""Prices as they are written in the catalogue.

``0.09 per 60 s`` is so much for each started step, ``free`` is nothing. What is more than that is a mapping::

    {connection: 0.05, first: 0.10 per 60 s, then: 0.0015 per 1 s, minimum: 0.12, free: 30 s}
    {connection: 0.05, price: 0.09 per 60 s}
    {tiers: [{up_to: 1 GiB, price: 0.01 per 1 MiB}, {price: 0.002 per 1 MiB}], counted: month}

``price`` is the price of all units, ``first`` and ``then`` that of the first increment and of those that follow it,
``tiers`` of stretches of the count. ``counted`` says what tiers count: session, day or month; over a day or a month
they can have no ``connection``, ``minimum`` or ``free``, which belong to one session.

Amounts are exact. Where the catalogue's prices are exclusive, each of them is raised by the tax as it is read.
"""

import difflib
import re
from typing import Final

from balance.model import Rate, Unit
from occ.rating.call_price import CallPrice, Following
from occ.rating.currency import parse_amount
from occ.rating.periods import WORDS, Period
from occ.rating.sizes import EXAMPLES, parse_size, read_size
from occ.rating.steps import FreePrice, StepPrice
from occ.rating.tax import NO_TAX, Tax
from occ.rating.tiers import Tier, TieredPrice
from occ.yamlmap import ConfigError, Node

PRICE_KEYS: Final = ("connection", "first", "then", "price", "tiers", "counted", "minimum", "free")
FREE: Final = "free"

_STEP: Final = re.compile(r"(\S+) per (.+)")
_OF_ONE_SESSION: Final = ("connection", "minimum", "free")
_COUNTED: Final = {"session": Period.SESSION, **WORDS}


def is_price_mapping(node: Node) -> bool:
    """Whether a mapping says what a price is made of, rather than which prices begin when."""
    try:
        keys = [key.text() for key, _ in node.table()]
    except ConfigError:
        return False
    return any(key in PRICE_KEYS for key in keys) or (
        bool(keys) and all(difflib.get_close_matches(key, PRICE_KEYS, n=1) for key in keys)
    )


def read_price(node: Node, unit: Unit, tax: Tax = NO_TAX, words: tuple[str, ...] = ()) -> Rate:
    """A price in units of a service. ``words``: what else may stand here, for the message. Raises ConfigError."""
    if not is_price_mapping(node):
        return _steps(node, unit, tax, words)
    values = node.mapping(PRICE_KEYS)
    bodies = [key for key in ("price", "then", "tiers") if key in values]
    if len(bodies) != 1:
        raise node.error(
            f"{node.path} must have one of the keys price, then (with first) and tiers, not "
            f"{' and '.join(bodies) or 'none of them'}"
        )
    if "first" in values and bodies != ["then"]:
        raise values["first"].error(f"{values['first'].path} needs the key then: what the units after it cost")
    if "tiers" in values:
        then: Following = _tiers(values, unit, tax)
    elif "counted" in values:
        raise values["counted"].error(f"{values['counted'].path} goes with tiers: they are what is counted")
    else:
        then = _steps(values[bodies[0]], unit, tax)
    first_units, first_micro = _increment(values["first"], unit, tax) if "first" in values else (0, 0)
    connection = _fee(values.get("connection"), tax)
    minimum = _fee(values.get("minimum"), tax)
    free_units = read_size(values["free"], unit) if "free" in values else 0
    if not (connection or minimum or first_units) and (not free_units or isinstance(then, FreePrice)):
        return then
    try:
        return CallPrice(then, connection, first_units, first_micro, minimum, free_units)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _steps(node: Node, unit: Unit, tax: Tax, words: tuple[str, ...] = ()) -> StepPrice | FreePrice:
    """ "0.09 per 60 s", or "free"."""
    if node.text() == FREE:
        return FreePrice(unit)
    step_units, micro = _increment(node, unit, tax, (FREE, *words))
    try:
        return StepPrice(unit, step_units, micro)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _increment(node: Node, unit: Unit, tax: Tax, words: tuple[str, ...] = ()) -> tuple[int, int]:
    """Units and price of "0.09 per 60 s"."""
    written = node.text()
    match = _STEP.fullmatch(written)
    if match is None:
        close = difflib.get_close_matches(written, words, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        others = ", or one of the words " if len(words) > 1 else " or "
        also = f"{others}{', '.join(words)}" if words else ""
        raise node.error(
            f"{node.path} must be a price and the step it is for such as '0.01 per {EXAMPLES[unit]}'{also}, not "
            f"{written[:40]!r}{hint}"
        )
    try:
        return parse_size(match.group(2), unit), tax.gross(parse_amount(match.group(1)))
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None


def _fee(node: Node | None, tax: Tax) -> int:
    if node is None:
        return 0
    try:
        micro = parse_amount(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if micro < 0:
        raise node.error(f"{node.path} must not be less than 0")
    return tax.gross(micro)


def _tiers(values: dict[str, Node], unit: Unit, tax: Tax) -> TieredPrice:
    node = values["tiers"]
    if "counted" not in values:
        raise node.error(f"{node.path} must be counted over something: counted: {', '.join(_COUNTED)}")
    counted = _COUNTED[values["counted"].choice(tuple(_COUNTED))]
    if counted != Period.SESSION:
        for key in _OF_ONE_SESSION:
            if key in values:
                raise values[key].error(
                    f"{values[key].path} cannot stand with tiers that are counted over a {counted.name.lower()}: it "
                    "belongs to one session"
                )
    tiers: list[Tier] = []
    items = node.items()
    for index, item in enumerate(items):
        given = item.mapping(("up_to", "price"), required=("price",))
        last = index == len(items) - 1
        if last == ("up_to" in given):
            raise item.error(
                f"{item.path} must not have up_to: the last tier is the price of all that is beyond the others"
                if last
                else f"{item.path} must say up_to how many units it is the price; only the last tier has no end"
            )
        step = _steps(given["price"], unit, tax)
        up_to = 0 if last else read_size(given["up_to"], unit)
        steps = (step.step_units, step.step_price_micro) if isinstance(step, StepPrice) else (1, 0)
        tiers.append(Tier(up_to, *steps))
        if len(tiers) > 1 and not last and up_to <= tiers[-2].up_to_units:
            raise given["up_to"].error(f"{given['up_to'].path} must be more than that of the tier before it")
    try:
        return TieredPrice(unit, tuple(tiers), counted)
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
