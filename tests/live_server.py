"""The real server, with its own Redis and real sockets, in a thread of its own; the tests talk to it from outside.

What goes on inside the server's event loop is out of reach for the tests but for three things: coroutines that they
hand in (``run``), the wall clock by which it charges (``pass_time``), and, on request, the clock by which its
timers run (``fall_silent``), so that nobody has to wait for a watchdog.
"""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import uvloop

from balance.accounts import Account
from balance.directory import (
    NewBucket,
    Posting,
    accounts,
    create_account,
    read_account,
    set_credit_limit,
    top_up_account,
)
from balance.model import AccountKind, IdentityType, Subscriber, Unit
from balance.subscribers import add_subscriber
from balance.verify import Report, verify
from occ.cdr import unrecorded_micro
from occ.cdr_files import record_lines
from occ.server import OnlineChargingServer
from occ.settings import load

T = TypeVar("T")

CURRENCY = 978
PATIENCE_S = 20.0
"""Longer than anything here takes; only a hanging server uses it up."""


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be put forward: timers that are due by then fire at once."""

    def __init__(self) -> None:
        self.skipped_s = 0.0
        super().__init__()

    def time(self) -> float:
        return super().time() + self.skipped_s


_directories: dict[str, set[Path]] = {}
"""Where the servers of each store deliver charging data records."""


class LiveServer:
    """One running server. ``settings`` are dotted names as the command line's options have them.

    ``config``: another settings file than the project's own. ``loop``: what makes the event loop; ``SkippingLoop``
    allows ``fall_silent``.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str] | None = None,
        config: Path | None = None,
        loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    ) -> None:
        self.directory = directory
        # A process less per server; the tests of notices enable them.
        free = {"diameter.port": "0", "metrics.port": "0", "notices.enabled": "no"}
        free["store.data_dir"] = str(directory / "data")
        if "catalogue" in (settings or {}):
            free["policies"] = "none"  # those of the sample are about what the sample's catalogue has
        self.settings = load(config, free | dict(settings or {}), environ={})
        self.passed_ms = 0
        self._make_loop = loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._failure: BaseException | None = None

    def now_ms(self) -> int:
        """The server's wall clock."""
        return time.time_ns() // 1_000_000 + self.passed_ms

    def start(self) -> "LiveServer":
        self._thread = threading.Thread(target=self._main, name="server", daemon=True)
        self._thread.start()
        if not self._started.wait(PATIENCE_S):
            raise TimeoutError("the server did not start")
        if self._failure is not None:
            raise self._failure
        return self

    def ask_to_stop(self) -> None:
        """Begin to stop; ``stop`` waits for the end of it."""
        if self._loop is not None and self._stop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.set)

    def stop(self) -> None:
        self.ask_to_stop()
        assert self._thread is not None
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise TimeoutError("the server did not stop")
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> "LiveServer":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _main(self) -> None:
        loop = self._loop = self._make_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(self._serve())
        except BaseException as error:  # handed to the thread that waits
            self._failure = error
        finally:
            self._started.set()
            asyncio.set_event_loop(None)
            loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self.server = OnlineChargingServer(self.settings, clock=self.now_ms)
        await self.server.start()
        _directories.setdefault(self.server.redis_address.url, set()).add(self.settings.cdr.directory)
        self._started.set()
        await self._stop.wait()
        await self.server.stop()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """A coroutine that runs in the server's loop from now on."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine that runs in the server's loop."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    # -- time ----------------------------------------------------------------------------------------------------

    def pass_time(self, milliseconds: int) -> None:
        """Put the wall clock forward, and have everything done that falls due by then."""
        self.passed_ms += milliseconds
        self.run(self.server.expiry.scan(self.now_ms()))

    def fall_silent(self, seconds: float) -> None:
        """Put the clock of the timers forward, as if nothing had happened for so long."""
        loop = self._loop
        assert isinstance(loop, SkippingLoop)

        async def skip() -> None:
            loop.skipped_s += seconds

        self.run(skip())

    # -- the ledger ----------------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The Diameter port."""
        return self.server.diameter_port

    @property
    def origin_host(self) -> str:
        return self.settings.diameter.origin_host

    def add_account(
        self,
        name: str,
        identities: Sequence[tuple[IdentityType, str]],
        *,
        balance_micro: int = 0,
        credit_limit_micro: int | None = None,
        overdraft_micro: int = 0,
        buckets: Sequence[NewBucket] = (),
        plan: str = "standard",
    ) -> None:
        """An account and its one subscriber; postpaid if it has a credit limit, prepaid if it has an overdraft."""
        store = self.server.store

        async def add() -> None:
            await create_account(
                store,
                name.encode(),
                AccountKind.PREPAID if credit_limit_micro is None else AccountKind.POSTPAID,
                CURRENCY,
                now_ms=self.now_ms(),
                reason="test",
                balance_micro=balance_micro,
                credit_limit_micro=credit_limit_micro or overdraft_micro,
                buckets=buckets,
            )
            known = tuple((int(kind), value.encode()) for kind, value in identities)
            await add_subscriber(store, Subscriber(name.encode(), name.encode(), plan, known))

        self.run(add())

    def overdraw(self, name: str, limit_micro: int) -> None:
        """Let an account go so far below zero."""
        limit = set_credit_limit(self.server.store, name.encode(), limit_micro, self.now_ms(), "test")
        self.run(limit)

    def top_up(self, name: str, amount_micro: int) -> Posting:
        return self.run(
            top_up_account(self.server.store, name.encode(), amount_micro, now_ms=self.now_ms(), reason="test")
        )

    def account(self, name: str) -> Account:
        """The account as Redis holds it now."""
        account = self.run(read_account(self.server.store, name.encode()))
        assert account is not None, f"there is no account {name}"
        return account

    def verify(self) -> Report:
        """What ``occ ledger verify`` finds."""
        return self.run(verify(self.server.store))

    def assert_books_balance(self) -> Report:
        """The ledger is consistent, and all that was debited is in a charging data record or an open session."""
        report = self.verify()
        assert report.consistent, report.discrepancies
        debited = sum(total.debited for total in report.totals if total.unit == Unit.MONEY)
        recorded = sum(json.loads(line)["debited_micro"] for line in self._all_cdr_lines())
        assert debited == recorded + self.run(self._debited_in_open_sessions())
        return report

    def _all_cdr_lines(self) -> list[str]:
        """The charging data records of all servers of this store, once the outbox is empty."""
        store = self.server.store
        deadline = time.monotonic() + PATIENCE_S
        while any(self.run(store.call("XLEN", store.keys.outbox(lane))) for lane in store.keys.lanes()):
            assert time.monotonic() < deadline, "the outbox is not delivered"
            time.sleep(0.02)
        return self.store_cdr_lines()

    async def _debited_in_open_sessions(self) -> int:
        total = 0
        async for page in accounts(self.server.store):
            for account in page:
                for session in account.sessions.values():
                    total += sum(unrecorded_micro(use) for use in session.services)
        return total

    def cdr_lines(self) -> list[str]:
        """The charging data records that this server has on disk, in order."""
        return _lines_in(self.settings.cdr.directory)

    def store_cdr_lines(self) -> list[str]:
        """Those that the servers of this store have on disk."""
        return [line for directory in _directories[self.server.redis_address.url] for line in _lines_in(directory)]

    def shares_store_with(self, cdr_directory: Path) -> None:
        """A server that is none of these delivers charging data records of the same store there."""
        _directories[self.server.redis_address.url].add(cdr_directory)


def forget_directories(url: str) -> None:
    """A store is empty again: what earlier servers of it have delivered is not of it any more."""
    _directories.pop(url, None)


def _lines_in(directory: Path) -> list[str]:
    return [line.decode() for line in record_lines(directory, "jsonl")]
