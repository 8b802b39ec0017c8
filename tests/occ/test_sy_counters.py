"""What is news to a policy node: pure (3GPP TS 29.219 clauses 4.5.2, 5.3.3 and 5.3.5)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.accounts import Account
from balance.model import AccountKind, LifeState, Subscriber
from balance.subscriptions import Subscription, Told
from occ.sy_counters import NoCounters, SyStatistics, as_of, is_gone, news, reports, standing
from policies.counters import CounterStatus
from protocols.spending_limits import CounterReport

NOW = 1_000_000


def account(**changes: Any) -> Account:
    return Account(b"a", 1, AccountKind.PREPAID, 978, 0, 0, [], {}, **changes)


def subscriber(**changes: Any) -> Subscriber:
    return Subscriber(b"s", b"a", "standard", (), **changes)


def subscription(told: Told, *counters: str) -> Subscription:
    return Subscription(b"sid", b"a", b"s", b"pcrf", b"realm", b"via", counters, told)


STATUS = st.sampled_from("abc")
PENDING = (
    st.lists(st.tuples(STATUS, st.integers(NOW - 5, NOW + 5)), max_size=4)
    .map(lambda found: tuple(sorted({at: each for each, at in found}.items())))
    .map(lambda found: tuple((each, at) for at, each in found))
)
TOLD = st.dictionaries(st.sampled_from(["X", "Y", "Z"]), st.tuples(STATUS, PENDING))


@given(TOLD, st.integers(NOW - 10, NOW + 10), st.integers(NOW - 10, NOW + 10))
def test_what_is_known_does_not_depend_on_when_it_was_looked_at(told: Told, first: int, second: int) -> None:
    earlier, later = sorted((first, second))
    assert as_of(as_of(told, earlier), later) == as_of(told, later)


@given(TOLD, st.integers(NOW - 10, NOW + 10))
def test_who_was_told_all_has_no_news_until_something_changes(told: Told, now_ms: int) -> None:
    assert news(subscription(told), as_of(told, now_ms), now_ms) == {}
    for name, (status, pending) in as_of(told, now_ms).items():
        changed = {**as_of(told, now_ms), name: (status + "!", pending)}
        assert news(subscription(told), changed, now_ms) == {name: (status + "!", pending)}
        assert news(subscription(told, "another"), changed, now_ms) == {}


@pytest.mark.shows("row 47")
def test_row_47_the_last_status_that_is_due_holds() -> None:
    told: Told = {"X": ("a", (("c", NOW), ("b", NOW - 1), ("d", NOW + 1)))}
    assert as_of(told, NOW) == {"X": ("c", (("d", NOW + 1),))}


@pytest.mark.shows("row 47")
def test_row_47_reports_are_sorted_and_no_status_begins_early() -> None:
    class Source(NoCounters):
        def counters(self, account: Account, subscriber: Subscriber, now_ms: int) -> dict[str, CounterStatus]:
            return {"Y": CounterStatus("a", (("c", NOW + 5_001), ("b", NOW + 2_000))), "X": CounterStatus("a")}

    found = reports(standing(Source(), account(), subscriber(), NOW))
    assert found == (CounterReport("X", "a"), CounterReport("Y", "a", (("b", 1002), ("c", 1006))))


@pytest.mark.parametrize(
    ("found", "who", "gone"),
    [
        (account(), subscriber(), False),
        (account(state=LifeState.BLOCKED), subscriber(state=LifeState.SUSPENDED), False),
        (account(state=LifeState.TERMINATED), subscriber(), True),
        (account(), subscriber(state=LifeState.TERMINATED), True),
        (account(out_of_service={b"s": LifeState.TERMINATED}), subscriber(), True),
        (account(out_of_service={b"other": LifeState.TERMINATED}), subscriber(), False),
        (None, subscriber(), True),
        (account(), None, True),
    ],
)
def test_who_is_gone(found: Account | None, who: Subscriber | None, gone: bool) -> None:
    assert is_gone(found, who) is gone


def test_delays_are_counted_by_their_bounds() -> None:
    statistics = SyStatistics()
    for seconds in (0.0, 0.005, 0.006, 31.0, -1.0):
        statistics.delayed(seconds)
    assert (statistics.delays[0], statistics.delays[1], statistics.delays[-1]) == (3, 1, 1)
    assert statistics.delay_seconds == pytest.approx(31.011)
