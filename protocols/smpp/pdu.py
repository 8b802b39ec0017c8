"""SMPP 3.4 protocol data units, bytes <-> values: what an ESME that submits and takes receipts needs.

Sources: SMPP Protocol Specification v3.4, Issue 1.2: sections 3.2 (layout), 4 (operations), 5.1.3 (statuses), 5.2.12
(esm_class), 5.3 (optional parameters), appendix B (delivery receipts).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from struct import Struct
from typing import Final

GENERIC_NACK: Final = 0x80000000
BIND_TRANSCEIVER: Final = 0x00000009
SUBMIT_SM: Final = 0x00000004
DELIVER_SM: Final = 0x00000005
UNBIND: Final = 0x00000006
ENQUIRE_LINK: Final = 0x00000015
RESPONSE: Final = 0x80000000
"""Set in the command_id of a response."""

VERSION: Final = 0x34
HEADER_OCTETS: Final = 16
LARGEST_PDU: Final = 65_536 + 1024
"""A message_payload of 64 KiB and what goes with it; the specification has no bound."""

ESME_ROK: Final = 0x00
ESME_RINVCMDID: Final = 0x03
ESME_RINVBNDSTS: Final = 0x04
ESME_RTHROTTLED: Final = 0x58
ESME_RMSGQFUL: Final = 0x14
ESME_RX_T_APPN: Final = 0x64

STATUS_NAMES: Final = {
    0x01: "message length is invalid", 0x02: "command length is invalid", 0x03: "invalid command",
    0x04: "not allowed in this bind state", 0x05: "already bound", 0x06: "invalid priority flag",
    0x07: "invalid registered delivery flag", 0x08: "system error", 0x0A: "invalid source address",
    0x0B: "invalid destination address", 0x0C: "message ID is invalid", 0x0D: "bind failed",
    0x0E: "invalid password", 0x0F: "invalid system ID", 0x14: "message queue full", 0x15: "invalid service type",
    0x33: "invalid number of destinations", 0x43: "invalid esm_class", 0x45: "submission failed",
    0x48: "invalid source TON", 0x49: "invalid source NPI", 0x50: "invalid destination TON",
    0x51: "invalid destination NPI", 0x53: "invalid system type", 0x58: "throttled", 0x61: "invalid schedule",
    0x62: "invalid validity period", 0x64: "receiver: temporary error", 0x65: "receiver: permanent error",
    0x66: "receiver: message rejected", 0xFE: "delivery failed", 0xFF: "unknown error",
}  # fmt: skip
"""Section 5.1.3."""

TON_INTERNATIONAL: Final = 1
TON_ALPHANUMERIC: Final = 5
TON_UNKNOWN: Final = 0
NPI_E164: Final = 1
NPI_UNKNOWN: Final = 0

DATA_DEFAULT: Final = 0x00
"""data_coding: the message centre's default alphabet, GSM 7-bit."""
DATA_UCS2: Final = 0x08
ESM_UDHI: Final = 0x40
ESM_RECEIPT: Final = 0x04
_ESM_TYPE: Final = 0x3C
RECEIPT_ALWAYS: Final = 0x01
"""registered_delivery: a receipt for success and failure."""

TLV_RECEIPTED_MESSAGE_ID: Final = 0x001E
TLV_MESSAGE_STATE: Final = 0x0427
TLV_MESSAGE_PAYLOAD: Final = 0x0424

_HEADER: Final = Struct(">IIII")
_TLV: Final = Struct(">HH")

DELIVERED: Final = "DELIVRD"
UNDER_WAY: Final = frozenset({"ENROUTE", "ACCEPTD", "SCHEDULED"})
_STATES: Final = {
    0: "SCHEDULED", 1: "ENROUTE", 2: DELIVERED, 3: "EXPIRED", 4: "DELETED", 5: "UNDELIV", 6: "ACCEPTD", 7: "UNKNOWN",
    8: "REJECTD", 9: "SKIPPED",
}  # fmt: skip
"""message_state as the text of a receipt names it (section 5.2.28)."""

