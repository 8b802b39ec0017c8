"""The figures of a run beside their budget, as a table for people and as JSON for comparison."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure should keep to: at most, or at least, so much."""

    value: float
    at_least: bool = False

    def met_by(self, measured: float) -> bool:
        return measured >= self.value if self.at_least else measured <= self.value

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.value:g}"


BUDGET: Final[dict[str, tuple[Bound, Bound]]] = {
    "worker_cpu_us": (Bound(80), Bound(45)),
    "redis_cpu_us": (Bound(20), Bound(12)),
    "over_floor": (Bound(0.45, at_least=True), Bound(0.8, at_least=True)),
    "half_p99_ms": (Bound(10), Bound(3)),
    "idle_account_octets": (Bound(800), Bound(400)),
    "session_octets": (Bound(600), Bound(300)),
    "worker_sessions_mb": (Bound(400), Bound(200)),
    "rating_ratio": (Bound(3), Bound(1.5)),
    "errors": (Bound(0), Bound(0)),
    "discrepancies": (Bound(0), Bound(0)),
    "disagreement_micro": (Bound(0), Bound(0)),
}
"""What must be kept to and what is aimed at, by figure, as ARCHITECTURE.md states them; the last three admit no
compromise."""

COMPILED_BUDGET: Final[dict[str, tuple[Bound, Bound]]] = {"worker_cpu_us": (Bound(45), Bound(25))}
"""What differs when the hot path is compiled."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured value."""

    key: str
    name: str
    value: float
    unit: str = ""
    digits: int = 0
    budget: tuple[Bound, Bound] | None = None
    """What it must keep to, and what is aimed at."""

    @property
    def is_kept(self) -> bool:
        """Whether it is as it must be; True for figures without a budget."""
        return self.budget is None or self.budget[0].met_by(self.value)


@dataclass(slots=True)
class Report:
    """All that a run says."""

    facts: dict[str, str] = field(default_factory=dict)
    """What the figures hold for: machine, versions, settings, durations."""
    figures: list[Figure] = field(default_factory=list)
    compiled: bool = False
    """The hot path was."""
    latencies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By phase, as ``loadtests.latency`` tells them; in the JSON alone."""

    def add(self, key: str, name: str, value: float, unit: str = "", digits: int = 0) -> None:
        budget = COMPILED_BUDGET.get(key) if self.compiled else None
        self.figures.append(Figure(key, name, value, unit, digits, budget or BUDGET.get(key)))

    def value(self, key: str) -> float:
        """A figure's value. Raises KeyError."""
        for figure in self.figures:
            if figure.key == key:
                return figure.value
        raise KeyError(key)

    def show(self, console: Console) -> None:
        """The facts, then the table."""
        for name, fact in self.facts.items():
            console.print(f"[dim]{name}:[/dim] {fact}", highlight=False)
        table = Table(header_style="bold")
        table.add_column("figure")
        for heading in ("measured", "must", "aim"):
            table.add_column(heading, justify="right")
        for figure in self.figures:
            shown = f"{figure.value:,.{figure.digits}f}"
            if figure.unit:
                shown += f" {figure.unit}"
            must, aim = ("", "")
            if figure.budget is not None:
                must, aim = (str(bound) for bound in figure.budget)
                colour = "green" if figure.is_kept else "red"
                shown = f"[{colour}]{shown}[/{colour}]"
            table.add_row(figure.name, shown, must, aim)
        console.print(table)

    def as_dict(self) -> dict[str, Any]:
        rows = []
        for figure in self.figures:
            budget = figure.budget
            rows.append(
                {
                    "key": figure.key,
                    "figure": figure.name,
                    "measured": figure.value,
                    "unit": figure.unit,
                    "must": str(budget[0]) if budget else None,
                    "aim": str(budget[1]) if budget else None,
                    "is_kept": figure.is_kept if budget else None,
                }
            )
        return {"compiled": self.compiled, "facts": self.facts, "figures": rows, "latencies": self.latencies}

    def write(self, path: Path) -> None:
        """As JSON. Raises OSError."""
        path.write_text(json.dumps(self.as_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
