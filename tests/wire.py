"""A Diameter connection as a test holds it: a blocking socket, whole messages in and out, a bounded patience.

Nothing is checked and nothing is answered by itself: the tests see every octet. All that passed is kept in
``sent`` and ``received`` for those who dissect it afterwards.
"""

import itertools
import socket
import struct
from types import TracebackType

from protocols.diameter import codec
from protocols.diameter.codec import Message, avp
from protocols.diameter.codes import Application, Command, Flag

PATIENCE_S = 10.0

_numbers = itertools.count(1)


class ClosedError(Exception):
    """The other side closed or reset the connection."""


def next_number() -> int:
    """A number for a Hop-by-Hop or End-to-End Identifier that no message of this process has had."""
    return 0x40000000 + next(_numbers)


class Connection:
    """One TCP connection with a Diameter node."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = bytearray()
        sock.settimeout(PATIENCE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sent: list[bytes] = []
        self.received: list[bytes] = []

    @classmethod
    def to(cls, port: int, host: str = "127.0.0.1") -> "Connection":
        return cls(socket.create_connection((host, port), timeout=PATIENCE_S))

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, octets: bytes) -> None:
        """Send octets as they are. Raises ClosedError if nobody takes them any more."""
        self.sent.append(octets)
        try:
            self._socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ClosedError(str(error)) from error

    def receive(self, patience_s: float = PATIENCE_S) -> bytes:
        """The next whole message. Raises ClosedError, or TimeoutError when nothing comes."""
        self._socket.settimeout(patience_s)
        while True:
            if len(self._buffer) >= codec.HEADER_LENGTH:
                length = int.from_bytes(self._buffer[1:4], "big")
                if len(self._buffer) >= length:
                    message = bytes(self._buffer[:length])
                    del self._buffer[:length]
                    self.received.append(message)
                    return message
            try:
                data = self._socket.recv(65536)
            except ConnectionResetError as error:
                raise ClosedError(str(error)) from error
            if not data:
                raise ClosedError("the other side closed the connection")
            self._buffer += data

    def ask(self, request: bytes) -> Message:
        """Send one request and read what comes next as its answer."""
        self.send(request)
        answer = codec.decode(self.receive())
        expected = struct.unpack(">I", request[12:16])[0]
        assert answer.hop_by_hop == expected, f"the answer has Hop-by-Hop Identifier {answer.hop_by_hop:#x}"
        return answer

    def exchange_capabilities(self, origin_host: str, origin_realm: str = "ocs.example.net") -> Message:
        """CER and CEA."""
        return self.ask(capabilities_request(origin_host, origin_realm))


def capabilities_request(origin_host: str, origin_realm: str = "ocs.example.net") -> bytes:
    """CER of a plain credit-control client (RFC 6733 section 5.3.1)."""
    return codec.build(
        Command.CAPABILITIES_EXCHANGE,
        Application.BASE,
        Flag.REQUEST,
        next_number(),
        next_number(),
        [
            avp("Origin-Host", origin_host),
            avp("Origin-Realm", origin_realm),
            avp("Host-IP-Address", "127.0.0.1"),
            avp("Vendor-Id", 0),
            avp("Product-Name", "test"),
            avp("Auth-Application-Id", Application.CREDIT_CONTROL),
        ],
    )
