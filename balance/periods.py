"""What a service of a session is priced by, period after period, and what its next charging data record will tell.

A period begins whenever the price is another one: at a tariff switch, when it is rated anew, when a record is made.
Pure; nothing is debited here.
"""

from typing import Any, Final

from balance.accounts import Notes, Period, ServiceUse
from balance.model import LARGEST, Rate

PERIODS_KEPT: Final = 32
"""Periods a service keeps for its next charging data record; further ones become one with the last."""

_NO_NOTES: Final = Notes()


def begin_period(
    use: ServiceUse, at_ms: int, step_units: int, step_price_micro: int, version: str, band: str = ""
) -> None:
    """Count on at another price from ``at_ms``, from nothing: a started step of the period that ends was charged in
    full. ``version`` of the catalogue and ``band`` that the price is of: as in ``Notes``.
    """
    close_period(use, at_ms)
    use.earlier_micro = min(use.earlier_micro + use.priced_micro, LARGEST)
    use.paid_units = use.priced_micro = 0
    use.step_units, use.step_price_micro = step_units, step_price_micro
    use.ahead = ()
    mark_period(use, at_ms, version, band)


def close_period(use: ServiceUse, at_ms: int) -> None:
    """Note, for the charging data record, what was used in the period that is over; nothing if nothing was.

    ``mark_period`` must follow.
    """
    notes = use.notes or _NO_NOTES
    period = Period._make(running_period(use, at_ms))
    if not (period.units or period.cost_micro or period.leaked_micro):
        return
    periods = notes.periods
    if len(periods) >= PERIODS_KEPT:
        period = _joined(Period(*periods[-1]), period)
        periods = periods[:-1]
    use.notes = notes._replace(periods=(*periods, period))


def running_period(use: ServiceUse, at_ms: int) -> tuple[Any, ...]:
    """The fields of a ``Period``: what was used since the running one began, as if it ended at ``at_ms``."""
    notes = use.notes or _NO_NOTES
    cost_micro = use.earlier_micro + use.priced_micro - notes.cost_micro
    return (
        notes.from_ms,
        max(notes.from_ms, at_ms),
        use.used - notes.used,
        notes.paid_units,
        use.paid_units,
        cost_micro,
        use.leaked_micro - notes.leaked_micro,
        use.step_units,
        use.step_price_micro,
        use.terms,
        notes.version,
        notes.promotions,
        notes.band,
    )


def _joined(first: Period, second: Period) -> Period:
    """Two periods as one, of several prices."""
    paid_units = first.counted_to - first.counted_from + second.counted_to - second.counted_from
    cost_micro = first.cost_micro + second.cost_micro
    leaked_micro = first.leaked_micro + second.leaked_micro
    return Period(
        first.from_ms,
        second.until_ms,
        first.units + second.units,
        0,
        paid_units,
        cost_micro,
        leaked_micro,
        0,
        0,
        (),
        second.version,
        tuple(dict.fromkeys((*first.promotions, *second.promotions))),
    )


def mark_period(use: ServiceUse, at_ms: int, version: str = "", band: str = "") -> None:
    """Have the running period begin here. ``version``, ``band``: as in ``Notes``."""
    notes = use.notes or _NO_NOTES
    use.notes = Notes(
        at_ms,
        use.used,
        use.paid_units,
        use.cost_micro,
        use.leaked_micro,
        notes.records,
        notes.periods,
        version,
        promotions=notes.promotions,
        band=band,
        policies=notes.policies,
        is_free=notes.is_free,
    )


def begin_record(use: ServiceUse, at_ms: int) -> None:
    """Forget what a charging data record has just told: the next one begins here."""
    notes = use.notes or _NO_NOTES
    use.notes = Notes(
        at_ms,
        use.used,
        use.paid_units,
        use.cost_micro,
        use.leaked_micro,
        notes.records + 1,
        (),
        notes.version,
        notes.next_version,
        notes.promotions,
        notes.band,
        notes.next_band,
        is_free=notes.is_free,
    )
    use.taken = ()
    use.disbelieved = use.reasons = 0


def write_off(use: ServiceUse, rate: Rate) -> None:
    """Forget what of the price so far was not asked for because a cap was reached: it is not owed later either."""
    price = min(rate.price_micro(use.paid_units), LARGEST)
    use.earlier_micro -= price - use.priced_micro
    use.priced_micro = price


def count_from(use: ServiceUse, rate: Rate, units: int) -> None:
    """Count on from ``units``, as if so much had been used and paid already: a meter says in which tier usage is."""
    price = min(rate.price_micro(units), LARGEST)
    if units != use.paid_units:
        notes = use.notes or _NO_NOTES
        use.notes = notes._replace(paid_units=notes.paid_units + units - use.paid_units)
    use.earlier_micro += use.priced_micro - price
    use.paid_units, use.priced_micro = units, price
