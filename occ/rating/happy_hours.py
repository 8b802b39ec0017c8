"""Hours of some days, by the operator's clock: whether a moment is among them, and when that changes."""

from datetime import date, timedelta
from typing import Final

from occ.rating.local_time import Calendar
from occ.rating.tariff import EVERY_DAY, HOLIDAY, LATEST_MS

WHOLE_DAY: Final = 24 * 60
"""Minutes; as the end of hours: midnight."""

_ONE_DAY: Final = timedelta(days=1)
_LOOK_AHEAD: Final = 9
"""Days in which every weekday has come, with the one whose hours may still be running."""


class HappyHours:
    """Hours that begin on some days and end at a later time, of the next day if that is not after the beginning.

    A day counts if its weekday is named, or if it is a holiday and holidays are. Where the clock is put forward over
    a beginning or an end, it takes effect at that moment; of a time that the clock shows twice, the first counts.
    """

    __slots__ = ("_calendar", "_from_ms", "_inside", "_until_ms", "days", "from_minute", "to_minute")

    def __init__(self, days: frozenset[int], from_minute: int, to_minute: int, calendar: Calendar) -> None:
        """``days``: 0 (Monday) to 6 (Sunday) and ``HOLIDAY``; minutes since midnight, ``to_minute`` up to 24 hours.

        Raises ValueError for hours that never end, or no days.
        """
        if from_minute == to_minute or not (0 <= from_minute < WHOLE_DAY and 0 < to_minute <= WHOLE_DAY):
            raise ValueError("hours must begin and end at different times of a day")
        if not days:
            raise ValueError("hours must be those of some day")
        self.days = days
        self.from_minute = from_minute
        self.to_minute = to_minute
        self._calendar = calendar
        # What was asked for last: most that ask do so for the same moment, or one shortly after.
        self._from_ms = self._until_ms = 0
        self._inside = False

    def at(self, at_ms: int) -> tuple[bool, int]:
        """Whether a moment is among the hours, and when that changes; 0 for never, as far as the calendar says."""
        if not self._from_ms <= at_ms < self._until_ms:
            self._inside, until_ms = self._look_up(at_ms)
            self._from_ms, self._until_ms = at_ms, until_ms or LATEST_MS
        return self._inside, self._until_ms if self._until_ms != LATEST_MS else 0

    def _look_up(self, at_ms: int) -> tuple[bool, int]:
        cursor = at_ms
        day: date | None = self._calendar.day_of(at_ms) - _ONE_DAY
        seen = 0
        while day is not None:
            if self._counts(day):
                begins_ms, ends_ms = self._hours_of(day)
                if begins_ms > cursor:
                    return (True, cursor) if cursor > at_ms else (False, begins_ms)
                cursor = max(cursor, ends_ms)
            seen += 1
            day += _ONE_DAY
            if seen > _LOOK_AHEAD:
                if cursor > at_ms:
                    return True, cursor
                day = self._calendar.next_holiday(day) if HOLIDAY in self.days else None
        return cursor > at_ms, cursor if cursor > at_ms else 0

    def _counts(self, day: date) -> bool:
        return day.weekday() in self.days or (HOLIDAY in self.days and self._calendar.is_holiday(day))

    def _hours_of(self, day: date) -> tuple[int, int]:
        following = self.to_minute == WHOLE_DAY or self.to_minute <= self.from_minute
        last = day + _ONE_DAY if following else day
        return self._calendar.moment(day, self.from_minute), self._calendar.moment(last, self.to_minute % WHOLE_DAY)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, HappyHours)
            and self.days == other.days
            and self.from_minute == other.from_minute
            and self.to_minute == other.to_minute
        )

    def __hash__(self) -> int:
        return hash((self.days, self.from_minute, self.to_minute))

    def __repr__(self) -> str:
        every = "every day" if self.days == EVERY_DAY else f"{sorted(self.days)}"
        return f"HappyHours({every}, {self.from_minute}, {self.to_minute})"
