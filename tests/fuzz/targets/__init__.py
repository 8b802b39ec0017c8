"""What guided fuzzing feeds: one function per edge of the product, from octets to nothing.

A target takes any octets. What it raises is a fault: a refusal that belongs to the product (``DiameterError``,
``ConfigError``, ``RowError``) is caught here, and what must hold of it is checked. The same octets do the same thing
every time, whatever was fed before, so that a finding can be replayed.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Final

Target = Callable[[bytes], None]

NAMES: Final = ("message", "stream", "charge", "catalogue", "policies", "bulk")
ON_THE_WIRE: Final = ("message", "stream", "charge")
"""Those whose input comes from peers."""


def target(name: str) -> Target:
    """Raises KeyError for a name that is none of ``NAMES``."""
    if name not in NAMES:
        raise KeyError(name)
    made: Target = import_module(f"{__name__}.{name}").run
    return made
