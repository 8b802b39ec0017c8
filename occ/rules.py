"""What every request is charged by: catalogue, settings, policies, and what clients are told beside units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from balance.model import Unit
from occ.budgets import Budgets
from occ.indications import Indications, indications_of
from occ.profiles import Profile
from occ.rating.catalogue import Catalogue
from occ.rating.final_units import DEFAULT_ASK_AGAIN_S, FinalUnits
from occ.rating.periods import Counter, Periods
from occ.rating.service import Service
from policies.policy import Policies
from policies.rules import Throttle
from protocols.diameter.codes import FinalUnitAction

_AMOUNT: Final = Unit.AMOUNT

NOTHING_COUNTED: Final[Mapping[str, tuple[Counter, ...]]] = {}


class OperatorPolicies(Protocol):
    """The rules file of an operator, read (``occ.policy.reading``)."""

    @property
    def policies(self) -> Policies: ...

    @property
    def final_units(self) -> Mapping[str, FinalUnits]:
        """What clients do at once, by the name that rules call it."""

    @property
    def meters(self) -> Mapping[str, tuple[Counter, ...]]:
        """By service: the meters that count all its use, because levels look at them."""


@dataclass(slots=True, frozen=True)
class ChargingSettings:
    answer_replay_ms: int = 300_000
    """How long the answers of an ended session are kept; RFC 6733 section 5.5.4 asks for four minutes at least."""
    late_termination_ms: int = 3_600_000
    """How long a termination may come after supervision ended its session and still be debited."""
    tcc_factor: int = 2
    """Supervision time as a multiple of the Validity-Time, RFC 8506 section 13."""
    refund_window_ms: int = 86_400_000
    """How long a direct debit can be refunded; it is kept for so long."""
    partial_record_ms: int = 3_600_000
    """After this a session that goes on has a partial charging data record; 0: never, nor when its price changes."""
    grace_ms: int = 0
    """How long a prepaid account that has expired can be topped up before it is terminated."""
    low_balance_micro: int = 0
    """Below this, clients are told that the balance is low; 0: never."""


class Rules:
    """One catalogue and one set of policies under one set of settings."""

    __slots__ = (
        "_indications",
        "_instead",
        "budgets",
        "catalogue",
        "meters",
        "needs_segment",
        "periods",
        "policies",
        "settings",
    )

    def __init__(
        self,
        catalogue: Catalogue,
        settings: ChargingSettings,
        policies: OperatorPolicies | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        """``budgets``: of the promotions; None: nothing of them is gone yet."""
        self.catalogue = catalogue
        self.settings = settings
        self.budgets = budgets or Budgets()
        self.policies = policies
        """None: services are granted by price and balance alone."""
        self.periods = Periods(catalogue.calendar)
        self.meters = NOTHING_COUNTED if policies is None else policies.meters
        """By service: meters of the account that count all its use, beside those of its price."""
        self.needs_segment = policies is not None and any(rule.segments for rule in policies.policies.rules)
        """Rules ask which customers a subscriber is among."""
        self._indications: dict[str, dict[str, tuple[Unit, Indications]]] = {}
        """By profile and service; one that its client rates is another one."""
        self._instead: dict[tuple[str, str, str, int, str], Indications] = {}

    def with_catalogue(self, catalogue: Catalogue) -> "Rules":
        """Another catalogue under the same settings and policies."""
        return Rules(catalogue, self.settings, self.policies, self.budgets)

    def with_policies(self, policies: OperatorPolicies | None) -> "Rules":
        """Other policies with the same catalogue and settings."""
        return Rules(self.catalogue, self.settings, policies, self.budgets)

    def indications(self, service: Service, profile: Profile) -> Indications:
        """What goes with the grants of a service to such clients; worked out once."""
        by_service = self._indications.get(profile.name)
        if by_service is None:
            by_service = self._indications[profile.name] = {}
        name = service.name if service.unit is not _AMOUNT else f"{service.name} in money"
        found = by_service.get(name)
        if found is None or found[0] is not service.unit:
            found = by_service[name] = (service.unit, indications_of(service, profile))
        return found[1]

    def restricted(self, service: Service, profile: Profile, final_units: str, throttle: str = "") -> Indications:
        """What goes with no units at all: such clients redirect or restrict a service at once, as ``final_units`` or
        ``throttle`` of the policies say.
        """
        key = (final_units, throttle, service.name, int(service.unit), profile.name)
        found = self._instead.get(key)
        if found is None:
            assert self.policies is not None
            if throttle:
                last = slowed(self.policies.policies.throttles[throttle])
            else:
                last = self.policies.final_units[final_units]
            found = self._instead[key] = indications_of(service, profile, last)
        return found


def slowed(throttle: Throttle) -> FinalUnits:
    """A throttle as final units: RFC 8506 has no other word for it on Gy than restricted access.

    Filter-Id names the rule base that gateways apply; QoS-Final-Unit-Indication tells the bandwidth as well (section
    5.6.3).
    """
    return FinalUnits(
        int(FinalUnitAction.RESTRICT_ACCESS),
        filter_ids=(throttle.filter_id,),
        bandwidth_bit_s=throttle.down_bit_s,
        with_qos=True,
        ask_again_s=DEFAULT_ASK_AGAIN_S,
    )
