"""A peer that is brought into any of its states by what a real node can meet with."""

from collections.abc import Callable

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause
from protocols.diameter.events import Event
from protocols.diameter.link import Link
from protocols.diameter.reception import accept
from protocols.diameter.state_table import PeerState
from tests.protocols.in_memory import LOOPBACK, OURS, Side, answer, cer, changed, dwr, origin


class Stage:
    """A peer and its connections. Our Origin-Host loses every election, so that Wait-Returns lasts."""

    def __init__(self, origin_host: str = "aaa.example.net") -> None:
        self.side = Side(changed(OURS, origin_host=origin_host))
        self.peer = self.side.table.find_or_add("pgw.example.org")
        self.now = 1000.0
        self.events: list[Event] = []
        self.accepted: list[Link] = []

    @property
    def link(self) -> Link:
        """The connection in use, or the only one there is."""
        link = self.peer.open_link or self.peer.initiator or self.peer.responder
        assert link is not None
        return link

    def start(self) -> None:
        self.peer.start(self.now)

    def connect(self) -> None:
        self.events += self.peer.connected(LOOPBACK, LOOPBACK, self.now)[1]

    def connect_failed(self) -> None:
        self.events += self.peer.connect_failed("connection refused", self.now)

    def accept(self) -> None:
        link = accept(self.side.table, LOOPBACK, LOOPBACK, self.now)
        self.accepted.append(link)
        self.events += link.receive_data(cer(), self.now)

    def receive(self, data: bytes, link: Link | None = None) -> None:
        self.events += (link or self.link).receive_data(data, self.now)

    def receive_cea(self) -> None:
        link = self.peer.initiator
        assert link is not None
        self.receive(good_cea(codec.decode(link.output[0])), link)

    def receive_non_cea(self) -> None:
        self.receive(dwr(), self.peer.initiator)

    def receive_answer(self) -> None:
        """The answer to the last request of the node."""
        self.receive(answer(codec.decode(self.link.output[-1])))

    def lose(self, link: Link | None) -> None:
        assert link is not None
        self.events += self.peer.link_lost(link, "it closed its connection", self.now)

    def time_out(self) -> None:
        self.events += self.peer.handle_timeout(self.now + 3600)

    def receive_dwa(self) -> None:
        """After the watchdog sent its DWR."""
        self.events += self.peer.handle_timeout(self.now + 40)
        self.receive_answer()

    def state(self) -> PeerState:
        return self.peer.state

    def stop(self) -> None:
        self.events += self.peer.stop(DisconnectCause.REBOOTING, self.now)


def good_cea(request: codec.Message, result: int = 2001, host: str = "pgw.example.org") -> bytes:
    return codec.answer_to(
        request,
        [
            codec.avp("Result-Code", result),
            *origin(host),
            codec.avp("Host-IP-Address", LOOPBACK),
            codec.avp("Vendor-Id", 0),
            codec.avp("Product-Name", "tester"),
            codec.avp("Auth-Application-Id", 4),
        ],
    )


_S = PeerState

REACH: dict[PeerState, tuple[Callable[[Stage], None], ...]] = {
    _S.CLOSED: (),
    _S.WAIT_CONN_ACK: (Stage.start,),
    _S.WAIT_I_CEA: (Stage.start, Stage.connect),
    _S.WAIT_CONN_ACK_ELECT: (Stage.start, Stage.accept),
    _S.WAIT_RETURNS: (Stage.start, Stage.connect, Stage.accept),
    _S.R_OPEN: (Stage.accept,),
    _S.I_OPEN: (Stage.start, Stage.connect, Stage.receive_cea),
    _S.CLOSING: (Stage.accept, Stage.stop),
}
