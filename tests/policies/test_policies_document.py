"""docs/policies.md: its rules are read, its cases hold, its commands are run and print what the page says."""

import re
import shlex
import shutil
from pathlib import Path

from balance.embedded import Address
from occ.policy.cases import load_cases, mismatches
from occ.policy.reading import ACCESS, ACTIONS, RULE_KEYS, load_policies, parse_policies
from occ.policy.written_levels import COMPARISONS
from policies.levels import LIFE_LEVELS
from tests.policies.rulebook import CONFIG, sample
from tests.shell import Shell

PAGE = CONFIG.parent / "docs" / "policies.md"
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [block for each, block in found if each == kind]


def test_the_examples_are_one_rules_file_and_its_cases_hold(tmp_path: Path) -> None:
    rules = [block for block in blocks("yaml") if not block.startswith("- case")]
    operator = parse_policies("\n".join(rules), "policies.md", sample())
    # The levels, throttles and final units that the page shows but no rule of it uses.
    assert all(" no rule " in each for each in operator.remarks), operator.remarks
    path = tmp_path / "cases.yaml"
    path.write_text("\n".join(block for block in blocks("yaml") if block.startswith("- case")))
    cases = load_cases(path, operator, sample())
    assert {case.name: mismatches(operator, case) for case in cases} == {case.name: () for case in cases}


def test_the_page_explains_the_shipped_rules() -> None:
    shipped = (CONFIG / "policies.yaml").read_text()
    (levels,) = [block for block in blocks("") if block.startswith("levels:")]
    for line in levels.splitlines():
        assert line in shipped
    told = TEXT[TEXT.index("line by line") : TEXT.index("## Levels")]
    for rule in load_policies(CONFIG / "policies.yaml", sample()).policies.rules:
        assert f"`{rule.name}`" in told


def test_the_page_names_everything_that_can_be_written() -> None:
    words = (
        *RULE_KEYS,
        *ACTIONS,
        *(f"do: {word}" for word in ACCESS),
        *COMPARISONS,
        *(each.name for each in LIFE_LEVELS),
    )
    assert [word for word in words if f"`{word}" not in TEXT and f"{{{word}:" not in TEXT] == []


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
    shutil.copy(CONFIG / "policies.yaml", tmp_path / "policies.yaml")
    shell.config.write_text(shell.config.read_text() + "policies: policies.yaml\n")
    run = 0
    for block in blocks(""):
        commands: list[tuple[str, list[str]]] = []
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            elif commands:
                commands[-1][1].append(line)
        for command, lines in commands:
            arguments = [each.replace("config/", f"{CONFIG}/") for each in shlex.split(command)[1:]]
            printed = shell.text(*arguments)
            assert re.fullmatch(as_pattern(lines), printed), f"{command}\n{printed}"
            run += 1
    assert run > 5
