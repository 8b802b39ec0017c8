"""Old records leave Redis for files, and the store is as sound as before: whatever ends in between, however often."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from balance import closing, directory, verify
from balance.bulk import begin_import, import_begun, rows_imported
from balance.embedded import Address
from balance.journal import BEGINNING, Entry, entries, last_entry_id, position
from balance.model import AccountKind
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from occ import journal_files
from occ.cli import app
from occ.journal_files import JournalFiles, JournalSettings, files, read_file, write_file
from occ.settings import load
from occ.yamlmap import ConfigError
from tests.balance.test_verify import alter_journal, populate, without

FOR_EVER = 1 << 60


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = Store(StoreSettings(clean_redis))
    await store.start()
    await populate(store)
    yield store
    await store.stop()


def moving(store: Store, directory: Path) -> JournalFiles:
    return JournalFiles(store, JournalSettings(directory, 0))


async def journal(store: Store) -> list[Entry]:
    until = await last_entry_id(store, 0)
    return [entry async for page in entries(store, 0, BEGINNING, until) for entry in page]


def written(directory: Path) -> list[dict[str, Any]]:
    return [line for path, _, _ in files(directory) for line in read_file(path)]


async def findings(store: Store) -> tuple[list[verify.Total], list[str], int]:
    report = await verify.verify(store)
    return report.totals, report.discrepancies, report.accounts


async def test_a_check_finds_the_same_wherever_the_journal_was_closed(store: Store, tmp_path: Path) -> None:
    before = await findings(store)
    assert before[1] == []
    all_entries = await journal(store)
    for number, (entry_id, _) in enumerate(all_entries, 1):
        milliseconds, _ = position(entry_id)
        await moving(store, tmp_path).close_before(milliseconds + 1)
        left = await journal(store)
        assert left == [each for each in all_entries if position(each[0])[0] > milliseconds], number
        assert await findings(store) == before, f"closed after entry {number}"
    assert await journal(store) == []
    records = [json.dumps(line) for line in written(tmp_path)]
    assert len(records) == len(set(records)) == 11
    assert await store.call("EXISTS", store.keys.closing(0)) == 0


async def test_only_what_is_old_enough_is_closed(store: Store, tmp_path: Path) -> None:
    all_entries = await journal(store)
    assert await moving(store, tmp_path).close_before(position(all_entries[0][0])[0]) == 0
    assert await journal(store) == all_entries
    assert list(tmp_path.iterdir()) == []


async def test_accounts_go_on_after_their_records_were_closed(store: Store, tmp_path: Path) -> None:
    await moving(store, tmp_path).close_before(FOR_EVER)
    await directory.top_up_account(store, b"a", 77, now_ms=1, reason="later")
    await directory.create_account(store, b"e", AccountKind.PREPAID, 978, now_ms=1, reason="later", balance_micro=5)
    totals, discrepancies, accounts = await findings(store)
    assert (discrepancies, accounts) == ([], 5)
    assert {total.currency: total.credited for total in totals if total.currency} == {978: 1010 + 77 + 5, 840: 500}
    await moving(store, tmp_path).close_before(FOR_EVER)
    assert await findings(store) == (totals, discrepancies, accounts)


@pytest.mark.parametrize("closed", [0, 1, 3])
async def test_what_was_written_before_a_kill_is_not_written_again(store: Store, tmp_path: Path, closed: int) -> None:
    """The process dies when its file is complete, and ``closed`` of its entries are closed."""
    found = await journal(store)
    write_file(tmp_path, 0, found[:6])
    async with closing.lease(store, 0) as token:
        for entry in found[:closed]:
            await closing.close(store, 0, token, [entry])
    before = await findings(store)
    await moving(store, tmp_path).close_before(FOR_EVER)
    assert await journal(store) == []
    assert [line["entry"] for line in written(tmp_path)] == [
        entry.decode() for entry, records in found for _ in records
    ]
    assert len(list(files(tmp_path))) == 2
    assert await findings(store) == before


async def test_half_a_file_counts_for_nothing(store: Store, tmp_path: Path) -> None:
    whole = write_file(tmp_path, 0, await journal(store)).read_bytes()
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(path.name + ".part"))
    path.with_name(path.name + ".part").write_bytes(whole[: len(whole) // 2])
    longer = path.with_name(path.name.replace(".jsonl", "9.jsonl") + ".part")  # by then there was more to be closed
    longer.write_bytes(whole[: len(whole) // 2])
    of_another_lane = path.with_name("journal-99-1-0-2-0.jsonl.gz.part")
    of_another_lane.write_bytes(b"")
    await moving(store, tmp_path).close_before(FOR_EVER)
    assert path.read_bytes() == whole
    assert [each for each in path.parent.iterdir() if each.suffix == ".part"] == [of_another_lane]


async def test_a_file_of_another_time_line_is_not_taken_for_what_is_here(store: Store, tmp_path: Path) -> None:
    """The store came back from a backup: entries with identifiers in the range of an old file are not in that file."""
    found = await journal(store)
    later = b"%d-0" % (position(found[-1][0])[0] + 10_000)
    write_file(tmp_path, 0, [*found[:2], (later, found[-1][1])])
    await moving(store, tmp_path).close_before(FOR_EVER)
    assert await journal(store) == []
    kept = {line["entry"] for line in written(tmp_path)}
    assert {entry.decode() for entry, _ in found} <= kept


async def test_what_is_wrong_is_not_closed(store: Store, tmp_path: Path) -> None:
    """A gap would disappear into the sums."""
    await alter_journal(store, without(b"a", 2))
    before = await findings(store)
    assert before[1] == ["Account a: version 2 is missing in the journal."]
    async with closing.lease(store, 0) as token:
        with pytest.raises(closing.ClosingError, match="account a is not closed at version 3: versions are missing"):
            await closing.close(store, 0, token, await journal(store))
    await moving(store, tmp_path).close_before(FOR_EVER)  # says so in the log
    assert await findings(store) == before


async def test_whoever_lost_the_lease_changes_nothing(store: Store) -> None:
    found = await journal(store)
    async with closing.lease(store, 0) as token:
        await store.call("SET", store.keys.closing(0), "somebody else")
        with pytest.raises(closing.ClosingError, match="another process"):
            await closing.close(store, 0, token, found)
        assert await journal(store) == found
        await store.call("DEL", store.keys.closing(0))


async def test_nothing_is_closed_while_the_store_is_checked(store: Store, tmp_path: Path) -> None:
    async with closing.lease(store, 0):
        assert await moving(store, tmp_path).close_before(FOR_EVER) == 0
        with pytest.raises(closing.ClosingError, match="closes or checks the journal"):
            async with closing.lease(store, 0, patience_s=0.1):
                pass
    assert await moving(store, tmp_path).close_before(FOR_EVER) > 0


async def test_a_check_says_so_if_the_journal_was_closed_beneath_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease has run out, as it was suspended for long; better no result than a wrong one."""
    read_journals = verify._Verification._read_journals

    async def late(self: verify._Verification) -> None:
        await store.call("DEL", store.keys.closing(0))
        async with closing.lease(store, 0) as token:
            await closing.close(store, 0, token, (await journal(store))[:1])
        await read_journals(self)

    monkeypatch.setattr(verify._Verification, "_read_journals", late)
    with pytest.raises(StoreError, match="was closed while it was checked"):
        await verify.verify(store)


