"""What an import makes of accounts and subscribers that are there already, and what its repetition does."""

from pathlib import Path

import pytest

from balance import directory
from balance.accounts import Account, Session
from balance.embedded import Address
from balance.ledger import Draft
from balance.model import LifeState
from balance.plans import Plan
from balance.records import make_plan
from balance.store import Store
from occ.bulk.values import read_end
from tests.occ.bulk_lab import Lab, rows, three_files, total

HEADING = "account,kind,currency,balance,credit_limit,state,expires"


@pytest.fixture
def lab(clean_redis: Address, tmp_path: Path) -> Lab:
    return Lab(tmp_path, clean_redis)


def test_rejected_rows_can_be_mended_and_imported(lab: Lab) -> None:
    files = three_files(lab)
    buckets = Path(files[1])
    buckets.write_text(buckets.read_text().replace("data-5gb", "data-5bg"))
    report = lab.load(*files, code=1)
    assert rows(report, "buckets") == (1, 0, 1)
    rejected = lab.folder / "buckets.rejected.csv"
    assert report["rejects"] == [str(rejected)]
    assert len(lab.account("acc-1").buckets) == 1
    rejected.write_text(rejected.read_text().replace("data-5bg", "data-5gb", 2))
    report = lab.load(str(rejected), code=0)
    assert rows(report, "buckets") == (1, 0, 0)
    assert total(report, "octets data-5gb") == (0, 2 << 30, 2 << 30)
    # The input itself mended and imported again finds all of it there.
    buckets.write_text(buckets.read_text().replace("data-5bg", "data-5gb"))
    report = lab.load(*files)
    assert (rows(report, "accounts"), rows(report, "buckets"), rows(report, "subscribers")) == ((0, 2, 0),) * 3
    lab.check()


def test_an_input_that_is_mended_and_imported_again_adds_what_was_missing(lab: Lab) -> None:
    files = three_files(lab)
    buckets = Path(files[1])
    good = buckets.read_text()
    buckets.write_text(good.replace("2 GiB", "2 GB of data"))
    lab.load(*files, code=1)

    async def spend(store: Store) -> None:
        await directory.adjust_account(store, b"acc-1", -1_000_000, now_ms=1, reason="used since")

    lab.on_store(spend)
    buckets.write_text(good)
    report = lab.load(*files)
    assert (rows(report, "accounts"), rows(report, "buckets")) == ((0, 2, 0), (1, 1, 0))
    assert [b.balance for b in lab.account("acc-1").buckets] == [9_000_000, 2 << 30]
    lab.check()


def test_repeated_it_changes_nothing(lab: Lab) -> None:
    files = three_files(lab)
    lab.load(*files)
    before = lab.accounts()
    report = lab.load(*files)
    assert (rows(report, "accounts"), rows(report, "buckets"), rows(report, "subscribers")) == ((0, 2, 0),) * 3
    assert lab.accounts() == before
    assert total(report, "EUR") == (6_750_000, 0, 6_750_000)


def test_repeated_it_leaves_alone_what_was_used_since(lab: Lab) -> None:
    files = three_files(lab)
    lab.load(*files)

    async def spend(store: Store) -> None:
        await directory.adjust_account(store, b"acc-1", -4_000_000, now_ms=1, reason="used")
        await directory.adjust_account(store, b"acc-1", -1000, now_ms=1, reason="used", bucket_id=2)

    lab.on_store(spend)
    report = lab.load(*files)
    assert (rows(report, "accounts"), rows(report, "buckets")) == ((0, 2, 0), (0, 2, 0))
    assert [b.balance for b in lab.account("acc-1").buckets] == [6_000_000, (2 << 30) - 1000]
    # Another import knows nothing of that: the account is not what its rows say.
    report = lab.load(*files, "--reference", "another", code=1)
    assert rows(report, "accounts") == (0, 1, 1)
    assert "balance is 6.00 in the store and 10.00 in the row" in lab.reasons("accounts.rejected.csv")[2]
    assert "amount is 2147482648 in the store and 2147483648 in the row" in lab.reasons("buckets.rejected.csv")[2]
    assert [b.balance for b in lab.account("acc-1").buckets] == [6_000_000, (2 << 30) - 1000]


