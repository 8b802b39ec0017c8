"""Token buckets of peers: exact, however long they run and in whatever steps time passes."""

from hypothesis import given
from hypothesis import strategies as st

from occ.peer_rates import OTHER_PEERS, PEERS_COUNTED, Bucket, PeerRates

SECOND = 1_000_000_000


@given(
    rate=st.integers(1, 1_000_000),
    steps=st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=200),
    start=st.integers(0, 1 << 62),
)
def test_no_more_pass_than_the_rate_and_one_second_at_once(rate: int, steps: list[int], start: int) -> None:
    bucket = Bucket(rate, start)
    now, passed = start, 0
    for step in steps:
        now += step
        passed += bucket.take(is_first=False, now_ns=now)
        assert passed * SECOND <= rate * (now - start) + rate * SECOND


def test_what_is_sent_at_the_rate_passes_for_ever() -> None:
    """Not a token is lost to rounding: 7 a second, for three days, in steps that no second is a multiple of."""
    bucket = Bucket(7, 0)
    for _ in range(7):
        assert bucket.take(is_first=False, now_ns=0)
    assert not bucket.take(is_first=False, now_ns=0)
    for number in range(1, 7 * 86_400 * 3, 997):
        now = -(-number * SECOND // 7)
        while_before = Bucket(7, 0)
        assert while_before.take(is_first=False, now_ns=now)
    now = 0
    for number in range(1, 200_000):
        now = -(-number * SECOND // 7)
        assert bucket.take(is_first=False, now_ns=now)
        assert not bucket.take(is_first=False, now_ns=now)


def test_half_of_the_bucket_is_for_running_sessions() -> None:
    bucket = Bucket(10, 0)
    assert [bucket.take(is_first=True, now_ns=0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.take(is_first=False, now_ns=0) for _ in range(7)] == [True] * 5 + [False] * 2
    # It fills up again for both.
    assert not bucket.take(is_first=True, now_ns=SECOND // 2)
    assert bucket.take(is_first=False, now_ns=SECOND // 2)
    assert bucket.take(is_first=True, now_ns=2 * SECOND)


def test_one_a_second_is_one_a_second() -> None:
    bucket = Bucket(1, 0)
    assert [bucket.take(is_first=True, now_ns=at * SECOND // 2) for at in range(6)] == [True, False] * 3


def test_each_peer_has_a_bucket_however_it_writes_its_name() -> None:
    rates = PeerRates(2, {"Gw1.example.net": 4})
    assert rates.limited
    names = ("gw1.example.net", "GW1.example.net")
    assert [rates.take(names[number % 2], is_first=False, now_ns=0) for number in range(6)] == [True] * 4 + [False] * 2
    assert [rates.take("gw2.example.net", is_first=False, now_ns=0) for _ in range(3)] == [True, True, False]
    assert sum(rates.refused.values()) == 3


def test_without_a_rate_everything_passes() -> None:
    assert not PeerRates(None, {}).limited
    rates = PeerRates(None, {"gw1.example.net": 1})
    assert all(rates.take("gw2.example.net", is_first=True, now_ns=0) for _ in range(1000))
    assert rates.refused == {}


def test_peers_that_are_counted_are_bounded() -> None:
    rates = PeerRates(1, {})
    for number in range(PEERS_COUNTED + 10):
        for _ in range(2):
            rates.take(f"gw{number}.example.net", is_first=False, now_ns=0)
    assert len(rates.refused) == PEERS_COUNTED + 1
    assert rates.refused[OTHER_PEERS] == 10
