"""A rating call costs the same however long the price list is."""

import random
from pathlib import Path

from loadtests.destinations import measure, numbers_below, price_list, ratio, write_catalogue
from occ.rating.catalogue import RequestFacts, load_catalogue


def test_a_hundred_thousand_prefixes_are_as_quick_as_ten(tmp_path: Path) -> None:
    """Never how fast: a look-up that went through the list would take thousands of times as long, not five times."""
    costs = [measure(count, tmp_path, numbers=1_000) for count in (10, 100_000)]
    assert [cost.prefixes for cost in costs] == [10, 100_000]
    assert all(0 < cost.find_us < cost.normalise_and_find_us for cost in costs)
    assert ratio(costs) < 5


def test_every_number_is_in_a_zone_that_has_a_price(tmp_path: Path) -> None:
    rng = random.Random(1)
    prefixes = price_list(1_000, rng)
    catalogue = load_catalogue(write_catalogue(tmp_path, prefixes, rng))
    numbers = numbers_below(prefixes, rng, 500)
    assert len(set(numbers)) == 500
    for number in numbers:
        service, zone = catalogue.find(RequestFacts(b"32260@3gpp.org", called_party=f"tel:+{number}".encode()), -1, -1)
        assert service is not None
        assert zone.startswith("zone-")
        assert catalogue.tariff("standard", "call", zone) is not None
