"""Files as other systems and spreadsheets write them: columns, encodings, delimiters, quotes, damage."""

from pathlib import Path

import pytest

from balance.embedded import Address
from occ.bulk import values
from occ.bulk.files import LONGEST_LINE, guarded, unguarded
from occ.bulk.rows import COLUMNS, plain_name
from tests.occ.bulk_lab import Lab, rows

NASTY = "=cmd|' /C calc'!A0"


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    return Lab(tmp_path, clean_redis)


def balances(lab: Lab) -> dict[str, int]:
    return {name: account.buckets[0].balance for name, account in lab.accounts().items()}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_delimiters_and_line_ends_are_recognised(lab: Lab, delimiter: str, newline: str) -> None:
    lines = [delimiter.join(cells) for cells in (("account", "balance"), ("a", "1.00"), ('"b"', "2.00"))]
    lab.load(lab.file("accounts.csv", *lines, newline=newline))
    assert balances(lab) == {"a": 1_000_000, "b": 2_000_000}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "cp1252"])
def test_encodings(lab: Lab, encoding: str) -> None:
    text = "unit;account;name\nu1;a;Grüße, José\n"
    octets = b"\xff\xfe" + text.encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    path = lab.folder / "units.csv"
    path.write_bytes(octets)
    told = ["--encoding", "cp1252"] if encoding == "cp1252" else []
    lab.load(lab.file("accounts.csv", "account", "a"), str(path), *told)
    unit = lab.unit("u1")
    assert unit is not None
    assert unit.name == "Grüße, José"


def test_a_line_that_is_no_text_spoils_itself_only(lab: Lab) -> None:
    path = lab.folder / "accounts.csv"
    path.write_bytes(b"account,balance\na,1.00\nb\xfc,2.00\nc,3.00\n")
    lab.load(str(path), code=1)
    assert balances(lab) == {"a": 1_000_000, "c": 3_000_000}
    rejected = (lab.folder / "accounts.rejected.csv").read_bytes()
    assert rejected == b"line,reason,account,balance\n3,the line is not utf-8 text,b\xfc,2.00\n"


def test_what_is_rejected_of_a_file_with_a_byte_order_mark_has_one_too(lab: Lab) -> None:
    path = lab.folder / "accounts.csv"
    path.write_bytes("\ufeffaccount;balance\nä;1.00\n".encode())
    lab.load(str(path), code=1)
    rejected = lab.folder / "accounts.rejected.csv"
    assert rejected.read_bytes().startswith("\ufeffline;reason;account;balance\n2;".encode())
    assert "'ä' is not a usable name" in lab.reasons("accounts.rejected.csv")[2]
    rejected.write_text(rejected.read_text(encoding="utf-8").replace(";ä;", ";ae;"), encoding="utf-8")
    lab.load(str(rejected))
    assert balances(lab) == {"ae": 1_000_000}


def test_a_quote_that_is_never_closed_spoils_its_own_line_only(lab: Lab) -> None:
    lines = ['"a,1.00', "b,2.00", 'c,"3.00"', 'd","4.00', "e,5.00"]
    lab.load(lab.file("accounts.csv", "account,balance", *lines), code=1)
    assert balances(lab) == {"b": 2_000_000, "c": 3_000_000, "e": 5_000_000}
    assert list(lab.reasons("accounts.rejected.csv")) == [2, 5]


def test_cells_over_several_lines(lab: Lab) -> None:
    notes = ['a,"likes\nquotes ""so""\nand commas,",1.00', 'b,"x",2.00', 'c,"two\nlines",three', "d,,4.00"]
    path = lab.file("accounts.csv", "account,notes,balance", *notes)
    lab.load(path, "--map", "Notes=", code=1)
    assert balances(lab) == {"a": 1_000_000, "b": 2_000_000, "d": 4_000_000}
    assert list(lab.reasons("accounts.rejected.csv")) == [6]
    rejected = lab.folder / "accounts.rejected.csv"
    rejected.write_text(rejected.read_text().replace("three", "3.00"))
    lab.load(str(rejected), "--map", "notes=")
    assert balances(lab)["c"] == 3_000_000


