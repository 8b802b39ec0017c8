"""Message shapes: the short way gives exactly what the long way gives, and costs bounded memory."""

import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.credit_control import CreditControlAnswer, ServiceAnswer, Units, client, decode_request, encode_answer
from protocols.credit_control.request import learn
from protocols.diameter import assembly
from protocols.diameter.errors import DiameterError
from protocols.diameter.shape import (
    MAX_CUTS_TRIED,
    MAX_LEARNT_LENGTH,
    MAX_LEARNT_OCTETS,
    MAX_SHAPES,
    MAX_SHAPES_PER_LENGTH,
    ShapeCache,
)
from tests.plain import PLAIN_ONLY
from tests.protocols.messages import (
    ORIGIN_HOST,
    ORIGIN_REALM,
    call_update,
    gateway_update,
    group,
    message_event,
    packed,
    required,
    subscription,
    u32,
    u64,
)

# Bounded values that validation looks at though nobody reads them.
UNREAD = required(
    group(456, u32(452, 1), group(430, u32(449, 0))),
    group(260, u32(266, 10415), u32(258, 4)),
    u32(285, 0),
    u32(273, 0),
)
REQUESTS = [gateway_update(), call_update(), message_event(), UNREAD]
ANSWER = encode_answer(
    decode_request(gateway_update()),
    CreditControlAnswer(
        2001,
        [
            ServiceAnswer(10, (7,), 2001, Units(total_octets=5, money=(1, -2, 978)), 60, final_unit_action=0),
            ServiceAnswer(20, (), 4012, volume_quota_threshold=3, failed_avp=u32(432, 20)),
        ],
        remaining_balance=(7, 0, None),
    ),
    ORIGIN_HOST + ORIGIN_REALM,
)
SAMPLES = [(one, learn) for one in REQUESTS] + [(ANSWER, client.learn)]


