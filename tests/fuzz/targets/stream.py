"""Octets as what one connection receives: the peer state machine behind a link, as in ``test_peer_fuzz``.

The first octet says how: bit 0, the capabilities are exchanged before; bit 1, the same peer connects twice; bit 2, 20
seconds pass after every piece; bit 3, the node takes its leave in the middle. The second is the size of the pieces.
"""

from ipaddress import ip_network

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause, Flag, ResultCode
from protocols.diameter.events import Closed, Opened, PendingRequest
from protocols.diameter.link import BASE_COMMANDS, MAX_OCTETS_BEFORE_OPEN, Disconnect, Link
from protocols.diameter.reception import accept
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy
from protocols.diameter.state_table import OPEN_STATES, PeerState
from tests.protocols.in_memory import LOOPBACK, OURS, Side, ccr, cer, changed

HOSTS = ("pgw.example.org", "aaa.example.org", "zzz.example.org")
SETTINGS = changed(
    OURS,
    origin_host="mmm.example.net",
    max_message_octets=4096 * 20,
    policy=PeerPolicy(
        Admission.STRICT,
        tuple(AllowedPeer(host, None, (ip_network("127.0.0.0/8"),), LOOPBACK) for host in HOSTS),
    ),
)
RESULT_CODE = 268
OPENED, TWICE, TIME_PASSES, LEAVES = 1, 2, 4, 8


class _Conversation:
    def __init__(self) -> None:
        self.side = Side(SETTINGS)
        self.now = 1000.0
        self.links: list[Link] = []

    def accept(self) -> Link:
        link = accept(self.side.table, LOOPBACK, LOOPBACK, self.now)
        self.links.append(link)
        return link

    def receive(self, link: Link, octets: bytes) -> None:
        self.side.events += link.receive_data(octets, self.now)
        self.look(len(octets))

    def look(self, piece: int = 0) -> None:
        """What must hold at any time."""
        for link in self.links:
            for octets in link.output:
                message = codec.decode(octets)
                if message.command in BASE_COMMANDS and not _repeats_what_is_wrong(message):
                    message.flags &= ~Flag.PROXIABLE  # both are repeated as they came
                    message.application = 0
                    codec.check(message)
            link.output.clear()
            limit = SETTINGS.max_message_octets if link.is_open else MAX_OCTETS_BEFORE_OPEN
            assert len(link._buffer) <= limit + piece
            assert link.takes_requests <= link.is_open
        for peer in self.side.table:
            assert (peer.open_link is not None) == (peer.state in OPEN_STATES)
        assert len(list(self.side.table)) == len(HOSTS), "unknown peers leave nothing behind"
        assert len(self.side.table._state_ids) <= len(HOSTS)

    def ask(self) -> None:
        """A request of the node to whoever is open."""
        for peer in self.side.table:
            if peer.open_link is not None:
                peer.open_link.send_request(PendingRequest(ccr()))

    def finish(self) -> None:
        """Time alone brings everything to rest."""
        for _ in range(6):
            self.now += 50
            for link in self.links:
                if link.disconnect is Disconnect.NO:
                    self.side.events += link.receiver.handle_timeout(self.now)
            for peer in self.side.table:
                self.side.events += peer.handle_timeout(self.now)
            self.look()
        assert all(peer.state is PeerState.CLOSED for peer in self.side.table)
        assert all(link.disconnect is not Disconnect.NO for link in self.links)
        opened = sum(isinstance(event, Opened) for event in self.side.events)
        assert opened == sum(isinstance(event, Closed) for event in self.side.events)


def _repeats_what_is_wrong(message: codec.Message) -> bool:
    """An error answer has parts of the request in it as they came (RFC 6733 section 6.2)."""
    result = message.find(RESULT_CODE)
    return not message.is_request and (result is None or result.value() != ResultCode.SUCCESS)


def run(octets: bytes) -> None:
    how, size, stream = octets[0] if octets else 0, 1 + (octets[1] if len(octets) > 1 else 0), octets[2:]
    conversation = _Conversation()
    links = [conversation.accept() for _ in range(2 if how & TWICE else 1)]
    if how & OPENED:
        conversation.receive(links[0], cer())
        conversation.ask()
    pieces = [stream[at : at + size * 8] for at in range(0, len(stream), size * 8)]
    for number, piece in enumerate(pieces):
        conversation.receive(links[number % len(links)], piece)
        if how & TIME_PASSES:
            conversation.now += 20.0
            for link in conversation.links:
                if link.disconnect is Disconnect.NO:
                    conversation.side.events += link.receiver.handle_timeout(conversation.now)
        if how & LEAVES and number == len(pieces) // 2:
            for peer in list(conversation.side.table):
                conversation.side.events += peer.stop(DisconnectCause.REBOOTING, conversation.now)
    conversation.finish()
