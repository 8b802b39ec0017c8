"""What the pages of the documentation tell people to type.

A block is fenced. One whose lines begin with ``$``, or that begins with a program that people run, is commands; so is a
fence of kind ``sh``. ``<!-- not run: reason -->`` before a block says that no test runs it, ``<!-- not run (command):
reason -->`` that of one command in it.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

PROJECT: Final = Path(__file__).parents[2]
PROGRAMS: Final = ("make", "occ", ".venv/bin/occ", "python", "pip", "pipx", "docker", "curl")

ANY_ORDER: Final = "<!-- in any order -->"
"""Before a block: what its commands print comes in any order."""

_BLOCK: Final = re.compile(
    r"(?P<marks>(?:^<!-- .*? -->\n+)*)^(?P<indent> *)```(?P<kind>\w*)\n(?P<text>.*?)^ *```$", re.M | re.S
)
_MARK: Final = re.compile(r"<!-- not run(?: \((?P<command>.+?)\))?: (?P<reason>.+?) -->")


class Command(NamedTuple):
    """One command of a page."""

    line: str
    """What is typed, without a remark behind it."""
    printed: list[str]
    """The lines that follow it on the page; none: whatever it prints."""
    reason: str
    """Why it is not run; empty: it is run."""
    in_any_order: bool = False
    """Its lines come as things happen that do not wait for each other."""

    def is_told_by(self, output: str) -> bool:
        """Whether it has printed what the page says."""
        if self.in_any_order:
            return all(re.search(f"^{as_pattern([line])}", output, re.M) for line in self.printed if line.strip(" …"))
        return not self.printed or re.fullmatch(as_pattern(self.printed), output) is not None


class Page(NamedTuple):
    path: Path
    commands: list[Command]

    @property
    def name(self) -> str:
        return str(self.path.relative_to(PROJECT))


def every_page() -> list[Path]:
    """All texts for people."""
    tops = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "loadtests/README.md")
    return [PROJECT / name for name in tops] + sorted((PROJECT / "docs").glob("*.md"))


def read_page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    return Page(path, [command for found in _BLOCK.finditer(text) for command in _commands(found)])


def loose_commands(path: Path) -> list[str]:
    """Commands in blocks that are indented and not fenced, which nothing runs."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    return [line for line in re.findall(r"^    (\S.*)$", text, re.M) if _is_typed(line)]


def _is_typed(line: str) -> bool:
    return line.startswith(("$ ", "OCC_", ".ci/")) or line.split(" ", 1)[0] in PROGRAMS


def _commands(found: re.Match[str]) -> list[Command]:
    lines = [line.removeprefix(found["indent"]) for line in found["text"].splitlines()]
    prompted = any(line.startswith("$ ") for line in lines)
    if not (prompted or found["kind"] == "sh" or (lines and not found["kind"] and _is_typed(lines[0]))):
        return []
    marks = {mark["command"]: mark["reason"] for mark in _MARK.finditer(found["marks"])}
    typed: list[tuple[str, list[str]]] = []
    for line in lines:
        if typed and typed[-1][0].endswith("\\"):
            typed[-1] = (f"{typed[-1][0][:-1]}{line}", [])
        elif not prompted and line.strip():
            typed.append((line, []))
        elif line.startswith("$ "):
            typed.append((line.removeprefix("$ "), []))
        elif typed:
            typed[-1][1].append(line)
    commands = [(re.sub(r"\s+# .*$", "", line).strip(), printed) for line, printed in typed]
    unknown = {named for named in marks if named is not None} - {line for line, _ in commands}
    assert not unknown, f"no block has {unknown}"
    unordered = ANY_ORDER in found["marks"]
    return [Command(line, printed, marks.get(line, marks.get(None, "")), unordered) for line, printed in commands]


def as_pattern(printed: list[str]) -> str:
    """What a command must print for the page to be true.

    "…" alone in a line stands for any lines, within a line for any text; columns may be wider; times of the clock and
    durations are whatever they are.
    """
    parts = []
    for line in filter(str.strip, printed):
        if line.strip() == "…":
            parts.append(r"(?:.*\n)*?")
            continue
        words = [r".*".join(map(re.escape, word.split("…"))) for word in line.split()]
        text = r"\s+".join(words)
        text = re.sub(r"\d{4}\\-\d\d\\-\d\d", r"[0-9-]{10}", text)
        text = re.sub(r"\d\d:\d\d:\d\d(?:(?:\\\.|,)\d+)?", r"[0-9:.,]+", text)
        text = re.sub(r"(?:\d|\\\.)+(?=\\s\+ms\b)", r"[0-9.]+", text)
        parts.append(r"\s*" + text + r"\s*?\n")
    return "".join(parts)
