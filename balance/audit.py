"""The audit log: every administrative act, in a stream that is only ever appended to.

An act is written down before it begins and again with its result, so that one that was cut off is there as well,
without one. No secret enters it.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``occ:audit``                    stream      an act: ``at``, ``who``, ``role``, ``from``, ``what``, ``on``;
                                             its end: ``of``, the entry of the act, ``at``, ``result``, ``on``
===============================  ==========  =====================================================================
"""

from dataclasses import dataclass, replace
from typing import Final

from balance.store import Store

AUDIT: Final = b"occ:audit"
PAGE: Final = 500
LONGEST_FIELD: Final = 300


@dataclass(frozen=True, slots=True)
class Act:
    """One administrative act."""

    entry: str
    """Of the stream; names the act."""
    at_ms: int
    who: str
    """``token <id> (<name>)`` or ``cli <user>``."""
    role: str
    source: str
    """Address that it came from; empty: this machine's command line."""
    what: str
    on: str
    """What it concerned."""
    result: str
    """Empty: it was cut off, or is under way."""


async def begin_act(store: Store, *, at_ms: int, who: str, role: str, source: str, what: str, on: str) -> bytes:
    """Write down that somebody is about to do something; what to name it by at its end. Raises StoreError."""
    fields = {"at": str(at_ms), "who": who, "role": role, "from": source, "what": what, "on": on}
    return bytes(await store.call("XADD", AUDIT, "*", *_flat(fields)))


async def end_act(store: Store, entry: bytes, *, at_ms: int, result: str, on: str = "") -> None:
    """Write down what an act came to. ``on``: what it concerned, where that is known only now. Raises StoreError."""
    fields = {"of": entry.decode(), "at": str(at_ms), "result": result, "on": on}
    await store.call("XADD", AUDIT, "*", *_flat(fields))


async def acts(store: Store, limit: int, who: str = "", on: str = "") -> list[Act]:
    """The newest acts, newest first; ``who`` and ``on``: only those in which these stand. Raises StoreError."""
    found: list[Act] = []
    ends: dict[str, tuple[str, str]] = {}
    before = b"+"
    while len(found) < limit:
        page = await store.call("XREVRANGE", AUDIT, before, "-", "COUNT", PAGE)
        for entry_id, flat in page:
            fields = {
                name.decode(): value.decode("utf-8", "replace")
                for name, value in zip(flat[::2], flat[1::2], strict=False)
            }
            if "of" in fields:
                ends[fields["of"]] = (fields.get("result", ""), fields.get("on", ""))
                continue
            act = _act(entry_id.decode(), fields)
            result, concerned = ends.pop(act.entry, ("", ""))
            act = replace(act, result=result, on=concerned or act.on)
            if who in act.who and on in act.on:
                found.append(act)
        if len(page) < PAGE:
            break
        before = b"(" + page[-1][0]
    return found[:limit]


def _act(entry: str, fields: dict[str, str]) -> Act:
    at = fields.get("at", "")
    who, role, source, what, on = (fields.get(name, "") for name in ("who", "role", "from", "what", "on"))
    return Act(entry, int(at) if at.isdigit() else 0, who, role, source, what, on, result="")


def _flat(fields: dict[str, str]) -> list[bytes]:
    return [
        part
        for name, value in fields.items()
        for part in (name.encode(), value[:LONGEST_FIELD].encode("utf-8", "backslashreplace"))
    ]
