"""Whether a request is for this node (RFC 6733 6.1), as a pure function of its routing AVPs."""

from collections.abc import Iterable

from protocols.diameter.codes import ResultCode
from protocols.diameter.settings import NodeSettings


def route(
    settings: NodeSettings,
    destination_host: str | None,
    destination_realm: str | None,
    route_records: Iterable[str] = (),
    peer_realm: str | None = None,
) -> int | None:
    """The Result-Code that refuses a request, or None if it is to be processed here (RFC 6733 6.1.4).

    The arguments are the values of Destination-Host 293, Destination-Realm 283 and the Route-Records 282 of
    the request, and the Origin-Realm of the peer it came from. This node is no agent: what is for
    another host cannot be delivered.

    That a peer's own realm is served is a ruling of this project: clients such as the SMF of Open5GS
    address the realm they are in themselves, and mean the server they are connected to.
    """
    own = settings.origin_host.lower()
    if any(record.lower() == own for record in route_records):
        return ResultCode.LOOP_DETECTED  # 6.1.3
    if destination_host is not None and destination_host.lower() == own:
        return None
    if destination_realm is None:
        # 7.1.3: 3002 also "because the Destination-Host AVP was given without the [...] Destination-Realm".
        return None if destination_host is None else ResultCode.UNABLE_TO_DELIVER
    theirs = peer_realm is not None and peer_realm.lower() == destination_realm.lower()
    if not theirs and not settings.serves_realm(destination_realm):
        return ResultCode.REALM_NOT_SERVED
    return None if destination_host is None else ResultCode.UNABLE_TO_DELIVER
