"""What an import has to set aside, in a database of its own on disk that is gone with the process.

Rows that are part of an account wait there until the account's own row comes, wherever in whichever file it stands;
so do rows that can only be taken when others have been, and rows that are rejected. Memory does not grow with the files.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Final, NamedTuple

CACHE_KIB: Final = 16_384
A_PAGE: Final = 500
LONGEST_REASON: Final = 2000

_TABLES: Final = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA temp_store = FILE;
CREATE TABLE details (account BLOB, source INTEGER, line INTEGER, text BLOB);
CREATE TABLE units (unit BLOB PRIMARY KEY, parent BLOB, source INTEGER, line INTEGER, text BLOB) WITHOUT ROWID;
CREATE TABLE later (source INTEGER, line INTEGER, text BLOB);
CREATE TABLE seen (what TEXT, key BLOB, source INTEGER, line INTEGER, PRIMARY KEY (what, key)) WITHOUT ROWID;
CREATE TABLE rejected (source INTEGER, line INTEGER, reason BLOB, text BLOB, PRIMARY KEY (source, line)) WITHOUT ROWID;
"""
_IN_ORDER: Final = """
WITH RECURSIVE placed (unit, depth) AS (
    SELECT unit, 0 FROM units WHERE parent NOT IN (SELECT unit FROM units)
    UNION ALL
    SELECT units.unit, depth + 1 FROM units JOIN placed ON units.parent = placed.unit
)
SELECT depth, source, line, text FROM placed JOIN units USING (unit) ORDER BY depth, source, line
"""
_IN_A_CIRCLE: Final = """
WITH RECURSIVE placed (unit) AS (
    SELECT unit FROM units WHERE parent NOT IN (SELECT unit FROM units)
    UNION ALL
    SELECT units.unit FROM units JOIN placed ON units.parent = placed.unit
)
SELECT source, line, text FROM units WHERE unit NOT IN placed ORDER BY source, line
"""


class Kept(NamedTuple):
    """A row as its file has it."""

    source: int
    line: int
    text: str


class Spool:
    """Rows by what they wait for; keys are identifiers as the store has them."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.executescript(_TABLES)
        self._database.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._database.execute("BEGIN")

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def _pages(self, query: str, *arguments: object) -> Iterator[tuple[Any, ...]]:
        cursor = self._database.execute(query, arguments)
        while page := cursor.fetchmany(A_PAGE):
            yield from page

    # -- parts of accounts -----------------------------------------------------------------------------------------

    def keep_details(self, rows: Iterable[tuple[bytes, Kept]]) -> int:
        """Set rows aside under their accounts; how many. To be followed by ``order_details``."""
        statement = "INSERT INTO details VALUES (?, ?, ?, ?)"
        values = ((account, kept.source, kept.line, _octets(kept.text)) for account, kept in rows)
        return self._database.executemany(statement, values).rowcount

    def order_details(self) -> None:
        self._database.execute("CREATE INDEX details_by_account ON details (account, source, line)")

    def details_of(self, account: bytes) -> list[Kept]:
        found = self._database.execute(
            "SELECT source, line, text FROM details WHERE account = ? ORDER BY source, line", (account,)
        )
        return [Kept(source, line, _text(text)) for source, line, text in found.fetchall()]

    def details_without(self, what: str) -> Iterator[tuple[bytes, Kept]]:
        """Those of accounts that were not seen as ``what``, with their accounts, together by account."""
        for account, source, line, text in self._pages(
            "SELECT account, source, line, text FROM details "
            "WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.what = ? AND seen.key = details.account) "
            "ORDER BY account, source, line",
            what,
        ):
            yield account, Kept(source, line, _text(text))

    # -- units of customers ----------------------------------------------------------------------------------------

    def keep_unit(self, unit: bytes, parent: bytes, kept: Kept) -> None:
        """Set a unit aside; it must not be there yet."""
        row = (unit, parent, kept.source, kept.line, _octets(kept.text))
        self._database.execute("INSERT INTO units VALUES (?, ?, ?, ?, ?)", row)

    def units_in_order(self) -> Iterator[tuple[int, Kept]]:
        """Every unit after the one it stands below, with its depth."""
        for depth, source, line, text in self._pages(_IN_ORDER):
            yield depth, Kept(source, line, _text(text))

    def units_in_a_circle(self) -> Iterator[Kept]:
        """Units that stand below themselves, and those below them."""
        for source, line, text in self._pages(_IN_A_CIRCLE):
            yield Kept(source, line, _text(text))

    # -- what comes last -------------------------------------------------------------------------------------------

    def keep_for_later(self, rows: Iterable[Kept]) -> None:
        values = ((kept.source, kept.line, _octets(kept.text)) for kept in rows)
        self._database.executemany("INSERT INTO later VALUES (?, ?, ?)", values)

    def kept_for_later(self) -> Iterator[Kept]:
        """In the order in which they were kept."""
        for source, line, text in self._pages("SELECT source, line, text FROM later ORDER BY rowid"):
            yield Kept(source, line, _text(text))

    # -- keys that have been seen ----------------------------------------------------------------------------------

    def first_seen(self, what: str, key: bytes, source: int, line: int) -> tuple[int, int] | None:
        """Note a key; None if it is new, else the source and line where it was noted first."""
        try:
            self._database.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", (what, key, source, line))
        except sqlite3.IntegrityError:
            return self.seen(what, key)
        return None

    def seen(self, what: str, key: bytes) -> tuple[int, int] | None:
        """Where a key was noted; None: nowhere."""
        found = self._database.execute("SELECT source, line FROM seen WHERE what = ? AND key = ?", (what, key))
        place: tuple[int, int] | None = found.fetchone()
        return place

    # -- rejected rows ---------------------------------------------------------------------------------------------

    def reject(self, kept: Kept, reason: str) -> None:
        """Keep a rejected row; a further reason for the same line is added to the first."""
        known = self._database.execute(
            "SELECT reason FROM rejected WHERE source = ? AND line = ?", (kept.source, kept.line)
        ).fetchone()
        if known is None:
            row = (kept.source, kept.line, _octets(reason), _octets(kept.text))
            self._database.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", row)
        elif reason not in (before := _text(known[0])) and len(before) < LONGEST_REASON:
            self._database.execute(
                "UPDATE rejected SET reason = ? WHERE source = ? AND line = ?",
                (_octets(f"{before}; {reason}"), kept.source, kept.line),
            )

    def is_rejected(self, source: int, line: int) -> bool:
        found = self._database.execute("SELECT 1 FROM rejected WHERE source = ? AND line = ?", (source, line))
        return found.fetchone() is not None

    def rejected(self, source: int) -> Iterator[tuple[int, str, str]]:
        """Line, reason and text of the rejected rows of a file, by line."""
        for line, reason, text in self._pages(
            "SELECT line, reason, text FROM rejected WHERE source = ? ORDER BY line", source
        ):
            yield line, _text(reason), _text(text)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
