"""``occ cdr``: charging data records listed, explained and exported, from the files alone."""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from balance.model import LARGEST
from occ.cdr_fields import FIELDS, PERIOD, Kind
from occ.cdr_files import CdrFiles, CdrSettings
from occ.cli import app
from protocols.credit_control import ServiceRequest, Units
from tests.occ.cdr_lab import HOUR, INITIAL, NOON, TERMINATION, UPDATE, Ledger, catalogue, delivery, octets

SWITCH = "{08:00: {connection: 0.000030, price: 0.000001 per 1 B}, 20:00: 0.000005 per 10 B}"


class Shell:
    """Runs ``occ cdr`` on a directory with the records of three sessions."""

    def __init__(self, base: Path) -> None:
        self.directory = base / "data" / "cdr"
        self.config = base / "occ.yaml"
        self.config.write_text("store: {data_dir: data}\n")
        ledger = Ledger(sold=catalogue(video=SWITCH), allowance=5)
        ledger.now = NOON + 7 * HOUR
        ledger.send(INITIAL, 0, ServiceRequest(20, (), Units(total_octets=100)), session=b"pgw;1")
        ledger.now += 2 * HOUR
        split = (Units(total_octets=20, tariff_change_usage=0), Units(total_octets=12, tariff_change_usage=1))
        ledger.send(UPDATE, 1, ServiceRequest(20, (), Units(total_octets=100), split), session=b"pgw;1")
        ledger.send(TERMINATION, 2, ServiceRequest(20, (), None, octets(1)), session=b"pgw;1")
        for number in (2, 3):
            ledger.now += HOUR
            name = b"pgw;%d" % number
            ledger.send(INITIAL, 0, ServiceRequest(10, (), Units()), session=name, called_party=b"\x1b[31m=1+1")
            ledger.send(TERMINATION, 1, ServiceRequest(10, (), None, octets(number)), session=name)
        self.records = ledger.records
        files = CdrFiles(CdrSettings(self.directory))
        for number, fields in enumerate(self.records, 1):
            files.write([delivery(number, fields)], NOON)
        files.seal(NOON, everything=True)
        files.close()

    def run(self, *arguments: str, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["--config", str(self.config), "cdr", *arguments])
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def sessions(document: Any) -> list[str]:
    return [fields["session_id"] for fields in document["records"]]


def test_records_are_listed(shell: Shell) -> None:
    assert sessions(shell.json("list")) == ["pgw;1", "pgw;1", "pgw;2", "pgw;3"]
    assert shell.json("list")["records"][0]["record_id"] == shell.records[0]["record_id"]
    text = shell.run("list")
    assert "price-change" in text
    assert "0.000055 EUR" in text
    assert sessions(shell.json("list", "--limit", "2")) == ["pgw;2", "pgw;3"]
    assert shell.json("list", "--limit", "2")["found"] == 4
    assert "These are the last 2 of 4" in shell.run("list", "--limit", "2")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--since", "2026-06-01T22:00"], ["pgw;2", "pgw;3"]),
        (["--since", "2026-06-02"], []),
        (["--since", "2026-06-01T23:30:00+01:00"], ["pgw;3"]),
        (["--until", "2026-06-01T22:00"], ["pgw;1", "pgw;1"]),
        (["--since", "2026-06-01T21:30", "--until", "2026-06-01T22:30"], ["pgw;2"]),
        (["--since", "30 min"], []),
        (["--account", "acc-1", "--subscriber", "sub-1", "--since", "2026-06-01T22:30"], ["pgw;3"]),
        (["--account", "acc-2"], []),
        (["--subscriber", "sub-2"], []),
    ],
)
def test_records_are_found_by_time_account_and_subscriber(
    shell: Shell, options: list[str], expected: list[str]
) -> None:
    assert sessions(shell.json("list", *options)) == expected


@pytest.mark.parametrize("written", ["yesterday", "2026-13-01", "12", "0001-01-01"])
def test_a_time_that_is_none_is_refused(shell: Shell, written: str) -> None:
    assert "--since" in shell.run("list", "--since", written, code=2)


def test_a_session_is_shown_with_what_its_price_is_made_of(shell: Shell) -> None:
    text = shell.run("show", "pgw;1")
    for part in (
        r"connection\s+0\.00003 EUR",
        r"15 × 1 B at 0\.000001\s+0\.000015 EUR",
        r"2 × 10 B at 0\.000005\s+0\.00001 EUR",
        r"20 B from 2026-06-01 19:00:00\.000 to 2026-06-01 20:00:00\.000",
        r"2\s+5 B",
        r"2 records, 0\.000055 EUR debited in all\.",
    ):
        assert re.search(part, text), (part, text)
    assert sessions(shell.json("show", "pgw;1")) == ["pgw;1", "pgw;1"]


def test_what_a_client_sent_does_not_reach_the_terminal_as_it_is(shell: Shell) -> None:
    text = shell.run("show", "pgw;2")
    assert "\x1b" not in text
    assert r"\x1b[31m=1+1" in text


