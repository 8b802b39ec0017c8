"""Files of charging data records: names, closing, sums, CSV that spreadsheets and parsers take, reading them back."""

import csv
import hashlib
import io
import json
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from occ.cdr_fields import FIELDS, Kind, _library, _plain_json_line, csv_header, csv_line, from_csv, json_line
from occ.cdr_files import OCTETS_AT_ONCE, CdrFiles, CdrSettings, Delivery, record_files, record_lines, sums_of
from occ.cdr_reading import UnreadableRecordError, read_records
from protocols.credit_control import ServiceRequest, Units
from tests.occ.cdr_lab import INITIAL, NOON, TERMINATION, Ledger, delivery, octets

BOTH = ("jsonl", "csv")
MINUTE = 60_000


def record(session: str = "s", **told: Any) -> dict[str, Any]:
    """A real record: 15 octets of one service, 6 micro-units."""
    ledger = Ledger()
    name = session.encode()
    ledger.send(INITIAL, 0, ServiceRequest(10, (), Units(total_octets=100)), session=name, **told)
    ledger.send(TERMINATION, 1, ServiceRequest(10, (), None, octets(15)), session=name)
    return ledger.records[0] | {"record_id": f"id-{session}"}


RECORD = record()


def deliveries(first: int, last: int, fields: dict[str, Any] = RECORD) -> list[Delivery]:
    return [delivery(number, fields | {"record_id": f"r{number}"}) for number in range(first, last + 1)]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if not path.name.startswith("."))


# -- names and closing -------------------------------------------------------------------------------------------


def test_a_file_is_named_by_its_writer_its_time_and_a_running_number(tmp_path: Path) -> None:
    files = CdrFiles(CdrSettings(tmp_path, formats=BOTH, node="occ1.example.net"))
    files.write(deliveries(1, 2), NOON)
    stem = "cdr-occ1.example.net-20260601T120000Z-00000001"
    assert names(tmp_path) == [f"{stem}.csv.part", f"{stem}.jsonl.part"]
    closed = files.seal(NOON, everything=True)
    assert sorted(path.name for path in closed) == [f"{stem}.csv", f"{stem}.jsonl"]
    assert names(tmp_path) == [f"{stem}.csv", f"{stem}.csv.sum", f"{stem}.jsonl", f"{stem}.jsonl.sum"]
    files.close()


