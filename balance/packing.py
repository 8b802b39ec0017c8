"""Values as octets: msgpack, each value in its shortest form, by the quicker of two libraries where there is one.

Both write the same octets, so that it does not matter which of them wrote a store.
"""

from typing import Any, Final

import msgpack

_plainly: Final[Any] = msgpack.Packer(autoreset=True).pack


def _library() -> tuple[Any, Any]:
    """What packs (value, how else, options), and its options."""
    try:
        import ormsgpack  # noqa: PLC0415 - there is no wheel of it for every machine
    except ImportError:
        return (lambda value, _otherwise, _options: _plainly(value)), None
    return ormsgpack.packb, ormsgpack.OPT_NON_STR_KEYS


_LIBRARY: Final = _library()
_packb: Final[Any] = _LIBRARY[0]
_OPTIONS: Final[Any] = _LIBRARY[1]


def _otherwise(value: object) -> object:
    """A named tuple as a plain one. Raises TypeError for anything else."""
    if isinstance(value, tuple):
        return tuple(value)
    raise TypeError


def pack(value: object) -> bytes:
    """The octets of integers of 64 bits, text, octets, truth values, None; tuples, lists and mappings of such.

    Raises TypeError, ValueError or OverflowError for anything else.
    """
    try:
        packed: bytes = _packb(value, _otherwise, _OPTIONS)
    except TypeError:
        packed = _plainly(value)  # says what is wrong, always in the same way
    return packed