def test_a_session_without_records_is_refused(shell: Shell) -> None:
    assert shell.run("show", "pgw;9", code=1) == "occ: there is no charging data record of session pgw;9\n"


def test_another_directory_can_be_named(shell: Shell, tmp_path: Path) -> None:
    assert sessions(shell.json("list", "--directory", str(shell.directory), "--directory", str(tmp_path)))
    assert "there is no directory" in shell.run("list", "--directory", str(tmp_path / "none"), code=1)


# -- Parquet -----------------------------------------------------------------------------------------------------


def test_parquet_has_every_field_in_a_type_to_reckon_with(shell: Shell, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    file = tmp_path / "records.parquet"
    debited = sum(fields["debited_micro"] for fields in shell.records)
    told = shell.json("export", "--parquet", str(file))
    assert told == {"file": str(file), "records": 4, "debited_micro": debited, "leaked_micro": 0}
    table = parquet.read_table(file)
    assert table.column_names == list(FIELDS)
    rows = table.to_pylist()
    assert [row["record_id"] for row in rows] == [fields["record_id"] for fields in shell.records]
    assert sum(row["debited_micro"] for row in rows) == debited
    assert rows[0]["started_ms"] == datetime(2026, 6, 1, 19, tzinfo=UTC)
    assert [period["until_ms"] for period in rows[0]["periods"]] == [
        datetime(2026, 6, 1, 20, tzinfo=UTC),
        datetime(2026, 6, 1, 21, tzinfo=UTC),
    ]
    assert rows[0]["periods"][0]["terms"] == list(shell.records[0]["periods"][0]["terms"])
    assert rows[0]["buckets"][0] == {"bucket_id": 2, "name": None, "unit": "octets", "amount": 5}
    assert rows[0]["final"] is False
    assert "4 records" in shell.run("export", "--parquet", str(file))


def test_parquet_keeps_every_figure_exactly(tmp_path: Path) -> None:
    """The largest figures a record can have, amounts below zero, text of any kind, and what was not told."""
    parquet = pytest.importorskip("pyarrow.parquet")
    from occ.cdr_parquet import write_parquet

    period = dict.fromkeys(PERIOD) | {"cost_micro": -LARGEST, "terms": (LARGEST, 0), "until_ms": NOON, "tiers": ()}
    full = {
        "record_id": "r-1",
        "sub_session_id": (1 << 64) - 1,
        "debited_micro": LARGEST,
        "final": False,
        "closed_ms": NOON,
        "called_party": "=\\xff\u2028",
        "promotions": (),
        "periods": [period],
        "buckets": [{"bucket_id": 1, "name": None, "unit": "money", "amount": -1}],
    }
    refund = {"record_id": "r-2", "debited_micro": -(LARGEST - 1), "periods": None}
    file = tmp_path / "records.parquet"
    assert write_parquet(file, [full, refund]) == 2
    table = parquet.read_table(file)
    kinds = {
        Kind.TEXT: "string",
        Kind.INTEGER: "int64",
        Kind.UNSIGNED: "uint64",
        Kind.FLAG: "bool",
        Kind.MOMENT: "timestamp[ms, tz=UTC]",
        Kind.TEXTS: "list<element: string>",
        Kind.INTEGERS: "list<element: int64>",
    }
    types = {field.name: field.type for field in table.schema}
    assert {name: str(types[name]) for name, kind in FIELDS.items() if kind in kinds} == {
        name: kinds[kind] for name, kind in FIELDS.items() if kind in kinds
    }
    members = {field.name: str(field.type) for field in types["periods"].value_type}
    assert members == {name: kinds[kind] for name, kind in PERIOD.items()}
    first, second = table.to_pylist()
    noon = datetime.fromtimestamp(NOON / 1000, UTC)
    assert first == dict.fromkeys(FIELDS) | full | {
        "closed_ms": noon,
        "promotions": [],
        "periods": [period | {"terms": [LARGEST, 0], "until_ms": noon, "tiers": []}],
    }
    assert second == dict.fromkeys(FIELDS) | refund
    assert first["debited_micro"] + second["debited_micro"] == 1


def test_parquet_of_a_time(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    file = str(tmp_path / "records.parquet")
    assert shell.json("export", "--parquet", file, "--since", "2026-06-01T22:00")["records"] == 2
    assert shell.json("export", "--parquet", file, "--until", "1971-01-02")["records"] == 0


def test_a_parquet_file_is_there_whole_or_not(shell: Shell, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (damaged,) = shell.directory.glob("*.jsonl")
    damaged.write_bytes(damaged.read_bytes() + b"{half\n")
    file = tmp_path / "out" / "records.parquet"
    file.parent.mkdir()
    file.write_text("what was there before")
    assert "no charging data record" in shell.run("export", "--parquet", str(file), code=1)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert file.read_text() == "what was there before"


def test_without_pyarrow_it_says_how_to_get_it(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    file = tmp_path / "records.parquet"
    told = shell.run("export", "--parquet", str(file), code=1)
    assert told == (
        "occ: Parquet files need the package pyarrow, which is not installed: pip install 'occ[parquet]' adds it\n"
    )
    assert not file.exists()
