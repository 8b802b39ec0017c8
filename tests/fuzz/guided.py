"""``python -m tests.fuzz.guided TARGET --runs N``: coverage-guided fuzzing of one target with atheris.

The fuzzer begins with the corpus in the repository, keeps what reaches new code in ``build/fuzz/TARGET`` and goes on
from there the next time. It stops at the first input that is not handled: an exception, five seconds without an end, or
a process that has grown to a gibibyte; that input is written to ``build/fuzz`` and replayed with ``--replay FILE``.
``--record`` enters the result in docs/promises.md.

atheris comes with the extra ``dev`` where there are wheels of it: Linux on x86-64, Python 3.11 to 3.13.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.faults.results import Result, commit, record
from tests.fuzz.mutator import mutate
from tests.fuzz.targets import NAMES, ON_THE_WIRE, target

REPOSITORY: Final = Path(__file__).parents[2]
CORPUS: Final = Path(__file__).parent / "corpus"
KEPT: Final = REPOSITORY / "build" / "fuzz"
LONGEST: Final = 4096
HANGS_S: Final = 5
"""Longer than any input takes even on a machine that is busy with other things."""
GROWN_MIB: Final = 1024
PREFIX: Final = {"stream": 2}
"""Octets before the Diameter messages of an input."""
ROUND: Final = 250_000
"""Inputs after which the fuzzer begins a new process."""
INTERRUPTED: Final = 72
"""Exit code of a fuzzer that was told to stop."""
_STATISTICS: Final = ("number_of_executed_units", "peak_rss_mb", "new_units_added")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.guided", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--runs", type=int, default=10_000, help="inputs to try")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=Path, help="try this one input, without the fuzzer")
    parser.add_argument("--record", action="store_true", help="enter the result in docs/promises.md")
    parser.add_argument("--go-on", action="store_true", help="count what was tried of this commit before")
    parser.add_argument("--kept", type=Path, default=KEPT, help="where what was found is kept")
    parser.add_argument("--within", action="store_true", help=argparse.SUPPRESS)
    given = sys.argv[1:]
    arguments = parser.parse_args(given[: given.index("--")] if "--" in given else given)
    if arguments.within:
        _fuzz(arguments.target)
        return 1  # never reached: the fuzzer ends the process
    if arguments.replay is not None:
        target(arguments.target)(arguments.replay.read_bytes())
        return 0
    return _run(arguments)


@dataclass(slots=True)
class _Tried:
    """What was tried of one commit; kept beside the inputs, so that a long run can be done in pieces."""

    commit: str
    inputs: int = 0
    peak_mib: int = 0

    @classmethod
    def read(cls, file: Path, of_commit: str) -> "_Tried":
        try:
            found = cls(**json.loads(file.read_text()))
        except OSError:
            return cls(of_commit)
        return found if found.commit == of_commit else cls(of_commit)


def _run(arguments: argparse.Namespace) -> int:
    """Rounds of the fuzzer, each in a process of its own that goes on from what the last one kept."""
    kept: Path = arguments.kept / arguments.target
    kept.mkdir(parents=True, exist_ok=True)
    file = kept.with_suffix(".json")
    of_commit = commit()
    tried = _Tried.read(file, of_commit) if arguments.go_on else _Tried(of_commit)
    code = 0
    while not code and tried.inputs < arguments.runs:
        seed = arguments.seed + tried.inputs
        code = _round(arguments.target, kept, min(ROUND, arguments.runs - tried.inputs), seed, tried)
        file.write_text(json.dumps(asdict(tried)))
    if arguments.record and code != INTERRUPTED:
        figures = f"{tried.inputs:,} inputs, at most {tried.peak_mib} MiB"
        record([Result(f"fuzzing: {arguments.target}", not code, figures)], of_commit)
    return min(1, code)


def _round(name: str, kept: Path, runs: int, seed: int, tried: _Tried) -> int:
    """One round, and what came of it in one line; the exit code of the fuzzer."""
    command = [
        sys.executable, "-m", "tests.fuzz.guided", name, "--within", "--",
        f"-runs={runs}", f"-seed={seed}", f"-max_len={LONGEST}", f"-timeout={HANGS_S}", f"-rss_limit_mb={GROWN_MIB}",
        f"-artifact_prefix={kept.parent}/{name}-", "-print_final_stats=1", str(kept), str(CORPUS / name),
    ]  # fmt: skip
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    figures: dict[str, int] = {}
    assert process.stderr is not None
    for line in process.stderr:
        found = re.match(r"stat::(\w+):\s+(\d+)", line)
        if found:
            figures[found[1]] = int(found[2])
        elif found := re.search(r"cov: (\d+)", line):
            figures["covered"] = int(found[1])
        elif "INFO: Instrumenting" not in line:
            sys.stderr.write(line)
    code = process.wait()
    inputs, peak, new = (figures.get(name, 0) for name in _STATISTICS)
    tried.inputs += inputs
    tried.peak_mib = max(tried.peak_mib, peak)
    came_of_it = {0: "nothing found", INTERRUPTED: "interrupted"}.get(code, "FOUND SOMETHING")
    print(
        f"{name}: {inputs} inputs in {time.monotonic() - began:.0f} s, {figures.get('covered', 0)} places reached, "
        f"{new} inputs kept, at most {peak} MiB; {came_of_it}; {tried.inputs} of this commit",
        flush=True,
    )
    return code


def _fuzz(name: str) -> None:
    """Within the process that is watched: never returns."""
    import atheris

    with atheris.instrument_imports(include=["balance", "occ", "policies", "protocols"]):
        run = target(name)
    others = [path.read_bytes() for path in sorted((CORPUS / "message").iterdir())]
    prefix = PREFIX.get(name, 0)

    def blind(data: bytes, limit: int) -> bytes:
        return bytes(atheris.Mutate(data[:limit], limit))

    def change(data: bytes, limit: int, seed: int) -> bytes:
        head, body = data[:prefix], data[prefix:]
        if prefix and Random(seed).random() < 0.1:
            head = blind(head, prefix)
        return (head.ljust(prefix, b"\x00") + mutate(body, limit - prefix, seed, blind, others))[:limit]

    options: dict[str, Any] = {"custom_mutator": change} if name in ON_THE_WIRE else {}
    arguments = sys.argv[sys.argv.index("--") + 1 :]
    atheris.Setup([sys.argv[0], *arguments], run, **options)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
