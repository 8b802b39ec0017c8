"""What a node's user holds of an open peer."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocols.diameter.connection import DiameterConnection
from protocols.diameter.events import AnswerReceived, Opened, RequestFailed
from protocols.diameter.link import Disconnect, Statistics
from protocols.diameter.outgoing import OnAnswer, RequestError
from protocols.diameter.watchdog import WatchdogState

DEFAULT_TIMEOUT_SECONDS: Final = 10.0

SendRequest = Callable[["PeerHandle", bytes, OnAnswer, float], None]


class PeerHandle:
    """One open connection with a peer; of no use once that is closed, as the answers it carries are not."""

    __slots__ = ("_connection", "_send_request", "capabilities", "send")

    def __init__(self, connection: DiameterConnection, capabilities: Opened, send_request: SendRequest) -> None:
        self._connection = connection
        self._send_request = send_request
        self.capabilities = capabilities
        """What the peer said of itself when the connection was opened."""
        self.send = connection.send_answer
        """`send(answer: bytes) -> bool`: send an encoded answer to a request that this handle came with.

        All that is sent in one iteration of the loop leaves in one write. False: the connection is gone and the
        answer with it; the peer will ask again.
        """

    @property
    def origin_host(self) -> str:
        """The peer's DiameterIdentity, as the peer writes it."""
        return self.capabilities.origin_host

    @property
    def origin_realm(self) -> str:
        """The peer's realm, as the peer writes it."""
        return self.capabilities.origin_realm

    @property
    def is_open(self) -> bool:
        """Whether requests may pass in both directions."""
        link = self._connection.link
        return link is not None and link.takes_requests and link.disconnect is Disconnect.NO

    @property
    def is_heard(self) -> bool:
        """Whether it is open and answers its watchdog; one that does not gets no new requests (RFC 3539 3.4.1)."""
        link = self._connection.link
        okay = link is None or link.watchdog is None or link.watchdog.state is WatchdogState.OKAY
        return self.is_open and okay

    @property
    def connection(self) -> DiameterConnection:
        """The transport shell, for the node that made this handle."""
        return self._connection

    async def request(self, message: bytes, timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS) -> AnswerReceived:
        """Send an encoded request and wait for its answer; its Hop-by-Hop Identifier is filled in.

        Raises RequestError if the connection fails or no answer comes in time.
        """
        future: asyncio.Future[AnswerReceived] = asyncio.get_running_loop().create_future()

        def on_answer(outcome: AnswerReceived | RequestFailed) -> None:
            if future.done():
                return
            if isinstance(outcome, RequestFailed):
                future.set_exception(RequestError(outcome.reason))
            else:
                future.set_result(outcome)

        self._send_request(self, message, on_answer, timeout_seconds)
        return await future


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """One line of the peer table, for metrics and for people."""

    origin_host: str
    """As configured, or as the peer wrote it."""
    state: str
    """The state's name in RFC 6733 5.6."""
    statistics: Statistics
    """Live counters: read, do not keep."""
    origin_realm: str = ""
    """This and what follows is filled in only while the peer is open."""
    watchdog: str = ""
    """okay, suspect or reopen (RFC 3539 3.4.1)."""
    remote_address: str = ""
    applications: tuple[int, ...] = ()
    """Common applications."""
    product_name: str = ""
    origin_state_id: int | None = None
    open_seconds: float = 0.0
    """For how long it has been open."""
    pending_requests: int = 0
    """Our requests without an answer."""
