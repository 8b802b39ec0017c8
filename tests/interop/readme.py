"""What README.md tells newcomers to type and to write into configuration files, so that tests can do just that."""

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def section(title: str) -> str:
    """The text under a heading of the second level, up to the next one."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README.read_text(encoding="utf-8"), re.M | re.S)
    assert found is not None, f"README.md has no section {title!r}"
    return found[1]


def blocks(text: str) -> list[str]:
    """The fenced blocks of a section, without the fences."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.M | re.S)


def block(text: str, holds: str) -> str:
    """The one fenced block of a section that holds some text."""
    found = [each for each in blocks(text) if holds in each]
    assert len(found) == 1, f"README.md has {len(found)} blocks with {holds!r} in that section"
    return found[0]
