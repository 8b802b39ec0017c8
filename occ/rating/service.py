"""Services: what is charged for, which requests mean it, and how its grants are to be used."""

import re
from dataclasses import dataclass
from typing import Final, TypeVar

from balance.model import Unit
from occ.rating.away import AwayLimits, read_away
from occ.rating.criteria import ROLES, ApnPatterns, Criteria, read_apns, read_sip_methods, read_zones
from occ.rating.final_units import TERMINATE, FinalUnits, read_final_units
from occ.rating.sizes import UNSIGNED32_MAXIMUM, read_seconds, read_size, single_value
from occ.yamlmap import Node, nearest
from protocols.diameter.codes import (
    CCSessionFailover,
    CreditControlFailureHandling,
    DirectDebitingFailureHandling,
)

NOT_NAMED: Final = -1
"""Stands for a Rating-Group or Service-Identifier that a request does not name."""

UNITS: Final[dict[str, Unit]] = {"octets": Unit.OCTETS, "seconds": Unit.SECONDS, "events": Unit.EVENTS}

TRIGGER_TYPES: Final[dict[str, int]] = {
    "change-in-sgsn-ip-address": 1,
    "change-in-qos": 2,
    "change-in-location": 3,
    "change-in-rat": 4,
    "change-in-ue-timezone": 5,
    "change-in-qos-traffic-class": 10,
    "change-in-qos-reliability-class": 11,
    "change-in-qos-delay-class": 12,
    "change-in-qos-peak-throughput": 13,
    "change-in-qos-precedence-class": 14,
    "change-in-qos-mean-throughput": 15,
    "change-in-qos-maximum-bit-rate-for-uplink": 16,
    "change-in-qos-maximum-bit-rate-for-downlink": 17,
    "change-in-qos-residual-ber": 18,
    "change-in-qos-sdu-error-ratio": 19,
    "change-in-qos-transfer-delay": 20,
    "change-in-qos-traffic-handling-priority": 21,
    "change-in-qos-guaranteed-bit-rate-for-uplink": 22,
    "change-in-qos-guaranteed-bit-rate-for-downlink": 23,
    "change-in-qos-apn-aggregate-maximum-bit-rate": 24,
    "change-in-location-mcc": 30,
    "change-in-location-mnc": 31,
    "change-in-location-rac": 32,
    "change-in-location-lac": 33,
    "change-in-location-cellid": 34,
    "change-in-location-tac": 35,
    "change-in-location-ecgi": 36,
    "change-in-media-composition": 40,
    "change-in-participants-nmb": 50,
    "change-in-thrshld-of-participants-nmb": 51,
    "change-in-user-participating-type": 52,
    "change-in-service-condition": 60,
    "change-in-serving-node": 61,
    "change-in-access-for-a-service-data-flow": 62,
    "change-in-user-csg-information": 70,
    "change-in-hybrid-subscribed-user-csg-information": 71,
    "change-in-hybrid-unsubscribed-user-csg-information": 72,
    "change-of-ue-presence-in-presence-reporting-area": 73,
    "change-in-serving-plmn-rate-control": 74,
    "change-in-apn-rate-control": 75,
    "change-in-3gpp-ps-data-off": 76,
}
"""Trigger-Type values of TS 32.299 clause 7.2.236 by name: the standard's, in small letters with hyphens."""

_COVERED: Final[dict[int, range]] = {2: range(10, 24), 3: range(30, 37), 50: range(51, 52)}
"""Triggers that should not be armed together: the first means every change that the others tell apart."""

CLIENT_FAILURE: Final = {
    "terminate": int(CreditControlFailureHandling.TERMINATE),
    "continue": int(CreditControlFailureHandling.CONTINUE),
    "retry-and-terminate": int(CreditControlFailureHandling.RETRY_AND_TERMINATE),
}
DEBIT_FAILURE: Final = {
    "terminate-or-buffer": int(DirectDebitingFailureHandling.TERMINATE_OR_BUFFER),
    "continue": int(DirectDebitingFailureHandling.CONTINUE),
}

