"""Message shapes: reading the hundredth message of a kind at the price of one unpack and one comparison.

Real peers send a handful of message layouts over and over: the same AVPs, flags and lengths in the same
order, with other numbers and names in them. The first message of a layout is walked and validated in full
(``protocols.diameter.validation``), and what that walk found is kept as a ``Shape``:

- a *mask* over every octet that the validation looked at (message header, all AVP headers, and the values that
  validation bounds), with the octets expected there, both as one big integer;
- one ``struct.Struct`` that picks out the wanted values and skips the rest;
- a *plan* that assembles the typed message from those values (``protocols.diameter.assembly``).

The next message that agrees with a shape under its mask would pass the same validation, since the mask
covers all that validation depends on; so one ``&`` and one ``==`` replace it.

To make an integer of a whole message is most of that. So once a second message agrees, the shape gets a *cut*: one
``Struct`` that yields by turns the octets between wanted values, which are joined and compared as they are, and the
values. Values that a client seldom varies (its name, what it is set to ask for, what nobody reads) and padding are
compared with them as long as they have been the same in every message; whatever is made of such values alone is made
once, so **parts of a message that was read are shared and must not be changed**. A message that is not as the cut has
it goes by the mask, and what differs is left out of the cut from then on.

Plans are the only code that assembles a typed message, also for the message that the shape was learnt from, so all
ways give the same.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from struct import Struct, unpack_from
from typing import Any, Final, Generic, TypeVar

from protocols.diameter.assembly import Call, Plan, moment
from protocols.diameter.codes import Flag
from protocols.diameter.dictionary import DICTIONARY
from protocols.diameter.validation import HEADER_LENGTH, Node

T = TypeVar("T")

#: Shapes kept per cache, of which the first learnt go first, and per length, of which the least recently used do.
MAX_SHAPES: Final[int] = 1024
MAX_SHAPES_PER_LENGTH: Final[int] = 32
#: Octets of the messages that the shapes of a cache were learnt from: a shape takes up to 330 times as many.
MAX_LEARNT_OCTETS: Final[int] = 1 << 19
#: Shapes whose cut is tried before all of the length are gone through by their masks.
MAX_CUTS_TRIED: Final[int] = 4
#: Longer messages are read by the general way each time; their shapes would cost memory and seldom recur.
MAX_LEARNT_LENGTH: Final[int] = 4096

_AUTH_APPLICATION_ID: Final[int] = 258
_FLAGS_AT: Final[int] = 4
# References to constants and to assembled objects, until their place among the values is known.
_CONSTANT: Final[int] = 1 << 24
_MADE: Final[int] = 1 << 25

# A cut's unpack yields octets to be compared and fields by turns.
_COMPARED: Final = slice(0, None, 2)
_NO_FIELD: Final = -1


class _Cut(Generic[T]):
    """A shape with some values that seldom vary under its mask: those octets are compared as they come out of one
    unpack, with the values, and nothing is made of them.
    """

    __slots__ = ("_expected", "_plan", "_unpack")

    def __init__(self, unpack: Callable[[bytes], tuple[Any, ...]], expected: bytes, plan: Plan[T]) -> None:
        """``unpack`` yields octets to be compared and fields by turns."""
        self._unpack = unpack
        self._expected = expected
        self._plan = plan

    def read(self, buffer: bytes) -> T | None:
        """The typed message in ``buffer``, which is as long as those of the shape; None: it may be another's."""
        fields = self._unpack(buffer)
        return self._plan.make(fields) if b"".join(fields[_COMPARED]) == self._expected else None


class Shape(Generic[T]):
    """One learnt layout; see the module's docstring."""

    __slots__ = (
        "_builder",
        "_final",
        "_is_refined",
        "_plan",
        "_references",
        "_steady",
        "_unpack",
        "cut",
        "expected",
        "length",
        "mask",
    )

    def __init__(self, builder: "ShapeBuilder", final: Callable[..., T], references: Sequence[int]) -> None:
        self.length = len(builder.buffer)
        self.mask = int.from_bytes(builder.mask, "big")
        self.expected = int.from_bytes(builder.buffer, "big") & self.mask
        self._builder = builder
        self._final = final
        self._references = tuple(references)
        layout, order = builder.layout()
        self._unpack = Struct(layout).unpack
        self._plan = self._planned(order, {}, self._unpack(builder.buffer))
        self._steady = builder.steady_spans()
        self._is_refined = False
        self.cut: _Cut[T] | None = None

    def apply(self, buffer: bytes) -> T:
        """The typed message in ``buffer``, which agrees with this shape."""
        return self._plan.make(self._unpack(buffer))

    def refine(self, buffer: bytes) -> None:
        """Take note of a message that agrees with this shape, and not with its cut: what differs is not steady."""
        builder = self._builder
        if buffer[_FLAGS_AT] != builder.mask[_FLAGS_AT] & buffer[_FLAGS_AT]:
            return  # sent again, which is seldom
        first = builder.buffer
        steady = [(start, stop) for start, stop in self._steady if buffer[start:stop] == first[start:stop]]
        if self._is_refined and len(steady) == len(self._steady):
            return  # it cannot be cut
        self._is_refined = True
        self._steady = steady
        found = builder.cut_layout(buffer, steady)
        if found is not None:
            layout, order, known = found
            unpack = Struct(layout).unpack
            fields = unpack(buffer)
            self.cut = _Cut(unpack, b"".join(fields[_COMPARED]), self._planned(order, known, fields))

    def _planned(self, order: Sequence[int], known: Mapping[int, Any], first: tuple[Any, ...]) -> Plan[T]:
        builder = self._builder
        steps = [(_MADE + index, call, wanted) for index, (call, wanted) in enumerate(builder.steps)]
        constants = {_CONSTANT + index: value for index, value in enumerate(builder.constants)}
        return Plan(steps, self._final, self._references, order, {**known, **constants}, first)


