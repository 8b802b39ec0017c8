"""What every channel is: it takes one message, and says in one of four ways what came of it."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from balance.notices import Notice
from occ.notices.templates import Text


@dataclass(frozen=True, slots=True)
class Message:
    """A notice in words, for one address."""

    notice: Notice
    address: str
    text: Text


@dataclass(frozen=True, slots=True)
class Taken:
    """Whoever delivers it has taken it."""

    parts: tuple[str, ...] = ()
    """Names of the messages that it went as, whose receipts are to come; none: there will be no receipts."""


class PermanentError(Exception):
    """This message cannot go to this address by this channel, now or later: another channel is tried."""


class TemporaryError(Exception):
    """It did not work this time, or the channel is not in order: it is tried again later."""


class ThrottledError(Exception):
    """The channel is to send nothing for a while; this is no attempt that has failed."""

    def __init__(self, reason: str, wait_s: float) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Channel(ABC):
    """One way to customers. Errors name no secret and no address."""

    @abstractmethod
    async def send(self, message: Message) -> Taken:
        """Hand a message over. Raises PermanentError, TemporaryError, ThrottledError."""

    async def run(self) -> None:  # noqa: B027 - most have nothing to do
        """What there is to do beside sending, until cancelled."""

    async def close(self) -> None:  # noqa: B027 - or nothing to let go of
        """Let go of connections."""


OnReceipt = Callable[[str, str, bool, str], Awaitable[None]]
"""Called with the channel, a message's name, whether it was delivered, and how the receipt puts it.

Raises StoreError."""


def document(message: Message) -> Mapping[str, object]:
    """A notice as a program reads it."""
    notice = message.notice
    return {
        "id": notice.notice_id.decode("utf-8", "backslashreplace"),
        "class": notice.klass,
        "template": notice.template,
        "account": notice.account_id.decode("utf-8", "backslashreplace"),
        "subscriber": notice.subscriber_id.decode("utf-8", "backslashreplace") or None,
        "at_ms": notice.at_ms,
        "language": message.text.language,
        "subject": message.text.subject,
        "text": message.text.body,
        "values": dict(notice.values),
    }
