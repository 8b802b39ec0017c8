"""What every request is charged by: the catalogue, the settings, and what clients are told beside units."""

from dataclasses import dataclass

from occ.budgets import Budgets
from occ.indications import Indications, indications_of
from occ.profiles import Profile
from occ.rating.catalogue import Catalogue
from occ.rating.service import Service


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
    """One catalogue under one set of settings."""

    __slots__ = ("_indications", "budgets", "catalogue", "settings")

    def __init__(self, catalogue: Catalogue, settings: ChargingSettings, budgets: Budgets | None = None) -> None:
        """``budgets``: of the promotions; None: nothing of them is gone yet."""
        self.catalogue = catalogue
        self.settings = settings
        self.budgets = budgets or Budgets()
        self._indications: dict[tuple[str, int, str], Indications] = {}

    def with_catalogue(self, catalogue: Catalogue) -> "Rules":
        """Another catalogue under the same settings."""
        return Rules(catalogue, self.settings, self.budgets)

    def indications(self, service: Service, profile: Profile) -> Indications:
        """What goes with the grants of a service to such clients; worked out once."""
        key = (service.name, service.unit, profile.name)
        found = self._indications.get(key)
        if found is None:
            found = self._indications[key] = indications_of(service, profile)
        return found
