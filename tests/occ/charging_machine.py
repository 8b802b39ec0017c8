"""Random clients against a real store and two workers, each step compared with the naive ledger.

What the machines of the tests beside this have in common: accounts, how requests are sent, what must hold after every
step.
"""

import asyncio
import logging
import sys
from collections.abc import Coroutine, Hashable, Sequence
from copy import deepcopy
from typing import Any, TypeVar

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant

from balance.accounts import Account, Period, ServiceUse, Session
from balance.directory import NewBucket, create_account, read_account, top_up_account
from balance.embedded import Address
from balance.ledger import Draft
from balance.model import AccountKind, Subscriber, Unit
from balance.periods import running_period
from balance.plans import Outcome, Plan
from balance.records import make_plan, unpack_outbox
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import verify
from occ.cdr import as_json_fields
from occ.charging import Charging
from occ.expiry import Expiry
from occ.profiles import Profile
from occ.rules import ChargingSettings, Rules
from protocols.credit_control import CreditControlRequest, ServiceRequest
from tests.naive_catalogue import DAY_MS
from tests.naive_charging import NaiveCharging
from tests.naive_ledger import NaiveBucket, NaiveLedger
from tests.naive_services import Expected, NaiveSession, NaiveSubscriber
from tests.occ.machine_catalogue import CATALOGUES, CONTEXT, EUR, REAL_CATALOGUES
from tests.occ.machine_requests import Sent

T = TypeVar("T")

MIDNIGHT_MS = 20_000 * DAY_MS
SETTINGS = ChargingSettings(refund_window_ms=1_000_000)
WORKERS = 2