def test_repeated_it_does_not_give_again_what_others_have_changed(lab: Lab) -> None:
    """A bucket without a name is known by its priority and expiry; after these were changed, the journal knows it."""
    files = [
        lab.file("accounts.csv", "account,balance", "acc-1,1.00"),
        lab.file("buckets.csv", "account,unit,amount,priority", "acc-1,octets,100,7"),
    ]
    lab.load(*files)

    def change(account: Account | None, _: Session | None) -> Plan:
        assert account is not None
        draft = Draft(account, 1)
        draft.bucket(2).priority = 8
        return make_plan(draft, "test", ("changed",), None)

    lab.on_store(lambda store: store.commit(b"acc-1", change))
    for how in ("compare", "skip", "update"):
        report = lab.load(*files, "--on-existing", how)
        assert rows(report, "buckets") == (0, 1, 0)
    assert [b.balance for b in lab.account("acc-1").buckets] == [1_000_000, 100]


def test_of_two_buckets_that_are_alike_one_may_be_missing(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account", "acc-1")
    buckets = lab.file("buckets.csv", "account,unit,amount,number", "acc-1,octets,5,1")
    lab.load(accounts, buckets)
    lab.file("buckets.csv", "account,unit,amount,number", "acc-1,octets,5,1", "acc-1,octets,5,2")
    assert rows(lab.load(accounts, buckets), "buckets") == (1, 1, 0)
    assert rows(lab.load(accounts, buckets), "buckets") == (0, 2, 0)
    assert [b.balance for b in lab.account("acc-1").buckets] == [0, 5, 5]


def test_the_same_reference_does_not_hide_another_figure(lab: Lab) -> None:
    path = lab.file("accounts.csv", "account,balance", "acc-1,10.00")
    lab.load(path)
    lab.file("accounts.csv", "account,balance", "acc-1,12.00")
    lab.load(path, code=1)
    assert "balance is 10.00 in the store and 12.00 in the row" in lab.reasons("accounts.rejected.csv")[2]


def test_what_differs_is_rejected_and_nothing_of_the_account_is_done(lab: Lab) -> None:
    lab.load(*three_files(lab))
    accounts = lab.file("accounts-2.csv", "account,kind,balance,state", "acc-1,prepaid,11.00,suspended")
    buckets = lab.file("buckets-2.csv", "account,name,amount", "acc-1,talk,10 min")
    report = lab.load(accounts, buckets, code=1)
    assert (rows(report, "accounts"), rows(report, "buckets")) == ((0, 0, 1), (0, 0, 1))
    reason = lab.reasons("accounts-2.rejected.csv")[2]
    assert "balance is 10.00 in the store and 11.00 in the row" in reason
    assert "state is active in the store and suspended in the row" in reason
    assert "nothing was done, as another row of the account differs" in lab.reasons("buckets-2.rejected.csv")[2]
    assert len(lab.account("acc-1").buckets) == 2


def test_what_a_row_leaves_out_is_not_compared(lab: Lab) -> None:
    lab.load(*three_files(lab))
    report = lab.load(lab.file("accounts-2.csv", HEADING, "acc-1,,,,,,", "acc-2,postpaid,,-3.25,,,"))
    assert rows(report, "accounts") == (0, 2, 0)


def test_skipping_what_is_there(lab: Lab) -> None:
    lab.load(*three_files(lab))
    accounts = lab.file("accounts-2.csv", "account,balance", "acc-1,99.00", "acc-3,5.00")
    lines = lab.file("subscribers-2.csv", "subscriber,account,plan", "line-1,acc-2,business")
    report = lab.load(accounts, lines, "--on-existing", "skip")
    assert (rows(report, "accounts"), rows(report, "subscribers")) == ((1, 1, 0), (0, 1, 0))
    assert lab.account("acc-1").buckets[0].balance == 10_000_000


def test_updating_what_is_there_but_never_its_money(lab: Lab) -> None:
    lab.load(*three_files(lab))
    accounts = lab.file(
        "accounts-2.csv",
        HEADING,
        "acc-1,,,,,blocked,2038-01-31",
        "acc-2,,,,2.00,,",
    )
    buckets = lab.file("buckets-2.csv", "account,name,amount,expires,priority", "acc-1,data-5gb,2 GiB,2038-12-31,3")
    lines = lab.file(
        "subscribers-2.csv",
        "subscriber,account,plan,msisdn,cap_day,state",
        "line-1,acc-2,business,4917000007,5.00,suspended",
    )
    report = lab.load(accounts, buckets, lines, "--on-existing", "update", code=1)
    assert (rows(report, "accounts"), rows(report, "buckets"), rows(report, "subscribers")) == (
        (1, 0, 1), (1, 0, 0), (1, 0, 0),
    )  # fmt: skip
    one = lab.account("acc-1")
    assert (one.state, one.expires_ms) == (LifeState.BLOCKED, read_end("2038-01-31"))
    assert (one.buckets[1].expires_ms, one.buckets[1].priority) == (read_end("2038-12-31"), 3)
    assert "credit_limit cannot be less than what is owed" in lab.reasons("accounts-2.rejected.csv")[3]
    line = lab.subscriber("line-1")
    assert line is not None
    assert (line.account_id, line.plan, line.cap_day_micro, line.state) == (
        b"acc-2", "business", 5_000_000, LifeState.SUSPENDED,
    )  # fmt: skip
    assert line.identities == ((0, b"4917000007"), (1, b"26201000000001"))
    assert lab.account("acc-2").out_of_service[b"line-1"] == LifeState.SUSPENDED
    assert total(report, "prepaid accounts, blocked") == (0, 1, 1)
    assert total(report, "prepaid accounts, active") == (1, -1, 0)
    money = lab.file("accounts-3.csv", "account,balance", "acc-1,1000.00")
    lab.load(money, "--on-existing", "update", code=1)
    assert lab.account("acc-1").buckets[0].balance == 10_000_000
    lab.check()


def test_an_update_keeps_to_the_life_cycle(lab: Lab) -> None:
    lab.load(lab.file("accounts.csv", "account,state", "acc-1,terminated"))
    lab.load(lab.file("accounts-2.csv", "account,state", "acc-1,active"), "--on-existing", "update", code=1)
    assert "active cannot follow terminated" in lab.reasons("accounts-2.rejected.csv")[2]


def test_subscribers_that_differ(lab: Lab) -> None:
    lab.load(*three_files(lab))
    lines = lab.file(
        "subscribers-2.csv",
        "subscriber,account,plan,msisdn,imsi,segment,activated",
        "line-1,acc-1,standard,4917000001,,,never",
        "line-2,acc-1,business,4917000009,26201000000002,gold,",
        "line-3,acc-1,,4917000003,,,",
    )
    report = lab.load(lines, code=1)
    assert rows(report, "subscribers") == (0, 1, 2)
    reasons = lab.reasons("subscribers-2.rejected.csv")
    for words in (
        "account is acc-2 in the store and acc-1 in the row",
        "plan is standard in the store and business in the row",
        "msisdn is 4917000002 in the store and 4917000009 in the row",
        "segment is nothing in the store and gold in the row",
    ):
        assert words in reasons[3]
    assert "imsi" not in reasons[3]
    assert reasons[4] == "plan is missing, and the subscriber is new"
    unchanged = lab.subscriber("line-2")
    assert unchanged is not None
    assert (unchanged.account_id, unchanged.plan, unchanged.segment) == (b"acc-2", "standard", "")


def test_units_that_differ(lab: Lab) -> None:
    accounts = lab.file("accounts.csv", "account", "a", "b", "c")
    lab.load(accounts, lab.file("units.csv", "unit,account,name,parent", "top,a,Top,", "below,b,Below,top"))
    more = lab.file("units-2.csv", "unit,account,name,parent", "top,a,TOP,", "below,b,,none", "third,b,,")
    report = lab.load(more, code=1)
    assert rows(report, "units") == (0, 0, 3)
    reasons = lab.reasons("units-2.rejected.csv")
    assert reasons[2] == "name is Top in the store and TOP in the row"
    assert reasons[3] == "parent is top in the store and nothing in the row"
    assert "is that of unit below already" in reasons[4]
    report = lab.load(more, "--on-existing", "update", code=1)
    assert rows(report, "units") == (2, 0, 1)
    top, below = lab.unit("top"), lab.unit("below")
    assert top is not None
    assert below is not None
    assert (top.name, below.name, below.parent) == ("TOP", "Below", b"")
