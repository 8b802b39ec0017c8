"""What every answer of the server must keep to, whatever it answers: rows 7 and 8, and what clients insist on.

Independent of the server's own checks: the request and the answer are looked at as octets and plain AVPs.
"""

import struct
from collections.abc import Iterator

from protocols.diameter import codec
from protocols.diameter.codec import Avp, Message
from protocols.diameter.codes import AvpFlag
from protocols.diameter.errors import DiameterError

SESSION_ID, PROXY_INFO, RESULT_CODE, FAILED_AVP = 263, 284, 268, 279
DESTINATION_HOST, DESTINATION_REALM = 293, 283
ORIGIN_HOST, ORIGIN_REALM = 264, 296
CREDIT_CONTROL, CAPABILITIES_EXCHANGE = 272, 257

INVALID_MESSAGE_LENGTH = 5015
REFUSED_AS_MALFORMED = (5001, 5004, 5005, 5008, 5009, 5011, 5014, INVALID_MESSAGE_LENGTH)

PLAIN_CLIENT_KNOWS = frozenset(
    (
        # RFC 6733
        *(1, 25, 33, 55, 257, 258, 259, 260, 263, 264, 265, 266, 267, 268, 269, 270, 271, 273, 276, 277, 278, 279, 280),
        *(281, 282, 284, 285, 287, 291, 292, 293, 294, 295, 296, 297, 298, 299, 50, 261, 262),
        # RFC 8506 and RFC 4006; Filter-Id
        *range(411, 462),
        11,
    )
)
"""AVP codes of vendor 0 that a plain Diameter credit-control client has in its dictionary."""

IN_EVERY_CCA = (258, 416, 415)
"""Auth-Application-Id, CC-Request-Type, CC-Request-Number: freeDiameter drops a CCA without them."""


def breaches(request: bytes, answer: bytes, server: str) -> list[str]:
    """What is wrong with an answer in itself; empty when all is well."""
    return list(_breaches(request, answer, server))


def _breaches(request: bytes, octets: bytes, server: str) -> Iterator[str]:
    try:
        answer = codec.decode(octets)
    except DiameterError as error:
        yield f"the answer cannot be read: {error}"
        return
    try:
        codec.check(answer)
    except DiameterError as error:
        if not _is_due_to_the_request(answer, error):
            yield f"the answer does not keep to its grammar: {error}"
    _, flags_command, application, hop_by_hop, end_to_end = struct.unpack(">IIIII", request[:20])
    if (answer.hop_by_hop, answer.end_to_end) != (hop_by_hop, end_to_end):
        yield "its Hop-by-Hop or End-to-End Identifier is not that of the request (RFC 6733 section 6.2)"
    if (answer.command, answer.application) != (flags_command & 0xFFFFFF, application):
        yield "it is of another command or application than the request"
    flags = flags_command >> 24
    if answer.is_request or answer.is_retransmission or answer.flags & 0x0F:
        yield f"its header flags are {answer.flags:#x}: R, T and the reserved bits must be clear"
    if answer.is_proxiable != bool(flags & 0x40):
        yield "its P bit is not that of the request (RFC 6733 section 6.2)"
    code = _result_code(answer)
    if answer.is_error != (3000 <= code < 4000):
        yield f"Result-Code {code} with the E bit {'set' if answer.is_error else 'clear'} (RFC 6733 section 7.1)"
    # Of a message of unknown length nothing but the header can be read.
    asked = [] if code == INVALID_MESSAGE_LENGTH else _readable(request)
    yield from _avp_breaches(asked, answer, server)
    if answer.command == CREDIT_CONTROL and not answer.is_error:
        yield from _cca_breaches(asked, answer)


def _result_code(answer: Message) -> int:
    result = answer.find(RESULT_CODE)
    return int.from_bytes(result.data, "big") if result is not None else 0


def _is_due_to_the_request(answer: Message, error: DiameterError) -> bool:
    """Whether an answer repeats what is wrong with its request: an impossible header, or a missing or bad AVP."""
    if answer.is_error:
        return error.result_code in (3001, 3007, 3008)
    at_fault = int.from_bytes((error.failed_avp or b"")[:4], "big")
    return _result_code(answer) in REFUSED_AS_MALFORMED and at_fault in (SESSION_ID, *IN_EVERY_CCA)


def _avp_breaches(asked: list[Avp], answer: Message, server: str) -> Iterator[str]:
    for code in (DESTINATION_HOST, DESTINATION_REALM):
        if answer.find(code) is not None:
            yield f"an answer never carries AVP {code}"
    origin = answer.find(ORIGIN_HOST)
    if origin is None or origin.data != server.encode():
        yield "its Origin-Host is not the server's"
    session = next((one.data for one in asked if one.code == SESSION_ID and not one.vendor), b"")
    if session:
        if not answer.avps or answer.avps[0].code != SESSION_ID:
            yield "Session-Id is not its first AVP (RFC 6733 section 8.8)"
        elif answer.avps[0].data != session:
            yield "its Session-Id is not that of the request"
    sent = [one.data for one in asked if one.code == PROXY_INFO and not one.vendor]
    if sent != [one.data for one in answer.find_all(PROXY_INFO)]:
        yield "its Proxy-Info AVPs are not those of the request in their order (RFC 6733 section 6.2)"
    for one in _unknown_to_plain_clients(answer.avps):
        yield f"AVP {one.code} of vendor {one.vendor} has the M bit, and a plain client would drop the answer"


def _cca_breaches(asked: list[Avp], answer: Message) -> Iterator[str]:
    for code in IN_EVERY_CCA:
        given = next((one.data for one in asked if one.code == code and not one.vendor and len(one.data) == 4), None)
        found = answer.find(code)
        if found is None and (given is not None or code == IN_EVERY_CCA[0]):
            yield f"a CCA must have AVP {code}"
        elif found is not None and given is not None and code != IN_EVERY_CCA[0] and found.data != given:
            yield f"AVP {code} is not that of the request"


def _unknown_to_plain_clients(avps: list[Avp]) -> Iterator[Avp]:
    for one in avps:
        if one.code == FAILED_AVP:
            continue  # holds what the client itself sent
        if one.flags & AvpFlag.MANDATORY and (one.vendor or one.code not in PLAIN_CLIENT_KNOWS):
            yield one
        members = one.value() if one.definition is not None and one.definition.grouped else None
        if isinstance(members, list):
            yield from _unknown_to_plain_clients(members)


def _readable(request: bytes) -> list[Avp]:
    """The top-level AVPs of a request up to the first that cannot be read."""
    found: list[Avp] = []
    at = 20
    while at + 8 <= len(request):
        code, word = struct.unpack(">II", request[at : at + 8])
        length = word & 0xFFFFFF
        start = 12 if word & 0x80000000 else 8
        if length < start or at + length > len(request):
            break
        vendor = int.from_bytes(request[at + 8 : at + 12], "big") if start == 12 else 0
        if start == 12 and not vendor:
            break
        found.append(Avp(code, vendor, word >> 24, request[at + start : at + length]))
        at += length + 3 & ~3
    return found
