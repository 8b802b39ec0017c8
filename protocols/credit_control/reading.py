"""Where the values of units and money are in a message, for the shape builder; used by requests and
answers."""

import dataclasses
from collections.abc import Callable
from typing import Final

from protocols.credit_control import wire
from protocols.credit_control.model import Units
from protocols.diameter.shape import ShapeBuilder
from protocols.diameter.validation import Node

#: How to read one AVP: returns the reference of its value.
Read = Callable[[ShapeBuilder, Node], int]
U32: Final[Read] = ShapeBuilder.unsigned32
U64: Final[Read] = ShapeBuilder.unsigned64
OCTETS: Final[Read] = ShapeBuilder.octets
FIXED: Final[Read] = ShapeBuilder.fixed32

_UNIT_FIELDS: Final = tuple(field.name for field in dataclasses.fields(Units))
# AVP key -> (field, how to read it) in Requested-, Used- and Granted-Service-Unit.
_UNITS: Final[dict[int, tuple[str, Read]]] = {
    wire.CC_TIME: ("time", U32),
    wire.CC_TOTAL_OCTETS: ("total_octets", U64),
    wire.CC_INPUT_OCTETS: ("input_octets", U64),
    wire.CC_OUTPUT_OCTETS: ("output_octets", U64),
    wire.CC_SERVICE_SPECIFIC_UNITS: ("service_specific", U64),
    wire.TARIFF_CHANGE_USAGE: ("tariff_change_usage", FIXED),
    wire.REPORTING_REASON: ("reporting_reason", U32),
}


def units(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``Units`` in a Requested-, Used- or Granted-Service-Unit."""
    found: dict[str, int] = {}
    for member in node[4] or ():
        value = _UNITS.get(member[0])
        if value is not None and value[0] not in found:
            found[value[0]] = value[1](builder, member)
        elif member[0] == wire.CC_MONEY:
            found["money"] = money(builder, member)
    return builder.make(Units, [found.get(name, builder.none) for name in _UNIT_FIELDS])


def money(builder: ShapeBuilder, node: Node) -> int:
    """A reference to the ``Money`` in a CC-Money, Cost-Information or Remaining-Balance."""
    digits = exponent = currency = builder.none
    for member in node[4] or ():
        if member[0] == wire.CURRENCY_CODE:
            currency = builder.unsigned32(member)
        elif member[0] == wire.UNIT_VALUE:
            for one in member[4] or ():
                if one[0] == wire.VALUE_DIGITS:
                    digits = builder.field(one[2], 8, "q")
                elif one[0] == wire.EXPONENT:
                    exponent = builder.field(one[2], 4, "i")
    if exponent == builder.none:
        # "The absence of the exponent part MUST be interpreted as an exponent equal to zero" (section 8.8).
        exponent = builder.constant(0)
    return builder.make(None, (digits, exponent, currency))
