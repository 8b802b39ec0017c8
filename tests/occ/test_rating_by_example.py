"""docs/rating-by-example.md: every question in it is asked, and answered as it says there, line by line; every account
is led through what happens to it there.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner

from balance.embedded import Address
from balance.store import Store, StoreSettings
from balance.verify import verify
from occ.cli import app
from occ.rating.catalogue import load_catalogue
from tests.occ.book_account import BookAccount

BOOK = Path(__file__).parents[2] / "docs" / "rating-by-example.md"

_HEADING = re.compile(r"^### ([0-9]+)\. (.+)$", re.MULTILINE)
_BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_BEFORE = ("Request:", "Service:", "  not ", "Tariff:")
"""What an answer begins with that the book leaves out: which service it is and why."""


class Question(NamedTuple):
    """A command of the book, and the lines of the answer that are shown."""

    command: str
    answer: list[str]


class Example(NamedTuple):
    title: str
    catalogue: tuple[str, str]
    """What all examples share, and what this one adds."""
    questions: list[Question]
    table: list[list[str]]
    """Of an account: what the columns are, then the cells of each line; empty for examples that ask questions."""


def read_book() -> Iterator[Example]:
    text = BOOK.read_text()
    parts = _HEADING.split(text)
    shared = _BLOCK.findall(parts[0])[0][1]
    for number, title, content in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        blocks = _BLOCK.findall(content)
        (own,) = [block for kind, block in blocks if kind == "yaml"]
        questions = [question for kind, block in blocks if kind == "console" for question in _questions(block)]
        yield Example(f"{number}. {title}", (shared, own), questions, _table(content))


def _questions(block: str) -> Iterator[Question]:
    for asked in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *answer = asked.splitlines()
        yield Question(command, [line for line in answer if line.strip()])


def _table(content: str) -> list[list[str]]:
    rows = [line.strip("|").split("|") for line in content.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if not set(row[0]) <= {"-"}]


EXAMPLES = list(read_book())
QUESTIONS = [example for example in EXAMPLES if not example.table]
ACCOUNTS = [example for example in EXAMPLES if example.table]


def words(line: str) -> list[str]:
    """A line whose columns may be as wide as they like."""
    return re.split(" {2,}", line.strip())


def write_catalogue(folder: Path, example: Example) -> Path:
    (folder / "catalogue").mkdir(exist_ok=True)
    for name, content in zip(("all.yaml", "own.yaml"), example.catalogue, strict=True):
        (folder / "catalogue" / name).write_text(content)
    return folder / "catalogue"


def ask(folder: Path, example: Example, command: str) -> list[str]:
    """The lines of an answer that the book shows."""
    write_catalogue(folder, example)
    (folder / "occ.yaml").write_text("catalogue: catalogue\nstore:\n  data_dir: data\n")
    program, *arguments = shlex.split(command)
    assert program == "occ"
    result = CliRunner().invoke(app, ["--config", str(folder / "occ.yaml"), *arguments])
    assert result.exit_code == 0, result.output
    return [line for line in result.output.splitlines() if line.strip() and not line.startswith(_BEFORE)]


@pytest.mark.parametrize("example", QUESTIONS, ids=[example.title for example in QUESTIONS])
def test_the_book_is_right(example: Example, tmp_path: Path) -> None:
    assert example.questions
    for question in example.questions:
        answer = ask(tmp_path, example, question.command)
        assert [words(line) for line in answer] == [words(line) for line in question.answer], question.command


@pytest.mark.parametrize("example", ACCOUNTS, ids=[example.title for example in ACCOUNTS])
async def test_the_accounts_of_the_book_are_right(example: Example, clean_redis: Address, tmp_path: Path) -> None:
    (first, second, *buckets), *lines = example.table
    assert (first, second) == ("when", "what happens")
    store = Store(StoreSettings(clean_redis, partitions=4))
    await store.start()
    try:
        account = BookAccount(store, load_catalogue(write_catalogue(tmp_path, example)))
        for when, what, *left in lines:
            await account.do(when, what)
            assert [await account.left(bucket) for bucket in buckets] == left, f"{when}: {what}"
        assert (await verify(store)).discrepancies == []
    finally:
        await store.stop()


def test_the_book_is_read_whole() -> None:
    """No block is overlooked because its fence or its heading is written otherwise."""
    text = BOOK.read_text()
    assert len(EXAMPLES) == len(re.findall(r"^###", text, re.MULTILINE)) >= 39
    assert sum(len(example.questions) for example in EXAMPLES) == text.count("$ occ ")
    assert text.count("```") == 2 * len(_BLOCK.findall(text))
    numbers = [example.title.partition(".")[0] for example in EXAMPLES]
    assert numbers == [str(number) for number in range(1, len(EXAMPLES) + 1)]
    assert all(bool(example.questions) != bool(example.table) for example in EXAMPLES)
    assert all(len(row) == len(example.table[0]) for example in ACCOUNTS for row in example.table)
    assert all(question.answer for example in EXAMPLES for question in example.questions)
