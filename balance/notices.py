"""Notices to customers on their way: handed in, taken up, tried, delivered or given up.

Whoever has something to tell a customer appends a ``Notice`` to a stream (``enqueue``), or has a commit do so. It is
taken up once for its ``notice_id``, whoever hands it in again. From then on it is a ``Delivery`` under a key of its
own, in the queue of the channel that is to deliver it, and in one of four lists: waiting, held, dead, finished. Every
step is one script call that compares the value as it was: of two processes that work on one notice, one does.

What channels, templates and languages are is not known here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from balance.keys import NOTICE, NOTICE_COUNTS, Keys
from balance.resp import StoreError
from balance.store import Store

Value = str | int
"""Of a template: text, or a number in the ledger's units: micro-units of money, octets, seconds, milliseconds."""

CLASSES: Final = ("account-state", "billing", "marketing")

STREAM_KEPT: Final = 1_000_000
"""Entries that wait to be taken up; if nobody does, the oldest beyond this are dropped."""
NOTICES_AN_ENTRY: Final = 100
LONGEST_ID: Final = 255
EVENTS_KEPT: Final = 20
FORMAT: Final = 1
PART_KEPT_MS: Final = 7 * 86_400_000
"""How long a receipt can come after the message."""

WAITING: Final = "waiting"
HELD: Final = "held"
SENT: Final = "sent"
DELIVERED: Final = "delivered"
LOGGED: Final = "logged"
DECLINED: Final = "declined"
DEAD: Final = "dead"
STATES: Final = (WAITING, HELD, SENT, DELIVERED, LOGGED, DECLINED, DEAD)
"""``waiting`` for its turn or another try; ``held`` until quiet hours end; ``sent``: a channel has taken it;
``delivered``: it has a receipt; ``logged``: written into the log, as no channel was there; ``declined``: the customer
does not want such notices; ``dead``: given up."""

FINISHED: Final = "finished"
LISTS: Final = (WAITING, HELD, DEAD, FINISHED)
_LIST_OF: Final = {state: state if state in LISTS else FINISHED for state in STATES}

_SCRIPTS: Final = Path(__file__).parent / "scripts"
_ACCEPT: Final = (_SCRIPTS / "notice_accept.lua").read_text(encoding="utf-8")
_WRITE: Final = (_SCRIPTS / "notice_write.lua").read_text(encoding="utf-8")
_TEMPLATE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody is to be told."""

    notice_id: bytes
    """Names it: handing it in twice delivers it once. Such as account, threshold and number of the crossing."""
    account_id: bytes
    subscriber_id: bytes
    """Empty: the account's contact, else its first subscriber."""
    klass: str
    """One of ``CLASSES``."""
    template: str
    values: Mapping[str, Value]
    """What the template is told; with money goes ``currency``, the code of ISO 4217."""
    at_ms: int
    """When it happened."""

    def check(self) -> None:
        """Raises ValueError, one sentence, for a notice that cannot be."""
        if not 1 <= len(self.notice_id) <= LONGEST_ID:
            raise ValueError(f"a notice_id has 1 to {LONGEST_ID} octets, not {len(self.notice_id)}")
        if self.klass not in CLASSES:
            raise ValueError(f"the class of a notice is one of {', '.join(CLASSES)}, not {self.klass!r}")
        if not _TEMPLATE.fullmatch(self.template):
            raise ValueError(f"{self.template[:80]!r} is no name of a template: a-z, 0-9 and - only")


def pack(notice: Notice) -> bytes:
    """As the stream holds it. Raises ValueError."""
    notice.check()
    packed: bytes = msgpack.packb((FORMAT, *_notice_fields(notice)))
    return packed


def unpack(packed: bytes) -> Notice:
    """Raises ValueError for what is no notice."""
    try:
        form, *fields = msgpack.unpackb(packed, use_list=False)
        if form != FORMAT:
            raise ValueError(f"it has format {form}")
        return Notice(*fields)
    except (TypeError, ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"this is no notice: {error}") from error


def _notice_fields(notice: Notice) -> tuple[Any, ...]:
    return (
        notice.notice_id,
        notice.account_id,
        notice.subscriber_id,
        notice.klass,
        notice.template,
        dict(notice.values),
        notice.at_ms,
    )


class Event(NamedTuple):
    """One thing that happened to a notice."""

    at_ms: int
    channel: str
    result: str
    detail: str
    """For people; addresses are masked."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A notice that was taken up, and what has become of it."""

    notice: Notice
    state: str
    channel: str
    """Whose queue it is in, or who delivered it."""
    accepted_ms: int
    attempts: int = 0
    """Of ``channel``."""
    given_up: tuple[str, ...] = ()
    """Channels that could not deliver it."""
    next_ms: int = 0
    """When it is looked at next."""
    finished_ms: int = 0
    parts: tuple[str, ...] = ()
    """Messages of ``channel`` whose receipts are awaited."""
    revived_ms: int = 0
    """When somebody had it tried anew after it was given up; 0: never."""
    events: tuple[Event, ...] = field(default=())
    """The last of them, the oldest first."""

    def told(self, event: Event, **changes: Any) -> "Delivery":
        """This, with one more event and other changes."""
        return replace(self, events=(*self.events, event)[-EVENTS_KEPT:], **changes)


