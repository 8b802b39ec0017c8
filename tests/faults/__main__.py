"""``python -m tests.faults``: run all tests of this folder, and enter what came of them in docs/promises.md.

The row of a test is named by its marker ``promise``; what the test says of itself (``record_property("figures", …)``)
is entered with it. Arguments are those of pytest.
"""

import sys
from pathlib import Path

import pytest

from tests.faults.results import DOCUMENT, Result, commit, record


class Recorder:
    """Collects the results of tests that show a promise."""

    def __init__(self) -> None:
        self.promises: dict[str, str] = {}
        self.passed: dict[str, bool] = {}
        self.figures: dict[str, str] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for marker in item.iter_markers("promise"):
                self.promises[item.nodeid] = str(marker.args[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = self.promises.get(report.nodeid)
        if name is None or report.skipped:
            return
        self.passed[name] = self.passed.get(name, True) and report.passed
        for key, value in report.user_properties:
            if key == "figures":
                self.figures[name] = str(value)

    def results(self) -> list[Result]:
        return [Result(name, passed, self.figures.get(name, "")) for name, passed in self.passed.items()]


def main() -> int:
    recorder = Recorder()
    of_commit = commit()
    # As many kills as are asked for take as long as they take.
    code = pytest.main([str(Path(__file__).parent), "--timeout=0", *sys.argv[1:]], plugins=[recorder])
    results = recorder.results()
    record(results, of_commit)
    print(f"{len(results)} promises entered in {DOCUMENT.relative_to(Path.cwd())}")
    return int(code)


sys.exit(main())
