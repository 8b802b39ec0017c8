"""Values as octets: msgpack, each value in its shortest form, by the quicker of two libraries where there is one.

Both write the same octets, so that it does not matter which of them wrote a store.
"""

from typing import Any, Final

import msgpack


def _library() -> tuple[Any, Any]:
    """What packs (value, how else, options), and its options."""
    try:
        import ormsgpack  # noqa: PLC0415 - there is no wheel of it for every machine
    except ImportError:
        pack_plainly = msgpack.Packer(autoreset=True).pack
        return (lambda value, _otherwise, _options: pack_plainly(value)), None
    return ormsgpack.packb, ormsgpack.OPT_NON_STR_KEYS


_LIBRARY: Final = _library()
_packb: Final[Any] = _LIBRARY[0]
_OPTIONS: Final[Any] = _LIBRARY[1]


def _otherwise(value: object) -> object:
    """A named tuple as a plain one. Raises TypeError for what has no octets."""
    if isinstance(value, tuple):
        return tuple(value)
    raise TypeError(f"what is packed must be numbers, text, octets or made of such, not {type(value).__name__}")


def pack(value: object) -> bytes:
    """The octets of integers of 64 bits, text, octets, truth values, None; tuples, lists and mappings of such.

    Raises TypeError, ValueError or OverflowError for anything else.
    """
    packed: bytes = _packb(value, _otherwise, _OPTIONS)
    return packed
