"""Values as people of each language write them, by the CLDR (Babel).

A number never says more than there is: amounts are cut to what is shown towards less. Dates of English are those of
Britain, so that the day is not taken for the month.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_FLOOR, Decimal
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_skeleton, format_time
from babel.numbers import format_currency, format_decimal, get_currency_precision
from babel.units import format_unit

from balance.model import MICRO
from balance.notices import Value

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_VOLUMES: Final = ((1 << 40, "terabyte"), (1 << 30, "gigabyte"), (1 << 20, "megabyte"), (1 << 10, "kilobyte"))
"""Of 1024 each, under the names that customers know."""
_GROUPED_FROM_FIVE: Final = frozenset({"es", "it", "pl", "pt"})
_RATES: Final = ((1_000_000_000, 3), (1_000_000, 2), (1000, 1), (1, 0))
_RATE_NAMES: Final[dict[str, tuple[str, ...]]] = {"ru": ("бит/с", "кбит/с", "Мбит/с", "Гбит/с")}
_RATE_NAMES_ELSEWHERE: Final = ("bit/s", "kbit/s", "Mbit/s", "Gbit/s")


class Shown(str):
    """A value as it is written, which still knows its figure: ``{% if balance.figure < 0 %}``."""

    __slots__ = ("figure",)
    figure: int

    def __new__(cls, written: str, figure: int) -> "Shown":
        made = super().__new__(cls, written)
        made.figure = figure
        return made


@dataclass(frozen=True, slots=True)
class Context:
    """For whom values are written."""

    language: str
    time_zone: str
    currency: str
    """ISO 4217; empty: there is no money."""
    names: Mapping[str, Mapping[str, str]]
    """By name, then by language."""

    @property
    def locale(self) -> Locale:
        return locale_of(self.language)


@lru_cache(maxsize=64)
def locale_of(language: str) -> Locale:
    """Raises ValueError for a language that the CLDR does not know."""
    try:
        return Locale.parse({"en": "en-GB"}.get(language, language), sep="-")
    except (UnknownLocaleError, ValueError):
        raise ValueError(f"{language!r} is no language whose numbers and dates are known") from None


def money(micro: int, to: Context) -> str:
    precision = get_currency_precision(to.currency)
    amount = (Decimal(micro) / MICRO).quantize(Decimal(1).scaleb(-precision), ROUND_FLOOR)
    grouped = _is_grouped(abs(amount), to)
    return str(format_currency(amount, to.currency, locale=to.locale, group_separator=grouped))


def _is_grouped(amount: Decimal | int, to: Context) -> bool:
    """Whether thousands are set apart: from five digits on where the CLDR says so, which Babel does not look at."""
    return amount >= 10_000 or to.language.partition("-")[0] not in _GROUPED_FROM_FIVE


def moment(at_ms: int, to: Context) -> str:
    """Day and time by the customer's clock."""
    local = _local(at_ms, to)
    day = format_skeleton("yMMMd", local, locale=to.locale)
    return f"{day}, {format_time(local, 'short', locale=to.locale)}"


def day(at_ms: int, to: Context) -> str:
    return str(format_skeleton("yMMMd", _local(at_ms, to), locale=to.locale))


def _local(at_ms: int, to: Context) -> datetime:
    return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(ZoneInfo(to.time_zone))


def volume(octets: int, to: Context) -> str:
    for size, unit in _VOLUMES:
        if abs(octets) >= size // 1024 * 1000:
            return str(format_unit(_cut(Decimal(octets) / size), unit, "short", locale=to.locale))
    return str(format_unit(octets, "byte", "short", locale=to.locale))


def duration(seconds: int, to: Context) -> str:
    if abs(seconds) < 60:
        return str(format_unit(seconds, "second", "short", locale=to.locale))
    return str(format_unit(seconds // 60, "minute", "short", locale=to.locale))


def rate(bits_per_second: int, to: Context) -> str:
    names = _RATE_NAMES.get(to.language, _RATE_NAMES_ELSEWHERE)
    size, name = next(((size, name) for size, name in _RATES if bits_per_second >= size), (1, 0))
    return f"{format_decimal(_cut(Decimal(bits_per_second) / size), locale=to.locale)} {names[name]}"


def number(figure: int, to: Context) -> str:
    return str(format_decimal(figure, locale=to.locale, group_separator=_is_grouped(abs(figure), to)))


def _cut(amount: Decimal) -> Decimal:
    return amount.quantize(Decimal("0.1"), ROUND_FLOOR)


_FIGURES: Final[dict[str, Callable[[int, Context], str]]] = {
    "money": money,
    "time": moment,
    "date": day,
    "volume": volume,
    "duration": duration,
    "rate": rate,
    "number": number,
}
KINDS: Final = ("text", "name", *_FIGURES)
SAMPLES: Final[dict[str, Value]] = {
    "text": "sample",
    "name": "internet",
    "money": 12_345_000,
    "time": 1_767_225_600_000,
    "date": 1_767_225_600_000,
    "volume": 1_610_612_736,
    "duration": 90,
    "rate": 64_000,
    "number": 3,
}
"""A value of each kind, to try templates with."""


def shown(kind: str, value: Value, to: Context) -> str:
    """A value of a kind as it is written. Raises ValueError for one that is not of that kind."""
    if kind in _FIGURES:
        if not isinstance(value, int):
            raise ValueError(f"{value!r} is no {kind}, which is a whole number")
        if kind == "money" and not to.currency:
            raise ValueError("there is money, but no currency")
        try:
            return Shown(_FIGURES[kind](value, to), value)
        except (OverflowError, ArithmeticError):
            raise ValueError(f"{value!r} is too large for a {kind}") from None
    written = str(value)
    if kind == "name":
        return to.names.get(written, {}).get(to.language, written)
    return written
