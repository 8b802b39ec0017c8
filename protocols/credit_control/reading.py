"""Where the values of units, money, final units and costs are in a message, for the shape builder; used by requests
and answers."""

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, Final

from protocols.credit_control import wire
from protocols.credit_control.answer_model import AdviceOfCharge, PoolReference, RateElement, Tariff
from protocols.credit_control.model import Units
from protocols.diameter.codes import RedirectAddressType
from protocols.diameter.shape import ShapeBuilder
from protocols.diameter.validation import Node

#: How to read one AVP: returns the reference of its value.
Read = Callable[[ShapeBuilder, Node], int]
U32: Final[Read] = ShapeBuilder.unsigned32
U64: Final[Read] = ShapeBuilder.unsigned64
OCTETS: Final[Read] = ShapeBuilder.octets
FIXED: Final[Read] = ShapeBuilder.fixed32
MOMENT: Final[Read] = ShapeBuilder.moment


def steady_u32(builder: ShapeBuilder, node: Node) -> int:
    """A reference to an Unsigned32 that a client seldom varies."""
    return builder.steady(builder.unsigned32(node))


def steady_octets(builder: ShapeBuilder, node: Node) -> int:
    """A reference to octets that a client seldom varies."""
    return builder.steady(builder.octets(node))


def defaults_of(model: type[Any]) -> dict[str, Any]:
    """Field -> default value of a dataclass, in order; 0 for a field that has none."""
    return {
        field.name: 0 if field.default is dataclasses.MISSING else field.default for field in dataclasses.fields(model)
    }


def arguments(builder: ShapeBuilder, found: Mapping[str, int], defaults: Mapping[str, Any]) -> list[int]:
    """The references to assemble an object from: those found, and the defaults of the fields before the last found.

    Fields after that are left to their defaults by themselves, so that a field which a message does not have
    costs nothing when it comes last.
    """
    names = list(defaults)
    last = max((names.index(name) for name in found), default=0)
    # A shape assembles from two values or more.
    return [found[name] if name in found else builder.constant(defaults[name]) for name in names[: max(last + 1, 2)]]


_UNIT_DEFAULTS: Final = defaults_of(Units)
# AVP key -> (field, how to read it) in Requested-, Used- and Granted-Service-Unit.
_UNITS: Final[dict[int, tuple[str, Read]]] = {
    wire.CC_TIME: ("time", U32),
    wire.CC_TOTAL_OCTETS: ("total_octets", U64),
    wire.CC_INPUT_OCTETS: ("input_octets", U64),
    wire.CC_OUTPUT_OCTETS: ("output_octets", U64),
    wire.CC_SERVICE_SPECIFIC_UNITS: ("service_specific", U64),
    wire.TARIFF_CHANGE_USAGE: ("tariff_change_usage", FIXED),
    wire.REPORTING_REASON: ("reporting_reason", steady_u32),
    wire.TARIFF_TIME_CHANGE: ("tariff_time_change", MOMENT),
}


def units(builder: ShapeBuilder, node: Node, *, steady: bool = False) -> int:
    """A reference to the ``Units`` in a Requested-, Used- or Granted-Service-Unit."""
    found: dict[str, int] = {}
    for member in node[4] or ():
        value = _UNITS.get(member[0])
        if value is not None:
            read_first(builder, member, value, found)
        elif member[0] == wire.CC_MONEY:
            found["money"] = money(builder, member)
    if steady:
        for reference in found.values():
            builder.steady(reference)
    return builder.make(Units, arguments(builder, found, _UNIT_DEFAULTS))


def requested_units(builder: ShapeBuilder, node: Node) -> int:
    """The same for a Requested-Service-Unit: clients are set to ask for so much, or for nothing in particular."""
    return units(builder, node, steady=True)


def read_first(builder: ShapeBuilder, node: Node, value: tuple[str, Read], found: dict[str, int]) -> None:
    """Note one value, the first if there are several."""
    name, read = value
    if name not in found:
        found[name] = read(builder, node)


