"""What a rating call costs with price lists of 10, 1,000 and 100,000 prefixes; it must not depend on how long they are.

    python -m loadtests.destinations

A rating call is what happens to a request of which nothing is known yet: the called number is normalised and found
among the prefixes, the service and its zone follow, then tariff, price in force, and what three minutes cost.

The price lists are made up, but built as real ones are: country codes, then area codes and ranges of up to ten
digits. They are written to CSV files and loaded as part of a catalogue. No number is looked up twice, so nothing that
the catalogue remembers helps, and what the processor's caches cannot hold of a large list is paid for.
"""

import argparse
import gc
import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Final, TypeVar

from rich.console import Console
from rich.table import Table

from occ.rating.catalogue import Catalogue, RequestFacts, load_catalogue
from occ.rating.destinations import Destinations
from occ.rating.numbering import Number, Numbering
from occ.rating.offered import effective
from occ.rating.tariff import Refusal

T = TypeVar("T")

SIZES: Final = (10, 1_000, 100_000)
NUMBERS: Final = 20_000
"""Of one pass."""
PASSES: Final = 5

_SEED: Final = 20_260_101
_ZONES: Final = 40
_AT_MS: Final = 1_800_000_000_000
_SECONDS: Final = 180
_CONTEXT: Final = b"32260@3gpp.org"


@dataclass(frozen=True, slots=True)
class Cost:
    """Figures of one price list; microseconds of CPU for each number, those of the best pass."""

    prefixes: int
    load_s: float
    """To read the catalogue with the list."""
    find_us: float
    normalise_and_find_us: float
    rate_us: float
    """The whole rating call."""


def price_list(count: int, rng: random.Random) -> list[str]:
    """Prefixes, all different: first country codes, then longer and longer ones below those that are there."""
    found = [str(code) for code in range(20, 20 + min(count, 80))]
    known = set(found)
    while len(found) < count:
        parent = found[rng.randrange(len(found))]
        prefix = parent + "".join(rng.choices("0123456789", k=rng.randint(1, 4)))
        if len(prefix) <= 10 and prefix not in known:
            known.add(prefix)
            found.append(prefix)
    return found


def numbers_below(prefixes: Sequence[str], rng: random.Random, count: int = NUMBERS) -> list[str]:
    """Numbers of twelve digits, all different, each below some prefix of the list."""
    found: dict[str, None] = {}
    while len(found) < count:
        start = rng.choice(prefixes)
        found[start + "".join(rng.choices("0123456789", k=12 - len(start)))] = None
    return list(found)


def write_catalogue(directory: Path, prefixes: Sequence[str], rng: random.Random) -> Path:
    """A catalogue that sells calls at a price for each zone, by the time of the day; its file."""
    rows = (f"{prefix},zone-{rng.randrange(_ZONES)}\n" for prefix in prefixes)
    (directory / "prefixes.csv").write_text("prefix,zone\n" + "".join(rows), encoding="utf-8")
    # However short the list, it has all zones: what is listed here stands before what the file says.
    zones = "".join(f'  zone-{number}: ["9990{number:02d}"]\n' for number in range(_ZONES))
    prices = "".join(
        f"        zone-{number}: {{connection: 0.05, price: 0.{number + 10} per 60 s}}\n" for number in range(_ZONES)
    )
    file = directory / "catalogue.yaml"
    file.write_text(
        f"version: prefixes\n"
        f"currency: EUR\n"
        f"time_zone: Europe/Berlin\n"
        f'numbering: {{country_code: 49, national_prefix: "0", home_area: 30}}\n'
        f"destinations:\n{zones}  file: prefixes.csv\n"
        f"services:\n"
        f"  sms: {{context: 32274@3gpp.org, unit: events, quota: 1 event, validity: 5 min}}\n"
        f"  call: {{context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min}}\n"
        f"plans:\n"
        f"  standard:\n"
        f"    sms: 0.05 per 1 event\n"
        f"    call:\n"
        f"      by_destination:\n{prices}",
        encoding="utf-8",
    )
    return file


