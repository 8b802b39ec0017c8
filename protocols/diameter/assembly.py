"""Assembling typed messages from the values of their fields: what `protocols.diameter.shape` does once it has them.

A plan is a list of steps, each of which makes one object from fields, constants and objects made before; what is the
same for every message is made once, when the plan is. There are two ways to take the steps, which give the same:
`_Step.make` copies an object of the message that the plan was made with, and puts in what differs, since to call a
compiled class by way of a tuple costs more. In plain code a plan that is used often is written out as one function
instead, which takes half as long; to write it takes as long as to learn its layout, so not every plan is worth it.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from types import FunctionType
from typing import Any, Final, Generic, TypeVar

from protocols.diameter.codec import NTP_UNIX_OFFSET

T = TypeVar("T")

#: What is called with arguments to make an object; None: the tuple of the arguments is what is wanted.
Call = Callable[..., Any] | None

# Of a Time as a signed number (RFC 6733 section 4.3.1): its values without the top bit are of the era from 2036 on.
_UNIX_SECONDS_OF_SIGNED: Final[int] = (1 << 32) - NTP_UNIX_OFFSET

# Kinds of steps.
_COPY: Final = 0
_KNOWN_AND_FIELD: Final = 1
_ONE_MADE: Final = 2
_TWO_MADE: Final = 3
_MOMENT: Final = 4
_OTHER: Final = 5

OFTEN: Final = 64
"""Messages after which a plan is written out."""


class Copied:
    """A part of a typed message of which another can be made by copying it and putting in what differs."""

    __slots__ = ()

    def copy(self) -> "Copied":
        """Another with the same values."""
        raise NotImplementedError


IS_COMPILED: Final = not isinstance(Copied.copy, FunctionType)


def moment(signed: int) -> int:
    """Unix seconds of a Time that was read as a signed number."""
    return signed + _UNIX_SECONDS_OF_SIGNED


class _Step:
    """Makes one object. Places are indices of fields, or beyond them of constants, or beyond these of what was made."""

    __slots__ = (
        "_call",
        "_fetch",
        "_field_names",
        "_field_places",
        "_known",
        "_made_names",
        "_made_places",
        "_template",
        "kind",
    )

    def __init__(self, call: Call, places: Sequence[int], fields: int, constants: Sequence[Any]) -> None:
        self._call = call
        self._fetch = _fetcher(places)
        self._template: Copied | None = None
        self._field_names: list[str] = []
        self._field_places: list[int] = []
        self._made_names: list[str] = []
        self._made_places: list[int] = []
        self._known: Any = None
        before = fields + len(constants)
        self.kind = _OTHER
        if call is moment:
            self.kind = _MOMENT
            self._field_places = list(places)
        elif call is not None:
            return
        elif len(places) < 3 and min(places) >= before:
            self.kind = _ONE_MADE if len(places) == 1 else _TWO_MADE
            self._made_places = [place - before for place in places]
        elif len(places) == 2 and fields <= places[0] < before and places[1] < fields:
            self.kind = _KNOWN_AND_FIELD
            self._known = constants[places[0] - fields]
            self._field_places = [places[1]]

    def copy_from(self, template: Copied, names: Sequence[str], places: Sequence[int], before: int) -> None:
        """Make it by copying from now on; ``places``: of the values that differ, whose names are ``names``."""
        self.kind = _COPY
        self._template = template
        for name, place in zip(names, places, strict=True):
            if place < before:
                self._field_names.append(name)
                self._field_places.append(place)
            else:
                self._made_names.append(name)
                self._made_places.append(place - before)

    def make(self, fields: tuple[Any, ...], constants: tuple[Any, ...], made: list[Any]) -> Any:
        kind = self.kind
        if kind == _COPY:
            template = self._template
            assert template is not None
            new = template.copy()
            places = self._field_places
            for index, name in enumerate(self._field_names):
                setattr(new, name, fields[places[index]])
            places = self._made_places
            for index, name in enumerate(self._made_names):
                setattr(new, name, made[places[index]])
            return new
        if kind == _KNOWN_AND_FIELD:
            return (self._known, fields[self._field_places[0]])
        if kind == _ONE_MADE:
            return (made[self._made_places[0]],)
        if kind == _TWO_MADE:
            return (made[self._made_places[0]], made[self._made_places[1]])
        if kind == _MOMENT:
            return fields[self._field_places[0]] + _UNIX_SECONDS_OF_SIGNED
        arguments = self._fetch([*fields, *constants, *made])
        return arguments if self._call is None else self._call(*arguments)


class Plan(Generic[T]):
    """Assembles messages of one shape."""

    __slots__ = ("_constants", "_last", "_order", "_steps", "_uses", "_ways", "_written")

    def __init__(
        self,
        steps: Sequence[tuple[int, Call, Sequence[int]]],
        final: Callable[..., T],
        arguments: Sequence[int],
        order: Sequence[int],
        known: Mapping[int, Any],
        first: tuple[Any, ...],
    ) -> None:
        """All is named by references: ``steps`` are what is made, how, and of what, and ``final`` is called with
        ``arguments``. ``order``: what the fields given to ``make`` are; ``known``: constants. ``first``: the fields of
        a message.
        """
        fixed = dict(known)
        left: list[tuple[int, Call, Sequence[int]]] = []
        for made, call, wanted in steps:
            if all(one in fixed for one in wanted):
                values = tuple([fixed[one] for one in wanted])
                fixed[made] = values if call is None else call(*values)
            else:
                left.append((made, call, wanted))
        all_wanted = [one for _, _, wanted in left for one in wanted] + list(arguments)
        constants = list(dict.fromkeys(one for one in all_wanted if one in fixed))
        references = [*order, *constants, *(made for made, _, _ in left)]
        place = {reference: index for index, reference in enumerate(references)}
        self._constants = tuple([fixed[one] for one in constants])
        self._order = len(order)
        self._ways: list[tuple[Call, list[int]]] = []
        """Of each step, the last included: what is called, and the places of its arguments."""
        self._uses = 0
        self._written: Callable[[tuple[Any, ...]], T] | None = None
        self._steps: list[_Step] = []
        made_first: list[Any] = []
        for _, call, wanted in [*left, (0, final, arguments)]:
            places = [place[one] for one in wanted]
            self._ways.append((call, places))
            step = _Step(call, places, len(order), self._constants)
            made_now = step.make(first, self._constants, made_first)
            made_first.append(made_now)
            if isinstance(made_now, Copied):
                names = [field.name for field in dataclasses.fields(made_now)]  # type: ignore[arg-type]
                differs = [(name, place[one]) for name, one in zip(names, wanted, strict=False) if one not in fixed]
                before = len(order) + len(constants)
                step.copy_from(made_now, [name for name, _ in differs], [one for _, one in differs], before)
            self._steps.append(step)
        self._last = self._steps.pop()

    def make(self, fields: tuple[Any, ...]) -> T:
        """The message whose fields these are."""
        if self._written is not None:
            return self._written(fields)
        if not IS_COMPILED:
            self._uses += 1
            if self._uses > OFTEN:
                self._written = self._write_out()
        made: list[Any] = []
        for step in self._steps:
            made.append(step.make(fields, self._constants, made))
        message: T = self._last.make(fields, self._constants, made)
        return message

    def _write_out(self) -> Callable[[tuple[Any, ...]], T]:
        """All steps as one function: of its source only numbers differ, so nothing from outside can stand in it."""
        known: dict[str, Any] = {f"known_{index}": value for index, value in enumerate(self._constants)}
        names = [f"fields[{index}]" for index in range(self._order)] + list(known)
        lines = ["def make(fields):"]
        for index, (call, places) in enumerate(self._ways):
            arguments = "".join([f"{names[place]}, " for place in places])
            name = f"made_{index}"
            if call is not None:
                known[f"call_{index}"] = call
            lines.append(f"    {name} = {'' if call is None else f'call_{index}'}({arguments})")
            names.append(name)
        lines.append(f"    return {names[-1]}")
        source = "\n".join(lines)
        exec(source, known)  # noqa: S102  # nosec B102
        written: Callable[[tuple[Any, ...]], T] = known.pop("make")  # else the two would hold each other
        return written


def _fetcher(places: Sequence[int]) -> Callable[[list[Any]], Any]:
    """What takes the values at these places, as a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    place = places[0]

    def fetch(values: list[Any]) -> tuple[Any]:
        return (values[place],)

    return fetch
