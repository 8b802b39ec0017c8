"""Sample subscribers, described by ranges in a YAML file and created where they are missing."""

import asyncio
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from balance import directory, subscribers
from balance.keys import Keys
from balance.model import AccountKind, IdentityType, LedgerError, Subscriber
from balance.store import Store
from occ.rating.catalogue import Catalogue
from occ.rating.currency import NUMERIC, currency_name, parse_amount
from occ.yamlmap import Node, load_yaml, nearest

log = logging.getLogger("occ.seed")

LARGEST_GROUP: Final = 10_000_000
AT_ONCE: Final = 1000
"""Subscribers under way at a time; bounds the memory a large population takes."""

_KINDS: Final[dict[str, AccountKind]] = {"prepaid": AccountKind.PREPAID, "postpaid": AccountKind.POSTPAID}
_MSISDN: Final = re.compile(r"[1-9][0-9]{2,14}", re.ASCII)
_IMSI: Final = re.compile(r"[0-9]{6,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Group:
    """A range of subscribers that are alike; numbers are kept as text, an IMSI may start with zeros."""

    name: str
    kind: AccountKind
    count: int
    first_msisdn: str
    first_imsi: str
    balance_micro: int
    credit_limit_micro: int
    plan: str

    def subscribers(self) -> Iterator[Subscriber]:
        for offset in range(self.count):
            msisdn = _plus(self.first_msisdn, offset).encode()
            imsi = _plus(self.first_imsi, offset).encode()
            identities = ((int(IdentityType.E164), msisdn), (int(IdentityType.IMSI), imsi))
            yield Subscriber(msisdn, b"acc-" + msisdn, self.plan, identities)


@dataclass(frozen=True, slots=True)
class Population:
    currency: int
    """ISO 4217 numeric code of every account."""
    groups: tuple[Group, ...]

    def members(self) -> Iterator[tuple[Group, Subscriber]]:
        return ((group, subscriber) for group in self.groups for subscriber in group.subscribers())


@dataclass(slots=True)
class Seeded:
    """What seeding a store came to."""

    accounts_created: int = 0
    subscribers_created: int = 0
    conflicts: list[str] = field(default_factory=list)
    """Subscribers that could not be created because an identity belongs to somebody else, one sentence each."""


def load_population(path: Path, catalogue: Catalogue | None = None) -> Population:
    """The population in a YAML file; with ``catalogue``, its plans and currency are checked to be there.

    Raises ConfigError.
    """
    root = load_yaml(path)
    values = root.mapping(("currency", "groups"), required=("currency", "groups"))
    code = values["currency"].text()
    if code not in NUMERIC:
        raise values["currency"].error(f"currency must be a code of ISO 4217 such as EUR, not {code[:40]!r}")
    if catalogue is not None and catalogue.currency != NUMERIC[code]:
        raise values["currency"].error(
            f"currency is {code}, but the prices of the catalogue are in {currency_name(catalogue.currency)}"
        )
    groups: list[Group] = []
    for key, value in values["groups"].table():
        group = _group(key.text(), value, catalogue)
        for other in groups:
            for what, mine, theirs in (
                ("MSISDNs", group.first_msisdn, other.first_msisdn),
                ("IMSIs", group.first_imsi, other.first_imsi),
            ):
                if int(mine) < int(theirs) + other.count and int(theirs) < int(mine) + group.count:
                    raise key.error(f"the {what} of groups {group.name} and {other.name} overlap")
        groups.append(group)
    return Population(NUMERIC[code], tuple(groups))


def _group(name: str, node: Node, catalogue: Catalogue | None) -> Group:
    required = ("kind", "count", "first_msisdn", "first_imsi", "plan")
    values = node.mapping((*required, "balance", "credit_limit"), required=required)
    count = values["count"].integer(1, LARGEST_GROUP)
    kind = _KINDS[values["kind"].choice(tuple(_KINDS))]
    plan = values["plan"].text()
    if catalogue is not None and plan not in catalogue.plans:
        raise values["plan"].error(f"the catalogue has no plan {plan!r}{nearest(plan, catalogue.plans)}")
    if kind == AccountKind.PREPAID and "credit_limit" in values:
        raise values["credit_limit"].error(f"{node.path} is prepaid, and prepaid accounts have no credit limit")
    return Group(
        name=name,
        kind=kind,
        count=count,
        first_msisdn=_number(values["first_msisdn"], _MSISDN, count),
        first_imsi=_number(values["first_imsi"], _IMSI, count),
        balance_micro=_money(values["balance"]) if "balance" in values else 0,
        credit_limit_micro=_money(values["credit_limit"]) if "credit_limit" in values else 0,
        plan=plan,
    )


def _number(node: Node, pattern: "re.Pattern[str]", count: int) -> str:
    written = node.text()
    if not pattern.fullmatch(written) or len(_plus(written, count - 1)) > len(written):
        raise node.error(f"{node.path} must be digits that {count} subscribers can be counted from, not {written!r}")
    return written


def _plus(number: str, offset: int) -> str:
    return str(int(number) + offset).zfill(len(number))


def _money(node: Node) -> int:
    try:
        amount = parse_amount(node.text())
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    if amount < 0:
        raise node.error(f"{node.path} must not be negative")
    return amount


async def seed(store: Store, source: Path, now_ms: int, catalogue: Catalogue | None = None) -> Seeded:
    """Create the accounts and subscribers of a population file that are missing; leave all others as they are.

    A second call changes nothing, whatever was charged between. Raises ConfigError, StoreError.
    """
    population = load_population(source, catalogue)
    seeded = Seeded()
    remaining = population.members()
    while members := tuple(islice(remaining, AT_ONCE)):
        await _accounts(store, population, members, now_ms, seeded)
        await _subscribers(store, members, seeded)
    for conflict in seeded.conflicts:
        log.warning("a sample subscriber was left out: %s", conflict)
    if seeded.accounts_created or seeded.subscribers_created:
        log.info(
            "created %d accounts and %d subscribers of %s",
            seeded.accounts_created,
            seeded.subscribers_created,
            source.name,
        )
    return seeded


async def _accounts(
    store: Store, population: Population, members: tuple[tuple[Group, Subscriber], ...], now_ms: int, seeded: Seeded
) -> None:
    values = await directory.read_values(store, [subscriber.account_id for _, subscriber in members])
    missing = [member for member, value in zip(members, values, strict=True) if value is None]
    results = await asyncio.gather(
        *(
            directory.create_account(
                store,
                subscriber.account_id,
                group.kind,
                population.currency,
                now_ms=now_ms,
                reason=f"sample population, {group.name}",
                balance_micro=group.balance_micro,
                credit_limit_micro=group.credit_limit_micro,
            )
            for group, subscriber in missing
        ),
        return_exceptions=True,
    )
    for result in results:
        if not isinstance(result, BaseException):
            seeded.accounts_created += 1
        elif not isinstance(result, LedgerError):  # that one another worker was faster with
            raise result


async def _subscribers(store: Store, members: tuple[tuple[Group, Subscriber], ...], seeded: Seeded) -> None:
    keys = [Keys.identity(*identity) for _, subscriber in members for identity in subscriber.identities]
    known = {key for key, value in zip(keys, await store.call("MGET", *keys), strict=True) if value is not None}
    missing = [
        subscriber
        for _, subscriber in members
        if not all(Keys.identity(*identity) in known for identity in subscriber.identities)
    ]
    results = await asyncio.gather(
        *(subscribers.add_subscriber(store, subscriber) for subscriber in missing), return_exceptions=True
    )
    for result in results:
        if isinstance(result, LedgerError):
            seeded.conflicts.append(str(result))
        elif isinstance(result, BaseException):
            raise result
        elif result:
            seeded.subscribers_created += 1