class Known(NamedTuple):
    """A delivery, and the value it was read from."""

    packed: bytes
    delivery: Delivery


def _pack_delivery(delivery: Delivery) -> bytes:
    packed: bytes = msgpack.packb(
        (
            FORMAT,
            _notice_fields(delivery.notice),
            delivery.state,
            delivery.channel,
            delivery.accepted_ms,
            delivery.attempts,
            delivery.given_up,
            delivery.next_ms,
            delivery.finished_ms,
            delivery.parts,
            delivery.revived_ms,
            delivery.events,
        )
    )
    return packed


def _unpack_delivery(packed: bytes) -> Delivery:
    form, notice, state, channel, *numbers, events = msgpack.unpackb(packed, use_list=False)
    if form != FORMAT:
        raise StoreError(f"a notice in the store has format {form}, which this version cannot read")
    accepted_ms, attempts, given_up, next_ms, finished_ms, parts, revived_ms = numbers
    return Delivery(
        Notice(*notice),
        state,
        channel,
        accepted_ms,
        attempts,
        given_up,
        next_ms,
        finished_ms,
        parts,
        revived_ms,
        tuple(Event(*event) for event in events),
    )


# -- handing in ----------------------------------------------------------------------------------------------------


async def enqueue(store: Store, notices: Iterable[Notice]) -> None:
    """Hand notices in. Raises ValueError if one cannot be (then none is handed in), StoreError.

    After a StoreError some may have been handed in; handing all in again delivers each once.
    """
    lanes: dict[int, list[bytes]] = {}
    for notice in notices:
        lanes.setdefault(store.keys.lane(notice.account_id), []).append(pack(notice))
    for lane, packed in lanes.items():
        for at in range(0, len(packed), NOTICES_AN_ENTRY):
            fields = [part for value in packed[at : at + NOTICES_AN_ENTRY] for part in (b"n", value)]
            await store.call("XADD", store.keys.notices(lane), "MAXLEN", "~", STREAM_KEPT, "*", *fields)


async def handed_in(store: Store, lane: int, count: int) -> list[tuple[bytes, list[bytes]]]:
    """The oldest entries of a lane, at most ``count``: (entry, packed notices). Raises StoreError."""
    entries = await store.call("XRANGE", store.keys.notices(lane), "-", "+", "COUNT", count)
    return [(entry, fields[1::2]) for entry, fields in entries]


async def strike(store: Store, lane: int, entries: Sequence[bytes]) -> None:
    """Remove entries whose notices have been taken up. Raises StoreError."""
    await store.call("XDEL", store.keys.notices(lane), *entries)


async def accept(store: Store, delivery: Delivery, remember_ms: int) -> bool:
    """Take a notice up; False if one of that name was taken up within ``remember_ms`` before. Raises StoreError."""
    name = delivery.notice.notice_id
    keys = [
        Keys.notice_seen(name),
        Keys.notice(name),
        _queue(delivery),
        Keys.notice_list(_LIST_OF[delivery.state]),
        NOTICE_COUNTS,
    ]
    value = _pack_delivery(delivery)
    taken = await store.run_script(
        _ACCEPT, keys, name, value, delivery.next_ms, _list_time(delivery), remember_ms, b"none|duplicate"
    )
    return bool(taken)


# -- working on them -----------------------------------------------------------------------------------------------


async def due(store: Store, channel: str, now_ms: int, count: int) -> list[Known]:
    """The notices of a channel that are due, the longest due first, at most ``count``; marketing behind all others.

    Raises StoreError.
    """
    found: list[Known] = []
    for behind in (False, True):
        key = Keys.notice_queue(channel, behind)
        names = await store.call("ZRANGEBYSCORE", key, "-inf", now_ms, "LIMIT", 0, count - len(found))
        if names:
            known, gone = await _read(store, names)
            # Between the two look-ups somebody else may have begun an attempt, or ended one.
            found += [each for each in known if _is_open(each.delivery) and each.delivery.next_ms <= now_ms]
            if gone:
                await store.call("ZREM", key, *gone)
        if len(found) >= count:
            break
    return found


def _is_open(delivery: Delivery) -> bool:
    return delivery.state in (WAITING, HELD)


def _queue(delivery: Delivery) -> bytes:
    return Keys.notice_queue(delivery.channel, delivery.notice.klass == "marketing")


async def read(store: Store, notice_id: bytes) -> Known | None:
    """The notice of that name, if it was taken up and is still known. Raises StoreError."""
    found, _ = await _read(store, [notice_id])
    return found[0] if found else None


