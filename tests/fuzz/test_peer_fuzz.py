"""The peer and its links against damaged streams and any order of happenings: no crash, no hang, no growth.

The budget is fixed: so many conversations per seed, each with a bounded number of steps.
"""

from collections.abc import Callable
from ipaddress import ip_network
from random import Random

import pytest

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause, Flag
from protocols.diameter.events import AnswerReceived, Closed, Opened, PendingRequest, Role
from protocols.diameter.link import BASE_COMMANDS, MAX_OCTETS_BEFORE_OPEN, Disconnect, Link
from protocols.diameter.peer import Peer
from protocols.diameter.reception import accept
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy
from protocols.diameter.state_table import OPEN_STATES, PeerState
from tests.protocols.in_memory import LOOPBACK, OURS, Side, base_request, ccr, cer, changed, dpr, dwr, origin

SEEDS = range(8)
CONVERSATIONS = 200
STEPS = 80
MAX_CHUNK = 3000
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
LENGTHS = (0, 4, 8, 12, 19, 20, 21, 24, 0xFFFF, 0xFFFFFC, 0xFFFFFF)


def messages(random: Random, requests: list[bytes]) -> bytes:
    """A few messages that make sense one by one, answers to what the node asked among them."""
    host = random.choice((*HOSTS, "unknown.example.org"))
    choices: tuple[Callable[[], bytes], ...] = (
        lambda: cer(host=host),
        lambda: dwr(random.choice((None, 0, random.getrandbits(32)))),
        lambda: dpr(random.randrange(3)),
        lambda: ccr(random.getrandbits(32), random.getrandbits(8)),
        lambda: base_request(random.choice((257, 280, 282, 9)), origin(host), random.getrandbits(8)),
        lambda: reply(random, requests),
        lambda: codec.build(272, 4, Flag.REQUEST, 1, 2, [codec.avp("Session-Id", "x" * random.randrange(9000))]),
    )
    return b"".join(random.choice(choices)() for _ in range(random.randrange(1, 4)))


def reply(random: Random, requests: list[bytes]) -> bytes:
    """An answer to a request of the node, of any Result-Code."""
    if not requests:
        return ccr(flags=0)
    request = codec.decode(requests.pop(random.randrange(len(requests))))
    extra = [codec.avp("Auth-Application-Id", 4)] if request.command == 257 else []
    result = codec.avp("Result-Code", random.choice((2001, 2001, 2001, 3010, 5012)))
    return codec.answer_to(request, [result, *origin(random.choice(HOSTS)), *extra])


def damaged(random: Random, stream: bytes) -> bytes:
    """The stream with one or more things wrong, or with nothing wrong."""
    octets = bytearray(stream)
    for _ in range(random.choice((0, 0, 0, 1, 1, 3))):
        position = random.randrange(len(octets)) if octets else 0
        kind = random.randrange(5)
        if kind == 0 and octets:
            octets[position] ^= 1 << random.randrange(8)
        elif kind == 1:
            octets[position:position] = random.randbytes(random.randrange(1, 30))
        elif kind == 2:
            del octets[position : position + random.randrange(1, 30)]
        elif kind == 3:
            octets[position:position] = octets[position : position + random.randrange(200)]
        else:
            octets[1:4] = random.choice(LENGTHS).to_bytes(3, "big")
    return bytes(octets)