@pytest.fixture(params=[0, assembly.OFTEN], ids=["written out", "step by step"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways in which messages are assembled; compiled code has one."""
    monkeypatch.setattr(assembly, "OFTEN", request.param)


def outcome(read: Callable[[bytes], Any], octets: bytes) -> Any:
    """The message, or everything about its error."""
    try:
        return read(octets)
    except DiameterError as error:
        return error.result_code, error.message, error.failed_avp, error.close


def counting(learn_one: Any) -> tuple[ShapeCache[Any], list[bytes]]:
    """A cache that notes what it had to learn."""
    learnt: list[bytes] = []

    def note(octets: bytes) -> Any:
        learnt.append(octets)
        return learn_one(octets)

    return ShapeCache(note), learnt


@settings(max_examples=400)
@given(
    st.sampled_from(range(len(SAMPLES))),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_short_way_is_the_long_way(index: int, edits: list[tuple[int, int]]) -> None:
    """Any octets of a learnt message changed: same message or same error, whichever way it is read."""
    octets, learn_one = SAMPLES[index]
    cache: ShapeCache[Any] = ShapeCache(learn_one)
    cache.read(octets)
    changed = bytearray(octets)
    for position, value in edits:
        changed[position % len(changed)] = value
    mutant = bytes(changed)
    assert outcome(cache.read, mutant) == outcome(lambda one: learn_one(one).apply(one), mutant)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("index", range(len(SAMPLES)))
def test_no_octet_makes_a_difference(index: int) -> None:
    """Each octet of a learnt message changed on its own: what validation depends on is under the mask."""
    octets, learn_one = SAMPLES[index]
    cache: ShapeCache[Any] = ShapeCache(learn_one)
    for position in range(len(octets)):
        cache.read(octets)
        for bits in (0x01, 0x20, 0x80):
            changed = bytearray(octets)
            changed[position] ^= bits
            mutant = bytes(changed)
            assert outcome(cache.read, mutant) == outcome(lambda one: learn_one(one).apply(one), mutant)


@given(
    st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 4),
    st.integers(0, (1 << 64) - 1),
    st.binary(min_size=9, max_size=9),
    st.sampled_from([0xC0, 0xD0, 0xC1, 0xDF]),
)
def test_values_do_not_make_new_shapes(numbers: tuple[int, ...], octets: int, name: bytes, flags: int) -> None:
    """Identifiers, amounts, times, names of one length, T and reserved bits vary; the layout is learnt once."""
    cache, learnt = counting(learn)

    def build(numbers: tuple[int, ...], octets: int, name: bytes, flags: int) -> bytes:
        return required(
            packed(1, name),
            u32(55, numbers[0]),
            u32(415, numbers[1]),
            subscription(1, name),
            group(456, group(437), group(446, u64(421, octets), u32(420, numbers[2])), u32(432, numbers[3])),
            without=["CC-Request-Number"],
            flags=flags,
            hop_by_hop=numbers[0],
            end_to_end=numbers[1],
        )

    cache.read(build((1, 2, 3, 4), 5, b"123456789", 0xC0))
    request = cache.read(build(numbers, octets, name, flags))
    assert len(learnt) == len(cache) == 1
    assert request.flags == flags
    assert (request.hop_by_hop, request.end_to_end, request.request_number) == (numbers[0], numbers[1], numbers[1])
    assert request.user_name == name
    assert request.subscriptions == ((1, name),)
    assert request.services[0].rating_group == numbers[3]
    assert request.services[0].used[0] == Units(time=numbers[2], total_octets=octets)
    # RFC 6733 section 4.3.1: the top bit of a Time tells the era.
    era = 0 if numbers[0] & 0x80000000 else 1 << 32
    assert request.event_timestamp == numbers[0] + era - 2_208_988_800


@pytest.mark.parametrize(
    ("code", "good", "bad"),
    [(416, 1, 5), (436, 1, 4), (455, 0, 2), (258, 4, 5)],
)
def test_bounded_values_are_checked_on_the_short_way(code: int, good: int, bad: int) -> None:
    """Row 14: 5004 also when the layout is known; another good value is simply another shape."""
    without = {416: ["CC-Request-Type"], 258: ["Auth-Application-Id"]}.get(code, [])
    cache, learnt = counting(learn)
    cache.read(required(u32(code, good), without=without))
    with pytest.raises(DiameterError) as caught:
        cache.read(required(u32(code, bad), without=without))
    assert (caught.value.result_code, caught.value.failed_avp) == (5004, u32(code, bad))
    assert len(cache) == 1
    assert len(learnt) == 2


def test_padding_is_not_compared() -> None:
    """RFC 6733 section 4.1: padding is zero, but nothing depends on it."""
    cache, learnt = counting(learn)
    octets = required(packed(1, b"abcde"))
    dirty = octets[:-3] + b"\x01\x02\x03"
    assert cache.read(octets) == cache.read(dirty)
    assert len(learnt) == 1


def test_invalid_messages_are_not_kept() -> None:
    cache: ShapeCache[Any] = ShapeCache(learn)
    for octets in (required(without=["Origin-Host"]), required(packed(9999, b"")), b"", gateway_update()[:-4]):
        with pytest.raises(DiameterError):
            cache.read(octets)
    assert len(cache) == 0


def layout(number: int) -> bytes:
    """Valid requests of one length, each of another layout: the order of three kinds of harmless AVPs."""
    digits = []
    for _ in range(7):
        number, digit = divmod(number, 3)
        digits.append(packed(60000 + digit, b"abcd", flags=0))
    return required(*digits)


def test_shapes_of_one_length_are_bounded() -> None:
    """The least recently used goes first, so a busy shape stays whatever else comes by."""
    cache, learnt = counting(learn)
    busy = layout(0)
    assert len({len(layout(number)) for number in range(200)}) == 1
    cache.read(busy)
    for number in range(1, 200):
        cache.read(layout(number))
        cache.read(busy)
        assert len(cache) <= MAX_SHAPES_PER_LENGTH
    assert len(cache) == MAX_SHAPES_PER_LENGTH
    assert learnt.count(busy) == 1
    cache.read(layout(199))
    assert len(learnt) == 200


def test_shapes_are_bounded_over_all_lengths() -> None:
    """The oldest go when the cache is full; they are learnt again when they come again."""
    cache, learnt = counting(learn)
    total = MAX_SHAPES + 40

    def nth(number: int) -> bytes:
        return required(packed(1, bytes(4 * (number // 20))), packed(60000 + number % 20, b"", flags=0))

    for number in range(total):
        cache.read(nth(number))
        assert len(cache) <= MAX_SHAPES
    assert len(cache) == MAX_SHAPES
    cache.read(nth(total - 1))
    assert len(learnt) == total
    cache.read(nth(0))
    assert len(learnt) == total + 1
    assert len(cache) == MAX_SHAPES


def test_shapes_of_long_messages_are_fewer() -> None:
    """What a shape takes grows with its message, so peers could have a cache of long ones take a gigabyte."""
    cache, learnt = counting(learn)
    kept = MAX_LEARNT_OCTETS // (MAX_LEARNT_LENGTH - 4)

    def nth(number: int) -> bytes:
        layout_of_length = packed(60000 + number // 20, b"", flags=0)
        rest = MAX_LEARNT_LENGTH - len(required(layout_of_length, packed(1, b""))) - 4 * (number % 20)
        return required(layout_of_length, packed(1, bytes(rest)))

    total = kept + 60
    for number in range(total):
        cache.read(nth(number))
    assert kept <= len(cache) < total
    cache.read(nth(total - 1))
    assert len(learnt) == total
    cache.read(nth(0))
    assert len(learnt) == total + 1


def test_long_messages_are_read_but_not_kept() -> None:
    cache: ShapeCache[Any] = ShapeCache(learn)
    octets = required(packed(1, bytes(MAX_LEARNT_LENGTH)))
    for _ in range(2):
        assert cache.read(octets).user_name == bytes(MAX_LEARNT_LENGTH)
    assert len(cache) == 0


def test_empty_octet_strings_are_values_too() -> None:
    """A field of no octets between two others does not shift them."""
    cache: ShapeCache[Any] = ShapeCache(learn)
    octets = required(packed(1, b""), packed(30, b""), u32(278, 5), group(284, packed(280, b"h"), packed(33, b"")))
    for _ in range(2):
        request = cache.read(octets)
        assert (request.user_name, request.called_station_id, request.origin_state_id) == (b"", b"", 5)
        assert request.proxy_infos == struct.pack(">II", 284, 0x40 << 24 | 28) + packed(280, b"h") + packed(33, b"")


def session(number: int, *, host: bytes = b"gw1.example", flags: int = 0xC0, asked: int = 500) -> bytes:
    """An update of one client, who seldom changes his name and what he asks for."""
    return required(
        packed(264, host),
        packed(1, b"user%03d" % (number % 1000)),
        u32(415, number),
        subscription(0, b"%012d" % number),
        group(456, group(437, u64(421, asked)), group(446, u64(421, 7 * number), u32(420, number)), u32(432, 10)),
        without=["Origin-Host", "CC-Request-Number"],
        flags=flags,
        hop_by_hop=number,
    )


@pytest.mark.usefixtures("way")
def test_what_seldom_changes_may_change() -> None:
    """Names, amounts asked for and the T bit change while a layout is read by what it had in common so far."""
    cache, learnt = counting(learn)
    messages = [
        *(session(number) for number in range(4)),
        session(4, flags=0xD0),
        session(5),
        session(6, host=b"gw2.example"),
        session(7, asked=501),
        session(8, host=b"gw1.example", asked=500),
        session(9, flags=0xC1),
        session(10, host=b"gw3.example", flags=0xD0, asked=1),
        *(session(number) for number in range(11, 14)),
    ]
    for octets in messages * 2:
        read = cache.read(octets)
        assert read == learn(octets).apply(octets)
        assert read.flags == octets[4]
    assert len(learnt) == len(cache) == 1


def test_a_layout_first_seen_sent_again_is_read_without_the_t_bit() -> None:
    """RFC 6733 section 3: T says that a message was sent before; the next one has it no more."""
    cache, learnt = counting(learn)
    for flags in (0xD0, 0xD0, 0xC0, 0xC0, 0xD0, 0xC0):
        assert cache.read(session(1, flags=flags)).flags == flags
    assert len(learnt) == 1


@pytest.mark.usefixtures("way")
def test_layouts_of_one_length_by_turns() -> None:
    """More layouts than have their cuts tried, each read after each other one."""
    cache, learnt = counting(learn)
    layouts = [layout(number) for number in range(MAX_CUTS_TRIED + 3)]
    for _ in range(4):
        for octets in layouts + layouts[::-1]:
            assert cache.read(octets) == learn(octets).apply(octets)
    assert len(learnt) == len(layouts)


@pytest.mark.usefixtures("way")
def test_messages_that_were_read_share_no_part_that_differs() -> None:
    """What is kept of one message stays as it was when the next is read."""
    cache: ShapeCache[Any] = ShapeCache(learn)
    kept = [cache.read(session(number)) for number in range(6)]
    for number, request in enumerate(kept):
        assert request.request_number == request.services[0].used[0].time == number
        assert request.services[0].used[0].total_octets == 7 * number
        assert request.subscriptions == ((0, b"%012d" % number),)
        assert (request.origin_host, request.services[0].requested) == (b"gw1.example", Units(total_octets=500))


@pytest.mark.parametrize("octets", REQUESTS)
def test_a_copy_of_a_part_is_the_part(octets: bytes) -> None:
    request: Any = learn(octets).apply(octets)
    parts: list[Any] = [request, *request.services, *(one for each in request.services for one in each.used)]
    parts += [one.requested for one in [request, *request.services] if one.requested is not None]
    for part in parts:
        assert part.copy() == part
        assert part.copy() is not part


@PLAIN_ONLY
def test_a_layout_that_is_read_often_is_written_out() -> None:
    written: list[object] = []

    class Noted(assembly.Plan[Any]):
        def _write_out(self) -> Callable[[tuple[Any, ...]], Any]:
            written.append(self)
            return super()._write_out()

    plan: assembly.Plan[Any] = Noted(
        [(9, None, [1, 0])], lambda *parts: parts, [9, 0, 2], [0, 1], {2: b"known"}, (5, 6)
    )
    for number in range(assembly.OFTEN + 9):
        assert plan.make((number, -number)) == ((-number, number), number, b"known")
    assert written == [plan]
