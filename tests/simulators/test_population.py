"""The sample population that documents, samples and tests agree on, and its deterministic draws."""

import pytest

from simulators.population import UNKNOWN_NUMBER, Population, unknown_subscriber


def test_sample_population_is_the_documented_one() -> None:
    population = Population()
    first, hundredth, next_one, last = (population.subscriber(number) for number in (1, 100, 101, 200))
    assert (first.msisdn, first.imsi, first.postpaid) == ("491700000001", "262010000000001", False)
    assert (hundredth.msisdn, hundredth.postpaid) == ("491700000100", False)
    assert (next_one.msisdn, next_one.postpaid) == ("491700000101", True)
    assert (last.msisdn, last.imsi, last.postpaid) == ("491700000200", "262010000000200", True)
    assert len(population) == 200


def test_same_seed_draws_the_same_subscribers() -> None:
    first, again, other = (Population(seed=seed) for seed in (7, 7, 8))
    sequence = [first.draw().number for _ in range(50)]
    assert sequence == [again.draw().number for _ in range(50)]
    assert sequence != [other.draw().number for _ in range(50)]


def test_draws_reach_everybody_and_nobody_else() -> None:
    population = Population(3, 2, seed=1)
    drawn = {population.draw().number for _ in range(500)}
    assert drawn == {1, 2, 3, 4, 5}
    assert [population.subscriber(number).postpaid for number in range(1, 6)] == [False, False, False, True, True]


@pytest.mark.parametrize("number", [0, -1, 201])
def test_subscriber_outside_the_population_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="give 1 to 200"):
        Population().subscriber(number)


@pytest.mark.parametrize(("prepaid", "postpaid"), [(0, 0), (-1, 5), (UNKNOWN_NUMBER, 0)])
def test_impossible_population_is_refused(prepaid: int, postpaid: int) -> None:
    with pytest.raises(ValueError, match="cannot be simulated"):
        Population(prepaid, postpaid)


def test_unknown_subscriber_is_in_no_population() -> None:
    largest = Population(UNKNOWN_NUMBER - 1, 0)
    assert unknown_subscriber().msisdn > largest.subscriber(len(largest)).msisdn
    assert len(unknown_subscriber().imsi) == 15
