"""Peers that are no agents speak for themselves alone (RFC 6733 section 2.9, path authorization).

An agent passes on requests under the Origin-Hosts of others, so by default any peer may. Of one that the settings say
is none, a request under another Origin-Host is answered DIAMETER_AUTHORIZATION_REJECTED: it could otherwise report for,
or end, sessions of other clients.
"""

from collections.abc import Callable, Collection
from typing import Protocol, TypeVar

from occ.codes import AUTHORIZATION_REJECTED
from protocols.diameter.events import Opened


class Connected(Protocol):
    """A peer that requests come from."""

    @property
    def capabilities(self) -> Opened:
        """What it said of itself in its capabilities exchange."""


class Sent(Protocol):
    """A decoded request."""

    origin_host: bytes


P = TypeVar("P", bound=Connected)
R = TypeVar("R", bound=Sent)


def authorizing(route: Callable[[P, R], int | None], no_agents: Collection[str]) -> Callable[[P, R], int | None]:
    """``route`` (a Result-Code if a request is not for this server) behind that check; itself if all may be agents.

    ``no_agents``: identities as written; they are compared without regard to case.
    """
    if not no_agents:
        return route
    alone = {identity.lower().encode() for identity in no_agents}

    def authorized(peer: P, request: R) -> int | None:
        said = peer.capabilities.origin_host.lower().encode()
        if said in alone and request.origin_host.lower() != said:
            return AUTHORIZATION_REJECTED
        return route(peer, request)

    return authorized
