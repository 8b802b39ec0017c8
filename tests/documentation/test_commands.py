"""Every command of every page is typed into a fresh copy of the project, and prints what the page says."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.documentation.pages import PROJECT, as_pattern, every_page, loose_commands, read_page
from tests.documentation.terminal import Terminal

ELSEWHERE: Final = {
    "docs/accounts.md": "tests/occ/test_accounts_document.py",
    "docs/policies.md": "tests/policies/test_policies_document.py",
    "docs/rating-by-example.md": "tests/occ/test_rating_by_example.py",
}
"""Pages with an operator of their own, whose commands another test runs one after the other."""
PAGES: Final = {page.name: page for page in map(read_page, every_page())}
HERE: Final = [
    name
    for name, page in PAGES.items()
    if name not in ELSEWHERE and any(not command.reason for command in page.commands)
]
IN_THE_WAY: Final = ("make noc", "occ serve")
"""Commands that start a server of their own, which cannot run beside that of the README."""


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A copy in which README's first command, ``make run``, goes on."""
    with Terminal(tmp_path_factory.mktemp("fresh")) as terminal:
        assert PAGES["README.md"].commands[0].line == "make run"
        told = terminal.type("make run")
        assert "created 200 accounts and 200 subscribers" in told
        yield terminal


def test_the_pages_have_commands() -> None:
    assert {"README.md", "docs/api.md", "docs/bulk.md", "docs/notices.md", "docs/sy.md"} <= set(HERE)
    assert sum(len(page.commands) for page in PAGES.values()) > 150


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_every_command_does_what_the_page_says(terminal: Terminal, name: str) -> None:
    already = len(terminal.background)
    try:
        for command in PAGES[name].commands:
            if command.reason or command.line in IN_THE_WAY or command == PAGES["README.md"].commands[0]:
                continue
            printed = terminal.type(command.line)
            assert command.is_told_by(printed), f"{command.line}\n{printed}"
    finally:
        for begun in terminal.background[already:]:
            begun.stop()
        del terminal.background[already:]


@pytest.mark.slow
def test_make_noc_and_occ_serve_start_from_nothing(tmp_path: Path) -> None:
    with Terminal(tmp_path) as terminal:
        port = terminal.environment["PROMETHEUS_PORT"]
        noc = terminal.begin("make noc", "Ctrl-C", ARGS=f"--prometheus-port {port} --rate 5")
        assert "/noc" in noc.printed
        noc.stop()
        serving = terminal.begin("occ serve", "Ctrl-C stops the server")
        serving.stop()


def test_what_is_not_run_says_why() -> None:
    for page in PAGES.values():
        for command in page.commands:
            assert command.reason == "" or len(command.reason.split()) > 2, (page.name, command.line)


def test_no_command_stands_where_nothing_would_run_it() -> None:
    """Blocks are fenced: an indented one would be passed over."""
    assert {page.name: found for page in PAGES.values() if (found := loose_commands(page.path))} == {}


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_pages_that_are_run_elsewhere_are(page: str, test: str) -> None:
    assert Path(page).name in (PROJECT / test).read_text(encoding="utf-8")
    assert not any(command.reason for command in PAGES[page].commands)


def test_a_page_that_is_wrong_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "```\n$ occ a \\\n  b   # remark\nprinted 7 at 10:15:02.113 …\n$ make c\n```\n\n"
        "<!-- not run: it takes long -->\n```sh\ncurl x\n```\n```yaml\nmake: d\n```\n\n    occ e\n"
    )
    page = read_page(path)
    assert [(each.line, each.reason) for each in page.commands] == [
        ("occ a   b", ""),
        ("make c", ""),
        ("curl x", "it takes long"),
    ]
    pattern = as_pattern(page.commands[0].printed)
    assert re.fullmatch(pattern, "printed  7 at 23:59:59.000 whatever\n")
    assert not re.fullmatch(pattern, "printed 8 at 23:59:59.000 whatever\n")
    assert loose_commands(path) == ["occ e"]
    unordered = page.commands[0]._replace(printed=["b …", "…", "a 1"], in_any_order=True)
    assert unordered.is_told_by("a 1\nc\nb 2\n")
    assert not unordered.is_told_by("a 2\nb 2\n")
