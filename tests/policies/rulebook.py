"""Rules files for tests, and accounts to look at by them."""

from datetime import date
from pathlib import Path

from balance.accounts import Account
from balance.model import AccountKind, Bucket, Meter, Unit
from occ.policy.reading import OperatorPolicies, parse_policies
from occ.rating.catalogue import Catalogue, load_catalogue, read_catalogue
from occ.yamlmap import parse_yaml
from policies.rules import Case

CONFIG = Path(__file__).resolve().parents[2] / "config"

CATALOGUE = """
version: t
currency: EUR
time_zone: Europe/Berlin
holidays: [2026-12-25]
numbering: {country_code: 49}
destinations: {local: ["4930"], far: ["49"], world: any}
networks: {home: ["26201"], abroad: any}
services:
  internet: {context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 1 MiB, validity: 30 min}
  portal: {context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 1 MiB, validity: 30 min}
  sos: {context: 32260@3gpp.org, destinations: emergency, essential: yes, unit: seconds, quota: 60 s, validity: 5 min}
  calls-abroad: {context: 32260@3gpp.org, destinations: world, unit: seconds, quota: 60 s, validity: 5 min}
  calls: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min}
  sms: {context: 32274@3gpp.org, unit: events, quota: 1 event, validity: 5 min}
plans:
  standard:
    internet: 0.01 per 1 MiB
    portal: free
    sos: free
    calls: 0.09 per 60 s
    calls-abroad: 1.00 per 60 s
    sms: 0.05 per 1 event
  night: {internet: 0.01 per 1 MiB, calls: 0.09 per 60 s}
allowances:
  data: {amount: 5 GiB, serves: [internet]}
bonuses:
  talk: {serves: [calls], valid: 14 d, amount: 2.00}
"""

NOON = 1_767_610_800_000
"""2026-01-05 12:00 in Berlin, a Monday."""


def catalogue() -> Catalogue:
    return read_catalogue(parse_yaml(CATALOGUE, "catalogue.yaml", Path()))


def sample() -> Catalogue:
    return load_catalogue(CONFIG / "catalogue.yaml")


def rules(text: str) -> OperatorPolicies:
    """Rules that are read with ``CATALOGUE``."""
    return parse_policies(text, "policies.yaml", catalogue())


def account(
    balance_micro: int,
    *,
    kind: AccountKind = AccountKind.PREPAID,
    limit_micro: int = 0,
    levels: tuple[str, ...] = (),
    buckets: tuple[Bucket, ...] = (),
    meters: tuple[Meter, ...] = (),
    state: int = 0,
) -> Account:
    return Account(
        b"acc-1",
        1,
        int(kind),
        978,
        limit_micro,
        0,
        [Bucket(1, int(Unit.MONEY), balance_micro), *buckets],
        {},
        state=state,
        meters=list(meters),
        levels=levels,
    )


def case(service: str, zone: str = "", *, kind: int = 0, plan: str = "standard", segment: str = "") -> Case:
    return Case(kind, plan, segment, service, zone)


def berlin(day: str, hours: int, minutes: int = 0) -> int:
    """A moment by Berlin's clock, ms."""
    return catalogue().calendar.moment(date.fromisoformat(day), hours * 60 + minutes)
