"""Who is begun, who waits, and who is refused first, by a clock and a store that the test holds in its hand."""

import asyncio

import pytest

from occ.admission import (
    BEAT_S,
    IN_STORE,
    LASTING,
    LEAST_BEGUN,
    SLICE_S,
    TERMINATIONS_ROOM,
    TICK_S,
    TOO_LATE,
    TOO_MANY,
    UPDATES_ROOM,
    UPDATES_WAIT,
    Admission,
    AdmissionLimits,
)
from occ.codes import EVENT, INITIAL, TERMINATION, UPDATE

BOUND_S = 0.2


class _UnderWay:
    in_flight = 0


class _Store:
    capacity = 1024
    age_s = 0.0
    commit_s = 0.0

    def delay(self, now: float) -> float:
        return self.age_s

    def recent_commit(self) -> float:
        return self.commit_s


class Desk:
    """An admission, and what it has done. A request is its type and a number, as octets."""

    def __init__(self, in_flight: int = 400, costs_s: float = 0.0) -> None:
        self.now = 1000.0
        self.costs_s = costs_s
        """How long it takes to begin a request."""
        self.under_way = _UnderWay()
        self.store = _Store()
        self.begun: list[bytes] = []
        self.refused: list[tuple[bytes, str]] = []
        limits = AdmissionLimits(in_flight, BOUND_S)
        self.number = 0
        self.turns = 0
        self.admission: Admission[str] = Admission(
            limits,
            self.under_way,
            self.store,
            lambda octets: octets[0],
            self._begin,
            self._refuse,
            lambda: self.now,
            lambda: self.turns,
        )

    def _begin(self, peer: str, message: bytes, read_at: float) -> None:
        assert peer == "peer"
        assert read_at <= self.now
        self.begun.append(message)
        self.under_way.in_flight += 1
        self.now += self.costs_s

    def _refuse(self, peer: str, message: bytes, kind: int, reason: str) -> None:
        assert (peer, kind) == ("peer", message[0])
        self.refused.append((message, reason))

    def send(self, kind: int) -> bytes:
        """As `Gy.handle_ccr` does."""
        self.number += 1
        message = bytes((kind, self.number >> 8, self.number & 255))
        admission = self.admission
        if self.now < admission.until and self.under_way.in_flight < admission.at_once:
            self._begin("peer", message, self.now)
        else:
            admission.take("peer", message, self.now)
        return message

    def answer(self, count: int = 1) -> None:
        for _ in range(count):
            self.under_way.in_flight -= 1
            if self.admission.waiting:
                self.admission.answered()

    async def answer_all(self) -> None:
        """All that was begun, and what is begun for it, until nothing waits."""
        while self.under_way.in_flight:
            self.answer(self.under_way.in_flight - self.admission.waiting)
            await self.turn()

    def fill(self) -> None:
        """As many requests as may be begun."""
        while not self.admission.waiting:
            self.send(UPDATE)
        assert len(self.begun) == self.admission.at_once
        assert self.under_way.in_flight == self.admission.at_once + 1

    async def turn(self) -> None:
        """The loop comes round."""
        self.turns += 1
        await asyncio.sleep(0)

    async def tick(self) -> None:
        """What looks after those that wait while nothing else happens."""
        await asyncio.sleep(3 * TICK_S)

    def held(self) -> int:
        return self.admission.waiting


@pytest.fixture
async def desk() -> Desk:
    return Desk()


async def test_requests_are_begun_as_they_are_read(desk: Desk) -> None:
    sent = [desk.send(kind) for kind in (INITIAL, UPDATE, TERMINATION, EVENT)]
    assert desk.begun == sent
    assert desk.held() == 0


