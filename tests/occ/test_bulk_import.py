"""Import: what is taken, what is rejected and why, what a repetition does, whether the totals agree."""

import json
from pathlib import Path

import pytest

from balance import directory, subscribers
from balance.accounts import Account, Session
from balance.bulk import IMPORT, open_account
from balance.embedded import Address
from balance.journal import history
from balance.model import MAIN_BUCKET, AccountKind, IdentityType, LifeState, Offer, Subscriber, Unit
from balance.plans import Plan
from balance.records import Change, make_plan
from balance.store import Store
from balance.structure import CustomerUnit, Pays, UnitKind
from occ.bulk.values import read_end
from tests.occ.bulk_lab import Lab, rows, three_files, total

HEADING = "account,kind,currency,balance,credit_limit,state,expires"


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    return Lab(tmp_path, clean_redis)


def test_accounts_with_all_that_belongs_to_them(lab: Lab) -> None:
    report = lab.load(*three_files(lab))
    assert (rows(report, "accounts"), rows(report, "buckets"), rows(report, "subscribers")) == ((2, 0, 0),) * 3
    one, two = lab.account("acc-1"), lab.account("acc-2")
    assert (one.kind, one.currency, one.state, one.expires_ms) == (
        AccountKind.PREPAID, 978, LifeState.ACTIVE, read_end("2037-01-31"),
    )  # fmt: skip
    assert [(b.bucket_id, b.unit, b.balance, b.priority, b.name) for b in one.buckets] == [
        (MAIN_BUCKET, Unit.MONEY, 10_000_000, 100, ""),
        (2, Unit.OCTETS, 2 << 30, 10, "data-5gb"),
    ]
    assert one.buckets[1].expires_ms == read_end("2036-12-31T12:00:00Z")
    # Supervision will look at it when its allowance lapses, or else the account.
    assert one.watch_ms == one.buckets[1].expires_ms
    assert (two.kind, two.state, two.credit_limit_micro) == (AccountKind.POSTPAID, LifeState.SUSPENDED, 50_000_000)
    assert [(b.unit, b.balance, b.priority, b.expires_ms) for b in two.buckets] == [
        (Unit.MONEY, -3_250_000, 100, 0),
        (Unit.SECONDS, 600, 7, 0),
    ]
    assert two.out_of_service == {b"line-2": LifeState.BLOCKED}
    assert lab.subscriber("line-1") == Subscriber(
        b"line-1", b"acc-1", "standard", ((0, b"4917000001"), (1, b"26201000000001"))
    )

    async def identity(store: Store) -> Subscriber | None:
        return await subscribers.read_subscriber(store, IdentityType.IMSI, b"26201000000002")

    found = lab.on_store(identity)
    assert found is not None
    assert (found.subscriber_id, found.state) == (b"line-2", LifeState.BLOCKED)
    lab.check()


def test_money_has_one_journal_record_that_names_the_import_and_the_line(lab: Lab) -> None:
    lab.load(*three_files(lab), "--reference", "migration-1")
    first = lab.journal("acc-1")[-1]
    assert (first.version, first.operation) == (1, "import")
    assert first.reason[:2] == ("migration-1", "accounts.csv:2")
    assert first.changes == (Change(1, 10_000_000, 0, 10_000_000, 0), Change(2, 2 << 30, 0, 2 << 30, 0))


def test_control_totals(lab: Lab) -> None:
    files = three_files(lab)
    lab.file("more-accounts.csv", "account,balance", "acc-9,1.00")
    lab.load(str(lab.folder / "more-accounts.csv"))
    report = lab.load(*files)
    assert report["agrees"] is True
    assert report["changes_by_others"] == 0
    assert total(report, "prepaid accounts, active") == (1, 1, 2)
    assert total(report, "postpaid accounts, suspended") == (0, 1, 1)
    assert total(report, "subscribers") == (0, 2, 2)
    assert total(report, "EUR") == (1_000_000, 6_750_000, 7_750_000)
    assert total(report, "debt EUR") == (0, 3_250_000, 3_250_000)
    assert total(report, "octets data-5gb") == (0, 2 << 30, 2 << 30)
    assert total(report, "seconds") == (0, 600, 600)
    sums = {each["label"]: each for each in report["sums"]}
    assert sums["EUR"]["accepted"] == 6_750_000


