"""What an import has to set aside, in a database of its own on disk that is gone with the process.

Rows that are part of an account wait there until the account's own row comes, wherever in whichever file it stands;
so do rows that can only be taken when others have been, and what is wrong with those that are rejected. Memory does not
grow with the files.
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
CREATE TABLE details (account BLOB, source INTEGER, line INTEGER, row BLOB);
CREATE TABLE units (unit BLOB PRIMARY KEY, parent BLOB, source INTEGER, line INTEGER, row BLOB) WITHOUT ROWID;
CREATE TABLE later (source INTEGER, line INTEGER, row BLOB);
CREATE TABLE seen (what TEXT, key BLOB, source INTEGER, line INTEGER, PRIMARY KEY (what, key)) WITHOUT ROWID;
CREATE TABLE rejected (source INTEGER, line INTEGER, reason BLOB, whole INTEGER,
    PRIMARY KEY (source, line)) WITHOUT ROWID;
"""
_IN_ORDER: Final = """
WITH RECURSIVE placed (unit, depth) AS (
    SELECT unit, 0 FROM units WHERE parent NOT IN (SELECT unit FROM units)
    UNION ALL
    SELECT units.unit, depth + 1 FROM units JOIN placed ON units.parent = placed.unit
)
SELECT depth, source, line, row FROM placed JOIN units USING (unit) ORDER BY depth, source, line
"""
_IN_A_CIRCLE: Final = """
WITH RECURSIVE placed (unit) AS (
    SELECT unit FROM units WHERE parent NOT IN (SELECT unit FROM units)
    UNION ALL
    SELECT units.unit FROM units JOIN placed ON units.parent = placed.unit
)
SELECT source, line, row FROM units WHERE unit NOT IN placed ORDER BY source, line
"""


class Place(NamedTuple):
    """Where a row stands."""

    source: int
    """Index of its file."""
    line: int


class Spool:
    """Rows by what they wait for, packed by whoever sets them aside; keys are identifiers as the store has them."""

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
        if isinstance(error, sqlite3.Error):
            raise OSError(f"rows cannot be set aside in the directory for temporary files: {error}") from error

    def _pages(self, query: str, *arguments: object) -> Iterator[tuple[Any, ...]]:
        cursor = self._database.execute(query, arguments)
        while page := cursor.fetchmany(A_PAGE):
            yield from page

    # -- parts of accounts -----------------------------------------------------------------------------------------

    def keep_details(self, rows: Iterable[tuple[bytes, Place, bytes]]) -> int:
        """Set rows aside under their accounts; how many. To be followed by ``order_details``."""
        statement = "INSERT INTO details VALUES (?, ?, ?, ?)"
        return self._database.executemany(statement, ((account, *place, row) for account, place, row in rows)).rowcount

    def order_details(self) -> None:
        self._database.execute("CREATE INDEX details_by_account ON details (account, source, line)")

    def details_of(self, account: bytes) -> list[tuple[Place, bytes]]:
        found = self._database.execute(
            "SELECT source, line, row FROM details WHERE account = ? ORDER BY source, line", (account,)
        )
        return [(Place(source, line), row) for source, line, row in found.fetchall()]

    def details_without(self, what: str) -> Iterator[tuple[bytes, Place, bytes]]:
        """Those of accounts that were not seen as ``what``, with their accounts, together by account."""
        for account, source, line, row in self._pages(
            "SELECT account, source, line, row FROM details "
            "WHERE NOT EXISTS (SELECT 1 FROM seen WHERE seen.what = ? AND seen.key = details.account) "
            "ORDER BY account, source, line",
            what,
        ):
            yield account, Place(source, line), row

    # -- units of customers ----------------------------------------------------------------------------------------

    def keep_unit(self, unit: bytes, parent: bytes, place: Place, row: bytes) -> None:
        """Set a unit aside; it must not be there yet."""
        self._database.execute("INSERT INTO units VALUES (?, ?, ?, ?, ?)", (unit, parent, *place, row))

    def units_in_order(self) -> Iterator[tuple[int, Place, bytes]]:
        """Every unit after the one it stands below, with its depth."""
        for depth, source, line, row in self._pages(_IN_ORDER):
            yield depth, Place(source, line), row

    def units_in_a_circle(self) -> Iterator[tuple[Place, bytes]]:
        """Units that stand below themselves, and those below them."""
        for source, line, row in self._pages(_IN_A_CIRCLE):
            yield Place(source, line), row

    # -- what comes last -------------------------------------------------------------------------------------------

    def keep_for_later(self, rows: Iterable[tuple[Place, bytes]]) -> None:
        self._database.executemany("INSERT INTO later VALUES (?, ?, ?)", ((*place, row) for place, row in rows))

    def kept_for_later(self) -> Iterator[tuple[Place, bytes]]:
        """In the order in which they were kept."""
        for source, line, row in self._pages("SELECT source, line, row FROM later ORDER BY rowid"):
            yield Place(source, line), row

    # -- keys that have been seen ----------------------------------------------------------------------------------

    def first_seen(self, what: str, key: bytes, place: Place) -> Place | None:
        """Note a key; None if it is new, else where it was noted first."""
        try:
            self._database.execute("INSERT INTO seen VALUES (?, ?, ?, ?)", (what, key, *place))
        except sqlite3.IntegrityError:
            return self.seen(what, key)
        return None

    def seen(self, what: str, key: bytes) -> Place | None:
        """Where a key was noted; None: nowhere."""
        found = self._database.execute("SELECT source, line FROM seen WHERE what = ? AND key = ?", (what, key))
        place = found.fetchone()
        return None if place is None else Place(*place)

    def keys(self, what: str) -> Iterator[bytes]:
        """All that were noted, in order."""
        for (key,) in self._pages("SELECT key FROM seen WHERE what = ? ORDER BY key", what):
            yield key

    # -- rejected rows ---------------------------------------------------------------------------------------------

    def reject(self, place: Place, reason: str, *, whole: bool = True) -> None:
        """Keep why a line is rejected; a further reason is added to the first. ``whole``: no part of it is taken."""
        known = self._reason(place)
        if known is None:
            self._database.execute("INSERT INTO rejected VALUES (?, ?, ?, ?)", (*place, _octets(reason), whole))
            return
        before, was_whole = known
        if reason not in before and len(before) < LONGEST_REASON:
            before = f"{before}; {reason}"
        self._database.execute(
            "UPDATE rejected SET reason = ?, whole = ? WHERE source = ? AND line = ?",
            (_octets(before), whole or was_whole, *place),
        )

    def is_rejected_whole(self, place: Place) -> bool:
        known = self._reason(place)
        return known is not None and known[1]

    def _reason(self, place: Place) -> tuple[str, bool] | None:
        found = self._database.execute("SELECT reason, whole FROM rejected WHERE source = ? AND line = ?", place)
        known = found.fetchone()
        return None if known is None else (_text(known[0]), bool(known[1]))

    def rejected(self, source: int) -> Iterator[tuple[int, str]]:
        """Line and reason of all that is rejected of a file, by line."""
        query = "SELECT line, reason FROM rejected WHERE source = ? ORDER BY line"
        for line, reason in self._pages(query, source):
            yield line, _text(reason)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def _text(octets: bytes) -> str:
    return octets.decode("utf-8")
