"""Ratios of quick runs, written down so that a later run can be held against them: never times, which are a machine's.

`python -m loadtests --quick --record FILE` adds a run; the newest few are kept. The median of them is what is compared
with, as one run may have met a busy moment of the machine.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Final

from loadtests import build

RUNS: Final = 5
"""Runs that are kept."""
RATIOS: Final[dict[str, tuple[str, str]]] = {
    "over_floor": ("over_floor", ""),
    "rating_ratio": ("rating_ratio", ""),
    "worker_over_redis": ("worker_cpu_us", "redis_cpu_us"),
    "outbox_over_worker": ("outbox_cpu_us", "worker_cpu_us"),
    "session_over_account": ("session_octets", "idle_account_octets"),
}
"""By name: the figures of a run whose ratio it is; one that is a ratio already stands alone."""
FACTS: Final = ("machine", "cores", "hot path", "versions", "Redis", "load")
"""What is said of a run beside its ratios."""


def ratios(value: Callable[[str], float]) -> dict[str, float]:
    """Those of one run; ``value``: a figure by its key. Raises KeyError."""
    return {name: value(one) / (value(other) if other else 1.0) for name, (one, other) in RATIOS.items()}


def read(file: Path) -> list[dict[str, Any]]:
    """The runs in a file, the oldest first; none where there is no file. Raises OSError, and ValueError for a file
    that is something else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ValueError(f"{file} is no record of runs: {error}") from error
    runs = document.get("runs") if isinstance(document, dict) else None
    if not isinstance(runs, list) or not all(isinstance(run, dict) and "ratios" in run for run in runs):
        raise ValueError(f'{file} is no record of runs: it should hold {{"runs": [{{"ratios": …}}, …]}}')
    return runs


def add(file: Path, value: Callable[[str], float], facts: dict[str, str]) -> None:
    """Write a run behind those in the file, and drop the oldest beyond ``RUNS``. Raises OSError and ValueError, and
    KeyError for a run without a figure or fact that belongs to it."""
    run = {
        "commit": build.commit(),
        **{name: facts[name] for name in FACTS},
        "ratios": {name: round(ratio, 3) for name, ratio in ratios(value).items()},
    }
    runs = [*read(file), run][-RUNS:]
    beside = file.with_name(file.name + ".new")
    beside.write_text(json.dumps({"runs": runs}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(beside, file)


def medians(file: Path) -> dict[str, float]:
    """Of the ratios of all runs in a file. Raises OSError, and ValueError where there is none."""
    runs = read(file)
    if not runs:
        raise ValueError(f"{file} holds no run")
    return {name: median(run["ratios"][name] for run in runs) for name in RATIOS}