async def _read(store: Store, names: Sequence[bytes]) -> tuple[list[Known], list[bytes]]:
    values = await store.call("MGET", *(Keys.notice(name) for name in names))
    pairs = list(zip(names, values, strict=True))
    known = [Known(value, _unpack_delivery(value)) for _, value in pairs if value is not None]
    return known, [name for name, value in pairs if value is None]


async def write(
    store: Store, known: Known, after: Delivery, counts: Sequence[tuple[str, str]], kept: int
) -> Known | None:
    """Write what became of a notice; None if somebody else wrote it meanwhile.

    One that waits or is held is due at ``after.next_ms``. ``counts``: (channel, result) to count once more. ``kept``:
    so many dead and finished ones stay known, each. Raises StoreError.
    """
    before = known.delivery
    name = after.notice.notice_id
    value = _pack_delivery(after)
    open_still = _is_open(after)
    keys = [
        Keys.notice(name),
        _queue(before),
        _queue(after),
        Keys.notice_list(_LIST_OF[before.state]),
        Keys.notice_list(_LIST_OF[after.state]),
        NOTICE_COUNTS,
    ]
    if after.parts and after.parts != before.parts:
        for part in after.parts:
            await store.call("SET", Keys.notice_part(after.channel, part), name, "PX", PART_KEPT_MS)
    written = await store.run_script(
        _WRITE,
        keys,
        known.packed,
        value,
        name,
        after.next_ms if open_still else b"",
        _list_time(after),
        b"" if open_still else kept,
        NOTICE,
        *(f"{channel}|{result}".encode() for channel, result in counts),
    )
    return Known(value, after) if written else None


def _list_time(delivery: Delivery) -> int:
    """What its list is ordered by."""
    if delivery.state == WAITING:
        return delivery.accepted_ms
    return delivery.next_ms if delivery.state == HELD else delivery.finished_ms


async def notice_of_part(store: Store, channel: str, message_id: str) -> bytes | None:
    """The notice that a message of a channel belongs to, for its receipt. Raises StoreError."""
    name: bytes | None = await store.call("GET", Keys.notice_part(channel, message_id))
    return name


async def count(store: Store, channel: str, result: str) -> None:
    """Count what happened outside of any notice that is known. Raises StoreError."""
    await store.call("HINCRBY", NOTICE_COUNTS, f"{channel}|{result}".encode(), 1)


async def forget(store: Store, before_ms: int, count: int = 500) -> int:
    """Forget finished and dead notices from before a moment, at most ``count`` of each; how many. Raises StoreError."""
    forgotten = 0
    for name in (FINISHED, DEAD):
        key = Keys.notice_list(name)
        old = await store.call("ZRANGEBYSCORE", key, "-inf", f"({before_ms}", "LIMIT", 0, count)
        if old:
            await store.call("DEL", *(Keys.notice(each) for each in old))
            await store.call("ZREM", key, *old)
        forgotten += len(old)
    return forgotten


# -- looking at them -----------------------------------------------------------------------------------------------


async def listed(store: Store, name: str, limit: int) -> list[Delivery]:
    """The notices of one of ``LISTS``: waiting and held ones the next first, others the newest first.

    Raises StoreError.
    """
    order = "ZRANGE" if name in (WAITING, HELD) else "ZREVRANGE"
    names = await store.call(order, Keys.notice_list(name), 0, limit - 1)
    if not names:
        return []
    return [known.delivery for known in (await _read(store, names))[0]]


@dataclass(frozen=True, slots=True)
class Figures:
    """Where notices stand."""

    counts: Mapping[tuple[str, str], int]
    """By channel and result, since the store was laid out."""
    lists: Mapping[str, int]
    """How many each of ``LISTS`` has; those that are not taken up yet are waiting."""
    oldest_ms: int
    """Since when the oldest waits that is not held; 0: none waits."""


async def figures(store: Store) -> Figures:
    """Raises StoreError."""
    flat = await store.call("HGETALL", NOTICE_COUNTS)
    counts = {}
    for name, number in zip(flat[::2], flat[1::2], strict=True):
        channel, _, result = name.decode().partition("|")
        counts[channel, result] = int(number)
    lists = {name: int(await store.call("ZCARD", Keys.notice_list(name))) for name in LISTS}
    since = []
    oldest = await store.call("ZRANGE", Keys.notice_list(WAITING), 0, 0, "WITHSCORES")
    if oldest:
        since.append(int(float(oldest[1])))
    for lane in store.keys.lanes():
        lists[WAITING] += int(await store.call("XLEN", store.keys.notices(lane)))
        first = await store.call("XRANGE", store.keys.notices(lane), "-", "+", "COUNT", 1)
        since += [int(entry.split(b"-")[0]) for entry, _ in first]
    return Figures(counts, lists, min(since, default=0))
