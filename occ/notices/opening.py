"""The channels that the settings enable. What a channel is made of is only loaded if it is enabled."""

import logging
from collections.abc import Callable, Mapping
from typing import Final

from occ.notices.channel import Channel, Message, OnReceipt, Taken, TemporaryError
from occ.notices.delivery import Way
from occ.notices.secret import SecretError
from occ.notices.settings import NoticesSettings
from occ.yamlmap import ConfigError
from protocols.smpp.pdu import SmppError

log = logging.getLogger("occ.notices")

LOG_IN_FLIGHT: Final = 10
LOG_PER_SECOND: Final = 1000
LOG_TIMEOUT_S: Final = 5.0
ANSWERS: Final = 2
"""An attempt may take so many times the time-out of one answer: some have several."""


class ClosedChannel(Channel):
    """One that cannot be opened: what is due by it waits, and goes another way in time."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def send(self, message: Message) -> Taken:  # noqa: ARG002 - as the others
        raise TemporaryError(self._reason)


def open_channels(settings: NoticesSettings, on_receipt: OnReceipt) -> dict[str, Way]:
    """All that are enabled, by name; one that cannot be opened says so in the log and keeps none from working."""
    ways = {}
    for name in settings.channels:
        try:
            channel = _make(name, settings, on_receipt)
        except (SecretError, SmppError, OSError, ValueError) as error:
            log.error("channel %s cannot be used: %s", name, error)
            channel = ClosedChannel(str(error))
        ways[name] = _way(name, settings, channel)
    return ways


def check_channels(settings: NoticesSettings) -> None:
    """That all that are enabled can be opened. Raises ConfigError."""

    async def nowhere(channel: str, message_id: str, delivered: bool, detail: str) -> None:
        """There will be no receipts."""

    for name in settings.channels:
        try:
            _make(name, settings, nowhere)
        except (SecretError, SmppError, OSError, ValueError) as error:
            raise ConfigError(f"notices.{name}", None, str(error)) from None


def _way(name: str, settings: NoticesSettings, channel: Channel) -> Way:
    if name == "log":
        return Way(channel, LOG_IN_FLIGHT, LOG_PER_SECOND, LOG_TIMEOUT_S)
    of = getattr(settings, name)
    return Way(channel, of.in_flight, of.per_second, float(ANSWERS * of.timeout_seconds))


def _make(name: str, settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:
    """Raises SecretError, SmppError, OSError, ValueError."""
    return _MAKERS[name](settings, on_receipt)


def _log(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:  # noqa: ARG001 - as the others
    from occ.notices.channels.log import LogChannel  # noqa: PLC0415 - only what is enabled

    return LogChannel()


def _smpp(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:
    from occ.notices.channels.smpp import SmppChannel  # noqa: PLC0415 - only what is enabled

    return SmppChannel(settings.smpp, on_receipt)


def _sms_http(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:  # noqa: ARG001 - as the others
    from occ.notices.channels.sms_http import SmsHttpChannel  # noqa: PLC0415 - only what is enabled

    return SmsHttpChannel(settings.sms_http)


def _email(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:  # noqa: ARG001 - as the others
    from occ.notices.channels.email import EmailChannel  # noqa: PLC0415 - only what is enabled

    return EmailChannel(settings.email)


def _telegram(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:  # noqa: ARG001 - as the others
    from occ.notices.channels.telegram import TelegramChannel  # noqa: PLC0415 - only what is enabled

    return TelegramChannel(settings.telegram)


def _webhook(settings: NoticesSettings, on_receipt: OnReceipt) -> Channel:  # noqa: ARG001 - as the others
    from occ.notices.channels.webhook import WebhookChannel  # noqa: PLC0415 - only what is enabled

    return WebhookChannel(settings.webhook)


_MAKERS: Final[Mapping[str, Callable[[NoticesSettings, OnReceipt], Channel]]] = {
    "log": _log,
    "smpp": _smpp,
    "sms_http": _sms_http,
    "email": _email,
    "telegram": _telegram,
    "webhook": _webhook,
}