T = TypeVar("T")

_CONTEXT: Final = re.compile(r"[\x21-\x7e]{1,255}")

REQUIRED: Final = ("context", "unit", "quota", "validity")
OPTIONAL: Final = (
    "rating_groups",
    "service_identifiers",
    "apn",
    "destinations",
    "networks",
    "sip_methods",
    "role",
    "essential",
    "maximum_quota",
    "report_early",
    "holding_time",
    "consumption_time",
    "pool",
    "reauthorise_on",
    "client_failure",
    "debit_failure",
    "failover",
    "usage_beyond_grant",
    "tariff_switch",
    "when_used_up",
    "when_store_is_away",
)


@dataclass(frozen=True, slots=True)
class Service:
    """Something that is charged for, the requests that mean it, and what goes with its grants."""

    name: str
    context: bytes
    """Suffix of the Service-Context-Id (RFC 8506 section 8.42): a request's context matches when it is
    this, or ends with "." and this, as ``ext.<mnc>.<mcc>.<release>.32260@3gpp.org`` does (TS 32.299 clause
    7.1.12)."""
    rating_groups: frozenset[int] | None
    """None: any. ``NOT_NAMED`` stands for a request that names none."""
    unit: Unit
    quota_units: int
    """Granted when the client leaves the amount to the server."""
    maximum_quota_units: int
    """Largest single grant."""
    validity_time_s: int
    """Validity-Time of a grant (RFC 8506 section 8.33)."""
    service_identifiers: frozenset[int] | None = None
    """As ``rating_groups``, for the Service-Identifier."""
    threshold_units: int = 0
    """Time-, Volume- or Unit-Quota-Threshold (TS 32.299 clauses 7.2): the client reports when this much of a grant is
    left. 0: only when it is used up. Less than ``quota_units``, but a grant may be smaller still."""
    holding_time_s: int | None = None
    """Quota-Holding-Time (TS 32.299 clause 7.2): seconds without traffic after which the client gives the grant back.
    0: it never does; None: not told, the client does as it is configured."""
    consumption_time_s: int | None = None
    """Quota-Consumption-Time (TS 32.299 clause 7.2): seconds without traffic after which a grant of time stops
    running. None: time runs continuously. Set for services in seconds only."""
    pool: int = 0
    """G-S-U-Pool-Identifier (RFC 8506 section 8.31), from 1; services of one number share a pool within a session.
    0: none."""
    triggers: tuple[int, ...] = ()
    """Trigger-Types (TS 32.299 clause 7.2.236) that make the client report and ask anew; rising. Empty: not told."""
    failure_handling: int | None = None
    """Credit-Control-Failure-Handling (RFC 8506 section 8.14); None: not told."""
    debit_failure_handling: int | None = None
    """Direct-Debiting-Failure-Handling (RFC 8506 section 8.15); None: not told."""
    session_failover: int | None = None
    """CC-Session-Failover (RFC 8506 section 8.4); None: not told."""
    charges_overshoot: bool = True
    """Usage beyond the grant is charged as far as the balance goes; False: it is waived."""
    two_quotas: bool = False
    """A grant that crosses a tariff switch is two quotas, one for each side (RFC 8506 section 5.1.2), rather than one
    quota at the price of the worst case (section 5.1.1)."""
    final_units: FinalUnits = TERMINATE
    """What the client does when the credit is used up."""
    apns: ApnPatterns | None = None
    """None, here and below: any, and also where the request does not say."""
    destinations: frozenset[str] | None = None
    """Zones of the called number."""
    networks: frozenset[str] | None = None
    """Zones of the serving network."""
    sip_methods: frozenset[bytes] | None = None
    role: int | None = None
    """Role-Of-Node, TS 32.299 clause 7.2.177."""
    essential: bool = False
    """Granted whatever state the subscriber is in, such as emergency calls."""
    away: AwayLimits | None = None
    """How far it is granted while the store cannot be reached; None: not at all."""

    def matches(self, facts: Criteria) -> bool:
        """Whether a request belongs to this service, unless it belongs to one that comes first."""
        return (
            context_matches(facts.context, self.context)
            and (self.rating_groups is None or facts.rating_group in self.rating_groups)
            and (self.service_identifiers is None or facts.service_identifier in self.service_identifiers)
            and (self.apns is None or facts.apn in self.apns)
            and (self.destinations is None or facts.destination in self.destinations)
            and (self.networks is None or facts.network in self.networks)
            and (self.sip_methods is None or facts.sip_method in self.sip_methods)
            and (self.role is None or facts.role == self.role)
        )

    def is_for(self, destination: str) -> bool:
        """Whether it names this zone of called numbers."""
        return self.destinations is not None and destination in self.destinations

    def covers(self, other: "Service") -> bool:
        """Whether every request that ``other`` matches is matched by this service as well.

        False also where that cannot be seen, as with APNs that two patterns describe differently.
        """
        return (
            context_matches(other.context, self.context)
            and _covers(self.rating_groups, other.rating_groups)
            and _covers(self.service_identifiers, other.service_identifiers)
            and (self.apns is None or (other.apns is not None and self.apns.covers(other.apns)))
            and _covers(self.destinations, other.destinations)
            and _covers(self.networks, other.networks)
            and _covers(self.sip_methods, other.sip_methods)
            and (self.role is None or self.role == other.role)
        )


