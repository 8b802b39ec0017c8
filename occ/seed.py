"""Sample customers, accounts and subscribers, described in a YAML file and created where they are missing.

::

    currency: EUR
    accounts:                             # that several subscribers share, or customers have
      acme: {kind: postpaid, credit_limit: 500.00}
      north: {kind: postpaid}
    customers:                            # see balance.structure; each has an account, that of its name if none is said
      acme: {kind: company, name: Acme}
      north: {kind: branch, below: acme, pays: parent}
    groups:
      prepaid:                            # subscribers that are alike, each with an account of its own
        kind: prepaid
        count: 100
        first_msisdn: 491700000001
        first_imsi: 262010000000001
        balance: 10.00
        plan: standard
      staff:                              # or of one account
        account: north
        count: 20
        first_msisdn: 493010000001
        first_imsi: 262010000001001
        plan: standard
        segment: business                 # these four: of every subscriber of the group
        cap_day: 5.00
        cap_month: 50.00
        friends: [4930123456]
"""

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Final

from balance import directory, structure, subscribers
from balance.model import AccountKind, IdentityType, LedgerError, Subscriber
from balance.store import Store
from balance.structure import CustomerUnit, Pays, UnitKind
from occ.entitlements import bring_all_up_to_date
from occ.rating.catalogue import Catalogue
from occ.rating.currency import NUMERIC, currency_name
from occ.setting_values import read_amount
from occ.yamlmap import Node, load_yaml, nearest

log = logging.getLogger("occ.seed")

LARGEST_GROUP: Final = 10_000_000
AT_ONCE: Final = 1000
"""Subscribers under way at a time; bounds the memory a large population takes."""

