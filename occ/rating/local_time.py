"""The operator's clock and holidays: which moment a time of a local day is, exact on days of 23 and 25 hours."""

import difflib
import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from occ.yamlmap import Node

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_SECOND: Final = timedelta(seconds=1)
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_YEARS: Final = range(1970, 2200)


@dataclass(frozen=True, slots=True)
class Calendar:
    """Whose clock the times of a catalogue are told by, and which days are holidays there."""

    time_zone: tzinfo = UTC
    holidays: tuple[date, ...] = ()
    """Rising."""

    def day_of(self, at_ms: int) -> date:
        """The local date at a moment."""
        return (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(self.time_zone).date()

    def minute_of(self, at_ms: int) -> int:
        """Minutes since midnight that the local clock shows at a moment."""
        local = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(self.time_zone)
        return local.hour * 60 + local.minute

    def moment(self, day: date, minute: int) -> int:
        """The first moment at which the local clock shows this minute of this day, or a later one.

        Of an hour that the clock shows twice this is the first time, and of a time that it leaps over, the leap.
        """
        local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=self.time_zone)
        found = local.astimezone(UTC)
        if found.astimezone(self.time_zone).replace(tzinfo=None) != local.replace(tzinfo=None):
            found = self._leap(local.replace(fold=1).astimezone(UTC), found)
        return (found - _EPOCH) // _MILLISECOND

    def _leap(self, before: datetime, after: datetime) -> datetime:
        """The first moment later than ``before``, ``after`` at most, with another offset than ``before`` has."""
        offset = before.astimezone(self.time_zone).utcoffset()
        low, high = 0, (after - before) // _SECOND
        while high - low > 1:
            middle = (low + high) // 2
            if (before + middle * _SECOND).astimezone(self.time_zone).utcoffset() == offset:
                low = middle
            else:
                high = middle
        return before + high * _SECOND

    def is_holiday(self, day: date) -> bool:
        return self.next_holiday(day) == day

    def next_holiday(self, day: date) -> date | None:
        """The first holiday that is not before ``day``, or None if the calendar knows no more."""
        at = bisect_left(self.holidays, day)
        return self.holidays[at] if at < len(self.holidays) else None


UTC_CALENDAR: Final = Calendar()


def read_calendar(time_zone: Node | None, holidays: Node | None) -> Calendar:
    """The calendar of a catalogue; UTC and no holidays where it does not name them. Raises ConfigError."""
    zone = UTC if time_zone is None else _time_zone(time_zone)
    return Calendar(zone, () if holidays is None else _holidays(holidays))


def _time_zone(node: Node) -> ZoneInfo:
    name = node.text()
    try:
        return ZoneInfo(name)
    except (ValueError, LookupError, OSError):
        close = difflib.get_close_matches(name, available_timezones(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise node.error(
            f"{node.path} must be a name of the IANA time zone database such as Europe/Berlin, not {name[:60]!r}{hint}"
        ) from None


def _holidays(node: Node) -> tuple[date, ...]:
    found: set[date] = set()
    for item in node.items():
        day = _date(item)
        if day in found:
            raise item.error(f"{day} stands twice in {node.path}")
        found.add(day)
    return tuple(sorted(found))


def _date(item: Node) -> date:
    written = item.text()
    try:
        day = date.fromisoformat(written) if _DATE.fullmatch(written) else None
    except ValueError:
        day = None
    if day is None or day.year not in _YEARS:
        raise item.error(
            f"{item.path} must be a date such as 2026-12-25, of the years 1970 to 2199, not {written[:40]!r}"
        )
    return day
