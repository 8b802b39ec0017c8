"""Values as octets (``balance.packing``): whichever library packs them, a store holds the same octets."""

import sys
from enum import IntEnum
from typing import Any, NamedTuple

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.packing import _library, pack

plain = msgpack.Packer(autoreset=True).pack


class Number(IntEnum):
    THREE = 3


class Named(NamedTuple):
    number: int
    more: tuple[object, ...] = ()


EDGES = [edge + by for edge in (0, *(1 << bits for bits in (5, 7, 8, 15, 16, 31, 32, 62))) for by in (-1, 0, 1)]

KEYS = st.binary(max_size=8) | st.text(max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.sampled_from(EDGES)
    | st.binary(max_size=300)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=20) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=40,
)


@given(VALUES)
def test_the_octets_are_those_of_msgpack(value: object) -> None:
    assert pack(value) == plain(value)


@pytest.mark.parametrize(
    "value",
    [
        *(sign * edge for edge in EDGES for sign in (1, -1)),
        Number.THREE,
        Named(1, (Named(2), [Named(3)])),
        b"x" * 70_000,
        "ü" * 40_000,
        (0,) * 70_000,
        {b"subscriber": Number.THREE},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_the_octets_are_those_of_msgpack_at_the_edges(value: object) -> None:
    assert pack(value) == plain(value)


@pytest.mark.parametrize(
    "value", [1 << 64, -(1 << 63) - 1, object(), {1, 2}, "\ud800"], ids=lambda value: repr(value)[:20]
)
def test_what_has_no_octets_is_refused_as_msgpack_refuses_it(value: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)) as expected:
        plain((1, value))
    with pytest.raises(expected.type):
        pack((1, value))


def test_msgpack_stands_in_where_the_other_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ormsgpack", None)
    packb, options = _library()
    value = {b"a": (1, [Number.THREE, Named(2)], "x")}
    assert packb(value, tuple, options) == pack(value)