def test_numbers_have_no_gap_and_are_never_used_twice(tmp_path: Path) -> None:
    """Over restarts, crashes, and although what was closed has been taken away."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    directory = tmp_path / "cdr"
    for round_number in range(3):
        files = CdrFiles(CdrSettings(directory))
        files.write(deliveries(10 * round_number + 1, 10 * round_number + 2), NOON)
        files.seal(NOON, everything=True)
        files.write(deliveries(10 * round_number + 3, 10 * round_number + 4), NOON)
        if round_number != 1:
            files.seal(NOON, everything=True)  # else it crashes
        files.close()
        for path in [*directory.glob("*.jsonl"), *directory.glob("*.sum")]:
            shutil.move(path, elsewhere)
    numbers = sorted(int(path.name.split("-")[-1].split(".")[0]) for path in elsewhere.glob("*.jsonl"))
    assert numbers == list(range(1, len(numbers) + 1))
    found = [json.loads(line)["record_id"] for line in record_lines(elsewhere, "jsonl")]
    assert found == [f"r{number}" for ten in (0, 10, 20) for number in range(ten + 1, ten + 5)]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("records", "room"), [(1, 0), (1, 100), (4, 2_000), (20, 9_000)])
def test_a_disk_that_is_full_leaves_no_half_line(tmp_path: Path, name: str, records: int, room: int) -> None:
    """The next one would follow it in the same line, and neither could be read."""
    files = CdrFiles(CdrSettings(tmp_path, formats=(name,)))
    files.write(deliveries(1, 1), NOON)
    (path,) = record_files(tmp_path, name)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write(deliveries(2, 1 + records), NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    files.write(deliveries(2, 1 + records), NOON)
    files.seal(NOON, everything=True)
    files.close()
    assert [fields["record_id"] for fields in read_records([tmp_path])] == [
        f"r{each}" for each in range(1, 2 + records)
    ]


@pytest.mark.parametrize("formats", [("jsonl",), ("csv",), ("jsonl", "csv")])
def test_what_was_written_before_the_disk_was_full_is_not_written_again(
    tmp_path: Path, formats: tuple[str, ...]
) -> None:
    """Records are written some at a time, and a generator of them is gone through once, for all formats."""
    files = CdrFiles(CdrSettings(tmp_path, formats=formats))
    many = 4 * OCTETS_AT_ONCE // len(json_line(RECORD))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (OCTETS_AT_ONCE + OCTETS_AT_ONCE // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write(iter(deliveries(1, many)), NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert any(path.stat().st_size >= OCTETS_AT_ONCE for path in record_files(tmp_path, formats[0]))
    assert 0 < files.write(iter(deliveries(1, many)), NOON) <= many
    files.seal(NOON, everything=True)
    files.close()
    assert [fields["record_id"] for fields in read_records([tmp_path])] == [f"r{each}" for each in range(1, many + 1)]
    for name in formats:
        (path,) = record_files(tmp_path, name)
        assert len(list(record_lines(tmp_path, name))) == many
        told = json.loads(path.with_name(f"{path.name}.sum").read_text())
        assert told == {"file": path.name, **sums_of(path, name)}


def test_a_disk_that_is_full_when_a_file_is_begun_leaves_no_gap(tmp_path: Path) -> None:
    """However often it is tried: neither files without records, nor numbers that none has."""
    files = CdrFiles(CdrSettings(tmp_path, rotate_bytes=1))
    files.write(deliveries(1, 1), NOON)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="File too large"):
                files.write(deliveries(2, 2), NOON)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(record_files(tmp_path, "jsonl")) == 1
    files.write(deliveries(2, 2), NOON)
    closed = files.seal(NOON, everything=True)
    assert [path.name[-len("00000000.jsonl") :] for path in closed] == ["00000001.jsonl", "00000002.jsonl"]
    assert names(tmp_path) == sorted(f"{path.name}{end}" for path in closed for end in ("", ".sum"))
    files.close()


def test_numbers_go_on_where_their_memory_was_lost(tmp_path: Path) -> None:
    for _ in range(2):
        files = CdrFiles(CdrSettings(tmp_path))
        files.write(deliveries(1, 1), NOON)
        files.seal(NOON, everything=True)
        files.close()
        (tmp_path / ".numbers").unlink()
    assert [path.name[-14:] for path in record_files(tmp_path, "jsonl")] == ["00000001.jsonl", "00000002.jsonl"]


@pytest.mark.parametrize("name", BOTH)
def test_a_file_is_closed_when_it_is_big_enough(tmp_path: Path, name: str) -> None:
    files = CdrFiles(CdrSettings(tmp_path, rotate_bytes=4096, formats=(name,)))
    for number in range(1, 31):
        files.write(deliveries(number, number), NOON)
        if files.due(NOON):
            files.seal(NOON)
    closed = [path for path in record_files(tmp_path, name) if not path.name.endswith(".part")]
    assert len(closed) > 2
    assert all(4096 <= path.stat().st_size < 4096 + 4096 for path in closed)
    assert len(list(record_lines(tmp_path, name))) == 30


def test_a_file_is_closed_when_it_is_old_enough_also_after_a_restart(tmp_path: Path) -> None:
    """Nothing need come in for that."""
    settings = CdrSettings(tmp_path, rotate_ms=30 * MINUTE)
    files = CdrFiles(settings)
    files.write(deliveries(1, 1), NOON)
    assert not files.due(NOON + 30 * MINUTE - 1)
    files.close()
    files = CdrFiles(settings)
    assert not files.due(NOON + 30 * MINUTE - 1)
    files.write(deliveries(2, 2), NOON + 29 * MINUTE)
    assert files.due(NOON + 30 * MINUTE)
    (closed,) = files.seal(NOON + 30 * MINUTE)
    assert len(closed.read_bytes().splitlines()) == 2
    assert not files.due(NOON + 90 * MINUTE)
    files.close()


@pytest.mark.parametrize("name", BOTH)
def test_the_sums_are_those_of_the_file(tmp_path: Path, name: str) -> None:
    files = CdrFiles(CdrSettings(tmp_path, formats=(name,)))
    files.write(deliveries(1, 3, RECORD | {"leaked_micro": 2}), NOON)
    files.write(deliveries(4, 4, RECORD | {"debited_micro": -7}), NOON)
    (path,) = files.seal(NOON, everything=True)
    content = path.read_bytes()
    assert json.loads(path.with_name(path.name + ".sum").read_text()) == {
        "file": path.name,
        "records": 4,
        "octets": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "first_record": "r1",
        "last_record": "r4",
        "debited_micro": 3 * 6 - 7,
        "leaked_micro": 3 * 2,
    }


def test_what_is_not_closed_yet_is_finished_by_the_next_process(tmp_path: Path) -> None:
    """A crash before the file had its name, and one before its sums had theirs."""
    files = CdrFiles(CdrSettings(tmp_path))
    files.write(deliveries(1, 1), NOON)
    (path,) = files.seal(NOON, everything=True)
    files.write(deliveries(2, 2), NOON)
    files.close()
    told = path.with_name(path.name + ".sum")
    waiting = told.with_name(told.name + ".part")
    told.rename(waiting)
    (part,) = tmp_path.glob("*.jsonl.part")
    early = part.with_name(part.name.removesuffix(".part") + ".sum.part")
    early.write_text("{}")
    CdrFiles(CdrSettings(tmp_path)).close()
    assert told.exists()
    assert not waiting.exists()
    assert not early.exists()
    assert [json.loads(line)["record_id"] for line in record_lines(tmp_path, "jsonl")] == ["r1", "r2"]


def test_a_file_that_cannot_be_counted_is_closed_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = CdrFiles(CdrSettings(tmp_path))
    files.write(deliveries(1, 1), NOON)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(b"\0\0\0\n" + part.read_bytes())
    (path,) = files.seal(NOON, everything=True)
    assert "error" in json.loads(path.with_name(path.name + ".sum").read_text())
    assert "a line that cannot be read" in caplog.text


def test_a_reader_follows_a_file_that_gets_its_name_and_misses_one_that_is_taken_away(tmp_path: Path) -> None:
    files = CdrFiles(CdrSettings(tmp_path, rotate_bytes=1))
    for number in (1, 2, 3):
        files.write(deliveries(number, number), NOON)
    reading = record_lines(tmp_path, "jsonl")
    found = [json.loads(next(reading))["record_id"]]
    assert len(list(tmp_path.glob("*.part"))) == 3
    _, second, third = files.seal(NOON, everything=True)
    second.unlink()
    found += [json.loads(line)["record_id"] for line in reading]
    assert found == ["r1", "r3"]
    assert third.exists()


def test_half_a_line_is_not_read(tmp_path: Path) -> None:
    files = CdrFiles(CdrSettings(tmp_path))
    files.write(deliveries(1, 2), NOON)
    (part,) = tmp_path.glob("*.part")
    part.write_bytes(part.read_bytes()[:-5])
    assert [json.loads(line)["record_id"] for line in record_lines(tmp_path, "jsonl")] == ["r1"]


# -- CSV ---------------------------------------------------------------------------------------------------------


def cells(line: bytes) -> dict[str, str]:
    header, row = csv.reader(io.StringIO(csv_header() + line.decode()), strict=True)
    return dict(zip(header, row, strict=True))


def test_csv_has_a_header_and_one_column_for_each_field() -> None:
    """RFC 4180: lines end in CRLF; a cell with a comma or a quotation mark is quoted."""
    assert csv_header() == ",".join(FIELDS) + "\r\n"
    line = csv_line({"entry": "0/1-0/1", **RECORD})
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == 1
    found = cells(line)
    assert found["used"] == "15"
    assert found["final"] == "true"
    assert found["rating_group"] == "10"
    assert found["service_identifier"] == ""
    assert json.loads(found["buckets"]) == RECORD["buckets"]


@pytest.mark.parametrize("begins", ["=1+1", "+49170", "-2", "@SUM(A1)", "'quoted", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(begins: str) -> None:
    """Subscribers choose what they dial; somebody opens the file with a spreadsheet."""
    for name, kind in FIELDS.items():
        if kind is Kind.TEXT:
            cell = cells(csv_line({name: begins}))[name]
            assert cell[0] not in "=+-@\t\r"
    assert cells(csv_line({"debited_micro": -7}))["debited_micro"] == "-7"  # a number is no formula


texts = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30)
any_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
ascii_texts = st.text(st.characters(max_codepoint=127), max_size=30)


@given(
    st.lists(st.none() | st.booleans() | any_texts | ascii_texts | st.integers() | st.lists(ascii_texts), max_size=5)
)
def test_both_libraries_write_the_same(values: list[Any]) -> None:
    """Of what is in a field it does not matter which field: all kinds at once, and one after the other."""
    fields: dict[str, Any] = {"entry": "0/1-0/1", **RECORD}
    assert list(fields) == list(FIELDS), "the record is not complete, and only one library writes it"
    for name, kind in FIELDS.items():
        if kind in (Kind.TEXTS, Kind.INTEGERS):
            fields[name] = values
    assert json_line(fields) == _plain_json_line(fields)
    for value in values:
        if isinstance(value, str):
            assert json_line(fields | {"user_name": value}) == _plain_json_line(fields | {"user_name": value})


def test_records_are_written_where_the_quicker_library_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert _library() == (None, None)


@given(
    values=st.fixed_dictionaries(
        {
            name: {
                Kind.TEXT: st.none() | texts,
                Kind.INTEGER: st.none() | st.integers(-(1 << 62), 1 << 62),
                Kind.UNSIGNED: st.none() | st.integers(0, (1 << 64) - 1),
                Kind.FLAG: st.none() | st.booleans(),
                Kind.MOMENT: st.none() | st.integers(0, 1 << 42),
                Kind.TEXTS: st.lists(texts, max_size=3),
                Kind.INTEGERS: st.lists(st.integers(), max_size=3),
                Kind.PERIODS: st.just(RECORD["periods"]),
                Kind.BUCKETS: st.just(RECORD["buckets"]),
            }[kind]
            for name, kind in FIELDS.items()
        }
    )
)
def test_what_is_written_is_what_is_read(values: dict[str, Any]) -> None:
    """In CSV an empty text is none at all."""
    as_json = json.loads(json_line(values))
    assert as_json == json.loads(json.dumps(values))
    line = csv_line(values)
    assert len(line.splitlines()) == 1
    found = from_csv(cells(line))
    assert found == {name: as_json[name] if as_json[name] != "" else None for name in FIELDS}


def test_control_characters_are_spelt_out() -> None:
    found = cells(csv_line({"called_party": "a\nb\x00c\u2028d\x85"}))
    assert found["called_party"] == "a\\nb\\x00c\\u2028d\\x85"


# -- reading them back -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("formats", [("jsonl",), ("csv",), BOTH])
def test_records_are_read_once_from_any_format(tmp_path: Path, formats: tuple[str, ...]) -> None:
    files = CdrFiles(CdrSettings(tmp_path / "a", formats=formats))
    files.write(deliveries(1, 4), NOON)
    files.seal(NOON, everything=True)
    files.write(deliveries(5, 6), NOON)
    files.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    found = list(read_records([tmp_path / "a", tmp_path / "b"]))
    assert [fields["record_id"] for fields in found] == [f"r{number}" for number in range(1, 7)]
    expected = json.loads(json_line({"entry": "0/1-0/1", **RECORD, "record_id": "r1"}))
    assert found[0] == expected


@pytest.mark.parametrize("formats", [("jsonl",), ("csv",)])
def test_records_are_found_by_time_and_session(tmp_path: Path, formats: tuple[str, ...]) -> None:
    files = CdrFiles(CdrSettings(tmp_path, formats=formats))
    sessions = ['a;"1"', "b", "a"]
    found = [record(name) | {"closed_ms": NOON + number} for number, name in enumerate(sessions)]
    files.write([delivery(number, fields) for number, fields in enumerate(found, 1)], NOON)
    files.close()

    def read(*wanted: Any) -> list[str]:
        return [fields["session_id"] for fields in read_records([tmp_path], *wanted)]

    assert read() == sessions
    assert read(NOON + 1) == sessions[1:]
    assert read(NOON, NOON + 2) == sessions[:2]
    assert read(0, None, 'a;"1"') == sessions[:1]
    assert read(0, None, "a") == ["a"]


@pytest.mark.parametrize(("name", "line"), [("jsonl", b"{half\n"), ("csv", b'0/1-0/1,"a"b\r\n'), ("csv", b"\xff,\r\n")])
def test_a_line_that_is_no_record_is_named(tmp_path: Path, name: str, line: bytes) -> None:
    (tmp_path / f"cdr-20260601T120000Z-00000001.{name}").write_bytes(line)
    with pytest.raises(UnreadableRecordError, match="has a line that is no charging data record"):
        list(read_records([tmp_path]))