def context_matches(context: bytes, suffix: bytes) -> bool:
    """Whether a Service-Context-Id is ``suffix``, or ends with "." and ``suffix``."""
    return context == suffix or (context.endswith(suffix) and context[-len(suffix) - 1] == 0x2E)


def _covers(mine: frozenset[T] | None, theirs: frozenset[T] | None) -> bool:
    return mine is None or (theirs is not None and theirs <= mine)


def read_service(name: str, node: Node) -> Service:
    """A service from its mapping in the catalogue. Raises ConfigError."""
    values = node.mapping(REQUIRED + OPTIONAL, required=REQUIRED)
    unit = UNITS[values["unit"].choice(tuple(UNITS))]
    quota, maximum = _quotas(values, unit)
    consumption_time_s = _consumption_time(values.get("consumption_time"), unit)
    return Service(
        name=name,
        context=_context(values["context"]),
        rating_groups=_numbers(values.get("rating_groups")),
        unit=unit,
        quota_units=quota,
        maximum_quota_units=maximum,
        validity_time_s=read_seconds(values["validity"]),
        service_identifiers=_numbers(values.get("service_identifiers")),
        threshold_units=_threshold(values.get("report_early"), unit, quota),
        holding_time_s=_holding_time(values.get("holding_time")),
        consumption_time_s=consumption_time_s,
        pool=values["pool"].integer(1, UNSIGNED32_MAXIMUM) if "pool" in values else 0,
        triggers=_triggers(values.get("reauthorise_on")),
        failure_handling=_choice(values.get("client_failure"), CLIENT_FAILURE),
        debit_failure_handling=_choice(values.get("debit_failure"), DEBIT_FAILURE),
        session_failover=_failover(values.get("failover")),
        charges_overshoot=_choice(values.get("usage_beyond_grant"), {"charge": 1, "waive": 0}) != 0,
        two_quotas=_two_quotas(values.get("tariff_switch"), unit, consumption_time_s),
        final_units=read_final_units(values["when_used_up"]) if "when_used_up" in values else TERMINATE,
        apns=read_apns(values.get("apn")),
        destinations=read_zones(values.get("destinations")),
        networks=read_zones(values.get("networks")),
        sip_methods=read_sip_methods(values.get("sip_methods")),
        role=_choice(values.get("role"), ROLES),
        essential="essential" in values and values["essential"].boolean(),
        away=read_away(values["when_store_is_away"], unit, maximum) if "when_store_is_away" in values else None,
    )


