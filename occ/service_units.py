"""How much a request asks for and reports, in the unit its service is charged in (RFC 8506 sections 8.17 to 8.26)."""

from dataclasses import replace
from typing import Final

from balance.accounts import ServiceUse
from balance.model import UNLIMITED, Unit
from occ.rating.catalogue import Service
from protocols.credit_control import Money, ServiceRequest, Units

# An attribute of an enumeration costs more than what is done with it here.
_OCTETS: Final = int(Unit.OCTETS)
_SECONDS: Final = int(Unit.SECONDS)
_AMOUNT: Final = int(Unit.AMOUNT)

UNITS_A_SECOND: Final = {int(Unit.SECONDS): 1, int(Unit.OCTETS): 1_250_000_000, int(Unit.EVENTS): 1000}
"""The most that can be used in a second: a second, what a line of 10 Gbit/s carries, a thousand messages."""

SLACK: Final = {int(Unit.SECONDS): 60, int(Unit.OCTETS): 1_250_000_000, int(Unit.EVENTS): 1000}
"""Units by which a report may exceed its grant, or what the time allows, and be believed."""

LARGEST_REPORT: Final = 1 << 54
"""Units one report may claim; keeps sums far inside 64 bits whatever a client sends."""


def measure(units: Units, unit: int) -> int | None:
    """The amount in the unit the service is charged in, None if it is not told; other units are not its concern."""
    if unit == _OCTETS:
        if units.total_octets is not None:
            return units.total_octets
        if units.input_octets is None and units.output_octets is None:
            return None
        return (units.input_octets or 0) + (units.output_octets or 0)
    if unit == _SECONDS:
        return units.time
    if unit == _AMOUNT:
        return None if units.money is None else micro(units.money)
    return units.service_specific


def event_units(asked: ServiceRequest, found: Service) -> int:
    """Units of an event: all that is asked for, or reported, as one; else the catalogue's quota."""
    amount = None if asked.requested is None else measure(asked.requested, found.unit)
    if amount is None and asked.used:
        amount = units_reported(asked.used, found.unit)
    return min(amount or found.quota_units, LARGEST_REPORT)


def for_each_recipient(asked: ServiceRequest, recipients: int, is_event: bool) -> ServiceRequest:
    """What is asked for a message to several recipients: one event for each at least."""
    requested = asked.requested
    if requested is None and (asked.used or not is_event):
        return asked
    if requested is not None and requested.money is not None:
        return asked
    count = max(recipients, (requested.service_specific or 0) if requested is not None else 0)
    return replace(asked, requested=replace(requested or Units(), service_specific=count))


def in_money(found: Service | None, name: str) -> Service:
    """The service as one that its client rates."""
    if found is None:
        return Service(name, b"", None, Unit.AMOUNT, 0, UNLIMITED, 0)
    return replace(found, unit=Unit.AMOUNT, quota_units=0, maximum_quota_units=UNLIMITED)


def money_of(asked: ServiceRequest) -> Money | None:
    """The amount of money that a service is asked for or reported in, if it is."""
    if asked.requested is not None and asked.requested.money is not None:
        return asked.requested.money
    for used in asked.used:
        if used.money is not None:
            return used.money
    return None


def micro(money: Money) -> int:
    """CC-Money in micro-units, rounded up to a whole one; at most ``LARGEST_REPORT``, at least 0."""
    digits, exponent, _ = money
    shift = exponent + 6
    if digits <= 0 or shift < -30:
        return 1 if digits > 0 else 0
    if shift > 18:
        return LARGEST_REPORT
    amount: int = digits * 10**shift if shift >= 0 else -(-digits // 10**-shift)
    return min(amount, LARGEST_REPORT)


def units_reported(used: tuple[Units, ...], unit: int) -> int:
    """Units of all Used-Service-Units together; at most ``LARGEST_REPORT``."""
    total = 0
    for each in used:
        total += measure(each, unit) or 0
    return total if total < LARGEST_REPORT else LARGEST_REPORT


def units_wanted(requested: Units | None, found: Service) -> int:
    """Units to grant: as the client determined, else the catalogue's quota; never more than one grant may be."""
    amount = None if requested is None else measure(requested, found.unit)
    if not amount or amount > UNLIMITED:
        amount = found.quota_units
    return amount if amount < found.maximum_quota_units else found.maximum_quota_units


def believable(reported: int, use: ServiceUse, elapsed_s: int) -> int:
    """The units of a report that can be true, ``elapsed_s`` seconds into the session.

    Nobody talks for longer than the session lasts, or moves more than a line can carry in that time. Usage a little
    beyond the grant or the clock is believed: clients overshoot, and clocks differ. What is not is cut to the grant or
    to what the time allows, whichever is more.
    """
    if reported <= use.granted:
        return reported
    pace = UNITS_A_SECOND.get(use.unit)
    if pace is None:
        return reported  # money: the client has rated it
    slack = SLACK[use.unit]
    if reported <= use.granted + slack:
        return reported
    possible = elapsed_s * pace - use.used
    if reported <= possible + slack:
        return reported
    return max(use.granted, possible, 0)
