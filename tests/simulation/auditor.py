"""The auditor: from what clients say they reported, and what was paid in, it predicts every balance.

It knows the tariff, not the ledger. Where a client does not know whether a report was debited, either will do, but as a
whole or not at all; and what the charging data records say was used must be one of the sums that this allows.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from balance.accounts import Account
from balance.records import JournalRecord
from tests.simulation.clients import DATA, PORTAL, SMS, VOICE, Said

PRICES: Final = {DATA: (1 << 20, 10_000), PORTAL: (1, 0), VOICE: (60, 90_000), SMS: (1, 50_000)}
"""By Rating-Group: units of a step, price of a started one in micro-units."""


def price_micro(group: int, units: int) -> int:
    """What that many units cost within one session: a started step counts whole."""
    step_units, step_micro = PRICES[group]
    return -(-units // step_units) * step_micro


@dataclass(slots=True)
class PaidIn:
    """Money put on one account."""

    certain_micro: int = 0
    doubtful_micro: list[int] = field(default_factory=list)
    """Top-ups that were never acknowledged."""


def sums(certain: int, doubtful: list[int]) -> set[int]:
    """Everything it can have come to."""
    found = {certain}
    for each in doubtful:
        found |= {one + each for one in found}
    return found


def audit_usage(
    said: Mapping[tuple[bytes, int], Said], records: list[dict[str, Any]], faults: list[str]
) -> dict[str, int]:
    """Hold the charging data records against what clients reported; what was debited, micro-units by account."""
    ids = Counter(record["record_id"] for record in records)
    faults += [f"record {name} was made {count} times" for name, count in ids.items() if count > 1]
    used: Counter[tuple[bytes, int]] = Counter()
    cost: Counter[tuple[bytes, int]] = Counter()
    debited: Counter[str] = Counter()
    for record in records:
        key = (record["session_id"].encode(), record["rating_group"])
        used[key] += record["used"]
        cost[key] += record["cost_micro"]
        debited[record["account_id"]] += record["debited_micro"]
        if record["debited_micro"] + record["leaked_micro"] != record["cost_micro"]:
            faults.append(f"record {record['record_id']} does not add up: {record}")
    for key in used.keys() | said.keys():
        what = said.get(key, Said())
        if used[key] not in sums(what.certain, what.doubtful):
            faults.append(
                f"{key}: the records say {used[key]} units, the client {what.certain} and perhaps {what.doubtful}"
            )
        if cost[key] != price_micro(key[1], used[key]):
            faults.append(f"{key}: {used[key]} units cost {cost[key]}, not {price_micro(key[1], used[key])}")
    return dict(debited)


def audit_account(
    account: Account, paid_in: PaidIn, debited_micro: int, journal: list[JournalRecord], faults: list[str]
) -> None:
    """Hold one account against what was paid in and debited, and against its own journal."""
    name = account.account_id.decode()
    if account.sessions:
        faults.append(f"{name}: sessions {list(account.sessions)} are still open")
    faults += [
        f"{name}: bucket {each.bucket_id} still reserves {each.reserved}" for each in account.buckets if each.reserved
    ]
    lapsed_micro = _audit_journal(account, journal, faults)
    money_micro = sum(bucket.balance for bucket in account.buckets)
    expected = sums(paid_in.certain_micro, paid_in.doubtful_micro)
    if money_micro + debited_micro + lapsed_micro not in expected:
        faults.append(
            f"{name}: {money_micro} left, {debited_micro} debited, {lapsed_micro} lapsed: not what was paid in, "
            f"{paid_in.certain_micro} and perhaps {paid_in.doubtful_micro}"
        )


def _audit_journal(account: Account, journal: list[JournalRecord], faults: list[str]) -> int:
    """Every version once and in order, every balance the one before and its change; what lapsed, micro-units."""
    name = account.account_id.decode()
    if [record.version for record in journal] != list(range(1, account.version + 1)):
        faults.append(
            f"{name}: its journal has versions {[record.version for record in journal]}, not 1 to {account.version}"
        )
    balances: Counter[int] = Counter()
    lapsed_micro = 0
    for record in journal:
        for change in record.changes:
            if change.balance_before != balances[change.bucket_id]:
                faults.append(
                    f"{name}: version {record.version} begins from another balance of bucket {change.bucket_id}"
                )
            balances[change.bucket_id] = change.balance_after
            if change.balance_after < -account.credit_limit_micro or change.reserved_after < 0:
                faults.append(f"{name}: version {record.version} goes below what it may: {change}")
            if record.operation == "expire" and change.balance_delta < 0:
                lapsed_micro -= change.balance_delta
    faults += [
        f"{name}: bucket {bucket.bucket_id} is not what its journal says"
        for bucket in account.buckets
        if balances[bucket.bucket_id] != bucket.balance
    ]
    return lapsed_micro
