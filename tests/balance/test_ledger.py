"""The ledger's arithmetic against a naive one, and the rules it keeps (conformance rows 19, 20, 26, 28)."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from balance.accounts import Account, ServiceUse, Session
from balance.fees import refund
from balance.ledger import (
    Draft,
    add_bucket,
    expire_buckets,
    has_more,
    next_wake_ms,
    release,
    reserve,
    settle,
    top_up,
)
from balance.model import MAIN_BUCKET, AccountKind, Bucket, LedgerError, Unit
from occ.rating.price import FreePrice, StepPrice
from tests.naive_ledger import NaiveBucket, NaiveLedger, NaiveService

NAMES = {Unit.OCTETS: "octets", Unit.SECONDS: "seconds", Unit.MONEY: "money"}
STEP = StepPrice(Unit.OCTETS, 3, 7)


def account(*buckets: Bucket, kind: AccountKind = AccountKind.PREPAID, limit: int = 0) -> Account:
    return Account(b"a", 1, kind, 978, limit, 0, list(buckets), {})


def use(unit: Unit = Unit.OCTETS) -> ServiceUse:
    return ServiceUse(10, -1, "internet", int(unit))


class LedgerMachine(RuleBasedStateMachine):
    """Three services of one account do anything, in any order; the naive ledger must come to the same."""

    @initialize(
        money=st.integers(0, 60),
        bonus=st.integers(0, 20),
        allowance=st.integers(0, 12),
        postpaid=st.booleans(),
        limit=st.integers(0, 30),
        priorities=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    )
    def start(
        self, money: int, bonus: int, allowance: int, postpaid: bool, limit: int, priorities: tuple[int, int]
    ) -> None:
        kind = AccountKind.POSTPAID if postpaid else AccountKind.PREPAID
        self.account = account(
            Bucket(MAIN_BUCKET, Unit.MONEY, money, 0, priorities[0]),
            Bucket(2, Unit.MONEY, bonus, 0, priorities[1]),
            Bucket(3, Unit.OCTETS, allowance, 0, 2),
            kind=kind,
            limit=limit,
        )
        self.naive = NaiveLedger(
            {
                1: NaiveBucket("money", money, priorities[0], limit),
                2: NaiveBucket("money", bonus, priorities[1]),
                3: NaiveBucket("octets", allowance, 2),
            }
        )
        self.rates = {
            "a": STEP,
            "b": StepPrice(Unit.OCTETS, 1, 2),
            "c": StepPrice(Unit.SECONDS, 5, 11),
        }
        self.uses = {name: use(rate.unit) for name, rate in self.rates.items()}
        for name, rate in self.rates.items():
            self.naive.services[name] = NaiveService(NAMES[rate.unit], rate.step_units, rate.step_price_micro)

    def _draft(self) -> Draft:
        draft = Draft(self.account, 1000)
        self.account = draft.account
        return draft

    @rule(name=st.sampled_from("abc"), wanted=st.integers(1, 25))
    def reserve(self, name: str, wanted: int) -> None:
        draft = self._draft()
        release(draft, self.uses[name])
        self.naive.release(name)
        granted = reserve(draft, self.uses[name], self.rates[name], wanted)
        assert granted == self.naive.grant(name, wanted)

    @rule(name=st.sampled_from("abc"), units=st.integers(0, 30))
    def report(self, name: str, units: int) -> None:
        """Any usage, over the grant as well."""
        settle(self._draft(), self.uses[name], self.rates[name], units)
        self.naive.use(name, units)

    @rule(name=st.sampled_from("abc"))
    def release(self, name: str) -> None:
        release(self._draft(), self.uses[name])
        self.naive.release(name)

    @rule(amount=st.integers(1, 20))
    def top_up(self, amount: int) -> None:
        top_up(self._draft(), amount)
        self.naive.buckets[1].balance += amount

    @invariant()
    def same_books(self) -> None:
        if not hasattr(self, "account"):
            return
        for bucket in self.account.buckets:
            assert bucket.balance == self.naive.buckets[bucket.bucket_id].balance
            assert bucket.reserved == self.naive.held(bucket.bucket_id)
        for name, each in self.uses.items():
            assert each.priced_micro == self.naive.services[name].charged
            assert each.leaked_micro == self.naive.services[name].leaked

    @invariant()
    def never_below_the_floor(self) -> None:
        if not hasattr(self, "account"):
            return
        for bucket in self.account.buckets:
            assert bucket.balance >= (-self.account.credit_limit_micro if bucket.bucket_id == MAIN_BUCKET else 0)
            assert bucket.reserved >= 0

    @invariant()
    def final_means_nothing_more(self) -> None:
        """``has_more`` is true exactly when one more unit could be reserved on top of the grant."""
        if not hasattr(self, "account"):
            return
        for name, each in self.uses.items():
            draft = Draft(self.account, 1000)
            copy = each.copy()
            granted = copy.granted
            more = has_more(draft, copy, self.rates[name])
            release(draft, copy)
            could = reserve(draft, copy, self.rates[name], granted + 1)
            assert more == (could > granted)


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


@given(cuts=st.lists(st.integers(0, 9), min_size=1, max_size=12))
def test_a_session_costs_the_same_however_its_usage_is_cut(cuts: list[int]) -> None:
    """Started steps are counted over the session: five reports of one octet are one started step, not five."""
    sliced, whole = use(), use()
    first = Draft(account(Bucket(1, Unit.MONEY, 1000)), 0)
    for units in cuts:
        settle(first, sliced, STEP, units)
    second = Draft(account(Bucket(1, Unit.MONEY, 1000)), 0)
    settle(second, whole, STEP, sum(cuts))
    assert first.account.buckets[0].balance == second.account.buckets[0].balance


def test_row_26_a_report_without_a_request_debits_and_gives_the_rest_back() -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 100)), 0)
    each = use()
    assert reserve(draft, each, STEP, 9) == 9
    assert draft.account.buckets[0].reserved == 21
    assert settle(draft, each, STEP, 4) == 14
    assert (draft.account.buckets[0].balance, draft.account.buckets[0].reserved) == (86, 0)


def test_row_19_a_grant_follows_the_balance_down_to_the_last_unit() -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 20)), 0)
    each = use()
    assert reserve(draft, each, STEP, 100) == 6  # two steps of three units are affordable, a third is not
    assert not has_more(draft, each, STEP)
    settle(draft, each, STEP, 6)
    assert reserve(draft, each, STEP, 100) == 0


def test_row_28_what_no_balance_covers_is_recorded_as_leaked_and_never_debited() -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 10)), 0)
    each = use()
    assert settle(draft, each, STEP, 30) == 10
    assert draft.account.buckets[0].balance == 0
    assert (each.leaked_micro, each.debited_micro) == (60, 10)


def test_an_expired_allowance_gives_nothing_new_but_keeps_what_was_promised() -> None:
    before = account(Bucket(1, Unit.MONEY, 0), Bucket(2, Unit.OCTETS, 10, expires_ms=500))
    draft = Draft(before, 400)
    each = use()
    assert reserve(draft, each, STEP, 4) == 4
    later = Draft(draft.account, 600)
    assert expire_buckets(later) == 1
    assert later.account.buckets[1].balance == 4
    assert reserve(later, use(), STEP, 1) == 0
    settle(later, each, STEP, 4)
    assert later.account.buckets[1].balance == 0


def test_the_snapshot_a_draft_was_made_from_is_never_touched() -> None:
    before = account(Bucket(1, Unit.MONEY, 100))
    session = Session(b"s", b"sub", "standard", b"h", 0, 0, 9000, services=[use()])
    before.sessions[b"s"] = session
    draft = Draft(before, 0)
    copy = draft.session(b"s")
    assert copy is not None
    each = draft.service(copy, 10, -1)
    assert each is not None
    reserve(draft, each, STEP, 5)
    copy.answers += b"more"
    assert before.buckets[0].reserved == 0
    assert session.services[0].granted == 0
    assert session.answers == b""


def test_a_session_that_holds_a_reservation_cannot_be_closed() -> None:
    before = account(Bucket(1, Unit.MONEY, 100))
    before.sessions[b"s"] = Session(b"s", b"sub", "standard", b"h", 0, 0, 9000, services=[use()])
    draft = Draft(before, 0)
    session = draft.session(b"s")
    assert session is not None
    each = draft.service(session, 10, -1)
    assert each is not None
    reserve(draft, each, STEP, 5)
    with pytest.raises(LedgerError, match="still holds a reservation"):
        draft.close(session)
    draft.release_session(session)
    draft.close(session)
    assert draft.account.buckets[0].reserved == 0
    assert draft.account.sessions == {}


@pytest.mark.parametrize("amount", [0, -1])
def test_a_top_up_must_be_positive(amount: int) -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 5)), 0)
    with pytest.raises(LedgerError, match="positive"):
        top_up(draft, amount)
    assert draft.account.buckets[0].balance == 5


def test_a_free_service_reserves_and_debits_nothing_and_has_no_final_unit() -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 0)), 0)
    each, rate = use(), FreePrice(Unit.OCTETS)
    assert reserve(draft, each, rate, 1_000_000) == 1_000_000
    assert has_more(draft, each, rate)
    assert settle(draft, each, rate, 2_000_000) == 0


def test_next_wake_is_the_first_session_or_allowance_to_expire() -> None:
    before = account(Bucket(1, Unit.MONEY, 100), Bucket(2, Unit.OCTETS, 5, expires_ms=700))
    assert next_wake_ms(before) == 700
    before.sessions[b"s"] = Session(b"s", b"sub", "standard", b"h", 0, 0, 600)
    assert next_wake_ms(before) == 600
    before.buckets[1].balance = 0
    before.sessions.clear()
    assert next_wake_ms(before) == 0


def test_a_new_bucket_gets_the_next_number() -> None:
    draft = Draft(account(Bucket(1, Unit.MONEY, 100)), 0)
    assert add_bucket(draft, Unit.OCTETS, 5).bucket_id == 2
    with pytest.raises(LedgerError):
        add_bucket(draft, Unit.OCTETS, -1)


def test_of_a_debit_that_leaked_is_given_back_what_was_paid() -> None:
    """Three units of which the account could pay two: the one that nobody paid is the first to be taken off."""
    draft = Draft(account(Bucket(MAIN_BUCKET, int(Unit.MONEY), 20)), now_ms=0)
    rate = StepPrice(Unit.EVENTS, 1, 10)
    each = use(Unit.EVENTS)
    draft.taken = []
    assert settle(draft, each, rate, 3) == 20
    each.parts, draft.taken = draft.taken, None
    assert (each.leaked_micro, draft.account.buckets[0].balance) == (10, 0)
    assert refund(draft, each, rate, 1) == 0
    assert (each.leaked_micro, each.priced_micro, draft.account.buckets[0].balance) == (0, 20, 0)
    assert refund(draft, each, rate, 1) == 10
    assert refund(draft, each, rate, 1) == 10
    assert (each.priced_micro, each.parts, draft.account.buckets[0].balance, draft.refunded_micro) == (0, [], 20, 20)