async def test_sums_that_cannot_be_read_are_named(store: Store, tmp_path: Path) -> None:
    await moving(store, tmp_path).close_before(FOR_EVER)
    await store.call("HSET", store.keys.closed(0), b"a", b"\xc1")
    with pytest.raises(StoreError, match="closed sums of account a cannot be read"):
        await verify.verify(store)


async def test_an_import_older_than_the_journal_is_not_resumed(store: Store, tmp_path: Path) -> None:
    await begin_import(store, "old", {0: BEGINNING})
    since = await import_begun(store, "old")
    assert await rows_imported(store, "old", since, {b"a"}) == {}
    await moving(store, tmp_path).close_before(FOR_EVER)
    with pytest.raises(StoreError, match="has left the journal"):
        await rows_imported(store, "old", since, {b"a"})


async def test_much_is_closed_in_several_files(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_files, "ENTRIES_A_FILE", 3)
    monkeypatch.setattr(journal_files, "CLOSED_AT_ONCE", 2)
    before, count = await findings(store), len(await journal(store))
    assert await moving(store, tmp_path).close_before(FOR_EVER) == count
    assert len(list(files(tmp_path))) == -(-count // 3)
    assert await findings(store) == before


async def test_damaged_files_are_named(store: Store, tmp_path: Path) -> None:
    path = write_file(tmp_path, 0, await journal(store))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match=f"{path.name} is damaged"):
        written(tmp_path)


def test_days_that_payments_need_are_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="keep_days must be 8 or more, or 0"):
        load(overrides={"journal.keep_days": "7"}, environ={})
    assert load(overrides={"journal.keep_days": "0"}, environ={}).journal.keep_days == 0
    result = CliRunner().invoke(app, ["ledger", "close", "--older-than-days", "7"])
    assert result.exit_code == 2