class Conversation:
    """One node with a few connections, driven at random."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.side = Side(SETTINGS, random.getrandbits(32))
        self.now = 1000.0
        self.links: list[Link] = []
        self.asked: dict[Link, list[bytes]] = {}
        self.sent: set[PendingRequest] = set()

    def step(self) -> None:
        random = self.random
        self.now += random.choices((0.0, 0.1, 3.0, 40.0), (20, 5, 2, 1))[0]
        act = random.randrange(12)
        if act < 6:
            self._receive()
        elif act == 6:
            self._add(accept(self.side.table, LOOPBACK, LOOPBACK, self.now))
        elif act == 7:
            self._dial()
        elif act == 8 and self.links:
            link = random.choice(self.links)
            self.side.events += link.receiver.link_lost(link, "reset", self.now)
            link.disconnect = Disconnect.ABORT
        elif act == 9:
            for link in self.links:
                self.side.events += link.receiver.handle_timeout(self.now)
        elif act == 10:
            self._request()
        elif random.randrange(10) == 0:
            peer = random.choice(list(self.side.table))
            self.side.events += peer.stop(random.choice(list(DisconnectCause)), self.now)
        self._look()

    def _add(self, link: Link) -> None:
        self.links.append(link)
        self.asked[link] = []

    def _dial(self) -> None:
        peer = self.random.choice(list(self.side.table))
        if peer.state is PeerState.CLOSED:
            peer.start(self.now)
        elif self.random.randrange(3):
            link, events = peer.connected(LOOPBACK, LOOPBACK, self.now)
            self.side.events += events
            if link is not None:
                self._add(link)
        else:
            self.side.events += peer.connect_failed("refused", self.now)

    def _receive(self) -> None:
        if self.links:
            link = self.random.choice(self.links)
            if not link.is_open and self.random.randrange(3):
                stream = self._sensible(link)
            else:
                stream = damaged(self.random, messages(self.random, self.asked[link]))
            while stream:
                size = self.random.choice((1, 7, 100, MAX_CHUNK))
                self.side.events += link.receive_data(stream[:size], self.now)
                stream = stream[size:]

    def _sensible(self, link: Link) -> bytes:
        """What gets the capabilities exchange on."""
        if link.role is Role.RESPONDER:
            return cer(host=self.random.choice(HOSTS))
        return reply(self.random, self.asked[link])

    def _request(self) -> None:
        for peer in self.side.table:
            link = peer.open_link
            if link is not None:
                request = PendingRequest(ccr())
                link.send_request(request)
                self.sent.add(request)

    def _look(self) -> None:
        """What must hold after every step."""
        for link in list(self.links):
            for octets in link.output:
                message = codec.decode(octets)
                if message.command in BASE_COMMANDS:
                    message.flags &= ~Flag.PROXIABLE  # both are repeated as they came
                    message.application = 0
                    codec.check(message)
                if message.is_request:
                    self.asked[link].append(octets)
            link.output.clear()
            limit = SETTINGS.max_message_octets if link.is_open else MAX_OCTETS_BEFORE_OPEN
            assert len(link._buffer) <= limit + MAX_CHUNK
            assert link.takes_requests <= link.is_open
            if link.disconnect is not Disconnect.NO:
                self.links.remove(link)
                del self.asked[link]
        for peer in self.side.table:
            assert (peer.open_link is not None) == (peer.state in OPEN_STATES)
            assert peer.state is not PeerState.CLOSED or not (peer.initiator or peer.responder)
        assert len(list(self.side.table)) == 3, "unknown peers leave nothing behind"
        assert len(self.side.table._state_ids) <= 3

    def finish(self) -> None:
        """Time alone brings everything to rest, and every request of ours is accounted for."""
        for _ in range(6):
            self.now += 50
            for link in list(self.links):
                if isinstance(link.receiver, Peer) or link.disconnect is Disconnect.NO:
                    self.side.events += link.receiver.handle_timeout(self.now)
            for peer in self.side.table:
                self.side.events += peer.handle_timeout(self.now)
            self._look()
        assert all(peer.state is PeerState.CLOSED for peer in self.side.table)
        assert all(link.disconnect is not Disconnect.NO for link in self.links)
        opened = dict.fromkeys(HOSTS, 0)
        for event in self.side.events:
            if isinstance(event, Opened):
                opened[event.origin_host.lower()] += 1
                assert opened[event.origin_host.lower()] == 1, "opened twice without having been closed"
            elif isinstance(event, Closed):
                opened[event.origin_host.lower()] -= 1
        assert set(opened.values()) == {0}
        unanswered = [one for event in self.side.events if isinstance(event, Closed) for one in event.unanswered]
        answered = [event.request for event in self.side.events if isinstance(event, AnswerReceived)]
        assert len(unanswered) + len(answered) == len(self.sent)
        assert {*unanswered, *answered} == self.sent


@pytest.mark.shows("operators-malformed-input")
@pytest.mark.parametrize("seed", SEEDS)
def test_any_conversation_ends_in_peace(seed: int) -> None:
    """RFC 6733 5.6: whatever arrives in whatever state, the machine knows what to do."""
    opened = 0
    for number in range(CONVERSATIONS):
        conversation = Conversation(Random(seed * 100_003 + number))
        for _ in range(STEPS):
            conversation.step()
        conversation.finish()
        opened += len(conversation.side.of_kind(Opened))
    assert opened > CONVERSATIONS, "the conversations get far enough to mean something"


@pytest.mark.shows("operators-malformed-input")
@pytest.mark.parametrize("seed", SEEDS)
def test_noise_is_never_kept(seed: int) -> None:
    """Random octets, in any pieces: closed in the end, with little memory."""
    random = Random(seed)
    for _ in range(300):
        side = Side(OURS, seed)
        link = accept(side.table, LOOPBACK, LOOPBACK, 0.0)
        for _ in range(20):
            side.events += link.receive_data(random.randbytes(random.randrange(1, 400)), 0.0)
            assert len(link._buffer) <= MAX_OCTETS_BEFORE_OPEN + 400
        assert sum(map(len, link.output)) <= 20 * 1000
        side.events += link.receiver.handle_timeout(OURS.capabilities_timeout_seconds)
        assert link.disconnect is not Disconnect.NO
