"""An ESME: one connection to a message centre, bound as a transceiver (SMPP 3.4 sections 2.2, 2.7, 4.1.5).

Requests may overlap, up to a window. The link is enquired about when it has been silent; a centre that does not answer
in time is left. Nothing here connects again: whoever wants to go on makes another client.
"""

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from protocols.smpp.pdu import (
    BIND_TRANSCEIVER,
    DELIVER_SM,
    ENQUIRE_LINK,
    ESME_RINVCMDID,
    ESME_ROK,
    ESME_RX_T_APPN,
    GENERIC_NACK,
    RESPONSE,
    SUBMIT_SM,
    UNBIND,
    Bind,
    Pdu,
    Receipt,
    SmppError,
    Submit,
    decode,
    message_id_of,
    pdu_length,
    read_deliver,
    status_text,
)

log = logging.getLogger("protocols.smpp")

LAST_SEQUENCE: Final = 0x7FFFFFFF
"""Section 5.1.4."""
DELIVERIES_AT_ONCE: Final = 100
"""Messages from the centre that may be under way here; it waits when there are more."""

OnReceipt = Callable[[Receipt], Awaitable[None]]
"""Called for each receipt; the centre is told to send it again if this raises."""


class SmppRefusedError(Exception):
    """The message centre answered a request with an error."""

    def __init__(self, what: str, status: int) -> None:
        super().__init__(f"the message centre refused {what}: {status_text(status)}")
        self.status = status


class SmppUnavailableError(Exception):
    """There is no connection, or no answer came: what was sent may have been taken or not."""


class SmppClient:
    """One bound connection; ``connect`` makes it, ``closed`` says that it is of no use any more."""

    def __init__(self, on_receipt: OnReceipt, timeout_s: float, enquire_s: float) -> None:
        self._on_receipt = on_receipt
        self._timeout_s = timeout_s
        self._enquire_s = enquire_s
        self._sequence = 0
        self._waiting: dict[int, asyncio.Future[Pdu]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._deliveries = asyncio.Semaphore(DELIVERIES_AT_ONCE)
        self._heard_at = 0.0
        self.closed = asyncio.Event()

    async def connect(self, host: str, port: int, bind: Bind, tls: ssl.SSLContext | None = None) -> None:
        """Raises SmppUnavailableError, SmppRefusedError, SmppError."""
        try:
            async with asyncio.timeout(self._timeout_s):
                self._reader, self._writer = await asyncio.open_connection(host, port, ssl=tls)
        except (OSError, TimeoutError) as error:
            self.closed.set()
            reason = str(error) or "no answer in time"
            raise SmppUnavailableError(f"the message centre at {host}:{port} cannot be reached: {reason}") from error
        self._heard_at = asyncio.get_running_loop().time()
        self._start(self._read())
        try:
            await self._ask(BIND_TRANSCEIVER, bind.body(), "the bind")
        except BaseException:
            await self.close()
            raise
        self._start(self._enquire())

    async def submit(self, message: Submit) -> str:
        """Hand a message over; the message_id it was given.

        Raises SmppRefusedError, SmppUnavailableError, SmppError for one that cannot be written down.
        """
        return message_id_of(await self._ask(SUBMIT_SM, message.body(), "a message"))

    async def unbind(self) -> None:
        """Take leave and close."""
        if not self.closed.is_set():
            try:
                await self._ask(UNBIND, b"", "the unbind")
            except (SmppRefusedError, SmppUnavailableError) as error:
                log.debug("the unbind was not answered: %s", error)
        await self.close()

    async def close(self) -> None:
        self._lost("the connection was closed")
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _lost(self, reason: str) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        self._writer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SmppUnavailableError(reason))
        self._waiting.clear()

    # -- requests of ours ----------------------------------------------------------------------------------------

    async def _ask(self, command_id: int, body: bytes, what: str) -> Pdu:
        if self.closed.is_set():
            raise SmppUnavailableError("the connection to the message centre is closed")
        self._sequence = self._sequence % LAST_SEQUENCE + 1
        sequence = self._sequence
        future: asyncio.Future[Pdu] = asyncio.get_running_loop().create_future()
        self._waiting[sequence] = future
        try:
            self._send(Pdu(command_id, ESME_ROK, sequence, body))
            async with asyncio.timeout(self._timeout_s):
                answer = await future
        except TimeoutError:
            # A late answer could not be told from that to a request of a full turn later; and a centre that is this
            # slow is as good as gone.
            self._lost(f"the message centre did not answer {what} in {self._timeout_s:.0f} s")
            raise SmppUnavailableError(f"the message centre did not answer {what} in {self._timeout_s:.0f} s") from None
        finally:
            self._waiting.pop(sequence, None)
        if answer.status != ESME_ROK or answer.command_id == GENERIC_NACK:
            raise SmppRefusedError(what, answer.status)
        return answer

    def _send(self, pdu: Pdu) -> None:
        if not self.closed.is_set():
            self._writer.write(pdu.encode())

    async def _enquire(self) -> None:
        """Section 4.11."""
        clock = asyncio.get_running_loop().time
        while True:
            silent_s = clock() - self._heard_at
            if silent_s < self._enquire_s:
                await asyncio.sleep(self._enquire_s - silent_s)
                continue
            try:
                await self._ask(ENQUIRE_LINK, b"", "an enquiry")
            except SmppUnavailableError as error:
                log.warning("%s", error)
                return
            except SmppRefusedError as error:
                log.debug("%s", error)  # it is there

    # -- what the centre sends -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        reason = "the message centre closed the connection"
        try:
            while True:
                head = await self._reader.readexactly(4)
                octets = head + await self._reader.readexactly(pdu_length(head) - 4)
                self._heard_at = clock()
                await self._take(decode(octets))
        except asyncio.IncompleteReadError:
            pass
        except SmppError as error:
            reason = f"the message centre sent what is no SMPP 3.4: {error}"
            log.error("%s; the connection is closed", reason)
        except OSError as error:
            reason = f"the connection to the message centre was lost: {error}"
        self._lost(reason)

    async def _take(self, pdu: Pdu) -> None:
        if pdu.is_response:
            future = self._waiting.get(pdu.sequence)
            if future is not None and not future.done():
                future.set_result(pdu)
            return
        if pdu.command_id == DELIVER_SM:
            await self._deliveries.acquire()
            self._start(self._deliver(pdu))
            return
        if pdu.command_id in (ENQUIRE_LINK, UNBIND):
            self._send(Pdu(pdu.command_id | RESPONSE, ESME_ROK, pdu.sequence))
            if pdu.command_id == UNBIND:
                await self._writer.drain()
                self._lost("the message centre took its leave")
            return
        self._send(Pdu(GENERIC_NACK, ESME_RINVCMDID, pdu.sequence))

    async def _deliver(self, pdu: Pdu) -> None:
        """Section 4.6: answered when the receipt is kept, so that none is lost."""
        try:
            status = ESME_ROK
            try:
                message = read_deliver(pdu.body)
                receipt = message.receipt
                if receipt is not None:
                    await self._on_receipt(receipt)
                else:
                    log.debug("a message that is no receipt is passed over")
            except SmppError as error:
                log.warning("a deliver_sm cannot be read: %s", error)
            except Exception as error:  # whatever keeps a receipt from being kept, it must come again
                log.warning("a receipt is asked for again: %s", error)
                status = ESME_RX_T_APPN
            self._send(Pdu(DELIVER_SM | RESPONSE, status, pdu.sequence, b"\0"))
        finally:
            self._deliveries.release()
