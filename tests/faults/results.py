"""The table of results in docs/promises.md: whoever ran something enters what came of it, with date and commit."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).parents[2]
DOCUMENT: Final = REPOSITORY / "docs" / "promises.md"
BEGIN: Final = "<!-- results: begin; written by the runs themselves -->"
END: Final = "<!-- results: end -->"
HEADING: Final = "| What was run | Result | Figures | Date | Commit |\n|---|---|---|---|---|"


@dataclass(frozen=True, slots=True)
class Result:
    """One row."""

    name: str
    """What was run; the row of that name is replaced."""
    passed: bool
    figures: str = ""


def commit() -> str:
    """The commit that is checked out; with a + if something in it was changed; "?" outside a repository."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        # The table itself changes with every run.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/promises.md")
    except (OSError, subprocess.CalledProcessError):
        return "?"
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.strip()


def record(results: Iterable[Result], of_commit: str, document: Path = DOCUMENT) -> None:
    """Enter results into the document. Raises ValueError if it has no table for them."""
    text = document.read_text(encoding="utf-8")
    document.write_text(entered(text, results, datetime.now(UTC).strftime("%Y-%m-%d"), of_commit), encoding="utf-8")


def entered(text: str, results: Iterable[Result], date: str, of_commit: str) -> str:
    """The document's text with these results in it; rows of the same name are replaced, others stay."""
    before, begin, rest = text.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no table between {BEGIN!r} and {END!r}")
    rows = {_name(line): line for line in table.splitlines()[3:] if line.startswith("|")}
    for result in results:
        cells = (result.name, "passed" if result.passed else "**failed**", result.figures, date, of_commit)
        rows[result.name] = f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
    lines = "\n".join(rows[name] for name in sorted(rows))
    return f"{before}{begin}\n{HEADING}\n{lines}\n{end}{after}"


def _name(line: str) -> str:
    return line.split("|")[1].strip()
