"""``occ catalogue diff`` and ``schema``: what has changed, in the catalogue's own words."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from typer.testing import CliRunner

from occ.cli import app
from occ.rating.changes import Change, changes
from occ.yamlmap import ConfigError

OLD = """\
version: one
currency: EUR
destinations:
  national: [49]
  file: prefixes.csv
services:
  internet: {context: 32251@3gpp.org, unit: octets, quota: 10 MiB, validity: 30 min, rating_groups: [10, none]}
  calls: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min}
  sms: {context: 32274@3gpp.org, unit: events, quota: 1 event, validity: 5 min}
plans:
  standard:
    prices_from: prices.csv
    calls:
      08:00: 0.09 per 60 s
      20:00: {connection: 0.05, price: 0.05 per 60 s}
allowances:
  data: {amount: 5 GiB, serves: [internet]}
offers:
  small: {fee: 9.99, every: month, gives: [data]}
promotions:
  - {name: students, discount: 10 %, when: {segment: student}}
  - {name: evening, free: 5 min per day}
"""
FILES = {
    "catalogue.yaml": OLD,
    "prices.csv": "service,price\ninternet,0.01 per 1 MiB\nsms,0.05 per 1 event\n",
    "prefixes.csv": "prefix,zone,name\n33,eu,France\n43,eu,Austria\n",
}


def write(folder: Path, replaced: dict[str, str]) -> Path:
    folder.mkdir()
    for name, content in FILES.items():
        changed = content
        for before, after in replaced.items():
            changed = changed.replace(before, after)
        (folder / name).write_text(changed)
    for before in replaced:
        assert any(before in content for content in FILES.values()), before
    return folder


def diff(tmp_path: Path, replaced: dict[str, str]) -> list[str]:
    return [str(each) for each in changes(write(tmp_path / "old", {}), write(tmp_path / "new", replaced))]


@pytest.mark.parametrize(
    ("replaced", "expected"),
    [
        ({}, []),
        ({"version: one": "version: one  # a remark"}, []),
        ({"version: one": "version: two"}, ["version: one -> two"]),
        (
            {"08:00: 0.09 per 60 s": "08:00: 0.12 per 60 s"},
            ["plans.standard.calls.08:00: 0.09 per 60 s -> 0.12 per 60 s (+33.3 %)"],
        ),
        (
            {"price: 0.05 per 60 s": "price: 0.04 per 60 s", "connection: 0.05": "connection: 0.01"},
            [
                "plans.standard.calls.20:00.connection: 0.05 -> 0.01 (-80 %)",
                "plans.standard.calls.20:00.price: 0.05 per 60 s -> 0.04 per 60 s (-20 %)",
            ],
        ),
        (
            {"08:00: 0.09 per 60 s": "08:00: 0.0015 per 1 s"},
            ["plans.standard.calls.08:00: 0.09 per 60 s -> 0.0015 per 1 s (the same)"],
        ),
        (
            {"internet,0.01 per 1 MiB": "internet,0.01 per 1 MB"},
            ["plans.standard.internet: 0.01 per 1 MiB -> 0.01 per 1 MB (+4.9 %)"],
        ),
        ({"0.05 per 1 event": "free"}, ["plans.standard.sms: 0.05 per 1 event -> free"]),
        ({"sms,0.05 per 1 event\n": ""}, ["plans.standard.sms: gone, was 0.05 per 1 event"]),
        (
            {"43,eu,Austria": "44,eu,Britain"},
            ["destinations.file.44: new, eu, Britain", "destinations.file.43: gone, was eu, Austria"],
        ),
        ({"[10, none]": "[10, 11]"}, ["services.internet.rating_groups: [10, none] -> [10, 11]"]),
        ({"amount: 5 GiB": "amount: 6 GiB"}, ["allowances.data.amount: 5 GiB -> 6 GiB (+20 %)"]),
        ({"fee: 9.99": "fee: 10.99"}, ["offers.small.fee: 9.99 -> 10.99 (+10 %)"]),
        ({"10 %": "15 %"}, ["promotions.students.discount: 10 % -> 15 %"]),
        (
            {"offers:": "bonuses: {talk: {serves: any}}\noffers:"},
            ["bonuses: new, {talk: {serves: any}}"],
        ),
    ],
)  # fmt: skip
def test_changes_in_words(tmp_path: Path, replaced: dict[str, str], expected: list[str]) -> None:
    assert diff(tmp_path, replaced) == expected


def test_another_order_is_a_change_where_the_first_counts(tmp_path: Path) -> None:
    first, second = OLD.splitlines()[-2:]
    swapped = diff(tmp_path, {f"{first}\n{second}": f"{second}\n{first}"})
    assert swapped == ["promotions, the order in which they are tried: students, evening -> evening, students"]


def test_both_catalogues_are_checked(tmp_path: Path) -> None:
    wrong = write(tmp_path / "wrong", {"0.09 per 60 s": "0.09 per 1 MiB"})
    good = write(tmp_path / "good", {})
    for old, new in ((wrong, good), (good, wrong)):
        with pytest.raises(ConfigError, match=r"wrong/catalogue\.yaml:14: "):
            changes(old, new)


def test_percent_to_a_tenth() -> None:
    for more, text in ((Fraction(1, 3), "+33.3 %"), (Fraction(-1, 2), "-50 %"), (Fraction(1, 1000), "+0.1 %")):
        assert Change("x", "a", "b", more).percent == text
    assert Change("x", "a", "b").percent == ""


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["catalogue", *arguments])
    return result.exit_code, result.output


def test_the_commands(tmp_path: Path) -> None:
    old = write(tmp_path / "old", {})
    new = write(tmp_path / "new", {"08:00: 0.09 per 60 s": "08:00: 0.12 per 60 s"})
    code, output = run("diff", str(old), str(new))
    assert (code, output) == (0, "plans.standard.calls.08:00: 0.09 per 60 s -> 0.12 per 60 s (+33.3 %)\n")
    code, output = run("diff", str(old), str(old))
    assert (code, output) == (0, "Both say the same.\n")
    code, output = run("diff", str(old), str(new), "--json")
    path = "plans.standard.calls.08:00"
    assert json.loads(output) == [
        {"path": path, "before": "0.09 per 60 s", "after": "0.12 per 60 s", "percent": "+33.3 %"}
    ]
    code, output = run("schema")
    assert code == 0
    assert json.loads(output)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