_RECEIPT_ID: Final = re.compile(r"\bid:\s*(\S+)")
_RECEIPT_STATE: Final = re.compile(r"\bstat:\s*(\S+)")


class SmppError(Exception):
    """What a message centre sent is no SMPP 3.4, or a value does not fit into a PDU."""


@dataclass(frozen=True, slots=True)
class Pdu:
    """One protocol data unit; ``body`` is what follows the header."""

    command_id: int
    status: int
    sequence: int
    body: bytes = b""

    def encode(self) -> bytes:
        return _HEADER.pack(HEADER_OCTETS + len(self.body), self.command_id, self.status, self.sequence) + self.body

    @property
    def is_response(self) -> bool:
        return bool(self.command_id & RESPONSE)


def pdu_length(octets: bytes) -> int:
    """The length that the first 4 octets announce. Raises SmppError."""
    length = int.from_bytes(octets[:4], "big")
    if not HEADER_OCTETS <= length <= LARGEST_PDU:
        raise SmppError(f"a PDU of {length} octets cannot be")
    return length


def decode(octets: bytes) -> Pdu:
    """One whole PDU. Raises SmppError."""
    if len(octets) < HEADER_OCTETS or len(octets) != pdu_length(octets):
        raise SmppError("the length of a PDU is not that of its octets")
    _, command_id, status, sequence = _HEADER.unpack_from(octets)
    return Pdu(command_id, status, sequence, octets[HEADER_OCTETS:])


def status_text(status: int) -> str:
    return f"{STATUS_NAMES.get(status, 'an error of its own')} (0x{status:08X})"


def c_octet_string(value: str, size: int, name: str) -> bytes:
    """With its NUL; ``size`` counts that. Raises SmppError."""
    try:
        octets = value.encode("ascii")
    except UnicodeEncodeError:
        raise SmppError(f"{name} must be ASCII") from None
    if len(octets) >= size or 0 in octets:
        raise SmppError(f"{name} can have {size - 1} octets at most, not {len(octets)}")
    return octets + b"\0"


# -- operations --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bind:
    """bind_transceiver, section 4.1.5."""

    system_id: str
    password: str = field(repr=False)
    system_type: str = ""

    def body(self) -> bytes:
        """Raises SmppError."""
        return b"".join(
            (
                c_octet_string(self.system_id, 16, "system_id"),
                c_octet_string(self.password, 9, "password"),
                c_octet_string(self.system_type, 13, "system_type"),
                bytes((VERSION, TON_UNKNOWN, NPI_UNKNOWN)),
                b"\0",  # address_range
            )
        )


@dataclass(frozen=True, slots=True)
class Address:
    """An address with type of number and numbering plan (sections 5.2.5, 5.2.6)."""

    digits: str
    ton: int
    npi: int

    @classmethod
    def of(cls, written: str) -> "Address":
        """International numbers with or without "+", short codes of up to 6 digits, names such as "Operator"."""
        number = written.removeprefix("+")
        if not re.fullmatch(r"[0-9]+", number):
            return cls(written, TON_ALPHANUMERIC, NPI_UNKNOWN)
        if len(number) <= 6 and number == written:
            return cls(number, TON_UNKNOWN, NPI_E164)
        return cls(number, TON_INTERNATIONAL, NPI_E164)

    def encode(self, name: str) -> bytes:
        return bytes((self.ton, self.npi)) + c_octet_string(self.digits, 21, name)


