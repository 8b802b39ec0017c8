"""What the tests say they show, read from the tests themselves.

A scenario names rows in its title and facts about clients in lines that begin "Shows:". A test in Python names rows in
its name, ``test_row_16_...`` or ``test_row_7_and_8_...``, and rows and facts by a marker on itself or on its class, or
in the ``pytestmark`` of its class or module: ``@pytest.mark.shows("row 16", "open5gs-own-realm")``.

Python is read as text, not imported: tests that need what is not installed here count as well.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.tables import HERE as SCENARIOS
from tests.scenarios.tables import read_scenario

PROJECT = Path(__file__).parents[2]
TESTS = PROJECT / "tests"
MARKER = "shows"

_ROWS_IN_NAME = re.compile(r"test_row_(\d+(?:_and_\d+)*)_")

TestFunction = ast.FunctionDef | ast.AsyncFunctionDef


class EvidenceError(Exception):
    """A test does not say clearly what it shows; says where and what to do."""


@dataclass(frozen=True)
class Evidence:
    """One test, and what it says it shows."""

    path: Path
    name: str
    """Of a scenario, the file's name without its end; in Python ``test_x`` or ``TestY.test_x``."""
    shows: frozenset[str]
    """Keys of claims: "row 5", "open5gs-own-realm"."""
    known_gap: str = ""
    """What the server does not do yet: such a scenario shows nothing until it does."""


def all_evidence() -> list[Evidence]:
    """Of all tests, in the order of their files. Raises EvidenceError, or ScenarioError for a malformed scenario."""
    found = [scenario_evidence(path) for path in sorted(SCENARIOS.glob("*.txt"))]
    for path in sorted(TESTS.rglob("*.py")):
        found += python_evidence(path)
    return found


def scenario_evidence(path: Path) -> Evidence:
    scenario = read_scenario(path)
    rows = {f"row {number}" for number in scenario.rows}
    return Evidence(path, path.stem, frozenset(rows | set(scenario.facts)), scenario.known_gap)


def python_evidence(path: Path) -> list[Evidence]:
    """Of the test functions of one file; those that show nothing are left out."""
    text = path.read_text(encoding="utf-8")
    if "test_row_" not in text and MARKER not in text:
        return []
    module = ast.parse(text, path.name)
    reader = _Reader(path)
    found = list(reader.functions(module.body, "", reader.pytestmark(module.body)))
    strays = [call for call in _marker_calls(module) if call not in reader.understood]
    if strays:
        raise reader.error(strays[0], "stands where no test is; put it on a test, its class or into pytestmark")
    return found


class _Reader:
    """Walks through one file and remembers the markers it has understood."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.understood: list[ast.Call] = []

    def error(self, at: ast.AST, text: str) -> EvidenceError:
        line = getattr(at, "lineno", 0)
        return EvidenceError(f"{_shown(self.path)}, line {line}: pytest.mark.{MARKER} {text}")

    def functions(self, body: list[ast.stmt], prefix: str, shared: frozenset[str]) -> Iterator[Evidence]:
        for statement in body:
            if isinstance(statement, TestFunction) and statement.name.startswith("test_"):
                shows = shared | _rows_in_name(statement.name) | self._of_decorators(statement)
                if shows:
                    yield Evidence(self.path, prefix + statement.name, shows)
            elif isinstance(statement, ast.ClassDef) and statement.name.startswith("Test"):
                of_class = shared | self._of_decorators(statement) | self.pytestmark(statement.body)
                yield from self.functions(statement.body, f"{prefix}{statement.name}.", of_class)

    def pytestmark(self, body: list[ast.stmt]) -> frozenset[str]:
        """What ``pytestmark = ...`` of a module or class says of all tests in it."""
        keys: set[str] = set()
        for statement in body:
            targets = statement.targets if isinstance(statement, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in targets):
                keys |= self._of_markers(statement)
        return frozenset(keys)

    def _of_decorators(self, decorated: TestFunction | ast.ClassDef) -> frozenset[str]:
        """Of the decorators, and of the ``pytest.param(..., marks=...)`` inside them."""
        return frozenset(key for each in decorated.decorator_list for key in self._of_markers(each))

    def _of_markers(self, node: ast.AST) -> set[str]:
        keys: set[str] = set()
        for call in _marker_calls(node):
            if not call.args or call.keywords:
                raise self.error(call, 'names what it shows, as in ("row 16", "open5gs-own-realm")')
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise self.error(call, "takes strings as they are, so that they can be read without running")
                keys.add(argument.value)
            self.understood.append(call)
        return keys


def _rows_in_name(name: str) -> frozenset[str]:
    match = _ROWS_IN_NAME.match(name)
    return frozenset(f"row {number}" for number in match[1].split("_and_")) if match else frozenset()


def _marker_calls(node: ast.AST) -> Iterator[ast.Call]:
    """Calls of ``pytest.mark.shows`` or ``mark.shows`` in a piece of code."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute) and each.func.attr == MARKER:
            of = each.func.value
            if (isinstance(of, ast.Attribute) and of.attr == "mark") or (isinstance(of, ast.Name) and of.id == "mark"):
                yield each


def _shown(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix() if path.is_relative_to(PROJECT) else path.name
