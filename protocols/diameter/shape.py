"""Message shapes: reading the hundredth message of a kind at the price of one compare and one unpack.

Real peers send a handful of message layouts over and over: the same AVPs, flags and lengths in the same
order, with other numbers and names in them. The first message of a layout is walked and validated in full
(``protocols.diameter.validation``), and what that walk found is kept as a ``Shape``:

- a *mask* over every octet that the validation looked at (message header, all AVP headers, and the values that
  validation bounds), with the octets expected there, both as one big integer;
- one ``struct.Struct`` that picks out the wanted values and skips the rest;
- a *plan* that assembles the typed message from those values.

The next message that agrees with a shape under its mask would pass the same validation, since the mask
covers all that validation depends on; so one ``&`` and one ``==`` replace it. ``Shape.apply`` is the only
code that assembles a typed message, also for the message that the shape was learnt from, so both ways give
the same.
"""

from collections import deque
from collections.abc import Callable, Sequence
from operator import itemgetter
from struct import Struct
from typing import Any, Final, Generic, TypeVar

from protocols.diameter.codes import Flag
from protocols.diameter.dictionary import DICTIONARY
from protocols.diameter.validation import HEADER_LENGTH, Node

T = TypeVar("T")

#: Shapes kept per cache, of which the first learnt go first, and per length, of which the least recently used do.
MAX_SHAPES: Final[int] = 1024
MAX_SHAPES_PER_LENGTH: Final[int] = 32
#: Longer messages are read by the general way each time; their shapes would cost memory and seldom recur.
MAX_LEARNT_LENGTH: Final[int] = 4096

_AUTH_APPLICATION_ID: Final[int] = 258
# References to constants and to assembled objects, until their place among the values is known.
_CONSTANT: Final[int] = 1 << 24
_MADE: Final[int] = 1 << 25

#: A step of a plan: what to call (None: keep the tuple) and how to fetch its arguments from the values.
Step = tuple[Callable[..., Any] | None, Callable[[list[Any]], Any]]


class Shape(Generic[T]):
    """One learnt layout; see the module's docstring."""

    __slots__ = ("_constants", "_fetch", "_final", "_plan", "_unpack", "expected", "length", "mask")

    def __init__(self, builder: "ShapeBuilder", final: Callable[..., T], references: Sequence[int]) -> None:
        self.length = len(builder.buffer)
        self.mask = int.from_bytes(builder.mask, "big")
        self.expected = int.from_bytes(builder.buffer, "big") & self.mask
        layout, order = builder.layout()
        fields = len(order)
        constants = len(builder.constants)
        place = {field: index for index, field in enumerate(order)}

        def resolve(reference: int) -> int:
            if reference >= _MADE:
                return fields + constants + reference - _MADE
            if reference >= _CONSTANT:
                return fields + reference - _CONSTANT
            return place[reference]

        self._unpack = Struct(layout).unpack
        self._constants = tuple(builder.constants)
        self._plan: tuple[Step, ...] = tuple(
            (call, itemgetter(*[resolve(one) for one in arguments])) for call, arguments in builder.steps
        )
        self._final = final
        self._fetch = itemgetter(*[resolve(one) for one in references])

    def apply(self, buffer: bytes) -> T:
        """The typed message in ``buffer``, which agrees with this shape."""
        values = [*self._unpack(buffer), *self._constants]
        append = values.append
        for call, fetch in self._plan:
            append(fetch(values) if call is None else call(*fetch(values)))
        return self._final(*self._fetch(values))


class ShapeBuilder:
    """Collects what a shape needs while the nodes of one validated message are read.

    Every method that adds a value returns a reference to it, for use in ``make`` and in the final call. The
    final call and every ``make`` take at least two references, so that ``itemgetter`` returns a tuple.
    """

    __slots__ = ("_fields", "buffer", "constants", "mask", "none", "steps")

    def __init__(self, buffer: bytes, nodes: list[Node]) -> None:
        self.buffer = buffer
        self.mask = bytearray(len(buffer))
        self.constants: list[Any] = [None]
        self.none = _CONSTANT
        self.steps: list[tuple[Callable[..., Any] | None, Sequence[int]]] = []
        self._fields: list[tuple[int, int, str]] = []
        self.mask[0:HEADER_LENGTH] = b"\xff" * 12 + bytes(8)
        # T may come and go with any message, and reserved bits are ignored (RFC 6733 section 3).
        self.mask[4] = Flag.REQUEST | Flag.PROXIABLE | Flag.ERROR
        self._mask_nodes(nodes)

    def field(self, start: int, size: int, kind: str) -> int:
        """A value of ``size`` octets at ``start``, unpacked as struct format ``kind``. Must not overlap others."""
        self._fields.append((start, size, kind))
        return len(self._fields) - 1

    def unsigned32(self, node: Node) -> int:
        return self.field(node[2], 4, "I")

    def unsigned64(self, node: Node) -> int:
        return self.field(node[2], 8, "Q")

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

    def make(self, call: Callable[..., Any] | None, references: Sequence[int]) -> int:
        """Assemble an object from at least two values: ``call(*values)``, or their tuple if ``call`` is None."""
        self.steps.append((call, references))
        return _MADE + len(self.steps) - 1

    def tuple_of(self, references: Sequence[int]) -> int:
        """A tuple of any number of values."""
        if not references:
            return self.constant(())
        if len(references) == 1:
            return self.make(_single, (references[0], references[0]))
        return self.make(None, references)

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

    def _start(self, index: int) -> tuple[int, int]:
        # An empty octet string starts where the next field does; it must come first.
        return self._fields[index][:2]

    def _mask_nodes(self, nodes: list[Node]) -> None:
        """Put every AVP header under the mask, and the values whose validity depends on their octets."""
        mask = self.mask
        by_key = DICTIONARY.by_key
        for key, header, start, stop, members in nodes:
            mask[header:start] = b"\xff" * (start - header)
            if members is not None:
                self._mask_nodes(members)
            elif key == _AUTH_APPLICATION_ID:
                mask[start:stop] = b"\xff" * (stop - start)
            else:
                definition = by_key.get(key)
                if definition is not None and definition.closed:
                    mask[start:stop] = b"\xff" * (stop - start)


def _single(value: object, _: object) -> tuple[object]:
    return (value,)


class ShapeCache(Generic[T]):
    """A bounded number of shapes and the reading of messages through them.

    ``learn`` validates a message in full and returns its shape, or raises DiameterError.
    """

    __slots__ = ("_ages", "_by_length", "_learn")

    def __init__(self, learn: Callable[[bytes], Shape[T]]) -> None:
        self._learn = learn
        self._by_length: dict[int, list[Shape[T]]] = {}
        self._ages: deque[Shape[T]] = deque()

    def read(self, buffer: bytes) -> T:
        """The typed message in ``buffer``. Raises DiameterError if it is not valid; then nothing is kept."""
        shapes = self._by_length.get(len(buffer))
        if shapes is not None:
            number = int.from_bytes(buffer, "big")
            for index, shape in enumerate(shapes):
                if number & shape.mask == shape.expected:
                    if index:
                        del shapes[index]
                        shapes.insert(0, shape)
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
        elif len(self._ages) >= MAX_SHAPES:
            oldest = self._ages.popleft()
            siblings = self._by_length[oldest.length]
            siblings.remove(oldest)
            if not siblings and siblings is not same_length:
                del self._by_length[oldest.length]
        same_length.insert(0, shape)
        self._ages.append(shape)