class ShapeBuilder:
    """Collects what a shape needs while the nodes of one validated message are read.

    Every method that adds a value returns a reference to it, for use in ``make`` and in the final call.
    """

    __slots__ = ("_fields", "_spans", "_steady", "buffer", "constants", "mask", "none", "steps")

    def __init__(self, buffer: bytes, nodes: list[Node]) -> None:
        self.buffer = buffer
        self.mask = bytearray(len(buffer))
        self.constants: list[Any] = [None]
        self.none = _CONSTANT
        self.steps: list[tuple[Call, Sequence[int]]] = []
        self._fields: list[tuple[int, int, str]] = []
        self._steady: set[int] = set()
        self._spans: list[tuple[int, int]] = []
        self.mask[0:HEADER_LENGTH] = b"\xff" * 12 + bytes(8)
        # T may come and go with any message, and reserved bits are ignored (RFC 6733 section 3).
        self.mask[_FLAGS_AT] = Flag.REQUEST | Flag.PROXIABLE | Flag.ERROR
        self._mask_nodes(nodes)

    def field(self, start: int, size: int, kind: str) -> int:
        """A value of ``size`` octets at ``start``, unpacked as struct format ``kind``. Must not overlap others."""
        self._fields.append((start, size, kind))
        return len(self._fields) - 1

    def unsigned32(self, node: Node) -> int:
        return self.field(node[2], 4, "I")

    def unsigned64(self, node: Node) -> int:
        return self.field(node[2], 8, "Q")

    def steady(self, reference: int) -> int:
        """Say that a value is the same in most messages of a client, as its name is; returns the reference."""
        if reference < _CONSTANT:
            self._steady.add(reference)
        return reference

    def octets(self, node: Node) -> int:
        """The data of an AVP as bytes."""
        size = node[3] - node[2]
        return self.field(node[2], size, f"{size}s")

    def whole(self, node: Node) -> int:
        """An AVP with its header and padding as bytes."""
        size = (node[3] + 3 & ~3) - node[1]
        return self.field(node[1], size, f"{size}s")

    def constant(self, value: object) -> int:
        """A value that is the same in every message of this shape."""
        self.constants.append(value)
        return _CONSTANT + len(self.constants) - 1

    def fixed32(self, node: Node) -> int:
        """An Unsigned32 or Enumerated that becomes part of the shape: masked, and read once."""
        self.mask[node[2] : node[3]] = b"\xff" * (node[3] - node[2])
        return self.constant(int.from_bytes(self.buffer[node[2] : node[3]], "big"))

    def make(self, call: Call, references: Sequence[int]) -> int:
        """Assemble an object: ``call(*values)`` of at least one, or their tuple if ``call`` is None."""
        self.steps.append((call, references))
        return _MADE + len(self.steps) - 1

    def tuple_of(self, references: Sequence[int]) -> int:
        """A tuple of any number of values."""
        if not references:
            return self.constant(())
        return self.make(None, references)

    def moment(self, node: Node) -> int:
        """The Unix seconds of a Time."""
        return self.make(moment, (self.field(node[2], 4, "i"),))

    def layout(self) -> tuple[str, list[int]]:
        """The struct format for the whole message, and the fields in the order it yields them."""
        order = sorted(range(len(self._fields)), key=self._start)
        parts = [">"]
        position = 0
        for index in order:
            start, size, kind = self._fields[index]
            if start > position:
                parts.append(f"{start - position}x")
            parts.append(kind)
            position = start + size
        if position < len(self.buffer):
            parts.append(f"{len(self.buffer) - position}x")
        return "".join(parts), order

    def steady_spans(self) -> list[tuple[int, int]]:
        """Start and end of the octets outside the mask that may be the same in many messages: steady values, values
        that nobody wants, and padding.
        """
        varies = bytearray(len(self.buffer))
        for index, (start, size, _) in enumerate(self._fields):
            if index not in self._steady:
                varies[start : start + size] = b"\xff" * size
        return [(start, stop) for start, stop in self._spans if not any(varies[start:stop])]

    def cut_layout(
        self, buffer: bytes, steady: Sequence[tuple[int, int]]
    ) -> tuple[str, list[int], dict[int, object]] | None:
        """How to read messages with the same octets in ``steady`` as ``buffer``, beside those under the mask.

        The struct format, which yields octets to be compared and fields by turns; the fields in that order,
        ``_NO_FIELD`` for what stands in where there is none; the fields that are known, with their values. None if a
        field has octets that are to be compared.
        """
        compared = bytearray(self.mask)
        compared[_FLAGS_AT] = 0xFF
        for start, stop in steady:
            compared[start:stop] = b"\xff" * (stop - start)
        known: dict[int, object] = {}
        begins: dict[int, int] = {}
        for index, (start, size, kind) in enumerate(self._fields):
            if all(compared[start : start + size]):
                known[index] = unpack_from(f">{kind}", buffer, start)[0]
            elif any(compared[start : start + size]):
                return None
            else:
                begins[start] = index
        parts = [">"]
        order: list[int] = []
        position = 0
        yields_field = False
        while position < len(compared):
            end = position + 1
            if compared[position]:
                while end < len(compared) and compared[end]:
                    end += 1
                if yields_field:
                    parts.append("0s")
                    order.append(_NO_FIELD)
                parts.append(f"{end - position}s")
                order.append(_NO_FIELD)
                yields_field = True
            elif position in begins:
                index = begins[position]
                _, size, kind = self._fields[index]
                end = position + size
                if not yields_field:
                    parts.append("0s")
                    order.append(_NO_FIELD)
                parts.append(kind)
                order.append(index)
                yields_field = False
            else:
                parts.append("x")
            position = end
        return "".join(parts), order, known

    def _start(self, index: int) -> tuple[int, int]:
        # An empty octet string starts where the next field does; it must come first.
        return self._fields[index][:2]

    def _mask_nodes(self, nodes: list[Node]) -> None:
        """Put every AVP header under the mask, and the values whose validity depends on their octets."""
        mask = self.mask
        by_key = DICTIONARY.by_key
        for key, header, start, stop, members in nodes:
            mask[header:start] = b"\xff" * (start - header)
            if stop & 3:
                self._spans.append((stop, stop + 3 & ~3))
            if members is not None:
                self._mask_nodes(members)
            elif key == _AUTH_APPLICATION_ID:
                mask[start:stop] = b"\xff" * (stop - start)
            else:
                definition = by_key.get(key)
                if definition is not None and definition.closed:
                    mask[start:stop] = b"\xff" * (stop - start)
                else:
                    self._spans.append((start, stop))


