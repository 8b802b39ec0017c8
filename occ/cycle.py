"""The cycle day of an account: on which its months begin, for caps, tiers, offers and changes of plan."""

from typing import Final

from balance.ledger import Draft
from balance.model import LedgerError
from occ.rating.local_time import Calendar
from occ.rating.periods import Period, Periods, counter_of

FIRST_DAY: Final = 1
LAST_DAY: Final = 31

_OF_A_MONTH: Final = counter_of("", Period.MONTH).name


def change_cycle_day(draft: Draft, calendar: Calendar, day: int) -> None:
    """Have the months of an account begin on another day, 1 to 31.

    The month that runs ends on the first such day to come; what its meters have counted stays in it. Offers that begin
    on the cycle day keep the period that is paid for; what is between its end and the cycle day is a period of its own,
    of which those that are prorated charge and give the share. A change of plan that is ahead keeps its moment. Raises
    LedgerError for a day that no month has.
    """
    if not FIRST_DAY <= day <= LAST_DAY:
        raise LedgerError(f"a cycle day is a day of the month, {FIRST_DAY} to {LAST_DAY}, not {day}")
    account, periods = draft.account, Periods(calendar)
    old_ms = periods.end_ms(Period.MONTH, draft.now_ms, account.cycle_day)
    new_ms = periods.end_ms(Period.MONTH, draft.now_ms, day)
    account.cycle_day = day
    for name, resets_ms in [(meter.name, meter.resets_ms) for meter in account.meters]:
        if resets_ms == old_ms and name.endswith(_OF_A_MONTH):
            draft.meter(name, resets_ms).resets_ms = new_ms
