"""The table of results: rows come from runs, are replaced by the next run, and are all that changes."""

import re
from pathlib import Path

import pytest

from tests.faults.results import BEGIN, DOCUMENT, END, HEADING, Result, entered

TEXT = f"# Promises\n\n{BEGIN}\n{END}\n\nafter\n"


def test_results_are_entered_and_replaced() -> None:
    once = entered(TEXT, [Result("b", True, "5 kills"), Result("a", False)], "2026-01-01", "abc")
    assert once == (
        f"# Promises\n\n{BEGIN}\n{HEADING}\n| a | **failed** |  | 2026-01-01 | abc |\n"
        f"| b | passed | 5 kills | 2026-01-01 | abc |\n{END}\n\nafter\n"
    )
    twice = entered(once, [Result("a", True, "a|b")], "2026-01-02", "abd+")
    assert "| a | passed | a/b | 2026-01-02 | abd+ |\n| b | passed | 5 kills | 2026-01-01 | abc |" in twice
    assert entered(twice, [], "2026-01-03", "x") == twice


def test_a_document_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no table"):
        entered("# Promises\n", [Result("a", True)], "2026-01-01", "abc")


def test_every_test_of_a_promise_has_a_sentence_of_its_own() -> None:
    """Two tests of one name would overwrite each other's rows."""
    sentences = [
        sentence
        for path in Path(__file__).parent.glob("test_*.py")
        for sentence in re.findall(r'@pytest\.mark\.promise\("([^"]+)"\)', path.read_text())
    ]
    assert len(sentences) > 8
    assert len(set(sentences)) == len(sentences)


def test_what_failed_is_not_left_in_the_document() -> None:
    """What docs/promises.md promises, the last run has kept."""
    assert "**failed**" not in DOCUMENT.read_text()
