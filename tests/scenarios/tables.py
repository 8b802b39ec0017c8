"""Reads scenarios from their files: a title, prose, what is given, and tables; README.md says how they are written."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from tests.scenarios.notation import ACCOUNT
from tests.scenarios.requests import is_credit_control

HERE = Path(__file__).parent
COLUMNS = ("client", "session", "sends", "answer", "balance", "reserved", "allowance")

_TITLE = re.compile(r"Rows? (\d+(?:(?:, | and )\d+)*)(?: \(([^)]+)\))?: (.+)")


class ScenarioError(AssertionError):
    """A scenario did not go as written, or cannot be read; says where."""


@dataclass
class Step:
    """One row of a table; cells left empty are empty, but ``client`` and ``session``, which carry on."""

    line: int
    client: str
    session: str
    sends: str
    answer: str
    balance: str
    reserved: str
    allowance: str


@dataclass
class Scenario:
    """One file."""

    path: Path
    title: str
    rows: tuple[int, ...] = ()
    """Rows of the conformance table it shows."""
    client: str = ""
    """Client whose habits it shows, if any."""
    facts: tuple[str, ...] = ()
    """Facts about clients it shows, by the ids of the conformance table."""
    given: list[tuple[int, str]] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    known_gap: str = ""
    """What the server does not do yet; such a scenario is expected to fail."""

    def error(self, line: int, text: str) -> ScenarioError:
        return ScenarioError(f"{self.path.name}, line {line}: {text}")


def scenario_paths() -> list[Path]:
    """All scenarios, in the order of their file names."""
    return sorted(HERE.glob("*.txt"))


def read_scenario(path: Path) -> Scenario:
    """Raises ScenarioError for a file that is not written as README.md says."""
    lines = path.read_text(encoding="utf-8").splitlines()
    title = _TITLE.fullmatch(lines[0]) if lines else None
    if title is None:
        raise ScenarioError(f"{path.name}: the first line must be a title such as 'Row 16: a repeat is debited once'")
    scenario = Scenario(path, title[3], tuple(int(row) for row in re.findall(r"\d+", title[1])), title[2] or "")
    columns: list[str] = []
    for number, line in enumerate(lines[1:], 2):
        if line.startswith("Given "):
            scenario.given.append((number, line.removeprefix("Given ").strip()))
        elif line.startswith("Known gap:"):
            scenario.known_gap = line.removeprefix("Known gap:").strip()
        elif line.startswith("Shows:"):
            scenario.facts += _facts(scenario, number, line.removeprefix("Shows:"))
        elif not line.startswith("|"):
            columns = []
        elif not columns:
            columns = _columns(scenario, number, line)
        elif set(line) - set("|-: "):
            scenario.steps.append(_step(scenario, number, columns, line))
    _check(scenario)
    return scenario


def _facts(scenario: Scenario, number: int, written: str) -> tuple[str, ...]:
    facts = tuple(fact.strip() for fact in written.split(","))
    if not all(facts):
        raise scenario.error(number, "'Shows:' is followed by facts of the conformance table, with commas between")
    return facts


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _columns(scenario: Scenario, number: int, line: str) -> list[str]:
    columns = _cells(line)
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown or "sends" not in columns:
        raise scenario.error(
            number, f"a table has the column 'sends' and others of {', '.join(COLUMNS)}, not {columns}"
        )
    return columns


def _step(scenario: Scenario, number: int, columns: list[str], line: str) -> Step:
    cells = _cells(line)
    if len(cells) != len(columns):
        raise scenario.error(number, f"{len(cells)} cells under {len(columns)} columns")
    found = dict.fromkeys(COLUMNS, "") | dict(zip(columns, cells, strict=True))
    if scenario.steps:
        for name in ("client", "session"):
            found[name] = found[name] or getattr(scenario.steps[-1], name)
    return Step(number, **found)


def _check(scenario: Scenario) -> None:
    if not scenario.steps:
        raise ScenarioError(f"{scenario.path.name}: there is no table")
    last = scenario.steps[-1]
    accounts = [text for _, text in scenario.given if ACCOUNT.fullmatch(text)]
    if accounts and not (last.balance and last.reserved):
        raise scenario.error(last.line, "the last row must state balance and reserved")
    if not accounts and any(is_credit_control(step.sends) for step in scenario.steps if step.sends):
        raise ScenarioError(f"{scenario.path.name}: requests are charged, but no account is given")