class _Errors(logging.Handler):
    """Errors that were logged."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def _not_recorded(use: ServiceUse) -> tuple[int, int, int, int]:
    """Units used and disbelieved, micro-units debited and leaked, of which no charging data record tells yet."""
    over = use.notes.periods if use.notes is not None else ()
    periods = [Period._make(each) for each in (*over, running_period(use, 0))]
    leaked = sum(each.leaked_micro for each in periods)
    debited = sum(each.cost_micro for each in periods) - leaked
    return sum(each.units for each in periods), use.disbelieved, debited, leaked


class ChargingMachine(RuleBasedStateMachine):
    """Two accounts, three subscribers, two workers on one store; and the naive server that says what is right."""

    address: Address

    @initialize(
        money=st.integers(0, 80),
        allowance=st.sampled_from([0, 0, 3, 10]),
        seconds=st.sampled_from([0, 0, 15]),
        bonus=st.integers(0, 20),
        lapses_s=st.sampled_from([0, 30, 100, 150, 300]),
        first=st.booleans(),
        limit=st.sampled_from([0, 0, 0, 40]),
        poor=st.integers(0, 30),
        start_ms=st.integers(0, 400).map(lambda halves: halves * 500),
        data=st.data(),
    )
    def start(
        self,
        money: int,
        allowance: int,
        seconds: int,
        bonus: int,
        lapses_s: int,
        first: bool,
        limit: int,
        poor: int,
        start_ms: int,
        data: Any = None,
    ) -> None:
        now_ms = self.now_ms = MIDNIGHT_MS + start_ms
        lapses_ms = now_ms + lapses_s * 1000 if lapses_s else 0
        priority = 50 if first else 150
        ledger = {
            1: NaiveBucket("money", money, 100, limit),
            2: NaiveBucket("octets", allowance, 1, 0, lapses_ms),
            3: NaiveBucket("money", bonus, priority, 0, lapses_ms),
            4: NaiveBucket("seconds", seconds, 1),
        }
        ledgers = {"a": NaiveLedger(ledger, now_ms), "b": NaiveLedger({1: NaiveBucket("money", poor, 100)}, now_ms)}
        who = {
            b"a1": NaiveSubscriber("a1", "a", "standard"),
            b"a2": NaiveSubscriber("a2", "a", "other"),
            b"b1": NaiveSubscriber("b1", "b", "standard"),
        }
        self.naive = NaiveCharging(ledgers, who, CATALOGUES[0], SETTINGS)
        self.naive.advance(now_ms)
        self.credited = {
            account: sum(bucket.balance for bucket in each.buckets.values() if bucket.unit == "money")
            for account, each in ledgers.items()
        }
        self.sent: list[Sent] = []
        self.first: dict[int, Outcome] = {}
        """By the serial number of what the naive server expected."""
        self.profiles: dict[bytes, Profile] = {}
        self.numbers: dict[bytes, int] = {}
        self.sessions = 0
        self.records: list[dict[str, Any]] = []
        self.read_to = b"0-0"
        self.errors = _Errors()
        logging.getLogger("occ").addHandler(self.errors)
        self.loop = asyncio.new_event_loop()
        self.run(self._start())
        if data is not None:
            self.begin(data)

    def begin(self, data: Any) -> None:
        """What comes first."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def _start(self) -> None:
        with redis.Redis.from_url(self.address.url) as client:
            client.flushall()
        self.workers: list[Charging] = []
        for _ in range(WORKERS):
            store = Store(StoreSettings(self.address, partitions=2))
            await store.start()
            self.workers.append(Charging(store, Rules(REAL_CATALOGUES[0], SETTINGS)))
        self.store = self.workers[0].store
        self.expiries = [Expiry(worker, lambda: self.now_ms) for worker in self.workers]
        for account, ledger in self.naive.ledgers.items():
            main = ledger.buckets[1]
            await create_account(
                self.store,
                account.encode(),
                AccountKind.POSTPAID if main.limit else AccountKind.PREPAID,
                EUR,
                now_ms=self.now_ms,
                reason="test",
                balance_micro=main.balance,
                credit_limit_micro=main.limit,
                buckets=[
                    NewBucket(Unit[each.unit.upper()], each.balance, each.priority, each.expires_ms)
                    for number, each in ledger.buckets.items()
                    if number != 1
                ],
            )
        for identity, each in self.naive.subscribers.items():
            subscriber = Subscriber(each.name.encode(), each.account.encode(), each.plan, ((4, identity),))
            await add_subscriber(self.store, subscriber)

    # -- requests --------------------------------------------------------------------------------------------------

    def new_session(self) -> bytes:
        self.sessions += 1
        return b"gw;%d" % self.sessions

    def send(
        self, request: CreditControlRequest, profile: Profile, worker: int = 0, copies: int = 1
    ) -> tuple[Outcome, Expected]:
        """Let both servers charge it, and compare; ``copies`` arrive at once, each at another worker."""
        expected = self.naive.charge(request, profile)
        outcomes = self.run(self._charge([request] * copies, profile, worker))
        for outcome in outcomes:
            if (expected.code in (5002, 5012) or expected.serial in self.first) and self._had_before(request, outcome):
                continue  # a worker may remember an answer for longer than the store keeps it
            self.compare(outcome, expected)
            self._came(request, profile, outcome, expected)
        self.run(self._hold_ended())
        return outcomes[0], expected

    def _had_before(self, request: CreditControlRequest, outcome: Outcome) -> bool:
        return any(sent.is_repeated_by(request) and sent.outcome == outcome for sent in self.sent)

    def send_both(self, requests: list[CreditControlRequest], profile: Profile, worker: int = 0) -> None:
        """Two requests at once, each at another worker: it must be as if one had come after the other."""
        outcomes = self.run(self._charge(requests, profile, worker))
        before = deepcopy(self.naive)
        try:
            expected = [self.naive.charge(request, profile) for request in requests]
            for outcome, each in zip(outcomes, expected, strict=True):
                self.compare(outcome, each)
            self._compare_with_store()
        except AssertionError:
            self.naive = before
            expected = [self.naive.charge(request, profile) for request in reversed(requests)][::-1]
            for outcome, each in zip(outcomes, expected, strict=True):
                self.compare(outcome, each)
        for request, outcome, each in zip(requests, outcomes, expected, strict=True):
            self._came(request, profile, outcome, each)
        self.run(self._hold_ended())

    async def _charge(self, requests: Sequence[CreditControlRequest], profile: Profile, worker: int) -> list[Outcome]:
        async def wait(charging: Charging, request: CreditControlRequest) -> Outcome:
            future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
            charging.charge(request, profile, b"pgw", self.now_ms, future.set_result)
            async with asyncio.timeout(10):
                return await future

        workers = [self.workers[(worker + n) % WORKERS] for n in range(len(requests))]
        return await asyncio.gather(*map(wait, workers, requests))

    def _came(self, request: CreditControlRequest, profile: Profile, outcome: Outcome, expected: Expected) -> None:
        assert outcome == self.first.setdefault(expected.serial, outcome), "a repeat was answered otherwise"
        self.sent.append(Sent(request, profile, outcome))

    @staticmethod
    def compare(outcome: Outcome, expected: Expected) -> None:
        assert outcome.result_code == expected.code, (outcome, expected)
        assert outcome.cost_micro == expected.cost
        assert outcome.check_balance_result == expected.check
        if expected.code != 2001:
            return
        assert [
            (
                each.rating_group,
                each.service_identifiers,
                each.result_code,
                each.unit,
                each.units,
                each.validity_time_s,
                each.final,
                each.switch_s,
            )
            for each in outcome.grants
        ] == [
            (
                each.group,
                each.identifiers,
                each.code,
                each.unit,
                each.units,
                each.validity_s,
                each.final,
                each.switch_s,
            )
            for each in expected.grants
        ]

    def request(
        self,
        session: bytes,
        kind: int,
        number: int,
        services: Sequence[ServiceRequest] = (),
        who: bytes | None = None,
        **others: Any,
    ) -> CreditControlRequest:
        return CreditControlRequest(
            0xC0, 1, 2, session, b"gw", b"r", b"r", others.pop("context", CONTEXT), kind, number,
            subscriptions=() if who is None else ((4, who),), services=tuple(services), **others,
        )  # fmt: skip

    def in_money(self, session: NaiveSession) -> list[Hashable]:
        """The services of a session that their client rates."""
        services = self.naive.ledgers[session.account].services
        return [name for name in session.services.values() if services[name].unit == "amount"]

    # -- what else happens -----------------------------------------------------------------------------------------

    def pass_time(self, milliseconds: int) -> None:
        """Supervision looks at once; what the store keeps for a while ages with the clock of the test."""
        known = dict(self.naive.ended)
        self.now_ms += milliseconds
        self.naive.advance(self.now_ms)
        self.run(self._forget([each for key, each in known.items() if key not in self.naive.ended]))
        self.naive.supervise()
        self.run(self.expiries[0].scan(self.now_ms))
        self.run(self._hold_ended())

    def client_lost_state(self, host: bytes, state_id: int) -> None:
        """Each worker releases the sessions it knows of."""
        self.naive.client_lost_state(host, state_id)
        for expiry in self.expiries:
            self.run(expiry.release_lost({host: state_id}))
        self.run(self._hold_ended())

    def _ended_key(self, session: NaiveSession) -> bytes:
        return self.store.keys.ended(session.account.encode(), session.key)

    async def _forget(self, sessions: list[NaiveSession]) -> None:
        for session in sessions:
            assert await self.store.call("DEL", self._ended_key(session)) == 1

    async def _hold_ended(self) -> None:
        """The store keeps each ended session for as long as it should: by the clock of the test, so hold that of the
        store, however long the test takes.
        """
        sessions = list(self.naive.ended.values())
        left = await asyncio.gather(*(self.store.call("PTTL", self._ended_key(each)) for each in sessions))
        for session, left_ms in zip(sessions, left, strict=True):
            assert left_ms != -2, "an ended session is not kept"
            if left_ms != -1:
                late_ms = session.keep_until_ms - self.now_ms - left_ms
                assert 0 <= late_ms < 60_000, "an ended session is kept for other times"
                await self.store.call("PERSIST", self._ended_key(session))

    def top_up(self, account: str, amount: int) -> None:
        self.run(top_up_account(self.store, account.encode(), amount, now_ms=self.now_ms, reason="test"))
        self.naive.ledgers[account].buckets[1].balance += amount
        self.credited[account] += amount

    def sell(self, edition: int) -> None:
        self.naive.catalogue = CATALOGUES[edition]
        for worker in self.workers:
            worker.rules = Rules(REAL_CATALOGUES[edition], SETTINGS)

    def refuse(self, key: bytes) -> None:
        """The client has refused to abort the session."""
        session = self.naive.open[key]
        session.refused = True

        def step(account: Account | None, _: Session | None) -> Plan:
            assert account is not None
            draft = Draft(account, self.now_ms)
            found = draft.session(key)
            if found is None:
                return Plan(None, expected_version=account.version, ended=Session(b"", b"", "", b"", 0, 0, 0))
            found.refused = True
            return make_plan(draft, "deny-session", (key,), None)

        self.run(self.store.commit(session.account.encode(), step))

    # -- what must hold --------------------------------------------------------------------------------------------

    @invariant()
    def same_books(self) -> None:
        if hasattr(self, "workers"):
            self._compare_with_store()

    def _compare_with_store(self) -> None:
        accounts, records = self.run(self._read())
        for account in accounts:
            name = account.account_id.decode()
            ledger = self.naive.ledgers[name]
            self._compare_account(account, ledger)
            self._compare_records(account, ledger, records)
            money = sum(bucket.balance for bucket in account.buckets if bucket.unit == Unit.MONEY)
            debited = sum(each.debited for each in ledger.services.values())
            assert money + debited == self.credited[name] - ledger.lapsed_money
        self._compare_statistics()

    async def _read(self) -> tuple[list[Account], list[dict[str, Any]]]:
        """The accounts and the charging data records as they stand in the store."""
        (lane,) = self.store.keys.lanes()
        *accounts, entries = await asyncio.gather(
            *(read_account(self.store, name.encode()) for name in self.naive.ledgers),
            self.store.call("XRANGE", self.store.keys.outbox(lane), f"({self.read_to.decode()}", "+"),
        )
        for entry_id, fields in entries:
            self.read_to = entry_id
            for entry in fields[1::2]:
                self.records += [as_json_fields(record) for record in unpack_outbox(entry)]
        return accounts, self.records

    def _compare_account(self, account: Account, ledger: NaiveLedger) -> None:
        for bucket in account.buckets:
            naive = ledger.buckets[bucket.bucket_id]
            assert (bucket.balance, bucket.reserved) == (naive.balance, ledger.held(bucket.bucket_id))
            assert bucket.balance >= -naive.limit
            parts = [
                amount
                for session in account.sessions.values()
                for use in session.services
                for number, amount in use.parts
                if number == bucket.bucket_id
            ]
            assert bucket.reserved == sum(parts)
        expected = {
            key: session for key, session in self.naive.open.items() if session.account == account.account_id.decode()
        }
        assert account.sessions.keys() == expected.keys()
        for key, session in account.sessions.items():
            assert session.expires_ms - self.now_ms == expected[key].expires_ms - self.now_ms
            known = {identity: ledger.services[name] for identity, name in expected[key].services.items()}
            assert {
                (use.rating_group, use.service_identifier): (
                    use.used, use.debited_micro, use.leaked_micro, use.granted, use.final
                )
                for use in session.services
            } == {
                identity: (each.used, each.debited, each.leaked, each.granted, each.final)
                for identity, each in known.items()
            }  # fmt: skip

    def _compare_records(self, account: Account, ledger: NaiveLedger, records: list[dict[str, Any]]) -> None:
        """Charging data records, with what they do not tell of open sessions yet, tell of all that was charged."""
        members = [each.name for each in self.naive.subscribers.values() if each.account == account.account_id.decode()]
        told = [
            (each["used"], each["disbelieved"], each["debited_micro"], each["leaked_micro"])
            for each in records
            if each["subscriber_id"] in members
        ]
        told += [_not_recorded(use) for session in account.sessions.values() for use in session.services]
        services = ledger.services.values()
        assert [sum(figures) for figures in zip((0, 0, 0, 0), *told, strict=True)] == [
            sum(each.used for each in services),
            sum(each.disbelieved for each in services),
            sum(each.debited for each in services),
            sum(each.leaked for each in services),
        ]

    def _compare_statistics(self) -> None:
        counted = [worker.statistics for worker in self.workers]
        services = [each for ledger in self.naive.ledgers.values() for each in ledger.services.values()]
        assert sum(each.debited_micro - each.refunded_micro for each in counted) == sum(s.debited for s in services)
        assert sum(each.leaked_micro for each in counted) == sum(s.leaked for s in services)
        assert sum(each.open_sessions for each in counted) == len(self.naive.open)
        holding = sum(1 for each in services if any(coins for _, coins in each.holds))
        assert sum(each.open_reservations for each in counted) == holding

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            logging.getLogger("occ").removeHandler(self.errors)
            try:
                if hasattr(self, "workers") and sys.exc_info()[0] is None:  # nothing has failed before
                    self.run(self._stop())
            finally:
                self.loop.close()

    async def _stop(self) -> None:
        assert not self.errors.messages, "no client can make the server stumble"
        report = await verify(self.store)
        assert report.discrepancies == []
        kept = await self.store.call("KEYS", "{p*}:e:*")
        assert {each.split(b":e:", 1)[1] for each in kept} == set(self.naive.ended)
        for worker in self.workers:
            await worker.store.stop()