def test_what_was_reserved_is_a_total_of_its_own(lab: Lab) -> None:
    lab.load(*three_files(lab))

    async def hold(store: Store) -> None:
        from tests.balance.test_verify import opening

        await store.commit(b"acc-1", opening(b"session", 1000))

    lab.on_store(hold)
    report = lab.load(lab.file("accounts-2.csv", "account", "acc-3"))
    held = lab.account("acc-1").buckets[0].reserved
    assert held > 0
    assert total(report, "reserved EUR") == (held, 0, held)


def test_bad_rows_are_rejected_with_line_and_reason_and_stop_no_others(lab: Lab) -> None:
    accounts = lab.file(
        "accounts.csv",
        HEADING,
        "acc-1,prepayd,EUR,1.00,,,",
        "acc-2,prepaid,EURO,1.00,,,",
        "acc-3,prepaid,EUR,-1.00,,,",
        "acc-4,postpaid,EUR,-2.00,1.00,,",
        "acc-5,prepaid,EUR,-1.00,0.50,,",
        "acc-6,prepaid,EUR,1.0000001,,,",
        ",prepaid,EUR,1.00,,,",
        "a c,prepaid,EUR,1.00,,,",
        "acc-7,prepaid,EUR,1.00,,activ,31.01.2037",
        "acc-8,prepaid,EUR,1.00,,,,too,many",
        "acc-9,postpaid,EUR,1.00,,grace,",
        "good,prepaid,EUR,1.00,,,",
    )
    report = lab.load(accounts, code=1)
    assert rows(report, "accounts") == (1, 0, 11)
    assert list(lab.accounts()) == ["good"]
    reasons = lab.reasons("accounts.rejected.csv")
    assert list(reasons) == list(range(2, 13))
    for line, words in {
        2: "kind: 'prepayd' is no kind of account; did you mean 'prepaid'?",
        3: "currency: 'EURO' is not a code of ISO 4217 such as EUR",
        4: "an account cannot be below zero without a credit limit",
        5: "deeper in debt than its credit limit",
        6: "an account cannot be deeper in debt than its credit limit",
        7: "more than 6 decimals",
        8: "account is missing",
        9: "account 'a c' is not a usable name",
        11: "9 cells and only 7 columns",
        12: "only prepaid accounts can be in grace",
    }.items():
        assert words in reasons[line], (line, reasons[line])
    # All that is wrong with a row is said at once.
    assert "state: 'activ' is no state; did you mean 'active'?" in reasons[10]
    assert "expires: '31.01.2037' is not a moment" in reasons[10]
    lab.check()


