"""docs/conformance.md is what the tests say, they say it of rows and facts that exist, and none is forgotten."""

import re
import textwrap
from pathlib import Path

import pytest

from tests.conformance.claims import Claim, ClaimsError, Group, nearest, read_claims
from tests.conformance.evidence import (
    MARKER,
    PROJECT,
    Evidence,
    EvidenceError,
    all_evidence,
    python_evidence,
    scenario_evidence,
)
from tests.conformance.generate import PAGE, not_shown, page, unknown_claims

PENDING: frozenset[str] = frozenset()
"""What no test shows yet. It only ever gets shorter: whoever adds the first test of a row or fact strikes it out."""


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return read_claims()


@pytest.fixture(scope="module")
def evidence() -> list[Evidence]:
    return all_evidence()


def test_the_page_is_what_the_tests_say(groups: list[Group], evidence: list[Evidence]) -> None:
    found = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    if found != page(groups, evidence):  # a difference of tables hundreds of columns wide helps nobody
        pytest.fail(f"{PAGE.relative_to(PROJECT)} is not what the tests say: run `make conformance`")


def test_tests_name_what_there_is(groups: list[Group], evidence: list[Evidence]) -> None:
    assert unknown_claims(groups, evidence) == []


def test_all_is_shown_but_what_is_pending(groups: list[Group], evidence: list[Evidence]) -> None:
    missing = set(not_shown(groups, evidence))
    assert missing - PENDING == set(), "rows or facts without a test"
    assert PENDING - missing == set(), "these have a test now (or never were): strike them out of PENDING"


def test_pytest_sees_the_same_markers(request: pytest.FixtureRequest, evidence: list[Evidence]) -> None:
    """What is read from the text is what pytest itself has found in this run."""
    read = {(each.path, each.name): each.shows for each in evidence}
    for item in request.session.items:
        if not isinstance(item, pytest.Function):
            continue
        marked = {key for marker in item.iter_markers(MARKER) for key in marker.args}
        name = f"{item.cls.__name__}.{item.originalname}" if item.cls else item.originalname
        assert marked <= read.get((item.path, name), frozenset()), item.nodeid


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGE.read_text(encoding="utf-8"))
    assert len(links) > 100
    assert [link for link in set(links) if not (PAGE.parent / link).is_file()] == []


# -- the reading of tests ----------------------------------------------------------------------------------------------


def read(directory: Path, text: str) -> dict[str, set[str]]:
    path = directory / "test_sample.py"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return {each.name: set(each.shows) for each in python_evidence(path)}


def test_markers_are_read_wherever_pytest_takes_them(tmp_path: Path) -> None:
    assert read(
        tmp_path,
        """
        import pytest
        from pytest import mark

        @pytest.mark.slow
        @pytest.mark.shows("row 1", "open5gs-own-realm")
        async def test_marked(): ...

        @mark.shows("row 2")
        @pytest.mark.parametrize("a", [1, pytest.param(2, marks=pytest.mark.shows("row 3"))])
        def test_row_4_named(a): ...

        def test_row_7_and_8_by_name_alone(): ...

        def test_nothing(): ...

        @pytest.mark.shows("row 5")
        class TestTogether:
            pytestmark = pytest.mark.shows("row 6")

            def test_one(self): ...

            @pytest.mark.shows("row 9")
            def test_two(self): ...
        """,
    ) == {
        "test_marked": {"row 1", "open5gs-own-realm"},
        "test_row_4_named": {"row 2", "row 3", "row 4"},
        "test_row_7_and_8_by_name_alone": {"row 7", "row 8"},
        "TestTogether.test_one": {"row 5", "row 6"},
        "TestTogether.test_two": {"row 5", "row 6", "row 9"},
    }