def test_huge_cells_and_lines(lab: Lab) -> None:
    huge, longest = "x" * 200_000, "y" * (LONGEST_LINE + 10)
    lines = [f"{huge},1.00", f'"{huge}",1.00', f"{longest},1.00", "a,1.00", f"b,{'9' * 5000}", "c,2.00"]
    lab.load(lab.file("accounts.csv", "account,balance", *lines), code=1)
    assert balances(lab) == {"a": 1_000_000, "c": 2_000_000}
    lines = (lab.folder / "accounts.rejected.csv").read_text().splitlines()[1:]
    assert [line.partition(",")[0] for line in lines] == ["2", "3", "4", "6"]
    # The reason shows the beginning only, and so does the row where it is longer than any row can be.
    assert all(len(line) < 201_000 for line in lines)
    assert len(lines[2]) < 2000
    path = lab.folder / "accounts.jsonl"
    path.write_text(f'{{"account": "{longest}"}}\n{{"account": "d"}}\n')
    lab.load(str(path), code=1)
    assert "longer than" in lab.reasons("accounts.rejected.jsonl")[1]
    assert "d" in balances(lab)


def test_a_file_that_was_cut_off(lab: Lab) -> None:
    path = lab.folder / "accounts.csv"
    path.write_text("account,kind,balance\na,prepaid,10.00\nb,prepaid")
    lab.load(str(path), code=1)
    assert balances(lab) == {"a": 10_000_000}
    assert "the file ends within this line" in lab.reasons("accounts.rejected.csv")[3]


def test_empty_lines_and_cells_left_out_at_the_end(lab: Lab) -> None:
    lines = ["a,1.00", "", ",,,", "b", "c,3.00,,,,"]
    lab.load(lab.file("accounts.csv", "account,balance,kind,,", *lines))
    assert balances(lab) == {"a": 1_000_000, "b": 0, "c": 3_000_000}


def test_headings_as_people_write_them(lab: Lab) -> None:
    path = lab.file("Old ACCOUNTS 2026.csv", "Account Number;Type;Credit-Limit;Status", "a;Postpaid;10.00;ACTIVE")
    lab.load(path)
    assert lab.account("a").credit_limit_micro == 10_000_000


def test_columns_of_other_names(lab: Lab) -> None:
    path = lab.file("konten.csv", "Kundennummer,Guthaben,Notiz", "a,1.00,alt")
    assert "its name does not tell what is in it" in lab.refused(path)
    named = f"accounts={path}"
    assert lab.refused(named) == (
        f"{path}:1: there is no column 'Kundennummer' in accounts; known: account, balance, channels, consent, "
        "credit_limit, currency, cycle_day, expires, kind, language, quiet_hours, state, "
        "time_zone; nor for 'guthaben', 'notiz'; --map 'kundennummer=' leaves it out"
    )
    mapped = ["--map", "Kundennummer=account", "--map", "Guthaben=balance", "--map", "Notiz="]
    lab.load(named, *mapped)
    assert balances(lab) == {"a": 1_000_000}
    assert "no file has a column 'notizen'; did you mean 'notiz'?" in lab.refused(named, *mapped, "--map", "Notizen=")
    assert "there is no column 'acount'; did you mean 'account'?" in lab.refused(named, "--map", "Kundennummer=acount")
    assert "takes 'old=new'" in lab.refused(named, "--map", "Notiz")


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("accounts.csv", ["account,balanse", "a,1"], "did you mean 'balance'?"),
        ("accounts.csv", ["balance", "1"], "column account is missing"),
        ("accounts.csv", ["account,Account ID", "a,b"], "column account is there twice, also as 'Account ID'"),
        ("accounts.csv", [], "is empty; its first line must name the columns"),
        ("buckets.csv", ["account,name", "a,b"], "column amount is missing; if another has it, use --map OTHER=amount"),
        ("accounts-subscribers.csv", ["account"], "its name does not tell what is in it"),
    ],
)
def test_files_that_cannot_be_understood_are_refused_before_anything_is_done(
    lab: Lab, name: str, lines: list[str], sentence: str
) -> None:
    good = lab.file("good-accounts.csv", "account", "good")
    assert sentence in lab.refused(good, lab.file(name, *lines))
    assert lab.accounts() == {}


def test_what_else_is_refused(lab: Lab) -> None:
    path = lab.file("accounts.csv", "account", "a")
    assert "there is no such file" in lab.refused(str(lab.folder / "no-accounts.csv"))
    assert "is named twice" in lab.refused(path, path)
    assert "there is no encoding" in lab.refused(path, "--encoding", "klingon")
    assert "--delimiter is one character" in lab.refused(path, "--delimiter", "ab")
    assert "would overwrite" in lab.refused(path, "--rejects", path)
    more = lab.file("subscribers.csv", "account", "a")
    assert "name a folder" in lab.refused(path, more, "--rejects", lab.file("rejects.csv", "x"))
    empty = lab.folder / "empty"
    empty.mkdir()
    assert "no CSV or JSON Lines file in this folder" in lab.refused(str(empty))
    result = lab.run("import", path, "--reference", "with spaces")
    assert result.exit_code == 1
    assert "a reference is 1 to 128 printable ASCII characters" in result.stderr
    assert lab.accounts() == {}


