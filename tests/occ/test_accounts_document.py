"""docs/accounts.md: every command on the page is run, in order, and prints what the page says."""

import re
import shlex
from pathlib import Path

from balance.embedded import Address
from occ.lifecycle import ALLOWED
from tests.shell import Shell

PAGE = Path(__file__).parents[2] / "docs" / "accounts.md"


def commands() -> list[tuple[str, list[str]]]:
    """Each command of the page, and the lines that follow it there."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line.removeprefix("$ "), []))
            else:
                found[-1][1].append(line)
    return found


def as_pattern(lines: list[str]) -> str:
    """A line of "…" alone stands for any lines, within a line for any text; columns may be wider."""
    parts = []
    for line in lines:
        if line == "…":
            parts.append(r"(?:.*\n)*?")
        else:
            words = [r".+".join(re.escape(piece) for piece in word.split("…")) for word in line.split()]
            parts.append(r"\s*" + r"\s+".join(words) + r"\s*?\n")
    return "".join(parts)


def test_the_page_tells_the_truth(clean_redis: Address, tmp_path: Path) -> None:
    shell = Shell(tmp_path, clean_redis)
    every = commands()
    assert len(every) > 30
    for command, lines in every:
        program, *arguments = shlex.split(command)
        assert program == "occ"
        printed = shell.text(*arguments)
        assert re.fullmatch(as_pattern(lines), printed), f"{command}\n{printed}"
    assert shell.json("ledger", "verify")["consistent"] is True


def test_a_wrong_line_would_be_noticed() -> None:
    assert re.fullmatch(as_pattern(["a: 1 EUR, version …", "…", "end"]), "a:  1 EUR, version 7\nb\nc\nend\n")
    assert not re.fullmatch(as_pattern(["a: 1 EUR", "…", "end"]), "a: 2 EUR\nend\n")
    assert not re.fullmatch(as_pattern(["a", "b"]), "a\nx\nb\n")


def test_the_table_of_states_is_the_life_cycle() -> None:
    rows = re.findall(r"^\| (\w+)[^|]*\| ([^|]+) \| ([a-z, ]*) ?\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: {each for each in following.strip().split(", ") if each} for name, _, following in rows}
    named = {state.name.lower(): {each.name.lower() for each in following} for state, following in ALLOWED.items()}
    assert {name: told[name] for name in named} == named
