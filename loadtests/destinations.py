"""What a destination costs: how long numbers take to be normalised and found among 10, 1,000 and 100,000 prefixes.

    python -m loadtests.destinations

The price lists are made up, but built as real ones are: country codes, then area codes and ranges of up to ten
digits. They are written to CSV files and loaded as a catalogue loads them. The numbers looked up are all different, and
none is looked up twice in a pass, so what the processor's caches cannot hold of a large list is paid for.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Final

from rich.console import Console
from rich.table import Table

from occ.rating.destinations import Destinations, read_destinations
from occ.rating.numbering import Number, Numbering
from occ.yamlmap import parse_yaml

SIZES: Final = (10, 1_000, 100_000)
NUMBERS: Final = 20_000
PASSES: Final = 5
_SEED: Final = 20_260_101
_ZONES: Final = 40


@dataclass(frozen=True, slots=True)
class Cost:
    """Figures of one price list; microseconds per number are those of the best pass."""

    prefixes: int
    load_s: float
    find_us: float
    normalise_and_find_us: float


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


def numbers_below(prefixes: Sequence[str], rng: random.Random) -> list[str]:
    """Numbers of twelve digits, each below some prefix of the list."""
    starts = rng.choices(prefixes, k=NUMBERS)
    return [start + "".join(rng.choices("0123456789", k=12 - len(start))) for start in starts]


def measure(count: int, directory: Path) -> Cost:
    """Load a list of so many prefixes from a CSV file and look numbers up in it."""
    rng = random.Random(_SEED + count)
    prefixes = price_list(count, rng)
    rows = (f"{prefix},zone-{rng.randrange(_ZONES)}\n" for prefix in prefixes)
    (directory / "prefixes.csv").write_text("prefix,zone\n" + "".join(rows), encoding="utf-8")
    numbering = Numbering("49", national_prefix="0", home_area="30")
    begin = perf_counter()
    destinations = read_destinations(parse_yaml("file: prefixes.csv", "benchmark", directory), numbering)
    load_s = perf_counter() - begin
    digits = numbers_below(prefixes, rng)
    numbers = [numbering.normalise(f"+{number}") for number in digits]
    addresses = [f"tel:+{number}".encode() for number in digits]
    return Cost(
        prefixes=len(destinations),
        load_s=load_s,
        find_us=_best(lambda: _find(destinations, numbers)),
        normalise_and_find_us=_best(lambda: _normalise_and_find(numbering, destinations, addresses)),
    )


def _find(destinations: Destinations, numbers: Sequence[Number]) -> None:
    find = destinations.find
    for number in numbers:
        find(number)


def _normalise_and_find(numbering: Numbering, destinations: Destinations, addresses: Sequence[bytes]) -> None:
    normalise, find = numbering.normalise, destinations.find
    for address in addresses:
        find(normalise(address))


def _best(run: Callable[[], None]) -> float:
    """Microseconds per number of the fastest pass."""
    fastest = float("inf")
    for _ in range(PASSES):
        begin = perf_counter()
        run()
        fastest = min(fastest, perf_counter() - begin)
    return fastest / NUMBERS * 1e6


def main() -> None:
    """Measure and print."""
    table = Table(header_style="bold")
    for heading in ("prefixes", "load", "look-up", "normalise and look up"):
        table.add_column(heading, justify="right")
    with TemporaryDirectory() as directory:
        for count in SIZES:
            cost = measure(count, Path(directory))
            table.add_row(
                f"{cost.prefixes:,}",
                f"{cost.load_s:.3f} s",
                f"{cost.find_us:.2f} µs",
                f"{cost.normalise_and_find_us:.2f} µs",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
