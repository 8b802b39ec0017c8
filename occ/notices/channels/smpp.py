"""SMS by SMPP 3.4: one connection to a message centre, kept bound so that receipts can come at any time."""

import asyncio
import logging
import random
import ssl
from typing import Final

from occ.notices.channel import Channel, Message, OnReceipt, PermanentError, Taken, TemporaryError, ThrottledError
from occ.notices.settings import SmppSettings
from protocols.smpp.client import SmppClient, SmppRefusedError, SmppUnavailableError
from protocols.smpp.pdu import (
    ESME_RMSGQFUL,
    ESME_RTHROTTLED,
    RECEIPT_ALWAYS,
    Address,
    Bind,
    Receipt,
    SmppError,
    Submit,
)
from protocols.smpp.text import parts_of

log = logging.getLogger("occ.notices.smpp")

SHORTEST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
"""Between two attempts to bind."""
WAIT_S: Final = 1.0
"""After a centre said that it has too much to do."""
MOST_PARTS: Final = 10
"""Of one notice: more is a mistake in a template, and dear."""

_FOR_GOOD: Final = frozenset({0x01, 0x0B, 0x33, 0x50, 0x51, 0x65, 0x66})
"""Statuses that concern this message or its address (SMPP 3.4 section 5.1.3); others may pass."""


class SmppChannel(Channel):
    def __init__(self, settings: SmppSettings, on_receipt: OnReceipt) -> None:
        """Raises SecretError, SmppError, OSError."""
        self._settings = settings
        self._on_receipt = on_receipt
        self._bind = Bind(settings.system_id, settings.password.read(), settings.system_type or "")
        self._bind.body()
        self._source = Address.of(settings.source)
        self._tls = ssl.create_default_context(cafile=settings.ca_file) if settings.tls else None
        self._client: SmppClient | None = None
        self._bound = asyncio.Event()
        self._why = "not bound yet"
        # Parts of different messages to one telephone are told apart by it; a restart must not begin where the
        # last one did.
        self._reference = random.randrange(256)

    async def run(self) -> None:
        """Keep the connection."""
        settings = self._settings
        pause_s = SHORTEST_PAUSE_S
        while True:
            client = SmppClient(self._receipt, settings.timeout_seconds, settings.enquire_seconds)
            try:
                await client.connect(settings.host, settings.port, self._bind, self._tls)
            except (SmppRefusedError, SmppUnavailableError, SmppError) as error:
                if str(error) != self._why:
                    log.warning("notices by SMPP wait: %s", error)
                self._why = str(error)
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            log.info("bound to the message centre at %s:%d", settings.host, settings.port)
            self._client, pause_s = client, SHORTEST_PAUSE_S
            self._bound.set()
            try:
                await client.closed.wait()
            finally:
                self._bound.clear()
                await client.close()
            self._why = "the connection was lost"
            log.warning("the message centre at %s:%d has gone", settings.host, settings.port)
            await asyncio.sleep(pause_s)

    async def send(self, message: Message) -> Taken:
        client = self._client
        if client is None or not self._bound.is_set():
            raise TemporaryError(self._why)
        self._reference = (self._reference + 1) % 256
        try:
            parts = parts_of(message.text.body, self._reference)
        except ValueError as error:
            raise PermanentError(str(error)) from None
        if len(parts) > MOST_PARTS:
            raise PermanentError(f"the text would take {len(parts)} messages; {MOST_PARTS} at most are sent")
        wanted = RECEIPT_ALWAYS if self._settings.receipts else 0
        destination = Address.of(f"+{message.address}")
        names = []
        try:
            for part in parts:
                submit = Submit(self._source, destination, part.octets, part.data_coding, part.has_header, wanted)
                names.append(await client.submit(submit))
        except SmppRefusedError as error:
            self._refused(error)
        except SmppUnavailableError as error:
            raise TemporaryError(str(error)) from None
        except SmppError as error:
            raise PermanentError(str(error)) from None
        if not self._settings.receipts:
            return Taken()
        return Taken(tuple(dict.fromkeys(self._as_in_receipts(name) for name in names if name)))

    @staticmethod
    def _refused(error: SmppRefusedError) -> None:
        if error.status in (ESME_RTHROTTLED, ESME_RMSGQFUL):
            raise ThrottledError(str(error), WAIT_S)
        if error.status in _FOR_GOOD:
            raise PermanentError(str(error))
        raise TemporaryError(str(error))

    def _as_in_receipts(self, message_id: str) -> str:
        if self._settings.receipt_ids == "same":
            return message_id
        try:
            return str(int(message_id, 16))
        except ValueError:
            return message_id

    async def _receipt(self, receipt: Receipt) -> None:
        if not receipt.final:
            return
        message_id = receipt.message_id
        if self._settings.receipt_ids == "decimal" and message_id.isdigit():
            message_id = str(int(message_id))
        await self._on_receipt("smpp", message_id, receipt.delivered, receipt.state)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.unbind()
