"""Sessions charged by a rules file on one account in memory: steps, plans, watching and records are the server's."""

from pathlib import Path
from typing import Any

from balance.accounts import Account, Session
from balance.embedded import Address
from balance.lane import ABSENT
from balance.ledger import Draft, add_bucket, top_up
from balance.model import AccountKind, Bucket, LifeState, Subscriber, Unit
from balance.plans import Grant, Lookup, Outcome, Plan, Step
from balance.records import (
    make_plan,
    pack_account,
    pack_session,
    unpack_account,
    unpack_journal,
    unpack_outbox,
    unpack_session,
)
from balance.store import Store, StoreSettings
from occ.cdr import as_json_fields
from occ.charging import Charge, Charging
from occ.policy.reading import parse_policies
from occ.policy.watching import Watching
from occ.profiles import LENIENT, Profile
from occ.rating.catalogue import Catalogue, read_catalogue
from occ.rules import ChargingSettings, Rules
from occ.yamlmap import parse_yaml
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

DATA, VOICE, SMS = b"32251@3gpp.org", b"32260@3gpp.org", b"32274@3gpp.org"
INITIAL, UPDATE, TERMINATION, EVENT = 1, 2, 3, 4
CENT = 10_000

CATALOGUE = """
version: test
currency: EUR
time_zone: {time_zone}
numbering: {{country_code: 49, emergency: ["112"]}}
destinations: {{local: ["4930"], long-distance: ["49"], world: any}}
services:
  internet: {{context: 32251@3gpp.org, rating_groups: [10], unit: octets, quota: 1 kB, maximum_quota: 1 MB,
             validity: 30 min}}
  video: {{context: 32251@3gpp.org, rating_groups: [11], unit: octets, quota: 1 kB, maximum_quota: 1 MB,
          validity: 30 min}}
  portal: {{context: 32251@3gpp.org, rating_groups: [20], unit: octets, quota: 1 kB, validity: 30 min}}
  voice: {{context: 32260@3gpp.org, rating_groups: any, unit: seconds, quota: 60 s, maximum_quota: 10 min,
          validity: 30 min}}
  sms: {{context: 32274@3gpp.org, rating_groups: any, unit: events, quota: 1 event, maximum_quota: 10 events,
        validity: 5 min}}
allowances:
  bundle: {{amount: 5 kB, serves: [internet]}}
plans:
  standard:
    internet: {internet}
    video: 0.02 per 1 kB
    portal: 0.05 per 1 kB
    voice: 0.01 per 1 s
    sms: 0.05 per 1 event
  other:
    internet: 0.01 per 1 kB
"""


def catalogue(time_zone: str = "UTC", internet: str = "0.01 per 1 kB") -> Catalogue:
    text = CATALOGUE.format(time_zone=time_zone, internet=internet)
    return read_catalogue(parse_yaml(text, "catalogue.yaml", Path()))


class Policed:
    """One account under the rules of a text, and a clock set by hand. Amounts of money in cents."""

    def __init__(
        self,
        rules: str,
        cents: int = 100,
        limit: int = 0,
        *,
        now_ms: int,
        sold: Catalogue | None = None,
        kind: AccountKind = AccountKind.PREPAID,
        bundle: int = 0,
    ) -> None:
        self.now = now_ms
        sold = sold or catalogue()
        policies = parse_policies(rules, "policies.yaml", sold)
        self.watching = Watching(policies.policies)
        self.charging = Charging(Store(StoreSettings(Address())), Rules(sold, ChargingSettings(), policies))
        account = Account(b"acc-1", 0, kind, 978, limit * CENT, 0, [], {})
        draft = Draft(account, now_ms)
        draft.add(Bucket(1, int(Unit.MONEY), cents * CENT))
        if bundle:
            add_bucket(draft, Unit.OCTETS, bundle, 1, name="bundle")
        self._ended: dict[bytes, bytes] = {}
        self.records: list[dict[str, Any]] = []
        self.plans: list[Plan] = []
        self._keep(make_plan(draft, "create", ("test",), None))

    @property
    def account(self) -> Account:
        return unpack_account(b"acc-1", self._value)

    @property
    def cents(self) -> float:
        return self.account.buckets[0].balance / CENT

    @property
    def levels(self) -> tuple[str, ...]:
        return self.account.levels

    def reason(self) -> tuple[Any, ...]:
        """Of the newest journal record."""
        return unpack_journal(self.plans[-1].journal).reason

    def top_up(self, cents: int) -> None:
        account = self.account
        draft = Draft(account, self.now)
        top_up(draft, cents * CENT)
        self._keep(make_plan(draft, "top-up", ("test",), None))

    def account_state(self, state: LifeState) -> None:
        account = self.account
        draft = Draft(account, self.now)
        draft.account.state = int(state)
        self._keep(make_plan(draft, "account-state", ("test",), None))

    def send(
        self,
        kind: int,
        number: int,
        *services: ServiceRequest,
        session: bytes = b"s",
        context: bytes = DATA,
        profile: Profile = LENIENT,
        user: Subscriber | None = None,
        **told: Any,
    ) -> Outcome:
        request = CreditControlRequest(
            0xC0, 1, 2, session, b"pgw.example.net", b"example.net", b"example.net", context, kind, number,
            subscriptions=((0, b"491"),), services=services, **told,
        )  # fmt: skip
        charge = Charge(self.charging, request, profile, b"pgw.example.net", self.now, print)
        charge.subscriber = user or Subscriber(b"sub-1", b"acc-1", "standard", ((0, b"491"),))
        plan = self._write(charge.step)
        assert plan.outcome is not None
        return plan.outcome

    def ask(self, kind: int, number: int, group: int, wants: int = 0, used: int = 0, **told: Any) -> Grant:
        """One service, in octets; the grant it gets."""
        requested = Units(total_octets=wants) if wants else None
        reported = (Units(total_octets=used),) if used else ()
        outcome = self.send(kind, number, ServiceRequest(group, (), requested, reported), **told)
        assert len(outcome.grants) == 1
        return outcome.grants[0]

    def call(self, kind: int, number: int, called: str, wants: int = 0, used: int = 0, **told: Any) -> Grant:
        """The same of a call, in seconds."""
        requested = Units(time=wants) if wants else None
        reported = (Units(time=used),) if used else ()
        service = ServiceRequest(900, (), requested, reported)
        told.setdefault("session", b"call")
        return self.send(kind, number, service, context=VOICE, called_party=called.encode(), **told).grants[0]

    def _write(self, step: Step) -> Plan:
        account = self.account
        plan = step(account, None)
        if isinstance(plan, Lookup):
            kept = self._ended.get(plan.session_id)
            plan = step(account, unpack_session(kept) if kept else ABSENT)
        assert isinstance(plan, Plan)
        if plan.account is not None:
            self._keep(plan)
        for ended in (plan.ended, plan.amended):
            if ended is not None:
                self._ended[ended.session_id] = pack_session(ended)
        return plan

    def _keep(self, plan: Plan) -> None:
        self.watching(plan)
        assert plan.account is not None
        self._value = pack_account(plan.account)
        self.plans.append(plan)
        if plan.outbox:
            self.records += map(as_json_fields, unpack_outbox(plan.outbox))

    def session(self, name: bytes = b"s") -> Session:
        return self.account.sessions[name]