async def test_after_a_slice_the_sockets_are_read_before_more_is_begun() -> None:
    """And what belongs to running sessions is begun first then, in the order it came."""
    desk = Desk(costs_s=SLICE_S / 4)
    first = [desk.send(INITIAL) for _ in range(8)]
    assert desk.begun == first[:4]
    running = [desk.send(kind) for kind in (TERMINATION, UPDATE)]
    await desk.turn()
    assert desk.begun == [*first[:4], *running, *first[4:6]]
    await desk.turn()
    assert desk.begun == [*first[:4], *running, *first[4:]]
    assert desk.held() == 0
    assert desk.under_way.in_flight == len(desk.begun)
    await desk.turn()
    assert desk.send(INITIAL) == desk.begun[-1]


async def test_what_is_begun_does_not_overtake_what_waits() -> None:
    desk = Desk(costs_s=SLICE_S)
    first = [desk.send(INITIAL) for _ in range(3)]
    await desk.turn()
    first.append(desk.send(INITIAL))
    for _ in range(5):
        await desk.turn()
    assert desk.begun == first


async def test_the_oldest_first_requests_are_refused_when_they_have_waited_too_long(desk: Desk) -> None:
    """Whoever is refused tries elsewhere (RFC 6733 section 7.1.3), and had better hear of it soon."""
    desk.fill()
    old, events = [desk.send(INITIAL) for _ in range(3)], [desk.send(EVENT)]
    running = [desk.send(UPDATE), desk.send(TERMINATION)]
    desk.now += BOUND_S - BOUND_S / LASTING / 2
    young = desk.send(INITIAL)
    assert desk.refused == []
    desk.now += BOUND_S / LASTING / 2 + 0.001
    await desk.tick()
    assert desk.refused == [(message, TOO_LATE) for message in (*old, *events)]
    assert desk.held() == 1 + len(running) + 1
    await desk.answer_all()
    assert desk.begun[-3:] == [*running, young]


async def test_in_a_queue_that_lasts_first_requests_wait_shorter(desk: Desk) -> None:
    desk.fill()
    desk.now += BOUND_S + 0.001
    await desk.tick()
    request = desk.send(INITIAL)
    desk.now += 0.001
    await desk.tick()
    assert desk.refused == []
    desk.now += BOUND_S / LASTING
    await desk.tick()
    # The tick before was one patience ago: one chance more.
    desk.now += 0.001
    await desk.tick()
    assert desk.refused == [(request, TOO_LATE)]


async def test_a_late_loop_counts_as_a_queue_that_lasts(desk: Desk) -> None:
    """What waits in the sockets while something blocks the loop is not seen here."""
    desk.fill()
    desk.admission.loop_delay_s = BOUND_S + 0.001
    request = desk.send(INITIAL)
    for _ in range(2):
        desk.now += BOUND_S / LASTING
        await desk.tick()
    assert desk.refused == [(request, TOO_LATE)]


async def test_updates_are_refused_at_a_higher_bound_and_terminations_are_not(desk: Desk) -> None:
    desk.fill()
    update, termination = desk.send(UPDATE), desk.send(TERMINATION)
    desk.now += UPDATES_WAIT * BOUND_S - 0.001
    late = desk.send(UPDATE)
    await desk.tick()
    assert desk.refused == []
    desk.now += 0.002
    await desk.tick()
    overdue = {message for message, _ in desk.refused}
    assert update in overdue
    assert termination not in overdue
    assert {message[0] for message in overdue} == {UPDATE}
    await desk.answer_all()
    assert desk.begun[-2:] == [termination, late]


async def test_beyond_the_in_flight_bound_the_oldest_first_request_makes_room() -> None:
    waiting = Desk(in_flight=400)
    waiting.fill()
    old = [waiting.send(INITIAL) for _ in range(400 - waiting.under_way.in_flight)]
    assert waiting.refused == []
    new = [waiting.send(kind) for kind in (INITIAL, UPDATE, TERMINATION)]
    assert waiting.refused == [(message, TOO_MANY) for message in old[:3]]
    assert waiting.under_way.in_flight == 400
    await waiting.answer_all()
    assert waiting.begun[-1] == new[0]
    assert set(new) < set(waiting.begun)


