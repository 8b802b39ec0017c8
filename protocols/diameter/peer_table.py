"""The peer table of one local node (RFC 6733 2.6)."""

from collections.abc import Iterator
from random import Random
from typing import Final

from protocols.diameter.capabilities import BaseMessages
from protocols.diameter.events import Role
from protocols.diameter.link import Link, Receiver
from protocols.diameter.peer import Peer
from protocols.diameter.settings import NodeSettings

_MAX_STATE_IDS: Final = 10_000
"""Origin-State-Ids remembered of peers that are gone; the oldest are forgotten first."""


class PeerTable:
    """All peers of one local node (RFC 6733 2.6), and what they have in common."""

    __slots__ = ("_end_to_end", "_peers", "_state_ids", "messages", "random", "settings")

    def __init__(self, settings: NodeSettings, random: Random) -> None:
        """`random` seeds identifiers and spreads watchdogs; it need not be unpredictable."""
        self.settings = settings
        self.random = random
        self.messages = BaseMessages(settings)
        self._peers: dict[str, Peer] = {}
        self._state_ids: dict[str, int] = {}
        # RFC 6733 section 3: high order 12 bits that differ after a restart, the rest random, then counts up.
        self._end_to_end = (settings.origin_state_id & 0xFFF) << 20 | random.getrandbits(20)
        for allowed in settings.policy.peers:
            self._peers[allowed.identity.lower()] = Peer(self, allowed.identity, allowed)

    def __iter__(self) -> Iterator[Peer]:
        return iter(tuple(self._peers.values()))

    def find(self, origin_host: str) -> Peer | None:
        """The peer of that identity, whatever the case of its letters."""
        return self._peers.get(origin_host.lower())

    def find_or_add(self, origin_host: str) -> Peer:
        """The peer of that identity. One that is not configured lives as long as its connection (RFC 6733 5.3)."""
        peer = self._peers.get(origin_host.lower())
        if peer is None:
            peer = Peer(self, origin_host, None)
            self._peers[origin_host.lower()] = peer
        return peer

    def nameless(self) -> Peer:
        """A peer to be dialed by its address; its CEA will tell its identity."""
        return Peer(self, "", None)

    def claim(self, origin_host: str, peer: Peer) -> bool:
        """Enter a peer that was just named by its CEA. False: another connection has that name."""
        key = origin_host.lower()
        if self._peers.get(key, peer) is not peer or key == self.settings.origin_host.lower():
            return False
        self._peers[key] = peer
        peer.identity = origin_host
        return True

    def forget(self, peer: Peer) -> None:
        """A peer was closed: drop it unless it is configured."""
        if peer.configured is None and self._peers.get(peer.identity.lower()) is peer:
            del self._peers[peer.identity.lower()]

    def new_link(self, role: Role, remote_address: str, local_address: str, receiver: Receiver) -> Link:
        """A link of this node for a transport that is up."""
        return Link(
            role,
            remote_address=remote_address,
            local_address=local_address,
            receiver=receiver,
            origin=self.messages.origin,
            capabilities=self.messages.required_capabilities(local_address),
            random=self.random,
        )

    def next_end_to_end(self) -> int:
        """An End-to-End Identifier for a request of ours (RFC 6733 section 3)."""
        self._end_to_end = (self._end_to_end + 1) & 0xFFFFFFFF
        return self._end_to_end

    def state_id_risen(self, origin_host: str, number: int) -> int | None:
        """Remember an Origin-State-Id; the one before if this is higher (RFC 6733 8.16), else None."""
        key = origin_host.lower()
        old = self._state_ids.pop(key, 0)
        self._state_ids[key] = max(old, number)
        if len(self._state_ids) > _MAX_STATE_IDS:
            del self._state_ids[next(iter(self._state_ids))]
        return old if 0 < old < number else None
