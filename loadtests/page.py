"""`python -m loadtests.page`: docs/performance.md anew, from the figures that were recorded in docs/benchmarks.

`make bench` and `make bench-scale` record them and call this. The page says of every figure on what it was measured.
"""

import json
from pathlib import Path
from typing import Any, Final

from loadtests.processes import ROOT

RECORDED: Final = Path("docs/benchmarks")
PAGE: Final = Path("docs/performance.md")

_HEAD: Final = """# Performance

What a Credit-Control-Request costs: the full path, from the octets on the socket to the answer, with peers checked,
rating, ledger, policies, metrics and charging data records, and every answer on disk before it leaves (`appendfsync
always`). `make bench` and `make bench-scale` measure it and write this page. How to read the figures, and what is
loaded with what, is in `loadtests/README.md`; what was tried to make it faster in `loadtests/EXPERIMENTS.md`. Nothing
here is extrapolated, but for the tables that say that they are simulated: another machine has other figures, and the
ratios among them are what it should have in common with this one. At half of the maximum requests are due at random
moments, and leave in turns of half a millisecond, whose wait counts: so some of them come to the server together.
"""
_RUNS: Final = (
    ("bench.json", "Plain Python"),
    ("bench-python3.13.json", "Plain Python 3.13"),
    ("bench-python3.14.json", "Plain Python 3.14"),
    ("bench-compiled.json", "Compiled"),
)
_SCALES: Final = (("scale", "Plain Python"), ("scale-compiled", "Compiled"))
_SCALINGS: Final = (("scaling.json", "Plain Python"), ("scaling-compiled.json", "Compiled"))
_CASES: Final = {
    "affine": "a second server on the same store, for accounts of its own",
    "mixed": "a second server on the same store, for the same accounts",
    "apart": "a second server on a second store",
}
_SIMULATED: Final = """Simulated from these costs, a core for each process (`loadtests/queueing.py`); no machine has
shown this:
"""


def page(directory: Path) -> str:
    """The page from the files in a directory. Raises OSError and ValueError."""
    parts = [_HEAD]
    for name, title in _RUNS:
        if (directory / name).exists():
            parts += [f"\n## {title}\n", *_run(json.loads((directory / name).read_text(encoding="utf-8")))]
    for name, title in _SCALES:
        file = directory / f"{name}.json"
        if file.exists():
            parts += [f"\n## {title}: whatever there is\n", f"![CPU per request](benchmarks/{name}.svg)\n"]
            parts += _scale(json.loads(file.read_text(encoding="utf-8")))
    for name, title in _SCALINGS:
        if (directory / name).exists():
            parts.append(f"\n## {title}: more workers, more stores\n")
            parts += _scaling(json.loads((directory / name).read_text(encoding="utf-8")))
    return "\n".join(parts)


def _run(result: dict[str, Any]) -> list[str]:
    rows = ["| figure | measured | must | aim |", "|---|---:|---:|---:|"]
    for row in result["figures"]:
        measured = f"{row['measured']:,.{_digits(row['measured'])}f}"
        rows.append(f"| {row['figure']} | {measured} {row['unit']} | {row['must'] or ''} | {row['aim'] or ''} |")
    return [*_facts(result), "\n".join(rows) + "\n"]


def _digits(measured: float) -> int:
    """Decimal places; a whole number is a count."""
    if isinstance(measured, int) or measured >= 100:
        return 0
    return 2 if measured < 10 else 1


def _scale(result: dict[str, Any]) -> list[str]:
    rows = ["| with | worker CPU | Redis CPU | ratio |", "|---|---:|---:|---:|"]
    for subjects in result["axes"].values():
        for row in subjects:
            figures = f"{row['worker_cpu_us']:.1f} µs | {row['redis_cpu_us']:.1f} µs | {row['ratio']:.2f}"
            rows.append(f"| {row['label']} | {figures} |")
    return [*_facts(result), "\n".join(rows) + "\n"]


def _scaling(result: dict[str, Any]) -> list[str]:
    measured = ["| measured | capacity for the same CPU, over one server and one store |", "|---|---:|"]
    measured += [f"| {_CASES[case]} | {ratio:.2f} |" for case, ratio in result["capacity_over_one"].items()]
    simulated = ["| workers | stores | accounts of its own | the same accounts |", "|---:|---:|---:|---:|"]
    affine, mixed = result["simulated"]["affine"], result["simulated"]["mixed"]
    for one, other in zip(affine, mixed, strict=True):
        ratios = f"{one['rate'] / affine[0]['rate']:.2f} | {other['rate'] / mixed[0]['rate']:.2f}"
        simulated.append(f"| {one['workers']} | {one['shards']} | {ratios} |")
    return [*_facts(result), "\n".join(measured) + "\n", _SIMULATED, "\n".join(simulated) + "\n"]


def _facts(result: dict[str, Any]) -> list[str]:
    return ["\n".join(f"- {name}: {fact}" for name, fact in result["facts"].items()) + "\n"]


if __name__ == "__main__":
    (ROOT / PAGE).write_text(page(ROOT / RECORDED), encoding="utf-8")