def test_the_line_that_tells_spreadsheets_the_delimiter(lab: Lab) -> None:
    lab.load(lab.file("accounts.csv", "sep=;", "account;balance", "a;1.00", "b;x"), code=1)
    assert balances(lab) == {"a": 1_000_000}
    assert list(lab.reasons("accounts.rejected.csv")) == [4]


def test_decimals_with_a_comma(lab: Lab) -> None:
    path = lab.file("accounts.csv", "account;balance", "a;1,50", "b;1.000,00", "c;2")
    lab.load(path, code=1)
    assert balances(lab) == {"c": 2_000_000}
    lab.load(path, "--decimal-comma", code=1)
    assert balances(lab) == {"a": 1_500_000, "c": 2_000_000}
    assert "has a point, but decimals are to have a comma here" in lab.reasons("accounts.rejected.csv")[3]


def test_numbers_that_a_spreadsheet_has_shortened(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account", "a")
    lines = lab.file("subscribers.csv", "account,plan,imsi", "a,standard,2.62010E+14", "a,standard,262010000000001")
    report = lab.load(accounts, lines, code=1)
    assert rows(report, "subscribers") == (1, 0, 1)
    assert "a number that a spreadsheet has shortened" in lab.reasons("subscribers.rejected.csv")[2]


def test_formulas_do_not_leave_by_the_rejects(lab: Lab) -> None:
    path = lab.file("accounts.csv", "account,balance", f'"{NASTY}",-5.00', "@x,+1", "'=a,1.00")
    lab.load(path, code=1)
    lines = (lab.folder / "accounts.rejected.csv").read_text().splitlines()
    assert lines[1].endswith(f",'{NASTY},-5.00")
    assert ",'@x,+1" in lines[2]
    assert lines[3].endswith(",'=a,1.00")


@pytest.mark.parametrize("cell", ["", "=1+1", "+49", "+x", "-5.00", "-x", "@a", "\tx", "'x", "'=x", "''=x", "a=b", "-"])
def test_a_guarded_cell_reads_as_it_was(cell: str) -> None:
    kept = guarded(cell)
    assert unguarded(kept) == cell or (not cell.startswith("'") and kept == cell)
    assert kept[:1] not in ("=", "@", "\t")
    assert not kept.startswith(("+x", "-x"))


def test_rejects_go_where_they_are_told(lab: Lab) -> None:
    one = lab.file("accounts.csv", "account", "-")
    two = lab.file("subscribers.csv", "account", "a")
    file, folder = lab.folder / "bad.csv", lab.folder / "bad"
    assert lab.load(one, "--rejects", str(file), code=1)["rejects"] == [str(file)]
    lab.load(one, two, "--rejects", str(folder), code=1)
    assert sorted(path.name for path in folder.iterdir()) == ["accounts.rejected.csv", "subscribers.rejected.csv"]
    # Rejected rows of rejected rows have one line number and one reason.
    lab.load(f"accounts={file}", code=1)
    assert (lab.folder / "bad.rejected.csv").read_text().splitlines()[0] == "line,reason,account"


def test_names_of_columns_are_one_each() -> None:
    for columns in COLUMNS.values():
        names = [name for column in columns for name in (column.name, *column.aliases)]
        assert len(names) == len(set(names))
        assert all(plain_name(name) == name for name in names)


@pytest.mark.parametrize(
    ("written", "at_ms"),
    [
        ("never", 0),
        ("1970-01-01", 86_400_000),
        ("2027-01-31", 1_801_440_000_000),
        ("2027-01-31T00:00:00Z", 1_801_353_600_000),
        ("2027-01-31 01:00:00.250+01:00", 1_801_353_600_250),
        ("2027-01-31 00:00", 1_801_353_600_000),
        ("4611686018427387903 ms", 4_611_686_018_427_387_903),
    ],
)
def test_moments(written: str, at_ms: int) -> None:
    assert values.read_end(written) == at_ms
    assert values.read_end(values.write_moment(at_ms)) == at_ms


@pytest.mark.parametrize(
    "written",
    ["2027-02-30", "1969-12-30", "31.01.2027", "2027-01-31T25:00", "20270131", "0", "5e9 ms", "9" * 30 + " ms"],
)
def test_no_moments(written: str) -> None:
    with pytest.raises(ValueError):
        values.read_end(written)