class ShapeCache(Generic[T]):
    """A bounded number of shapes and the reading of messages through them.

    ``learn`` validates a message in full and returns its shape, or raises DiameterError.
    """

    __slots__ = ("_ages", "_by_length", "_learn", "_octets")

    def __init__(self, learn: Callable[[bytes], Shape[T]]) -> None:
        self._learn = learn
        self._octets = 0
        self._by_length: dict[int, list[Shape[T]]] = {}
        self._ages: deque[Shape[T]] = deque()

    def read(self, buffer: bytes) -> T:
        """The typed message in ``buffer``. Raises DiameterError if it is not valid; then nothing is kept."""
        shapes = self._by_length.get(len(buffer))
        if shapes is not None:
            for index, shape in enumerate(shapes):
                if index == MAX_CUTS_TRIED:
                    break
                cut = shape.cut
                if cut is not None:
                    message = cut.read(buffer)
                    if message is not None:
                        return message
            number = int.from_bytes(buffer, "big")
            for index, shape in enumerate(shapes):
                if number & shape.mask == shape.expected:
                    if index:
                        del shapes[index]
                        shapes.insert(0, shape)
                    shape.refine(buffer)
                    return shape.apply(buffer)
        shape = self._learn(buffer)
        message = shape.apply(buffer)
        self._keep(shape)
        return message

    def __len__(self) -> int:
        return len(self._ages)

    def _keep(self, shape: Shape[T]) -> None:
        if shape.length > MAX_LEARNT_LENGTH:
            return
        same_length = self._by_length.setdefault(shape.length, [])
        if len(same_length) >= MAX_SHAPES_PER_LENGTH:
            self._ages.remove(same_length.pop())
            self._octets -= shape.length
        while len(self._ages) >= MAX_SHAPES or self._octets + shape.length > MAX_LEARNT_OCTETS:
            oldest = self._ages.popleft()
            self._octets -= oldest.length
            siblings = self._by_length[oldest.length]
            siblings.remove(oldest)
            if not siblings and siblings is not same_length:
                del self._by_length[oldest.length]
        same_length.insert(0, shape)
        self._ages.append(shape)
        self._octets += shape.length
