"""Names of accounts and subscribers as logs show them: enough to recognise one, too little to call it."""

import re
from typing import Final

_DIGITS: Final = re.compile(r"[0-9]{6,}")
SHOWN: Final = 3
"""Letters of a name without a long number that are shown."""


def masked(name: bytes) -> str:
    """``acc-491700000001`` as ``acc-4917****0001``, ``household`` as ``hou****``."""
    text = name.decode("utf-8", "backslashreplace")
    hidden, numbers = _DIGITS.subn(_middle_hidden, text)
    shown = hidden if numbers else text[:SHOWN] + "****"
    return shown if shown.isprintable() else ascii(shown)[1:-1]


def _middle_hidden(digits: re.Match[str]) -> str:
    number = digits.group()
    ends = len(number) // 3
    return number[:ends] + "*" * (len(number) - 2 * ends) + number[-ends:]
