"""Turning a Credit-Control-Request away for a tenth of what reading it costs (RFC 6733 section 7.1.3).

A server that is asked for more than it can do must spend less on a refusal than on a request, or refusing would be
all it does. So what a refusal needs is found without reading the request: its type by the octets of the AVP's header,
and where Session-Id and CC-Request-Number are by the headers of its AVPs, which are compared with those of a request
that was read in full.
"""

from collections.abc import Callable
from struct import Struct
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.answer import encode_answer
from protocols.credit_control.answer_model import CreditControlAnswer
from protocols.credit_control.encoding import header32
from protocols.credit_control.model import CreditControlRequest
from protocols.credit_control.request import decode_request
from protocols.diameter.codes import CCRequestType, Flag, ResultCode

MAX_LENGTHS: Final = 1024
"""Lengths of requests of which layouts are remembered; the first learnt go first."""
LAYOUTS_PER_LENGTH: Final = 4
MAX_LENGTH: Final = 4096
"""Longer requests are read in full to be refused; their layouts would cost memory and seldom recur."""

_HEADER_LENGTH: Final = 20
_TYPE: Final = header32(wire.CC_REQUEST_TYPE)
_KIND_AT: Final = len(_TYPE) + 3
_LAST_TYPE: Final = int(CCRequestType.EVENT)
_PROXIABLE: Final = int(Flag.PROXIABLE)


def request_type(message: bytes) -> int:
    """CC-Request-Type of a Credit-Control-Request; 0 where it is not seen at once, or is none of the four there are.

    Meant for putting requests in order before they are read: a client that hides these octets in another AVP is
    believed, and gains nothing but its place in a queue.
    """
    at = message.find(_TYPE, _HEADER_LENGTH)
    kind = message[at + _KIND_AT] if 0 < at < len(message) - _KIND_AT else 0
    return kind if kind <= _LAST_TYPE else 0


class _Layout:
    """Where things are in the requests of one length, and what the refusal of each has in common."""

    __slots__ = (
        "_middle",
        "_number_at",
        "_number_end",
        "_plain",
        "_proxiable",
        "_session_end",
        "code",
        "expected",
        "headers",
    )

    def __init__(self, message: bytes, spans: list[tuple[int, int, int]], refusal: bytes, code: int) -> None:
        """``spans``: code, offset and end of every AVP at the top. ``refusal``: what the slow way has come to."""
        self.code = code
        self.headers = _headers(spans)
        self.expected = self.headers(message)
        _, _, self._session_end = spans[0]
        _, self._number_at, self._number_end = next(one for one in spans if one[0] == wire.CC_REQUEST_NUMBER)
        size = self._number_end - self._number_at
        self._middle = refusal[self._session_end : -size]
        head = bytearray(refusal[:12])
        head[4] |= _PROXIABLE
        self._proxiable = bytes(head)
        head[4] &= ~_PROXIABLE
        self._plain = bytes(head)

    def refusal(self, message: bytes) -> bytes:
        """For a message whose headers are the expected ones."""
        return b"".join(
            (
                self._proxiable if message[4] & _PROXIABLE else self._plain,
                message[12 : self._session_end],
                self._middle,
                message[self._number_at : self._number_end],
            )
        )


class Refusals:
    """Answers that turn requests away, for one server.

    DIAMETER_TOO_BUSY goes to those who asked for this very server by Destination-Host, as RFC 6733 section 7.1.3 has
    it, and DIAMETER_UNABLE_TO_DELIVER to all others.
    """

    __slots__ = ("_layouts", "_origin")

    def __init__(self, origin: bytes) -> None:
        """``origin``: our Origin-Host and Origin-Realm, encoded."""
        self._origin = origin
        self._layouts: dict[int, list[_Layout]] = {}

    def refusal(self, message: bytes) -> tuple[bytes, int]:
        """The whole answer, and its Result-Code.

        Raises DiameterError for a request that cannot be read, which is to be told that.
        """
        for layout in self._layouts.get(len(message), ()):
            if layout.headers(message) == layout.expected:
                return layout.refusal(message), layout.code
        request = decode_request(message)
        code = refusal_code(request)
        answer = encode_answer(request, CreditControlAnswer(code), self._origin)
        self._learn(message, request, answer, code)
        return answer, code

    def _learn(self, message: bytes, request: CreditControlRequest, answer: bytes, code: int) -> None:
        """Remember the layout, unless the answer has more of the request in it than Session-Id and number."""
        if len(message) > MAX_LENGTH or request.proxy_infos or request.sub_session_id is not None:
            return
        spans = _spans(message)
        first, at, end = spans[0]
        if first != wire.SESSION_ID or answer[at:end] != message[at:end]:
            return  # without the M bit, or padded with something: answered with the same name otherwise written
        layout = _Layout(message, spans, answer, code)
        if layout.refusal(message) != answer:
            return
        of_length = self._layouts.get(len(message))
        if of_length is None:
            if len(self._layouts) >= MAX_LENGTHS:
                self._layouts.pop(next(iter(self._layouts)))
            of_length = self._layouts[len(message)] = []
        of_length.insert(0, layout)
        del of_length[LAYOUTS_PER_LENGTH:]


def refusal_code(request: CreditControlRequest) -> int:
    """RFC 6733 section 7.1.3: TOO_BUSY "MUST only be used when a specific server is requested"."""
    return int(ResultCode.UNABLE_TO_DELIVER if request.destination_host is None else ResultCode.TOO_BUSY)


def _spans(message: bytes) -> list[tuple[int, int, int]]:
    """Code, offset and end (padding included) of every AVP at the top of a message that was found valid."""
    spans = []
    at = _HEADER_LENGTH
    while at < len(message):
        end = at + (int.from_bytes(message[at + 5 : at + 8], "big") + 3 & ~3)
        spans.append((int.from_bytes(message[at : at + 4], "big"), at, end))
        at = end
    return spans


def _headers(spans: list[tuple[int, int, int]]) -> Callable[[bytes], tuple[bytes, ...]]:
    """What takes out of a message all on which its layout depends: its own header but the flags, those of its AVPs.

    CC-Request-Type is taken with its value, which the refusals of a layout have in common.
    """
    parts = [">4sx7s8x"]
    for code, at, end in spans:
        taken = end - at if code == wire.CC_REQUEST_TYPE else 8
        parts.append(f"{taken}s{end - at - taken}x")
    return Struct("".join(parts)).unpack