def _context(node: Node) -> bytes:
    context = node.text()
    if not _CONTEXT.fullmatch(context):
        raise node.error(
            f"{node.path} must be a Service-Context-Id such as 32251@3gpp.org, without spaces, not {context[:80]!r}"
        )
    return context.encode("ascii")


def _quotas(values: dict[str, Node], unit: Unit) -> tuple[int, int]:
    """Units of a grant when the client leaves it to the server, and of the largest grant."""
    larger = values.get("maximum_quota", values["quota"])
    quota = read_size(values["quota"], unit)
    maximum = read_size(larger, unit)
    if maximum < quota:
        raise larger.error(f"{larger.path} must not be smaller than the quota")
    if unit == Unit.SECONDS and maximum > UNSIGNED32_MAXIMUM:
        raise larger.error(f"{larger.path} must be at most {UNSIGNED32_MAXIMUM} s, the most that CC-Time can say")
    return quota, maximum


def _threshold(node: Node | None, unit: Unit, quota: int) -> int:
    if node is None:
        return 0
    units = read_size(node, unit)
    if units >= quota:
        raise node.error(
            f"{node.path} must be smaller than the quota: it is what is left of it when the client reports"
        )
    if units > UNSIGNED32_MAXIMUM:
        raise node.error(f"{node.path} must be at most {UNSIGNED32_MAXIMUM}, the most that a threshold can say")
    return units


def _holding_time(node: Node | None) -> int | None:
    if node is None:
        return None
    return 0 if node.text() in ("0 s", "none") else read_seconds(node)


def _consumption_time(node: Node | None, unit: Unit) -> int | None:
    if node is None:
        return None
    if unit != Unit.SECONDS:
        raise node.error(f"{node.path} is for services in seconds: it says when a grant of time stops running")
    return read_seconds(node)


def _triggers(node: Node | None) -> tuple[int, ...]:
    if node is None:
        return ()
    found: dict[int, str] = {}
    for item in node.items():
        name = item.text()
        number = TRIGGER_TYPES.get(name)
        if number is None:
            raise item.error(f"{item.path} is no event to ask anew on: {name[:60]!r}{nearest(name, TRIGGER_TYPES)}")
        if number in found:
            raise item.error(f"{name} stands twice in {node.path}")
        for earlier, earlier_name in found.items():
            if number in _COVERED.get(earlier, ()) or earlier in _COVERED.get(number, ()):
                raise item.error(f"{earlier_name} and {name} must not stand together: one includes the other")
        found[number] = name
    if not found:
        raise node.error(f"{node.path} must name at least one event; leave it out if there is none")
    return tuple(sorted(found))


def _choice(node: Node | None, meaning: dict[str, int]) -> int | None:
    return None if node is None else meaning[node.choice(tuple(meaning))]


def _failover(node: Node | None) -> int | None:
    if node is None:
        return None
    return int(CCSessionFailover.FAILOVER_SUPPORTED if node.boolean() else CCSessionFailover.FAILOVER_NOT_SUPPORTED)


def _two_quotas(node: Node | None, unit: Unit, consumption_time_s: int | None) -> bool:
    if node is None or node.choice(("one-quota", "two-quotas")) == "one-quota":
        return False
    if unit == Unit.SECONDS and consumption_time_s is None:
        raise node.error(
            f"{node.path} cannot be 'two-quotas' where time runs continuously: how much falls before the switch is "
            "known in advance (RFC 8506 section 5.1.1)"
        )
    return True


def _numbers(node: Node | None) -> frozenset[int] | None:
    """``any`` (None), or a list of numbers and ``none``."""
    if node is None or single_value(node) == "any":
        return None
    found: set[int] = set()
    for item in node.items():
        number = NOT_NAMED if item.text() == "none" else item.integer(0, UNSIGNED32_MAXIMUM)
        if number in found:
            raise item.error(f"{item.text()} stands twice in {node.path}")
        found.add(number)
    if not found:
        raise node.error(f"{node.path} must be 'any', or a list of numbers and 'none' such as [10, none]")
    return frozenset(found)