def measure(count: int, directory: Path, numbers: int = NUMBERS) -> Cost:
    """Load a list of so many prefixes and rate calls to so many numbers by it, in each of several passes."""
    rng = random.Random(_SEED + count)
    prefixes = price_list(count, rng)
    file = write_catalogue(directory, prefixes, rng)
    begin = perf_counter()
    catalogue = load_catalogue(file)
    load_s = perf_counter() - begin
    destinations, numbering = catalogue.destinations, catalogue.numbering
    assert destinations is not None
    digits = numbers_below(prefixes, rng, numbers * PASSES)
    addresses = [f"tel:+{number}".encode() for number in digits]
    return Cost(
        prefixes=len(destinations) - _ZONES,
        load_s=load_s,
        find_us=_best(
            lambda part: _find(destinations, part), [numbering.normalise(f"+{number}") for number in digits], numbers
        ),
        normalise_and_find_us=_best(
            lambda part: _normalise_and_find(numbering, destinations, part), addresses, numbers
        ),
        rate_us=_best(
            lambda part: _rate(catalogue, part),
            [RequestFacts(_CONTEXT, called_party=address) for address in addresses],
            numbers,
        ),
    )


def _find(destinations: Destinations, numbers: Sequence[Number]) -> None:
    find = destinations.find
    for number in numbers:
        find(number)


def _normalise_and_find(numbering: Numbering, destinations: Destinations, addresses: Sequence[bytes]) -> None:
    normalise, find = numbering.normalise, destinations.find
    for address in addresses:
        find(normalise(address))


def _rate(catalogue: Catalogue, requests: Sequence[RequestFacts]) -> None:
    """What `occ.pricing.Pricing.begin` asks the catalogue, and the price of so many seconds."""
    for request in requests:
        service, zone = catalogue.find(request, -1, -1)
        assert service is not None
        tariff = catalogue.tariff("standard", service.name, zone)
        assert tariff is not None
        price = effective(tariff, _AT_MS).price
        assert not isinstance(price, Refusal)
        price.price_micro(_SECONDS)


def _best(run: Callable[[Sequence[T]], None], given: Sequence[T], count: int) -> float:
    """Microseconds of CPU for each of the fastest pass, in each of which others are given."""
    fastest = float("inf")
    left = iter(given)
    gc.collect()
    gc.disable()  # as in the server, whose collector is off
    try:
        while part := list(islice(left, count)):
            begin = process_time()
            run(part)
            fastest = min(fastest, process_time() - begin)
    finally:
        gc.enable()
    return fastest / count * 1e6


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.destinations", description="What a rating call costs, by the length of a price list."
    )
    parser.add_argument("--numbers", type=int, default=NUMBERS, help=f"calls rated in a pass (default {NUMBERS})")
    parser.add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    options = parser.parse_args(arguments)
    costs = []
    for count in SIZES:
        with TemporaryDirectory(prefix="occ-prefixes-") as directory:
            costs.append(measure(count, Path(directory), options.numbers))
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs]))
        return 0
    table = Table(header_style="bold")
    for heading in ("prefixes", "load", "look up", "normalise, look up", "rating call"):
        table.add_column(heading, justify="right")
    for cost in costs:
        microseconds = (cost.find_us, cost.normalise_and_find_us, cost.rate_us)
        table.add_row(f"{cost.prefixes:,}", f"{cost.load_s:.2f} s", *(f"{each:.2f} µs" for each in microseconds))
    console = Console()
    console.print(table)
    console.print(f"A rating call takes {ratio(costs):.2f} times as long with the longest list as with the shortest.")
    return 0


def ratio(costs: Sequence[Cost]) -> float:
    """How much longer a rating call takes with the last list than with the first."""
    return costs[-1].rate_us / costs[0].rate_us


if __name__ == "__main__":
    sys.exit(main())