def test_a_marked_module_marks_all_of_its_tests(tmp_path: Path) -> None:
    text = 'pytestmark = [pytest.mark.interop, pytest.mark.shows("row 5")]\ndef test_a(): ...\ndef help(): ...\n'
    assert read(tmp_path, text) == {"test_a": {"row 5"}}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('@pytest.mark.shows("row 1")\ndef check(): ...\n', "line 1: .* stands where no test is"),
        ('def test_a():\n    mark = pytest.mark.shows("row 1")\n', "line 2: .* stands where no test is"),
        ("@pytest.mark.shows(ROW)\ndef test_a(): ...\n", "line 1: .* takes strings as they are"),
        ("@pytest.mark.shows()\ndef test_a(): ...\n", "line 1: .* names what it shows"),
    ],
)
def test_unclear_markers_are_mistakes(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(EvidenceError, match=complaint):
        read(tmp_path, text)


SCENARIO = """\
Rows 16 and 22 (Kamailio): a title

Shows: kamailio-garbage-date, kamailio-no-leave
Shows: relay-tls
{}
| sends | answer   |
|-------|----------|
| CER   | CEA 2001 |
"""


def test_scenarios_tell_rows_facts_and_gaps(tmp_path: Path) -> None:
    path = tmp_path / "sample.txt"
    path.write_text(SCENARIO.format(""), encoding="utf-8")
    facts = {"kamailio-garbage-date", "kamailio-no-leave", "relay-tls"}
    assert scenario_evidence(path) == Evidence(path, "sample", frozenset({"row 16", "row 22"} | facts))
    path.write_text(SCENARIO.format("Known gap: not built\n"), encoding="utf-8")
    assert scenario_evidence(path).known_gap == "not built"


# -- the writing of the page -------------------------------------------------------------------------------------------


def rows_of_page(groups: list[Group], evidence: list[Evidence], tests: Path) -> list[str]:
    return [line for line in page(groups, evidence, tests).splitlines() if line.startswith("| ")]


def test_status_comes_from_tests_alone(tmp_path: Path) -> None:
    rows = tuple(Claim(f"row {number}", "Does | it.", "Name", "RFC 6733 section 3") for number in (1, 2, 3, 4))
    groups = [Group("Rows", rows), Group("Client", (Claim("a-b", "Does it."),))]
    scenario, gap, code = tmp_path / "one.txt", tmp_path / "two.txt", tmp_path / "occ" / "test_x.py"
    evidence = [
        Evidence(scenario, "one", frozenset({"row 1", "a-b"})),
        Evidence(gap, "two", frozenset({"row 1", "row 2"}), "not built"),
        Evidence(code, "test_a", frozenset({"row 1", "row 4"})),
        Evidence(code, "test_b", frozenset({"row 1"})),
    ]
    _, one, two, three, four, _, fact = rows_of_page(groups, evidence, tmp_path)
    does = r"**Name.** Does \| it. *RFC 6733 section 3*"
    gap_link = "[two](../tests/two.txt) (known gap: not built)"
    links = f"[one](../tests/one.txt); {gap_link}; [occ/test_x](../tests/occ/test_x.py) (2)"
    assert one == f"| 1 | {does} | shown by 3 tests, known gap | {links} |"
    assert two == f"| 2 | {does} | known gap | {gap_link} |"
    assert three == f"| 3 | {does} | not yet |  |"
    assert four == f"| 4 | {does} | shown by 1 test | [occ/test_x](../tests/occ/test_x.py) |"
    assert fact == "| `a-b` | Does it. | shown by 1 test | [one](../tests/one.txt) |"
    assert not_shown(groups, evidence) == ["row 2", "row 3"]


def test_a_wrong_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    groups = [Group("Rows", (Claim("row 1", "Does it.", "Name"), Claim("open5gs-own-realm", "Does it.")))]
    wrong = Evidence(tmp_path / "test_x.py", "test_a", frozenset({"row 1", "open5gs-realm"}))
    (sentence,) = unknown_claims(groups, [wrong])
    assert sentence == "test_x.py, test_a: there is no 'open5gs-realm'; the nearest is 'open5gs-own-realm'"
    assert nearest("rwo 1", ["row 1", "row 2"]) == "row 1"


# -- the lists ---------------------------------------------------------------------------------------------------------


def test_the_lists_are_whole(groups: list[Group]) -> None:
    rows, *clients = groups
    assert [row.key for row in rows.claims] == [f"row {number}" for number in range(1, 49)]
    assert len({row.name for row in rows.claims}) == 48
    assert len(clients) == 5
    assert all(group.claims for group in clients)


@pytest.mark.parametrize(
    ("rows", "facts", "complaint"),
    [
        ('[[row]]\nnumber = 2\nname = "A"\nsource = "RFC 1 section 1"\ndoes = "It."', "", "its number is 2"),
        ('[[row]]\nnumber = 1\nname = "A"\nsource = "RFC 6733"\ndoes = "It."', "", "source is written as"),
        ('[[row]]\nnumber = 1\nname = "A"\ndoes = "It."', "", "a row has number, name, source and does"),
        ("[[row", "", "rows.toml: "),
        ("", '[a]\nname = "A"\n[a.facts]\nb-c = "It."', "begin 'a-'"),
        ("", '[a]\nname = "A"\n[a.facts]\na-c = "It"', "a whole sentence"),
    ],
)
def test_mistakes_in_the_lists_are_told(tmp_path: Path, rows: str, facts: str, complaint: str) -> None:
    (tmp_path / "rows.toml").write_text(rows, encoding="utf-8")
    (tmp_path / "facts.toml").write_text(facts, encoding="utf-8")
    with pytest.raises(ClaimsError, match=complaint):
        read_claims(tmp_path)
