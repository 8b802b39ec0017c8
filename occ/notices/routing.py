"""Where a notice goes next: pure decisions on a notice, its recipient and what has become of it so far."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from balance.contacts import Contact
from balance.notices import Notice
from occ.notices.settings import CHANNELS, MEDIUM

LOG: Final = "log"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Send:
    """By this channel, to this address."""

    channel: str
    address: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Not before the quiet hours end."""

    until_ms: int


@dataclass(frozen=True, slots=True)
class Decline:
    """The customer does not want it."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """There is nothing left to try."""

    reason: str


Decision = Send | Hold | Decline | GiveUp


def decide(
    notice: Notice,
    contact: Contact,
    defaults: Contact,
    enabled: tuple[str, ...],
    given_up: tuple[str, ...],
    now_ms: int,
    expires_ms: int,
) -> Decision:
    """What to do with a notice now.

    ``enabled``: the channels that are. ``given_up``: those that could not deliver it. ``expires_ms``: from when on it
    is of no use any more. The log takes what none of the customer's channels could have taken, never what one
    of them failed to deliver.
    """
    if not contact.wants(notice.klass):
        return Decline()
    if now_ms >= expires_ms:
        return GiveUp("it is too old to be of use")
    ways = [
        Send(channel, address)
        for medium, address in contact.channels
        for channel in CHANNELS
        if channel in enabled and MEDIUM.get(channel) == medium
    ]
    if not ways and LOG in enabled:
        ways = [Send(LOG, contact.channels[0][1] if contact.channels else "")]
    left = [way for way in ways if way.channel not in given_up]
    if not left:
        if ways:
            return GiveUp("no channel could deliver it")
        if contact.channels:
            return GiveUp("none of the customer's channels is enabled")
        return GiveUp("the customer has no address")
    if notice.klass == "marketing":
        until_ms = quiet_until(contact, defaults, now_ms)
        if until_ms:
            return Hold(until_ms)
    return left[0]


def quiet_until(contact: Contact, defaults: Contact, now_ms: int) -> int:
    """When the quiet hours that it is now end (ms); 0: it is none."""
    quiet_hours = defaults.quiet if contact.quiet is None else contact.quiet
    if quiet_hours is None or quiet_hours[0] == quiet_hours[1]:
        return 0
    begin, end = quiet_hours
    zone = ZoneInfo(contact.time_zone or defaults.time_zone or "UTC")
    local = (_EPOCH + timedelta(milliseconds=now_ms)).astimezone(zone)
    minute = local.hour * 60 + local.minute
    if begin < end:
        quiet, tomorrow = begin <= minute < end, False
    else:
        quiet, tomorrow = minute >= begin or minute < end, minute >= begin
    if not quiet:
        return 0
    day = local.date() + timedelta(days=int(tomorrow))
    ends = datetime(day.year, day.month, day.day, end // 60, end % 60, tzinfo=zone)
    # Where the clock is put back meanwhile, the hour that comes twice ends once: whichever is ahead.
    return max(now_ms + 1, int((ends.astimezone(UTC) - _EPOCH) / timedelta(milliseconds=1)))