async def test_updates_and_terminations_have_room_of_their_own() -> None:
    """With nothing but running sessions under way, new ones are refused first, then updates, terminations last."""
    desk = Desk(in_flight=100)
    while desk.under_way.in_flight < 100:
        desk.send(UPDATE)
    refused = [desk.send(INITIAL), desk.send(EVENT)]
    assert [message for message, _ in desk.refused] == refused
    while desk.under_way.in_flight < 100 * UPDATES_ROOM:
        desk.send(UPDATE)
    refused += [desk.send(INITIAL), desk.send(UPDATE)]
    assert [message for message, _ in desk.refused] == refused
    while desk.under_way.in_flight < 100 * TERMINATIONS_ROOM:
        desk.send(TERMINATION)
    refused += [desk.send(TERMINATION)]
    assert desk.refused == [(message, TOO_MANY) for message in refused]


async def test_no_first_request_is_begun_while_the_store_hangs(desk: Desk) -> None:
    """Updates are: they wait for the same disk, and their order must stay."""
    desk.fill()
    first, running = desk.send(INITIAL), desk.send(TERMINATION)
    desk.store.age_s = BOUND_S + 0.001
    desk.answer(10)
    await desk.turn()
    assert running in desk.begun
    assert first not in desk.begun
    desk.store.age_s = 0.0
    await desk.tick()
    assert desk.begun[-1] == first


async def test_as_many_are_begun_as_the_store_answers_in_time() -> None:
    """Little's law: under way = rate of answers times time under way."""
    desk = Desk(in_flight=10_000)
    desk.fill()
    rate = 8000
    for _ in range(200):
        while desk.held() < 200:
            desk.send(UPDATE)
        desk.now += 0.01
        desk.answer(min(rate // 100, desk.under_way.in_flight - desk.held()))
        await desk.turn()
    assert desk.admission.at_once == pytest.approx(rate * BOUND_S / IN_STORE[0], rel=0.2)
    # A slow disk writes many at once: what two of its commits take is the measure then, within bounds.
    desk.store.commit_s = 0.02
    for _ in range(200):
        while desk.held() < 200:
            desk.send(UPDATE)
        desk.now += 0.01
        desk.answer(min(rate // 100, desk.under_way.in_flight - desk.held()))
        await desk.turn()
    assert desk.admission.at_once == pytest.approx(rate * BOUND_S / IN_STORE[1], rel=0.2)


async def test_a_store_that_answers_nothing_leaves_a_few_under_way() -> None:
    desk = Desk(in_flight=10_000)
    desk.fill()
    for _ in range(20):
        desk.now += 0.06
        await desk.tick()
    assert desk.admission.at_once == LEAST_BEGUN


async def test_a_request_that_cannot_be_begun_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is under way, so no answer brings the next turn."""
    desk = Desk(costs_s=SLICE_S)
    desk.send(UPDATE)
    faulty, behind = desk.send(UPDATE), desk.send(UPDATE)
    begin = desk._begin

    def fail(peer: str, message: bytes, read_at: float) -> None:
        if message == faulty:
            raise ZeroDivisionError("a fault")
        begin(peer, message, read_at)

    monkeypatch.setattr(desk.admission, "_begin", fail)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    desk.answer()
    await desk.turn()
    await desk.tick()
    assert desk.begun[-1] == behind
    assert desk.held() == 0


async def test_the_delay_of_the_loop_is_known() -> None:
    desk = Desk()
    watching = asyncio.get_running_loop().create_task(desk.admission.watch())
    try:
        await asyncio.sleep(BEAT_S / 2)
        blocked_until = asyncio.get_running_loop().time() + 3 * BEAT_S
        while asyncio.get_running_loop().time() < blocked_until:
            pass
        await asyncio.sleep(2 * BEAT_S)
        assert desk.admission.worst_loop_delay_s >= 2 * BEAT_S
    finally:
        watching.cancel()
