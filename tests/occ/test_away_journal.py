"""The journal on disk: what was fsynced is read again, a torn end is set aside, damage stops, one process has it.

Made to fail by: no checksum in ``_frame``; no ``ftruncate`` after a torn end or a failed write; ``_check_torn`` left
out, so that all behind a damaged frame is dropped; no ``flock``; ``settled_record`` ignored by ``_load``.
"""

import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.away_journal import AwayJournal, AwayJournalError, Entry, entry_record, settled_record


def entry(number: int, message: bytes = b"ccr") -> Entry:
    return Entry(number, 1000 + number, b"pgw", "lenient", 0, message, b"outcome")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "away" / "occ1.journal"


def written(path: Path, *frames: list[Entry]) -> bytes:
    """A journal of so many frames; its content."""
    journal = AwayJournal(path).open()
    for frame in frames:
        journal.append([entry_record(each) for each in frame])
    journal.close()
    return path.read_bytes()


def read(path: Path) -> list[int]:
    journal = AwayJournal(path).open()
    journal.close()
    return [each.number for each in journal.waiting]


def test_what_is_not_settled_is_read_again(path: Path) -> None:
    journal = AwayJournal(path).open()
    assert journal.waiting == []
    journal.append([entry_record(entry(1)), entry_record(entry(2, b"\xd9OA\xf1" * 9))])
    journal.append([entry_record(entry(3)), settled_record([1])])
    octets, name = journal.octets, journal.name
    journal.close()
    again = AwayJournal(path).open()
    assert again.waiting == [entry(2, b"\xd9OA\xf1" * 9), entry(3)]
    assert (again.octets, again.name, again.last_number, again.torn) == (octets, name, 3, None)
    again.append([settled_record([2, 3])])
    again.close()
    assert read(path) == []


def test_a_journal_that_begins_anew_is_empty_and_another_one(path: Path) -> None:
    journal = AwayJournal(path).open()
    journal.append([entry_record(entry(1))])
    name = journal.name
    journal.begin_anew()
    assert journal.name != name
    journal.append([entry_record(entry(2))])
    journal.close()
    assert read(path) == [2]


@given(cut=st.integers(1, 10_000))
def test_a_torn_end_is_set_aside_and_named(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Wherever the last frame is cut: nobody was answered for it, and what came before is all there."""
    path = tmp_path_factory.mktemp("torn") / "occ1.journal"
    whole = written(path, [entry(1), entry(2)])
    content = written(path, [entry(3), entry(4)])
    rest = content[len(whole) :]
    torn = rest[: cut % len(rest)]
    path.write_bytes(whole + torn)
    journal = AwayJournal(path).open()
    assert [each.number for each in journal.waiting] == [1, 2]
    if torn:
        assert journal.torn is not None
        assert (journal.torn.octets, journal.torn.kept_in.read_bytes()) == (len(torn), torn)
    journal.append([entry_record(entry(5))])
    journal.close()
    assert read(path) == [1, 2, 5]


def test_a_last_frame_of_wrong_octets_is_torn_as_well(path: Path) -> None:
    """After a loss of power the length of a file may be on disk before its content."""
    whole = written(path, [entry(1)])
    content = written(path, [entry(2)])
    path.write_bytes(whole + bytes(len(content) - len(whole)))
    assert read(path) == [1]


@given(data=st.data())
def test_damage_before_the_end_stops_the_start(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("damaged") / "occ1.journal"
    whole = written(path, [entry(1)], [entry(2)])
    content = bytearray(written(path, [entry(3)]))
    content[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    with pytest.raises(AwayJournalError, match=r"damaged at octet|is of version"):
        AwayJournal(path).open()
    assert path.read_bytes() == bytes(content)


def test_one_process_has_it_at_a_time(path: Path) -> None:
    first = AwayJournal(path).open()
    with pytest.raises(AwayJournalError, match="another process has the journal"):
        AwayJournal(path).open()
    first.close()
    AwayJournal(path).open().close()


def test_a_frame_that_was_written_in_part_is_cut_off(path: Path) -> None:
    """The disk is full for a while: what comes after that follows a whole frame."""
    journal = AwayJournal(path).open()
    journal.append([entry_record(entry(1))])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.octets + 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append([entry_record(entry(2))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == journal.octets
    journal.append([entry_record(entry(3))])
    journal.close()
    assert read(path) == [1, 3]


def test_what_cannot_be_written_in_full_is_not_there(path: Path) -> None:
    """Where the file cannot be cut back either, nothing is written any more: it ends with the frame before."""
    journal = AwayJournal(path).open()
    journal.append([entry_record(entry(1))])
    full = os.open("/dev/full", os.O_WRONLY)
    real, journal._file = journal._file, full
    with pytest.raises(OSError, match="No space left"):
        journal.append([entry_record(entry(2))])
    with pytest.raises(OSError, match="closed after an earlier fault"):
        journal.append([entry_record(entry(3))])
    os.close(real)
    journal.close()
    assert read(path) == [1]
