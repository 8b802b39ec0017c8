"""Names, numbers and addresses as logs show them: enough to recognise one, too little to call it."""

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


def masked_address(address: str) -> str:
    """``4917****0001`` for a number, ``n****@example.net`` for an e-mail address, of a URL the host alone."""
    if re.match(r"https?://", address):
        scheme, _, rest = address.partition("://")
        return f"{scheme}://{re.split('[/?#]', rest)[0].rpartition('@')[2]}/****"
    local, at, domain = address.rpartition("@")
    if at and local:
        return f"{local[:1]}****@{domain}"
    hidden, numbers = _DIGITS.subn(_middle_hidden, address)
    return hidden if numbers else f"{address[:1]}****" if address else ""


def masked_numbers(text: str) -> str:
    """A text in which numbers as long as telephone numbers are masked."""
    return _DIGITS.sub(_middle_hidden, text)


def _middle_hidden(digits: re.Match[str]) -> str:
    number = digits.group()
    ends = len(number) // 3
    return number[:ends] + "*" * (len(number) - 2 * ends) + number[-ends:]