def money(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``Money`` in a CC-Money, Cost-Information or Remaining-Balance; without digits to None."""
    digits = exponent = currency = builder.none
    for member in node[4] or ():
        if member[0] == wire.CURRENCY_CODE:
            currency = builder.unsigned32(member)
        elif member[0] == wire.UNIT_VALUE:
            digits, exponent = _digits_and_exponent(builder, member)
    if digits == builder.none:
        return builder.none
    return builder.make(None, (digits, exponent, currency))


def unit_value(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``UnitValue`` in a Unit-Value or one of 3GPP's groups like it."""
    return builder.make(None, _digits_and_exponent(builder, node))


def _digits_and_exponent(builder: ShapeBuilder, node: Node) -> tuple[int, int]:
    digits = exponent = builder.none
    for member in node[4] or ():
        if member[0] == wire.VALUE_DIGITS:
            digits = builder.field(member[2], 8, "q")
        elif member[0] == wire.EXPONENT:
            exponent = builder.field(member[2], 4, "i")
    if exponent == builder.none:
        # "The absence of the exponent part MUST be interpreted as an exponent equal to zero" (section 8.8).
        exponent = builder.constant(0)
    return digits, exponent


def pool_reference(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``PoolReference`` in a G-S-U-Pool-Reference."""
    identifier = unit_type = digits = exponent = builder.none
    for member in node[4] or ():
        if member[0] == wire.G_S_U_POOL_IDENTIFIER:
            identifier = builder.unsigned32(member)
        elif member[0] == wire.CC_UNIT_TYPE:
            unit_type = builder.unsigned32(member)
        elif member[0] == wire.UNIT_VALUE:
            digits, exponent = _digits_and_exponent(builder, member)
    return builder.make(PoolReference, (identifier, unit_type, digits, exponent))


def final_unit_indication(builder: ShapeBuilder, node: Node, found: dict[str, int]) -> None:
    """Note the members of a Final-Unit-Indication, where no QoS-Final-Unit-Indication has said the same."""
    filters: list[int] = []
    rules: list[int] = []
    for member in node[4] or ():
        key = member[0]
        if key == wire.FINAL_UNIT_ACTION:
            read_first(builder, member, ("final_unit_action", FIXED), found)
        elif key == wire.FILTER_ID:
            filters.append(builder.octets(member))
        elif key == wire.RESTRICTION_FILTER_RULE:
            rules.append(builder.octets(member))
        elif key == wire.REDIRECT_SERVER and "redirect_server_address" not in found:
            for one in member[4] or ():
                if one[0] == wire.REDIRECT_ADDRESS_TYPE:
                    found["redirect_address_type"] = builder.fixed32(one)
                elif one[0] == wire.REDIRECT_SERVER_ADDRESS:
                    found["redirect_server_address"] = builder.octets(one)
    if filters:
        found.setdefault("filter_ids", builder.tuple_of(filters))
    if rules:
        found["restriction_rules"] = builder.tuple_of(rules)


def qos_final_unit_indication(builder: ShapeBuilder, node: Node, found: dict[str, int]) -> None:
    """Note the members of a QoS-Final-Unit-Indication; to be read first, as it counts for more (section 5.6.3)."""
    found["qos_final_unit"] = builder.constant(True)
    filters: list[int] = []
    rules: list[int] = []
    for member in node[4] or ():
        key = member[0]
        if key == wire.FINAL_UNIT_ACTION:
            found["final_unit_action"] = builder.fixed32(member)
        elif key == wire.FILTER_ID:
            filters.append(builder.octets(member))
        elif key == wire.FILTER_RULE:
            rules.append(builder.octets(member))
        elif key == wire.REDIRECT_SERVER_EXTENSION:
            for one in member[4] or ():
                _redirect_address(builder, one, found)
    if filters:
        found["filter_ids"] = builder.tuple_of(filters)
    if rules:
        found["filter_rules"] = builder.tuple_of(rules)


def _redirect_address(builder: ShapeBuilder, node: Node, found: dict[str, int]) -> None:
    """The one member of Redirect-Server-Extension, as Redirect-Server would say it."""
    if node[0] == wire.REDIRECT_ADDRESS_URL:
        found["redirect_address_type"] = builder.constant(int(RedirectAddressType.URL))
        found["redirect_server_address"] = builder.octets(node)
    elif node[0] == wire.REDIRECT_ADDRESS_SIP_URI:
        found["redirect_address_type"] = builder.constant(int(RedirectAddressType.SIP_URI))
        found["redirect_server_address"] = builder.octets(node)
    elif node[0] == wire.REDIRECT_ADDRESS_IPADDRESS:
        address = builder.octets(node)
        # An IPv4 address is four octets after its family, an IPv6 address sixteen (RFC 6733 section 4.3.1).
        kind = RedirectAddressType.IPV4_ADDRESS if node[3] - node[2] == 6 else RedirectAddressType.IPV6_ADDRESS
        found["redirect_address_type"] = builder.constant(int(kind))
        found["redirect_server_address"] = builder.make(_address_text, (address, builder.none))


def advice_of_charge(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``AdviceOfCharge`` in an AoC-Information."""
    found: dict[str, int] = {}
    for group in node[4] or ():
        if group[0] in (wire.AOC_COST_INFORMATION, wire.TARIFF_INFORMATION):
            for member in group[4] or ():
                value = _ADVICE.get(member[0])
                if value is not None:
                    read_first(builder, member, value, found)
    return builder.make(AdviceOfCharge, arguments(builder, found, _ADVICE_DEFAULTS))


def _tariff(builder: ShapeBuilder, node: Node) -> int:
    found: dict[str, int] = {}
    elements: list[int] = []
    for member in node[4] or ():
        if member[0] == wire.RATE_ELEMENT:
            elements.append(_rate_element(builder, member))
        elif member[0] == wire.CURRENCY_CODE:
            found["currency"] = builder.unsigned32(member)
    found["rate_elements"] = builder.tuple_of(elements)
    return builder.make(Tariff, arguments(builder, found, _TARIFF_DEFAULTS))


def _rate_element(builder: ShapeBuilder, node: Node) -> int:
    found: dict[str, int] = {}
    for member in node[4] or ():
        value = _RATE_ELEMENT.get(member[0])
        if value is not None:
            read_first(builder, member, value, found)
    return builder.make(RateElement, arguments(builder, found, _RATE_ELEMENT_DEFAULTS))


_ADVICE_DEFAULTS: Final = defaults_of(AdviceOfCharge)
_ADVICE: Final[dict[int, tuple[str, Read]]] = {
    wire.ACCUMULATED_COST: ("accumulated_cost", unit_value),
    wire.INCREMENTAL_COST: ("incremental_cost", unit_value),
    wire.CURRENCY_CODE: ("currency", U32),
    wire.CURRENT_TARIFF: ("current_tariff", _tariff),
    wire.TARIFF_TIME_CHANGE: ("tariff_time_change", MOMENT),
    wire.NEXT_TARIFF: ("next_tariff", _tariff),
}
_TARIFF_DEFAULTS: Final = defaults_of(Tariff)
_RATE_ELEMENT_DEFAULTS: Final = defaults_of(RateElement) | {"unit_cost": (0, 0)}
_RATE_ELEMENT: Final[dict[int, tuple[str, Read]]] = {
    wire.CC_UNIT_TYPE: ("unit_type", U32),
    wire.UNIT_COST: ("unit_cost", unit_value),
    wire.UNIT_VALUE: ("unit_value", unit_value),
    wire.CHARGE_REASON_CODE: ("charge_reason", U32),
}


def _address_text(address: bytes, _: None) -> bytes:
    """The address of an Address as text; the octets after its family if they are no IP address."""
    try:
        return str(ipaddress.ip_address(address[2:])).encode("ascii")
    except ValueError:
        return address[2:]