_KINDS: Final[dict[str, AccountKind]] = {"prepaid": AccountKind.PREPAID, "postpaid": AccountKind.POSTPAID}
_UNITS: Final[dict[str, UnitKind]] = {kind.name.lower(): kind for kind in UnitKind}
_PAYERS: Final[dict[str, Pays]] = {"itself": Pays.ITSELF, "parent": Pays.PARENT}
_TERMS: Final = ("balance", "credit_limit")
_OF_EACH: Final = ("segment", "cap_day", "cap_month", "friends")
_MSISDN: Final = re.compile(r"[1-9][0-9]{2,14}", re.ASCII)
_IMSI: Final = re.compile(r"[0-9]{6,15}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Terms:
    """How an account is created."""

    kind: AccountKind
    balance_micro: int
    credit_limit_micro: int


@dataclass(frozen=True, slots=True)
class Group:
    """A range of subscribers that are alike; numbers are kept as text, an IMSI may start with zeros."""

    name: str
    terms: Terms | None
    """Of the account that each has; None: they share ``account``."""
    account: str
    count: int
    first_msisdn: str
    first_imsi: str
    pattern: Subscriber
    """What they have in common."""

    @property
    def kind(self) -> AccountKind | None:
        return None if self.terms is None else self.terms.kind

    def subscribers(self) -> Iterator[Subscriber]:
        for offset in range(self.count):
            msisdn = _plus(self.first_msisdn, offset).encode()
            imsi = _plus(self.first_imsi, offset).encode()
            identities = ((int(IdentityType.E164), msisdn), (int(IdentityType.IMSI), imsi))
            account_id = self.account.encode() or b"acc-" + msisdn
            yield replace(self.pattern, subscriber_id=msisdn, account_id=account_id, identities=identities)


@dataclass(frozen=True, slots=True)
class Population:
    currency: int
    """ISO 4217 numeric code of every account."""
    groups: tuple[Group, ...]
    accounts: dict[str, Terms] = field(default_factory=dict)
    """Those that subscribers share."""
    customers: tuple[CustomerUnit, ...] = ()
    """Each after the one it stands below."""

    def members(self) -> Iterator[tuple[Group, Subscriber]]:
        return ((group, subscriber) for group in self.groups for subscriber in group.subscribers())


@dataclass(slots=True)
class Seeded:
    """What seeding a store came to."""

    accounts_created: int = 0
    customers_created: int = 0
    subscribers_created: int = 0
    conflicts: list[str] = field(default_factory=list)
    """Subscribers that could not be created because an identity belongs to somebody else, one sentence each."""


def load_population(path: Path, catalogue: Catalogue | None = None) -> Population:
    """The population in a YAML file; with ``catalogue``, its plans and currency are checked to be there.

    Raises ConfigError.
    """
    root = load_yaml(path)
    values = root.mapping(("currency", "accounts", "customers", "groups"), required=("currency", "groups"))
    code = values["currency"].text()
    if code not in NUMERIC:
        raise values["currency"].error(f"currency must be a code of ISO 4217 such as EUR, not {code[:40]!r}")
    if catalogue is not None and catalogue.currency != NUMERIC[code]:
        raise values["currency"].error(
            f"currency is {code}, but the prices of the catalogue are in {currency_name(catalogue.currency)}"
        )
    accounts = {key.text(): _terms(value) for key, value in values["accounts"].table()} if "accounts" in values else {}
    customers: list[CustomerUnit] = []
    for key, value in values["customers"].table() if "customers" in values else ():
        customers.append(_customer(key, value, accounts, customers))
    groups: list[Group] = []
    for key, value in values["groups"].table():
        group = _group(key.text(), value, catalogue, accounts)
        for other in groups:
            for what, mine, theirs in (
                ("MSISDNs", group.first_msisdn, other.first_msisdn),
                ("IMSIs", group.first_imsi, other.first_imsi),
            ):
                if int(mine) < int(theirs) + other.count and int(theirs) < int(mine) + group.count:
                    raise key.error(f"the {what} of groups {group.name} and {other.name} overlap")
        groups.append(group)
    return Population(NUMERIC[code], tuple(groups), accounts, tuple(customers))


def _terms(node: Node) -> Terms:
    values = node.mapping(("kind", *_TERMS), required=("kind",))
    return _read_terms(values)


def _read_terms(values: Mapping[str, Node]) -> Terms:
    kind = _KINDS[values["kind"].choice(tuple(_KINDS))]
    return Terms(kind, _money(values.get("balance")), _money(values.get("credit_limit")))


def _customer(key: Node, node: Node, accounts: Mapping[str, Terms], above: Sequence[CustomerUnit]) -> CustomerUnit:
    values = node.mapping(("kind", "name", "below", "pays", "account"), required=("kind",))
    name = key.text()
    below = values["below"].text() if "below" in values else ""
    known = [unit.unit_id.decode() for unit in above]
    if below and below not in known:
        raise values["below"].error(f"no customer {below[:60]!r} stands above this{nearest(below, known)}")
    account = values.get("account", key)
    if account.text() not in accounts:
        raise account.error(f"there is no account {account.text()[:60]!r} under accounts")
    payer = values["pays"].choice(tuple(_PAYERS)) if "pays" in values else "parent" if below else "itself"
    unit = CustomerUnit(
        name.encode(),
        int(_UNITS[values["kind"].choice(tuple(_UNITS))]),
        values["name"].text() if "name" in values else "",
        below.encode(),
        int(_PAYERS[payer]),
        account.text().encode(),
    )
    try:
        structure.check_unit(unit)
    except LedgerError as error:
        raise node.error(f"{node.path}: {error}") from None
    return unit


def _group(name: str, node: Node, catalogue: Catalogue | None, accounts: Mapping[str, Terms]) -> Group:
    required = ("count", "first_msisdn", "first_imsi", "plan")
    values = node.mapping((*required, "kind", *_TERMS, "account", *_OF_EACH), required=required)
    account, terms = "", None
    if "account" in values:
        account = values["account"].text()
        if account not in accounts:
            raise values["account"].error(
                f"there is no account {account[:60]!r} under accounts{nearest(account, accounts)}"
            )
        for key in ("kind", *_TERMS):
            if key in values:
                raise values[key].error(f"{node.path}: {key} is said under accounts.{account}")
    elif "kind" not in values:
        raise node.error(f"{node.path}: 'kind' is missing, or the account that they share")
    else:
        terms = _read_terms(values)
    plan = values["plan"].text()
    if catalogue is not None and plan not in catalogue.plans:
        raise values["plan"].error(f"the catalogue has no plan {plan!r}{nearest(plan, catalogue.plans)}")
    count = values["count"].integer(1, LARGEST_GROUP)
    first_msisdn = _number(values["first_msisdn"], _MSISDN, count)
    friends = values["friends"].items() if "friends" in values else ()
    pattern = Subscriber(
        first_msisdn.encode(),
        account.encode() or b"acc-" + first_msisdn.encode(),
        plan,
        ((int(IdentityType.E164), first_msisdn.encode()),),
        cap_day_micro=_money(values.get("cap_day")),
        cap_month_micro=_money(values.get("cap_month")),
        segment=values["segment"].text() if "segment" in values else "",
        friends=tuple(number.text().removeprefix("+").encode() for number in friends),
    )
    try:
        subscribers.check_subscriber(pattern)
    except LedgerError as error:
        raise node.error(f"{node.path}: {error}") from None
    return Group(name, terms, account, count, first_msisdn, _number(values["first_imsi"], _IMSI, count), pattern)


def _number(node: Node, pattern: "re.Pattern[str]", count: int) -> str:
    written = node.text()
    if not pattern.fullmatch(written) or len(_plus(written, count - 1)) > len(written):
        raise node.error(f"{node.path} must be digits that {count} subscribers can be counted from, not {written!r}")
    return written


def _plus(number: str, offset: int) -> str:
    return str(int(number) + offset).zfill(len(number))


def _money(node: Node | None) -> int:
    return 0 if node is None else read_amount(node)


async def seed(store: Store, source: Path, now_ms: int, catalogue: Catalogue | None = None) -> Seeded:
    """Create the accounts and subscribers of a population file that are missing; leave all others as they are.

    A second call changes nothing, whatever was charged between. Raises ConfigError, StoreError.
    """
    population = load_population(source, catalogue)
    seeded = Seeded()
    shared = [(name.encode(), terms, "") for name, terms in population.accounts.items()]
    await _accounts(store, population, shared, now_ms, seeded)
    for unit in population.customers:
        await _customers(store, unit, now_ms, seeded)
    payers = {each.account: await structure.payer_of(store, each.account.encode()) for each in population.groups}
    remaining = population.members()
    while members := tuple(islice(remaining, AT_ONCE)):
        own = [(each.account_id, group.terms, group.name) for group, each in members if group.terms is not None]
        await _accounts(store, population, own, now_ms, seeded)
        paid = [each if group.terms else _paid_by(each, payers[group.account]) for group, each in members]
        added = await _subscribers(store, paid, seeded)
        if catalogue is not None:
            await bring_all_up_to_date(store, catalogue, added, now_ms, "sample population")
    for conflict in seeded.conflicts:
        log.warning("a sample customer or subscriber was left out: %s", conflict)
    if seeded.accounts_created or seeded.subscribers_created or seeded.customers_created:
        log.info(
            "created %d accounts and %d subscribers of %s",
            seeded.accounts_created,
            seeded.subscribers_created,
            source.name,
        )
    return seeded


def _paid_by(subscriber: Subscriber, payer: bytes) -> Subscriber:
    own = subscriber.account_id
    return subscriber if payer == own else replace(subscriber, account_id=payer, member_of=own)


async def _customers(store: Store, unit: CustomerUnit, now_ms: int, seeded: Seeded) -> None:
    if await structure.unit_named(store, unit.unit_id) is not None:
        return
    try:
        done = await structure.create_unit(store, unit, now_ms, "sample population")
    except LedgerError as error:
        seeded.conflicts.append(str(error))
    else:
        seeded.customers_created += done.created


async def _accounts(
    store: Store,
    population: Population,
    wanted: Sequence[tuple[bytes, Terms, str]],
    now_ms: int,
    seeded: Seeded,
) -> None:
    """Create those of the accounts that are missing; each with its terms and its group."""
    values = await directory.read_values(store, [account_id for account_id, _, _ in wanted])
    missing = [each for each, value in zip(wanted, values, strict=True) if value is None]
    results = await asyncio.gather(
        *(
            directory.create_account(
                store,
                account_id,
                terms.kind,
                population.currency,
                now_ms=now_ms,
                reason=f"sample population, {group}" if group else "sample population",
                balance_micro=terms.balance_micro,
                credit_limit_micro=terms.credit_limit_micro,
            )
            for account_id, terms, group in missing
        ),
        return_exceptions=True,
    )
    for result in results:
        if not isinstance(result, BaseException):
            seeded.accounts_created += 1
        elif not isinstance(result, LedgerError):  # that one another worker was faster with
            raise result


async def _subscribers(store: Store, members: Sequence[Subscriber], seeded: Seeded) -> list[Subscriber]:
    """Enter those that are missing; those that were entered."""
    keys = [store.keys.identity(*identity) for subscriber in members for identity in subscriber.identities]
    known = {key for key, value in zip(keys, await store.call("MGET", *keys), strict=True) if value is not None}
    missing = [
        subscriber
        for subscriber in members
        if not all(store.keys.identity(*identity) in known for identity in subscriber.identities)
    ]
    results = await asyncio.gather(
        *(subscribers.add_subscriber(store, subscriber) for subscriber in missing), return_exceptions=True
    )
    added: list[Subscriber] = []
    for subscriber, result in zip(missing, results, strict=True):
        if isinstance(result, LedgerError):
            seeded.conflicts.append(str(result))
        elif isinstance(result, BaseException):
            raise result
        elif result:
            seeded.subscribers_created += 1
            added.append(subscriber)
    return added
