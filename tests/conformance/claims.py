"""What there is to show: the rows of the conformance table (rows.toml) and what real clients do (facts.toml)."""

import difflib
import re
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

_SOURCE = re.compile(r"(?:RFC \d{4}|TS \d\d\.\d{3}) (?:section|clause)s? \d.*")
_FACT_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")


class ClaimsError(Exception):
    """The lists of rows and facts are not written as they must be; says where."""


@dataclass(frozen=True)
class Claim:
    """One row, or one fact about a client."""

    key: str
    """What tests call it: "row 5", "open5gs-own-realm"."""
    does: str
    """One or two sentences."""
    name: str = ""
    """Title of a row; facts go by their key."""
    source: str = ""
    """Clauses a row comes from; facts come from what clients were seen to do."""


@dataclass(frozen=True)
class Group:
    """Claims that make one table."""

    title: str
    claims: tuple[Claim, ...]


def read_claims(directory: Path = HERE) -> list[Group]:
    """All there is to show, the rows first. Raises ClaimsError."""
    return [_rows(directory / "rows.toml"), *_facts(directory / "facts.toml")]


def nearest(key: str, known: Collection[str]) -> str:
    """The known key that is most like a mistaken one."""
    return difflib.get_close_matches(key, known, 1, cutoff=0.0)[0]


def _rows(path: Path) -> Group:
    tables = _table(path).get("row", [])
    rows = []
    for number, table in enumerate(tables, 1):
        where = f"{path.name}, row {number} of the list"
        if set(table) != {"number", "name", "source", "does"}:
            raise ClaimsError(f"{where}: a row has number, name, source and does, not {', '.join(table)}")
        if table["number"] != number:
            raise ClaimsError(f"{where}: its number is {table['number']}; rows are listed from 1 on without a gap")
        if not _SOURCE.fullmatch(table["source"]):
            raise ClaimsError(f"{where}: source is written as 'RFC 6733 section 5.3' or 'TS 32.299 clause 7.2.175'")
        rows.append(Claim(f"row {number}", _text(table["does"], where), table["name"], table["source"]))
    return Group("Rows", tuple(rows))


def _facts(path: Path) -> list[Group]:
    groups = []
    for prefix, table in _table(path).items():
        facts = []
        for key, does in table["facts"].items():
            where = f"{path.name}, {key}"
            if not _FACT_ID.fullmatch(key) or not key.startswith(f"{prefix}-"):
                raise ClaimsError(f"{where}: the id of a fact is lower-case words with hyphens that begin '{prefix}-'")
            facts.append(Claim(key, _text(does, where)))
        groups.append(Group(table["name"], tuple(facts)))
    return groups


def _table(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ClaimsError(f"{path.name}: {error}") from error


def _text(written: str, where: str) -> str:
    text = " ".join(written.split())
    if not text.endswith("."):
        raise ClaimsError(f"{where}: a whole sentence is wanted, not {text!r}")
    return text
