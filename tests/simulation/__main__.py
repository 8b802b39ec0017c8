"""``python -m tests.simulation``: run seeds, print those that fail."""

import argparse
import logging
import os
import sys
import time

from tests.faults.results import Result, commit, record
from tests.simulation.world import run


def main() -> int:
    """Exit code 1: a seed failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many, beginning with --first")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seed", type=int, help="this one alone, with what happened")
    parser.add_argument("--record", action="store_true", help="enter the result in docs/promises.md")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of sets of octets must not depend on the process.
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
                  {**os.environ, "PYTHONHASHSEED": "0"})  # fmt: skip
    logging.disable(logging.CRITICAL)  # what befalls the workers is no news here
    if arguments.seed is not None:
        result = run(arguments.seed, print)
        print(result)
        return bool(result.faults)
    failed, began, of_commit = [], time.process_time(), commit()
    answered = repeats = deaths = outages = 0
    seconds = 0.0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        try:
            result = run(seed)
        except Exception as error:
            print(f"seed {seed} ended with {error!r}")
            failed.append(seed)
            continue
        answered += result.answered
        repeats += result.repeats
        deaths += result.deaths
        outages += result.outages
        seconds += result.seconds
        if result.faults:
            failed.append(seed)
            print(f"seed {seed} failed; replay it with --seed {seed}:")
            for fault in result.faults:
                print(f"  {fault}")
    print(
        f"{arguments.seeds} seeds: {answered} requests answered, {repeats} repeated, {deaths} workers killed, "
        f"{outages} outages of the store, {seconds / 3600:.1f} hours simulated in {time.process_time() - began:.0f} s "
        f"of CPU; {len(failed)} failed{': ' + ', '.join(map(str, failed)) if failed else ''}"
    )
    if arguments.record:
        last = arguments.first + arguments.seeds - 1
        figures = f"seeds {arguments.first} to {last}: {answered:,} requests, {deaths:,} kills, {outages:,} outages"
        record([Result("simulation", not failed, figures)], of_commit)
    return bool(failed)


sys.exit(main())