def test_rows_that_stand_twice(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account,balance", "acc-1,1.00", "acc-1,1.00", "acc-2,1.00", "acc-1,9.00")
    buckets = lab.file(
        "buckets.csv",
        "account,unit,amount,number",
        "acc-1,octets,5 MiB,",
        "acc-2,octets,5 MiB,1",
        "acc-1,octets,5 MiB,",
        "acc-2,octets,5 MiB,2",
    )
    lines = lab.file(
        "subscribers.csv",
        "subscriber,account,plan,msisdn",
        "line-1,acc-1,standard,49170001",
        "line-1,acc-1,standard,49170001",
        "line-2,acc-1,standard,49170001",
    )
    report = lab.load(accounts, buckets, lines, code=1)
    assert (rows(report, "accounts"), rows(report, "buckets")) == ((2, 0, 2), (3, 0, 1))
    assert lab.reasons("accounts.rejected.csv") == {
        3: "account acc-1 stands in accounts.csv:2 already",
        5: "account acc-1 stands in accounts.csv:2 already",
    }
    assert lab.reasons("buckets.rejected.csv") == {4: "line 2 says the same; number them if there are two"}
    # Buckets that are numbered may be alike.
    assert [b.balance for b in lab.account("acc-2").buckets[1:]] == [5 << 20, 5 << 20]
    assert [b.balance for b in lab.account("acc-1").buckets[1:]] == [5 << 20]
    assert lab.reasons("subscribers.rejected.csv") == {
        3: "subscriber line-1 stands in subscribers.csv:2 already",
        4: "identity E164 49170001 belongs to subscriber line-1 already; nothing was changed",
    }
    assert rows(lab.load(accounts, buckets, lines, code=1), "buckets") == (0, 3, 1)


def test_the_order_of_files_and_rows_does_not_matter(lab: Lab) -> None:
    accounts, buckets, lines = three_files(lab)
    late = lab.file("late-accounts.csv", "account", "acc-3")
    more = lab.file("more-subscribers.csv", "account,plan,msisdn", "acc-3,standard,49170003")
    report = lab.load(more, lines, buckets, accounts, late)
    assert rows(report, "subscribers") == (3, 0, 0)
    assert lab.subscriber("49170003") is not None  # without a name it is known by its number
    assert [b.balance for b in lab.account("acc-1").buckets] == [10_000_000, 2 << 30]


def test_parts_of_accounts_that_are_nowhere(lab: Lab) -> None:
    _, buckets, lines = three_files(lab)
    report = lab.load(buckets, lines, code=1)
    assert (rows(report, "buckets"), rows(report, "subscribers")) == ((0, 0, 2), (0, 0, 2))
    assert lab.accounts() == {}
    for name in ("buckets", "subscribers"):
        assert all("there is no account acc-" in each for each in lab.reasons(f"{name}.rejected.csv").values())


def test_buckets_of_accounts_that_are_in_the_store(lab: Lab) -> None:
    lab.load(lab.file("accounts.csv", "account,balance", "acc-1,10.00"))
    buckets = lab.file("buckets.csv", "account,name,unit,amount", "acc-1,welcome,money,2.00", "acc-1,talk,,5 min")
    report = lab.load(buckets)
    assert rows(report, "buckets") == (2, 0, 0)
    assert total(report, "EUR welcome") == (0, 2_000_000, 2_000_000)
    assert rows(lab.load(buckets), "buckets") == (0, 2, 0)
    assert [b.balance for b in lab.account("acc-1").buckets] == [10_000_000, 2_000_000, 300]
    lab.check()


def test_offers_and_meters(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account,balance", "acc-1,10.00")
    offers = lab.file(
        "offers.csv",
        "account,offer,since,next,owner,unpaid",
        "acc-1,monthly,2036-01-15,2036-02-15,line-1,",
        "acc-1,weekly,2020-01-01T00:00:00Z,never,,2020-01-08T00:00:00Z",
        "acc-1,monthly,2036-01-15,,line-2,",
        "acc-1,yearly,2036-01-15,,,",
    )
    meters = lab.file("meters.csv", "account,meter,resets,used,spent", "acc-1,internet,2036-02-01T00:00:00Z,1000,1.50")
    report = lab.load(accounts, offers, meters, code=1)
    assert (rows(report, "offers"), rows(report, "meters")) == ((3, 0, 1), (1, 0, 0))
    account = lab.account("acc-1")
    start = read_end("2036-01-14")
    assert account.offers == [
        Offer("monthly", start, read_end("2036-02-14"), b"line-1"),
        Offer("weekly", read_end("2019-12-31"), 0, b"", read_end("2020-01-07")),
        # Due when the catalogue says that its next period begins.
        Offer("monthly", start, read_end("2036-02-14"), b"line-2"),
    ]
    assert [(m.name, m.units, m.micro) for m in account.meters] == [("internet", 1000, 1_500_000)]
    assert "the catalogue has no offer 'yearly'" in lab.reasons("offers.rejected.csv")[5]
    assert (rows(lab.load(accounts, offers, meters, code=1), "offers")) == (0, 3, 1)


def test_customer_units_from_the_top_down(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account,kind,credit_limit", "acme,postpaid,1000", "east,,", "west,,", "loop,,")
    units = lab.file(
        "units.csv",
        "unit,account,kind,name,parent,pays",
        "west,west,branch,West,acme,itself",
        "east-1,loop,branch,East 1,nowhere,parent",
        "east,east,branch,=East,acme,parent",
        "acme,acme,company,ACME,,",
    )
    lines = lab.file(
        "subscribers.csv",
        "subscriber,account,plan,msisdn,state",
        "e,east,standard,49170001,active",
        "w,west,standard,49170002,suspended",
    )
    report = lab.load(lines, units, accounts, code=1)
    assert rows(report, "units") == (3, 0, 1)
    assert "no customer or unit nowhere" in lab.reasons("units.rejected.csv")[3]
    assert lab.unit("east") == CustomerUnit(b"east", UnitKind.BRANCH, "=East", b"acme", Pays.PARENT, b"east")
    east, west = lab.subscriber("e"), lab.subscriber("w")
    assert east is not None
    assert (east.account_id, east.member_of) == (b"acme", b"east")
    assert west is not None
    assert (west.account_id, west.member_of) == (b"west", b"")
    assert lab.account("west").out_of_service == {b"w": LifeState.SUSPENDED}
    assert rows(lab.load(lines, units, accounts, code=1), "units") == (0, 3, 1)


def test_units_that_stand_below_themselves(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account", "a", "b", "c")
    units = lab.file("units.csv", "unit,account,parent", "a,a,b", "b,b,a", "c,c,a")
    report = lab.load(accounts, units, code=1)
    assert rows(report, "units") == (0, 0, 3)
    assert all("stands below itself" in each for each in lab.reasons("units.rejected.csv").values())


def test_a_dry_run_says_what_would_be_and_writes_nothing(lab: Lab) -> None:
    lab.load(lab.file("accounts-0.csv", "account", "acc-2"))
    files = three_files(lab)
    units = lab.file("units.csv", "unit,account,parent", "two,acc-2,one", "one,acc-1,", "three,acc-3,one")
    more = lab.file(
        "more-subscribers.csv",
        "subscriber,account,plan,msisdn",
        "line-3,acc-1,standard,4917000001",
        "line-4,acc-4,standard,4917000004",
    )

    async def keys(store: Store) -> dict[bytes, bytes]:
        names = [key for key in await store.call("KEYS", "*") if key != b"occ:audit"]  # that it was tried is noted
        return {key: await store.call("DUMP", key) for key in names}

    before = lab.on_store(keys)
    tried = lab.load(*files, units, more, "--dry-run", code=1)
    assert lab.on_store(keys) == before
    reasons = lab.reasons("more-subscribers.rejected.csv")
    done = lab.load(*files, units, more, code=1)
    assert tried["rows"] == done["rows"]
    assert tried["sums"] == done["sums"]
    assert tried["totals"] == done["totals"]
    assert reasons.keys() == lab.reasons("more-subscribers.rejected.csv").keys() == {2, 3}


def test_plans_must_be_priced_in_the_currency_of_the_account(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account,currency,balance", "acc-1,USD,1.00")
    lines = lab.file("subscribers.csv", "account,plan,msisdn", "acc-1,standard,49170001", "acc-1,standart,49170002")
    lab.load(accounts, lines, code=1)
    reasons = lab.reasons("subscribers.rejected.csv")
    assert "acc-1 is in USD, but the prices of plan standard are in EUR" in reasons[2]
    assert "the catalogue has no plan 'standart'; did you mean 'standard'?" in reasons[3]


def test_names_that_the_catalogue_does_not_have(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account", "acc-1")
    buckets = lab.file("buckets.csv", "account,name,unit,amount", "acc-1,old-bundle,octets,100")
    lab.load(accounts, buckets, code=1)
    report = lab.load(accounts, buckets, "--any-names")
    assert rows(report, "buckets") == (1, 0, 0)
    assert total(report, "octets old-bundle") == (0, 100, 100)


def test_what_has_expired_is_taken_and_remarked(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account,expires", "acc-1,2020-01-01")
    buckets = lab.file("buckets.csv", "account,unit,amount,expires", "acc-1,octets,100,2020-01-01")
    report = lab.load(accounts, buckets)
    assert [each["rows"] for each in report["remarks"]] == [1, 1]
    assert lab.account("acc-1").buckets[1].balance == 100


def test_changes_of_others_are_told_from_a_disagreement(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    files = three_files(lab)
    lab.load(*files)
    from occ.bulk import importing, totals

    counted = totals.count

    async def meddling(store: Store) -> totals.Totals:
        found = await counted(store)
        await directory.top_up_account(store, b"acc-1", 1, now_ms=1, reason="meanwhile")
        return found

    monkeypatch.setattr(importing, "count", meddling)
    report = lab.load(lab.file("accounts-2.csv", "account", "acc-3"))
    assert report["changes_by_others"] >= 1
    assert report["agrees"] is True


def test_totals_that_do_not_agree_are_an_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from occ.bulk import importing, totals

    counted = totals.count

    async def smuggling(store: Store) -> totals.Totals:
        """Somebody who adds a subscriber without a trace in the journal."""
        found = await counted(store)
        if await store.call("EXISTS", store.keys.account(b"acc-1")):
            found.subscribers += 1
        return found

    monkeypatch.setattr(importing, "count", smuggling)
    report = lab.load(*three_files(lab), code=3)
    assert report["agrees"] is False
    (sentence,) = report["disagreements"]
    assert sentence == "subscribers: 0 before and 2 accepted should make 2, but it is 3"
    assert lab.run("import", *three_files(lab)).exit_code in (0, 3)


def test_what_the_journal_has_of_an_import_is_checked(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from occ.bulk import importing, totals

    counted = totals.count

    async def meddling(store: Store) -> totals.Totals:
        """Somebody who runs an import of the same name at the same time."""

        def step(account: Account | None, _: Session | None) -> Plan:
            if account is not None:
                return Plan(None)
            return make_plan(open_account(b"acc-7", 0, 978, 1, balance_micro=5), IMPORT, ("same", "x:1", ""), None)

        found = await counted(store)
        await store.commit(b"acc-7", step)
        return found

    monkeypatch.setattr(importing, "count", meddling)
    report = lab.load(*three_files(lab), "--reference", "same", code=3)
    assert "2 changes were made to accounts, but the journal has 3 of this import" in report["disagreements"]
    assert "6750000 were entered in buckets of number 1, but the journal says 6750005" in report["disagreements"]


def test_json_lines(lab: Lab) -> None:
    lines = [
        {
            "account": "acc-1", "kind": "postpaid", "balance": -1.10, "credit_limit": 20, "state": "active",
            "buckets": [{"name": "data-5gb", "amount": "1 GiB"}, {"unit": "events", "amount": 20, "priority": 7}],
            "offers": [{"offer": "weekly", "since": "2036-01-01"}],
            "subscribers": [
                {"subscriber": "l1", "plan": "standard", "msisdn": ["49170001", "+49170002"], "friends": "49151 49152"},
                {"plan": "standard", "imsi": "26201000000001", "state": "blocked"},
            ],
        },
        {"account": "acc-2", "unit": {"unit": "branch", "parent": "top", "pays": "parent"},
         "subscribers": [{"subscriber": "l2", "plan": "standard", "nai": ["user@example.net"]}]},
        {"account": "acc-3", "kind": "postpaid", "credit_limit": "10.00", "unit": {"unit": "top", "kind": "company"}},
        {"account": "acc-4", "buckets": [{"amount": 5}], "subscribers": [{"plan": "nothing", "msisdn": "49170009"}]},
        {"account": "acc-5", "balanse": 5},
        {"account": "acc-6", "balance": True},
        {"account": "acc-1", "balance": -1.10},
        {"account": "acc-7", "subscribers": [{"subscriber": "l7", "plan": "standard", "msisdn": "49170001"}]},
    ]  # fmt: skip
    path = lab.file(
        "old.jsonl", *(json.dumps(line) for line in lines), "not json", '["a"]', '{"account": "x", "account": "y"}', ""
    )
    report = lab.load(path, code=1)
    assert (rows(report, "accounts"), rows(report, "subscribers")) == ((4, 0, 7), (3, 0, 1))
    one = lab.account("acc-1")
    assert [(b.unit, b.balance, b.priority) for b in one.buckets] == [
        (Unit.MONEY, -1_100_000, 100), (Unit.OCTETS, 1 << 30, 10), (Unit.EVENTS, 20, 7),
    ]  # fmt: skip
    assert one.out_of_service == {b"26201000000001": LifeState.BLOCKED}
    line = lab.subscriber("l1")
    assert line is not None
    assert (line.identities, line.friends) == (((0, b"49170001"), (0, b"49170002")), (b"49151", b"49152"))
    branch = lab.subscriber("l2")
    assert branch is not None
    assert (branch.account_id, branch.member_of) == (b"acc-3", b"acc-2")
    reasons = lab.reasons("old.rejected.jsonl")
    assert list(reasons) == [4, 5, 6, 7, 8, 9, 10, 11]
    assert "buckets[0] unit is missing" in reasons[4]
    assert "subscribers[0] plan: the catalogue has no plan 'nothing'" in reasons[4]
    assert "there is no column 'balanse' in accounts; did you mean 'balance'?" in reasons[5]
    assert "balance: is not a text or a number" in reasons[6]
    assert "account acc-1 stands in old.jsonl:1 already" in reasons[7]
    assert "identity E164 49170001 belongs to subscriber l1 already" in reasons[8]
    assert "is not JSON" in reasons[9]
    assert "'account' is there twice" in reasons[11]
    # Mended where they were rejected: the whole of each line is there to be imported again.
    rejected = lab.folder / "old.rejected.jsonl"
    mended = [json.loads(each) for each in rejected.read_text().splitlines()]
    mended[0]["buckets"][0]["unit"] = "events"
    mended[0]["subscribers"][0]["plan"] = "business"
    mended[4]["subscribers"][0]["msisdn"] = "49170007"
    mended[5]["text"] = '{"account": "acc-8"}'
    again = lab.file("mended.jsonl", *(json.dumps(mended[at]) for at in (0, 4, 5)))
    report = lab.load(again)
    assert (rows(report, "accounts"), rows(report, "subscribers")) == ((2, 1, 0), (2, 0, 0))
    lab.check()


def test_a_folder_of_files(lab: Lab) -> None:
    folder = lab.folder / "old"
    folder.mkdir()
    for path in three_files(lab):
        Path(path).rename(folder / Path(path).name)
    (folder / "README.md").write_text("not a row")
    assert rows(lab.load(str(folder)), "accounts") == (2, 0, 0)


def test_the_table_for_people(lab: Lab) -> None:
    result = lab.run("import", *three_files(lab))
    assert result.exit_code == 0
    assert "The control totals agree" in result.stdout
    assert "debt EUR" in result.stdout
    assert lab.on_store(lambda store: history(store, b"acc-1", 1))
