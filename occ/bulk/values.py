"""What a cell of a bulk file may hold, read and written: names, amounts, moments, lists.

Every reader takes the text of a cell that is not empty and raises ValueError with one sentence; every writer gives text
that its reader reads back. Amounts are micro-units of money or whole units, moments milliseconds since the Unix epoch.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final

from balance.contacts import as_fields, from_fields
from balance.model import LARGEST, UNLIMITED, AccountKind, LedgerError, LifeState, Unit
from balance.structure import Pays, UnitKind
from occ.rating.currency import NUMERIC, currency_name, format_amount, parse_amount
from occ.rating.sizes import SIZES, parse_size
from occ.yamlmap import nearest

NEVER: Final = "never"
NONE: Final = "none"
LONGEST_SHOWN: Final = 60

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_DAY_MS: Final = 86_400_000
_DAY: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MOMENT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,3})?)?(Z|[+-][0-9]{2}:[0-9]{2})?", re.ASCII
)
_MILLISECONDS: Final = re.compile(r"([1-9][0-9]{0,18}) ms", re.ASCII)
_WHOLE: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_SPREADSHEET_NUMBER: Final = re.compile(r"[0-9][.,]?[0-9]*[eE]\+?[0-9]+", re.ASCII)
_LAST_YEAR_MS: Final = 253_402_300_800_000
"""The end of the year 9999, beyond which moments are written as milliseconds."""

Read = Callable[[str], object]
Write = Callable[..., str]


def shown(written: str) -> str:
    """A cell for a message."""
    return repr(written if len(written) <= LONGEST_SHOWN else written[:LONGEST_SHOWN] + "…")


# -- names and words ---------------------------------------------------------------------------------------------------


def read_name(written: str) -> bytes:
    """An identifier as the store keeps it; whether it can be one is for ``balance.subscribers.check_name`` to say."""
    return written.encode()


def write_name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def read_text(written: str) -> str:
    return written


def read_contact(name: str) -> Read:
    """A reader of one column of contacts; what it reads is written as ``balance.contacts`` writes it."""

    def read(written: str) -> str:
        try:
            return as_fields(from_fields({name: written}))[name]
        except LedgerError as error:
            raise ValueError(str(error)) from None

    return read


def write_text(text: str) -> str:
    return text


def read_list(written: str) -> tuple[bytes, ...]:
    """Words with spaces between them."""
    return tuple(word.encode() for word in written.split())


def write_list(words: tuple[bytes, ...]) -> str:
    return " ".join(word.decode("utf-8", "surrogateescape") for word in words)


def read_numbers(written: str) -> tuple[bytes, ...]:
    """E.164 numbers or IMSIs; a "+" before one is left out."""
    numbers = []
    for word in written.split():
        if _SPREADSHEET_NUMBER.fullmatch(word):
            raise ValueError(
                f"{shown(word)} is a number that a spreadsheet has shortened; make the column text there and save anew"
            )
        numbers.append(word.removeprefix("+").encode())
    return tuple(numbers)


def _choice(names: dict[str, int], what: str) -> Read:
    def read(written: str) -> int:
        value = names.get(written.lower())
        if value is None:
            raise ValueError(f"{shown(written)} is no {what}{nearest(written, names)}")
        return value

    return read


def _word(kind: type[IntEnum]) -> Write:
    return lambda value: kind(value).name.lower()


def _names(kind: type[IntEnum]) -> dict[str, int]:
    return {each.name.lower(): int(each) for each in kind}


read_kind: Final = _choice(_names(AccountKind), "kind of account")
write_kind: Final = _word(AccountKind)
read_state: Final = _choice(_names(LifeState), "state")
write_state: Final = _word(LifeState)
read_unit: Final = _choice({name: value for name, value in _names(Unit).items() if value != Unit.AMOUNT}, "unit")
write_unit: Final = _word(Unit)
read_unit_kind: Final = _choice(_names(UnitKind), "kind of customer unit")
write_unit_kind: Final = _word(UnitKind)
read_pays: Final = _choice(_names(Pays), "payer")
write_pays: Final = _word(Pays)


def read_currency(written: str) -> int:
    """ISO 4217 numeric code."""
    code = NUMERIC.get(written.upper())
    if code is None:
        raise ValueError(f"{shown(written)} is not a code of ISO 4217 such as EUR")
    return code


def write_currency(code: int) -> str:
    return currency_name(code)


# -- amounts -----------------------------------------------------------------------------------------------------------


def read_money(written: str) -> int:
    """Micro-units, below zero for a debt."""
    return parse_amount(written)


def read_positive_money(written: str) -> int:
    """Micro-units; "none" is 0."""
    if written.lower() == NONE:
        return 0
    amount = parse_amount(written)
    if amount < 0:
        raise ValueError(f"{shown(written)} is below zero")
    return amount


def write_money(amount: int) -> str:
    return format_amount(amount)


def write_limit(amount: int) -> str:
    return format_amount(amount) if amount else NONE


def read_whole(written: str) -> int:
    """A number of units."""
    if not _WHOLE.fullmatch(written) or int(written) > UNLIMITED:
        raise ValueError(f"{shown(written)} is not a whole number, or too large")
    return int(written)


def read_small(written: str) -> int:
    number = read_whole(written)
    if number > 999_999_999:
        raise ValueError(f"{shown(written)} is too large")
    return number


def read_day(written: str) -> int:
    """A day of the month."""
    day = read_whole(written)
    if not 1 <= day <= 31:
        raise ValueError(f"{shown(written)} is not a day of the month, 1 to 31")
    return day


def write_whole(number: int) -> str:
    return str(number)


def unit_of_size(written: str) -> Unit | None:
    """The unit that an amount such as '5 GiB' names itself; None for a plain number."""
    _, _, word = written.partition(" ")
    if not word:
        return None
    for unit, words in SIZES.items():
        if word in words:
            return unit
    raise ValueError(f"{shown(word)} is no unit{nearest(word, (name for names in SIZES.values() for name in names))}")


def read_units(written: str, unit: Unit) -> int:
    """What a bucket holds: money, a plain number of units, or a size such as '5 GiB'."""
    if unit == Unit.MONEY:
        return read_positive_money(written)
    return read_whole(written) if " " not in written else parse_size(written, unit)


# -- moments -----------------------------------------------------------------------------------------------------------


def read_end(written: str) -> int:
    """A moment until which something holds; of a day alone, its end, UTC."""
    return _moment(written, _DAY_MS)


def read_start(written: str) -> int:
    """A moment from which something holds; of a day alone, its beginning, UTC."""
    return _moment(written, 0)


def _moment(written: str, of_a_day_ms: int) -> int:
    if written.lower() == NEVER:
        return 0
    is_day = bool(_DAY.fullmatch(written))
    if is_day or _MOMENT.fullmatch(written):
        try:
            at = datetime.fromisoformat(written)
            at_ms = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{shown(written)} is not a date: {error}") from None
        if is_day:
            at_ms += of_a_day_ms
        if at_ms <= 0:
            raise ValueError(f"{shown(written)} is before 1970")
        return at_ms
    if (match := _MILLISECONDS.fullmatch(written)) and int(match.group(1)) <= LARGEST:
        return int(match.group(1))
    raise ValueError(
        f"{shown(written)} is not a moment such as 2027-01-31, 2027-01-31 18:30 or 2027-01-31T18:30:00+01:00, nor "
        f"'{NEVER}'"
    )


def write_moment(at_ms: int) -> str:
    """ISO 8601, UTC; 'never' for 0."""
    if not at_ms:
        return NEVER
    if not 0 < at_ms < _LAST_YEAR_MS:
        return f"{at_ms} ms"
    at = _EPOCH + at_ms * _MILLISECOND
    return f"{at:%Y-%m-%dT%H:%M:%S}{f'.{at_ms % 1000:03d}' if at_ms % 1000 else ''}Z"
