"""AVPs as octets without a dictionary lookup each: headers are constants, lengths known."""

from struct import Struct
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.model import Money, Units, UnitValue
from protocols.diameter.codec import diameter_time
from protocols.diameter.codes import VENDOR_3GPP

PADDING: Final = (b"", b"\x00\x00\x00", b"\x00\x00", b"\x00")

_MANDATORY: Final[int] = 0x40000000
_VENDOR: Final[int] = 0x80000000
_HEADER: Final = Struct(">II").pack
_VENDOR_HEADER: Final = Struct(">III").pack
_U32: Final = Struct(">III").pack
_U64: Final = Struct(">IIQ").pack
_HEADER_U32: Final = Struct(">8sI").pack
_HEADER_U64: Final = Struct(">8sQ").pack
_I32: Final = Struct(">IIi").pack
_I64: Final = Struct(">IIq").pack
_TGPP_U32: Final = Struct(">IIII").pack
_LENGTH_32: Final[int] = _MANDATORY | 12
_LENGTH_64: Final[int] = _MANDATORY | 16
_TGPP_LENGTH_32: Final[int] = _VENDOR | 16
_CODE_MASK: Final[int] = 0xFFFFFFFF


def header32(code: int) -> bytes:
    """The header of an IETF Unsigned32, Enumerated or Time with the M bit."""
    return _HEADER(code, _LENGTH_32)


def unsigned32(code: int, value: int) -> bytes:
    """An IETF Unsigned32 or Enumerated with the M bit. Raises struct.error beyond 32 bits."""
    return _U32(code, _LENGTH_32, value)


def unsigned64(code: int, value: int) -> bytes:
    """An IETF Unsigned64 with the M bit."""
    return _U64(code, _LENGTH_64, value)


def octets(code: int, data: bytes) -> bytes:
    """An IETF AVP of variable length with the M bit, padded."""
    size = len(data)
    return _HEADER(code, _MANDATORY | size + 8) + data + PADDING[size & 3]


def group(code: int, members: bytes) -> bytes:
    """An IETF Grouped AVP with the M bit."""
    return _HEADER(code, _MANDATORY | len(members) + 8) + members


def optional32(code: int, value: int) -> bytes:
    """An IETF Unsigned32 or Enumerated without the M bit."""
    return _U32(code, 12, value)


def optional_octets(code: int, data: bytes) -> bytes:
    """An IETF AVP of variable length without the M bit, padded."""
    size = len(data)
    return _HEADER(code, size + 8) + data + PADDING[size & 3]


def optional_group(code: int, members: bytes) -> bytes:
    """An IETF Grouped AVP without the M bit."""
    return _HEADER(code, len(members) + 8) + members


def time(code: int, unix_seconds: int) -> bytes:
    """An IETF Time with the M bit, of Unix seconds (RFC 6733 section 4.3.1)."""
    return _U32(code, _LENGTH_32, diameter_time(unix_seconds))


def tgpp_unsigned32(key: int, value: int) -> bytes:
    """A 3GPP Unsigned32 or Enumerated without the M bit: a plain credit-control peer may not know it."""
    return _TGPP_U32(key & _CODE_MASK, _TGPP_LENGTH_32, VENDOR_3GPP, value)


def tgpp_octets(key: int, data: bytes) -> bytes:
    """A 3GPP AVP of variable length without the M bit, padded."""
    size = len(data)
    return _VENDOR_HEADER(key & _CODE_MASK, _VENDOR | size + 12, VENDOR_3GPP) + data + PADDING[size & 3]


def tgpp_mandatory_octets(key: int, data: bytes) -> bytes:
    """A 3GPP AVP of variable length with the M bit, padded."""
    size = len(data)
    return _VENDOR_HEADER(key & _CODE_MASK, _MANDATORY | _VENDOR | size + 12, VENDOR_3GPP) + data + PADDING[size & 3]


def tgpp_mandatory32(key: int, value: int) -> bytes:
    """A 3GPP Unsigned32 or Enumerated with the M bit, as TS 32.299 has it: for requests."""
    return _TGPP_U32(key & _CODE_MASK, _MANDATORY | _TGPP_LENGTH_32, VENDOR_3GPP, value)


def tgpp_mandatory_group(key: int, members: bytes) -> bytes:
    """A 3GPP Grouped AVP with the M bit."""
    return _VENDOR_HEADER(key & _CODE_MASK, _MANDATORY | _VENDOR | len(members) + 12, VENDOR_3GPP) + members


def tgpp_group(key: int, members: bytes) -> bytes:
    """A 3GPP Grouped AVP without the M bit."""
    return _VENDOR_HEADER(key & _CODE_MASK, _VENDOR | len(members) + 12, VENDOR_3GPP) + members


_CC_TIME: Final[bytes] = header32(wire.CC_TIME)
_CC_TOTAL_OCTETS: Final[bytes] = _HEADER(wire.CC_TOTAL_OCTETS, _LENGTH_64)


def units(code: int, amount: Units) -> bytes:
    """Granted-, Requested- or Used-Service-Unit, whichever ``code`` says."""
    return group(code, unit_members(amount))


def unit_members(amount: Units) -> bytes:
    """The members of Granted-, Requested- and Used-Service-Unit."""
    members = b""
    if amount.tariff_time_change is not None:
        members = time(wire.TARIFF_TIME_CHANGE, amount.tariff_time_change)
    if amount.tariff_change_usage is not None:
        members += _U32(wire.TARIFF_CHANGE_USAGE, _LENGTH_32, amount.tariff_change_usage)
    if amount.time is not None:
        members += _HEADER_U32(_CC_TIME, amount.time)
    if amount.money is not None:
        members += group(wire.CC_MONEY, money(amount.money))
    if amount.total_octets is not None:
        members += _HEADER_U64(_CC_TOTAL_OCTETS, amount.total_octets)
    if amount.input_octets is not None:
        members += _U64(wire.CC_INPUT_OCTETS, _LENGTH_64, amount.input_octets)
    if amount.output_octets is not None:
        members += _U64(wire.CC_OUTPUT_OCTETS, _LENGTH_64, amount.output_octets)
    if amount.service_specific is not None:
        members += _U64(wire.CC_SERVICE_SPECIFIC_UNITS, _LENGTH_64, amount.service_specific)
    if amount.reporting_reason is not None:
        members += tgpp_mandatory32(wire.REPORTING_REASON, amount.reporting_reason)
    return members


def money(amount: Money) -> bytes:
    """The members of CC-Money, Cost-Information and Remaining-Balance: Unit-Value and Currency-Code."""
    value_digits, exponent, currency = amount
    members = group(wire.UNIT_VALUE, unit_value((value_digits, exponent)))
    if currency is not None:
        members += _U32(wire.CURRENCY_CODE, _LENGTH_32, currency)
    return members


def unit_value(value: UnitValue) -> bytes:
    """The members of Unit-Value and of 3GPP's groups like it: Value-Digits and, unless zero, Exponent."""
    value_digits, exponent = value
    members = _I64(wire.VALUE_DIGITS, _LENGTH_64, value_digits)
    if exponent:
        members += _I32(wire.EXPONENT, _LENGTH_32, exponent)
    return members
