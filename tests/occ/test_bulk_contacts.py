"""How customers are reached comes and goes with imports and exports."""

import json
from pathlib import Path
from typing import Any

import pytest

from balance.embedded import Address
from tests.shell import Shell

SUBSCRIBERS = (
    "account,subscriber,plan,msisdn,language,channels,consent,quiet_hours,time_zone\n"
    "a,anna,standard,491700000001,de,sms:+491700000001 email:anna@example.net,marketing=yes,22:00-07:00,Europe/Berlin\n"
    "a,ben,standard,491700000002,,,,,\n"
)


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path) -> Shell:
    (tmp_path / "accounts.csv").write_text("account,balance,language\na,1.00,en\nb,2.00,\n")
    (tmp_path / "subscribers.csv").write_text(SUBSCRIBERS)
    return Shell(tmp_path, clean_redis)


def files(tmp_path: Path) -> list[str]:
    return [str(tmp_path / name) for name in ("accounts.csv", "subscribers.csv")]


def contact(shell: Shell, kind: str, name: str) -> Any:
    return shell.json(kind, "contact", "show", name)["set"]


def test_contacts_come_with_an_import_and_go_with_an_export(shell: Shell, tmp_path: Path) -> None:
    shell.text("import", *files(tmp_path), "--dry-run")
    shell.text("import", *files(tmp_path))
    anna = contact(shell, "subscriber", "anna")
    assert (anna["language"], anna["quiet_hours"], anna["time_zone"]) == ("de", "22:00-07:00", "Europe/Berlin")
    assert [each["medium"] for each in anna["channels"]] == ["sms", "email"]
    assert anna["consent"]["marketing"] is True
    assert contact(shell, "account", "a")["language"] == "en"
    assert contact(shell, "subscriber", "ben")["language"] is None
    shell.text("import", *files(tmp_path))  # nothing differs
    for form in ("csv", "backup.jsonl"):
        shell.text("export", str(tmp_path / form))
    (line, _) = (tmp_path / "backup.jsonl").read_text().splitlines()
    document = json.loads(line)
    assert document["language"] == "en"
    (said, other) = document["subscribers"]
    assert said["channels"] == ["sms:+491700000001", "email:anna@example.net"]
    assert "language" not in other
    for name, expected in (("anna", "marketing=yes"), ("ben", ",,,,")):
        (row,) = [row for row in (tmp_path / "csv" / "subscribers.csv").read_text().splitlines() if f"{name}," in row]
        assert expected in row


@pytest.mark.parametrize("form", ["csv", "backup.jsonl"])
def test_an_export_into_an_empty_store_brings_them_back(shell: Shell, tmp_path: Path, form: str) -> None:
    shell.text("import", *files(tmp_path))
    before = [contact(shell, "subscriber", "anna"), contact(shell, "account", "a")]
    shell.text("export", str(tmp_path / form))
    for name in ("anna", "a"):
        shell.text("subscriber" if name == "anna" else "account", "contact", "set", name, "--reset")
    shell.text("import", str(tmp_path / form), "--on-existing", "update", "--reference", "again")
    assert [contact(shell, "subscriber", "anna"), contact(shell, "account", "a")] == before


def test_a_contact_that_differs_is_rejected_or_changed_as_asked(shell: Shell, tmp_path: Path) -> None:
    shell.text("import", *files(tmp_path))
    (tmp_path / "subscribers.csv").write_text(SUBSCRIBERS.replace(",de,", ",es,"))
    result = shell.run("import", str(tmp_path / "subscribers.csv"), "--reference", "second")
    assert result.exit_code == 1
    rejected = (tmp_path / "subscribers.rejected.csv").read_text()
    assert "language is de in the store and es in the row" in rejected
    shell.text("import", str(tmp_path / "subscribers.csv"), "--on-existing", "skip")
    assert contact(shell, "subscriber", "anna")["language"] == "de"
    shell.text("import", str(tmp_path / "subscribers.csv"), "--on-existing", "update", "--reference", "third")
    assert contact(shell, "subscriber", "anna")["language"] == "es"


@pytest.mark.parametrize(
    ("was", "cell", "told"),
    [
        (",de,", ",deutsch please,", "language: 'deutsch please' is no language"),
        ("email:anna@example.net", "email:anna", "channels: 'anna' is no address for email"),
        ("marketing=yes", "marketing=maybe", "consent: 'marketing=maybe' is no consent"),
        ("22:00-07:00", "25:00-07:00", "quiet_hours: '25:00-07:00' are no quiet hours"),
        ("Europe/Berlin", "Europe/Atlantis", "time_zone: 'Europe/Atlantis' is no time zone"),
    ],
)
def test_what_cannot_be_is_rejected_with_the_row(shell: Shell, tmp_path: Path, was: str, cell: str, told: str) -> None:
    (tmp_path / "subscribers.csv").write_text(SUBSCRIBERS.replace(was, cell))
    assert shell.run("import", *files(tmp_path)).exit_code == 1
    assert told in (tmp_path / "subscribers.rejected.csv").read_text()
    assert shell.refused(1, "subscriber", "show", "anna")