@dataclass(frozen=True, slots=True)
class Submit:
    """submit_sm, section 4.4.1: one message of one part."""

    source: Address
    destination: Address
    short_message: bytes
    """Its user data, header included; 254 octets at most."""
    data_coding: int
    has_header: bool = False
    """``short_message`` begins with a user data header (3GPP TS 23.040 clause 9.2.3.24)."""
    registered_delivery: int = RECEIPT_ALWAYS

    def body(self) -> bytes:
        """Raises SmppError."""
        if len(self.short_message) > 254:
            raise SmppError(f"short_message can have 254 octets at most, not {len(self.short_message)}")
        return b"".join(
            (
                b"\0",  # service_type: the default one
                self.source.encode("the source address"),
                self.destination.encode("the destination address"),
                bytes((ESM_UDHI if self.has_header else 0, 0, 0)),  # esm_class, protocol_id, priority_flag
                b"\0\0",  # schedule_delivery_time, validity_period: at once, the message centre's own
                bytes((self.registered_delivery, 0, self.data_coding, 0, len(self.short_message))),
                self.short_message,
            )
        )


def message_id_of(pdu: Pdu) -> str:
    """message_id of a submit_sm_resp (section 4.4.2); the body of one with an error may be missing."""
    return pdu.body.split(b"\0", 1)[0].decode("ascii", "replace")


@dataclass(frozen=True, slots=True)
class Deliver:
    """deliver_sm, section 4.6.1: a message for us, or a receipt."""

    source: str
    destination: str
    esm_class: int
    data_coding: int
    short_message: bytes
    parameters: Mapping[int, bytes]

    @property
    def receipt(self) -> "Receipt | None":
        """What it says of a message that was submitted; None: it is no receipt, or does not say of which."""
        if self.esm_class & _ESM_TYPE != ESM_RECEIPT:
            return None
        text = self.short_message.decode("latin-1")
        named, stated = _RECEIPT_ID.search(text), _RECEIPT_STATE.search(text)
        message_id = self.parameters.get(TLV_RECEIPTED_MESSAGE_ID, b"").split(b"\0", 1)[0].decode("ascii", "replace")
        state = self.parameters.get(TLV_MESSAGE_STATE, b"")
        found = message_id or (named.group(1) if named else "")
        if not found:
            return None
        if len(state) == 1:
            return Receipt(found, _STATES.get(state[0], "UNKNOWN"))
        return Receipt(found, stated.group(1).upper()[:7] if stated else "UNKNOWN")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What has become of a message (appendix B)."""

    message_id: str
    state: str
    """DELIVRD, EXPIRED, DELETED, UNDELIV, ACCEPTD, UNKNOWN, REJECTD, ENROUTE."""

    @property
    def final(self) -> bool:
        return self.state not in UNDER_WAY

    @property
    def delivered(self) -> bool:
        return self.state == DELIVERED


class _Reader:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, count: int) -> bytes:
        if self._at + count > len(self._octets):
            raise SmppError("a PDU ends within a field")
        self._at += count
        return self._octets[self._at - count : self._at]

    def octet(self) -> int:
        return self.take(1)[0]

    def text(self) -> str:
        end = self._octets.find(b"\0", self._at)
        if end < 0:
            raise SmppError("a text in a PDU has no end")
        return self.take(end + 1 - self._at)[:-1].decode("ascii", "replace")

    def parameters(self) -> dict[int, bytes]:
        """The optional parameters, to the end (section 3.2.4)."""
        found: dict[int, bytes] = {}
        while self._at < len(self._octets):
            tag, length = _TLV.unpack(self.take(_TLV.size))
            found[tag] = self.take(length)
        return found


def read_deliver(body: bytes) -> Deliver:
    """The body of a deliver_sm. Raises SmppError."""
    reader = _Reader(body)
    reader.text()  # service_type
    reader.take(2)
    source = reader.text()
    reader.take(2)
    destination = reader.text()
    esm_class = reader.octet()
    reader.take(2)  # protocol_id, priority_flag
    reader.text()  # schedule_delivery_time
    reader.text()  # validity_period
    reader.take(2)  # registered_delivery, replace_if_present_flag
    data_coding = reader.octet()
    reader.take(1)  # sm_default_msg_id
    message = reader.take(reader.octet())
    parameters = reader.parameters()
    payload = parameters.get(TLV_MESSAGE_PAYLOAD, message)
    return Deliver(source, destination, esm_class, data_coding, message or payload, parameters)
