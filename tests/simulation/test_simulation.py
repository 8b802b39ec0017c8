"""A fixed number of seeds of the simulation; and that it notices when the product is broken.

Each of the mutations below takes one protection away. The simulation finds every one of them within the seeds named.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import balance
from balance import answers, ledger
from balance.accounts import Account, Session
from balance.lane import Lane, Operation
from occ.charging import Charge
from tests.plain import PLAIN_ONLY
from tests.simulation.world import Result, World, run

SEEDS = range(1, 41)


@pytest.fixture(autouse=True)
def own_event_loop() -> Iterator[None]:
    """The simulation leaves no event loop behind; other tests have theirs."""
    yield
    asyncio.set_event_loop(None)


@pytest.mark.slow
def test_no_seed_loses_or_invents_money() -> None:
    """RFC 8506 appendix C.3 and rows 16, 22, 23: whatever is lost or killed, every balance is as predicted."""
    results = [run(seed) for seed in SEEDS]
    assert {result.seed: result.faults for result in results if result.faults} == {}
    # ... and it was not for want of trouble.
    assert sum(result.repeats for result in results) > 100
    assert sum(result.deaths for result in results) > 100
    assert sum(result.outages for result in results) > 50


def test_a_seed_is_the_same_run_every_time() -> None:
    """Also in processes that hash octets differently."""
    told: list[bytes] = []
    for hash_seed in ("0", "1"):
        program = "from tests.simulation.world import run; lines = []; run(3, lines.append); print('\\n'.join(lines))"
        process = subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        )
        told.append(process.stdout)
    assert told[0] == told[1]
    assert len(told[0].splitlines()) > 20


def _first_failing(seeds: range, change: Callable[[World], None] | None = None) -> Result | None:
    for seed in seeds:
        result = run(seed, change=change)
        if result.faults:
            return result
    return None


# -- mutations -----------------------------------------------------------------------------------------------------


@PLAIN_ONLY
def test_it_notices_repeats_that_are_charged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "find", lambda kept, key: None)
    assert _first_failing(SEEDS) is not None


def test_it_notices_plans_that_overwrite_each_other() -> None:
    change = _scripts_with(b"call('GETRANGE', account, '0', '7') ~= ARGV[at]", b"false")
    assert _first_failing(SEEDS, change) is not None


def test_it_notices_first_requests_that_come_back_after_their_session() -> None:
    assert _first_failing(SEEDS, _scripts_with(b"if firsts > 0 then", b"if false then")) is not None


def _scripts_with(there: bytes, other: bytes) -> Callable[[World], None]:
    """Has a world run the commit script with something else in the place of a text that stands there once."""
    assert (Path(balance.__file__).parent / "scripts" / "commit.lua").read_bytes().count(there) == 1

    def change(world: World) -> None:
        load = world.redis._load
        world.redis._load = lambda text: load(text.replace(there, other))  # type: ignore[method-assign]

    return change


@PLAIN_ONLY
def test_it_notices_reservations_that_are_not_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    release = ledger.Draft.release_session

    def forgetful(self: ledger.Draft, session: Session) -> None:
        for use in session.services:
            use.parts = []
        release(self, session)

    monkeypatch.setattr(ledger.Draft, "release_session", forgetful)
    assert _first_failing(SEEDS) is not None


@PLAIN_ONLY
def test_it_notices_late_usage_that_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    late = Charge._late

    def deaf(self: Charge, account: Account, ended: Session) -> object:
        plan = late(self, account, ended)
        plan.account = None
        return plan

    monkeypatch.setattr(Charge, "_late", deaf)
    assert _first_failing(SEEDS) is not None


@PLAIN_ONLY
def test_it_notices_answers_that_leave_before_the_money_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    send = Lane._send

    def hasty(self: Lane, batch: list[Operation]) -> None:
        for operation in batch:
            assert operation.plan is not None
            operation.done(operation.plan)
            operation.done = lambda result: None
        send(self, batch)

    monkeypatch.setattr(Lane, "_send", hasty)
    assert _first_failing(SEEDS) is not None
