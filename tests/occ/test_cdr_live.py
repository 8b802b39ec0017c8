"""Charging data records of a real server: over Diameter, through Redis and the outbox's own process, into files."""

import csv
import json
from pathlib import Path

from occ.cdr_files import record_lines, sums_of
from occ.cdr_reading import read_records
from tests.failover import CENT, REALM, Session, Way, add_account, cents, eventually
from tests.live_server import LiveServer

SETTINGS = {"cdr.format": "both", "cdr.partial_seconds": "600"}


def test_a_long_session_is_in_files_of_both_formats_that_are_closed_when_the_server_stops(tmp_path: Path) -> None:
    with LiveServer(tmp_path, SETTINGS) as server:
        directory = server.settings.cdr.directory
        subscriber = add_account(server, 1)
        client = f"pgw.{REALM}"
        session = Session(client, f"{client};1;1", subscriber)
        with Way(server.port, client) as way:
            way.charge(session.initial())
            for _ in range(3):
                server.passed_ms += 400_000
                assert way.charge(session.update(2)).result_code == 2001
            eventually(lambda: len(server.cdr_lines()) == 1)
            assert len(list(directory.glob("*.part"))) == 2
            server.assert_books_balance()
            way.charge(session.termination(1))
        assert cents(server, 1) == (93, 0)
        server.assert_books_balance()
    assert list(directory.glob("*.part")) == []
    found = list(read_records([directory]))
    assert [(fields["cause"], fields["used"] >> 20, fields["debited_micro"]) for fields in found] == [
        ("time-limit", 4, 4 * CENT),
        ("normal", 3, 3 * CENT),
    ]
    assert [fields["sequence"] for fields in found] == [1, 2]
    assert len({fields["record_id"] for fields in found}) == 2
    for name in ("jsonl", "csv"):
        (path,) = directory.glob(f"cdr-{server.settings.diameter.origin_host}-*.{name}")
        sums = sums_of(path, name)
        assert json.loads(path.with_name(path.name + ".sum").read_text()) == {"file": path.name, **sums}
        assert (sums["records"], sums["debited_micro"]) == (2, 7 * CENT)
    (csv_file,) = directory.glob("*.csv")
    with csv_file.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in record_lines(directory, "jsonl")]
    assert [row["record_id"] for row in rows] == [line["record_id"] for line in lines]
    assert [int(row["used"]) for row in rows] == [line["used"] for line in lines]
