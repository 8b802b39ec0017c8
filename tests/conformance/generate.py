"""Writes docs/conformance.md from what the tests show: ``make conformance``."""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from tests.conformance.claims import Claim, ClaimsError, Group, nearest, read_claims
from tests.conformance.evidence import PROJECT, TESTS, Evidence, EvidenceError, all_evidence
from tests.scenarios.tables import ScenarioError

PAGE = PROJECT / "docs" / "conformance.md"

_HEAD = """\
# Conformance

What a charging server has to do on Gy, Ro and Sy, what real clients need it to do, and the tests that show that this
one does it. This page is written by `make conformance` from the tests themselves; whatever is changed here by hand is
lost, and the test suite fails while the page and the tests differ.

A test counts when it names the row or the fact, and the whole suite passes or the change does not go in. Tests under
`tests/interop` run where the program they test against is installed.
"""

_HOW = """\
## How a test gets here

- A scenario, `tests/scenarios/*.txt`: its title names the rows, `Row 16: ...` or `Rows 20 and 22 (Kamailio): ...`; a
  line `Shows: open5gs-own-realm, relay-proxy-info` names facts. With a line `Known gap: ...` it counts as a gap.
- A test in Python: its name, `test_row_16_...`, or `@pytest.mark.shows("row 16", "open5gs-own-realm")`.
- Rows are listed in `tests/conformance/rows.toml`, facts in `facts.toml` beside it; what no test shows yet is listed in
  `test_conformance.py` there, and must leave that list with its first test.
"""


def page(groups: Sequence[Group], evidence: Sequence[Evidence], tests: Path = TESTS) -> str:
    """The whole page. ``tests``: directory that links start from."""
    rows, *clients = groups
    parts = [
        _HEAD,
        f"## Rows\n\n{_summary('rows', rows.claims, evidence)}\n\n"
        + _table("row | what a conformant server does", rows.claims, evidence, tests),
        f"## Clients\n\n{_summary('facts', [fact for group in clients for fact in group.claims], evidence)}\n",
        *(
            f"### {group.title}\n\n"
            + _table("fact | what the client does, and the server", group.claims, evidence, tests)
            for group in clients
        ),
        _HOW,
    ]
    return "\n".join(parts)


def unknown_claims(groups: Sequence[Group], evidence: Sequence[Evidence]) -> list[str]:
    """A sentence for each name in a test that is neither row nor fact."""
    known = [claim.key for group in groups for claim in group.claims]
    return [
        f"{each.path.name}, {each.name}: there is no {key!r}; the nearest is {nearest(key, known)!r}"
        for each in evidence
        for key in sorted(each.shows - set(known))
    ]


def not_shown(groups: Sequence[Group], evidence: Sequence[Evidence]) -> list[str]:
    """Keys of what no test shows; a known gap shows nothing."""
    shown = {key for each in evidence if not each.known_gap for key in each.shows}
    return [claim.key for group in groups for claim in group.claims if claim.key not in shown]


def _summary(what: str, claims: Sequence[Claim], evidence: Sequence[Evidence]) -> str:
    shown = {key for each in evidence if not each.known_gap for key in each.shows}
    return f"{sum(claim.key in shown for claim in claims)} of {len(claims)} {what} are shown by tests."


def _table(head: str, claims: Sequence[Claim], evidence: Sequence[Evidence], tests: Path) -> str:
    lines = [f"| {head} | status | tests |", "|-|-|-|-|"]
    for claim in claims:
        mine = [each for each in evidence if claim.key in each.shows]
        key = claim.key.removeprefix("row ") if claim.name else f"`{claim.key}`"
        does = f"**{claim.name}.** {claim.does} *{claim.source}*" if claim.name else claim.does
        cells = (key, does, _status(mine), "; ".join(_links(mine, tests)))
        lines.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _status(mine: Sequence[Evidence]) -> str:
    shown = sum(not each.known_gap for each in mine)
    gaps = len(mine) - shown
    parts = [f"shown by {shown} test{'s' * (shown > 1)}"] if shown else []
    if gaps:
        parts.append("known gap" if gaps == 1 else f"{gaps} known gaps")
    return ", ".join(parts) or "not yet"


def _links(mine: Sequence[Evidence], tests: Path) -> Iterator[str]:
    """One link for each file; scenarios by their names, tests in Python by their files and how many they are."""
    for path, group in groupby(mine, lambda each: each.path):
        (*_, last) = found = list(group)
        target = f"../tests/{path.relative_to(tests).as_posix()}"
        if path.suffix == ".txt":
            yield f"[{last.name}]({target})" + (f" (known gap: {last.known_gap})" if last.known_gap else "")
        else:
            name = path.relative_to(tests).with_suffix("").as_posix()
            yield f"[{name}]({target})" + (f" ({len(found)})" if len(found) > 1 else "")


def main() -> int:
    """Write the page; 1 if what the tests say does not make sense."""
    try:
        groups, evidence = read_claims(), all_evidence()
    except (ClaimsError, EvidenceError, ScenarioError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    mistakes = unknown_claims(groups, evidence)
    if mistakes:
        sys.stderr.write("\n".join(mistakes) + "\n")
        return 1
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(groups, evidence), encoding="utf-8")
    missing = not_shown(groups, evidence)
    sys.stdout.write(
        f"{PAGE.relative_to(PROJECT)}: {len(evidence)} tests; not shown yet: {', '.join(missing) or 'none'}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
