"""What an answer tells a client beside units: final units, thresholds, holding times, failure handling, pools.

All of it depends on the service and on the kind of client, not on the request; so it is encoded once and sent as it
is. Amounts that do change (low balance, advice of charge) are encoded here as well, request by request.
"""

from dataclasses import dataclass
from typing import Final

from balance.model import Rate, Unit
from occ.codes import BEFORE_TARIFF_CHANGE, TERMINATE
from occ.profiles import Profile
from occ.rating.final_units import FinalUnits
from occ.rating.price import multiplier
from occ.rating.service import Service
from protocols.credit_control import (
    CreditControlAnswer,
    PoolReference,
    ServiceAnswer,
    bandwidth_filter_rule,
    encode_command_members,
    encode_service_members,
)

#: CC-Unit-Type of what a pool is shared in (RFC 8506 section 8.32).
_POOL_UNITS: Final = {int(Unit.SECONDS): 0, int(Unit.OCTETS): 2, int(Unit.EVENTS): 5}

QUOTA_OF_PERIOD: Final = tuple(
    encode_service_members(ServiceAnswer(tariff_change_usage=BEFORE_TARIFF_CHANGE + side)) for side in (0, 1)
)
"""Tariff-Change-Usage of the quota for before, and of that for after, the tariff switch (RFC 8506 section 8.27)."""


@dataclass(frozen=True, slots=True)
class Indications:
    """Members of a Multiple-Services-Credit-Control, encoded; and what of them the server itself acts on."""

    hints: bytes
    """Quota-Holding-Time, Quota-Consumption-Time, Trigger: with every grant."""
    threshold: bytes
    """Time-, Volume- or Unit-Quota-Threshold: with a grant that is larger than it."""
    threshold_units: int
    final_units: bytes
    """Final-Unit-Indication, and QoS-Final-Unit-Indication where the client may know it."""
    keeps_session: bool
    """The client goes on when its units are used up: it redirects or restricts (RFC 8506 sections 5.6.2, 5.6.3)."""
    ask_again_s: int
    """Validity-Time while it does."""
    first_answer: bytes
    """Command level of the first answer: CC-Session-Failover and what to do when the server cannot be reached."""

    def with_grant(self, units: int, final: bool) -> bytes:
        """What goes with a grant of so many units."""
        if final:
            # A report before the last unit would ask for what is not there.
            return self.final_units + self.hints
        if self.threshold and units > self.threshold_units:
            return self.hints + self.threshold
        return self.hints


def indications_of(service: Service, profile: Profile, last: FinalUnits | None = None) -> Indications:
    """What clients of a profile are told of a service.

    ``last``: what they are to do when its units are used up; None: what the catalogue says.
    """
    if last is None:
        last = service.final_units
    hints = ServiceAnswer()
    threshold = ServiceAnswer()
    in_units = service.unit != Unit.AMOUNT
    if profile.quota_hints and in_units:
        hints.quota_holding_time = service.holding_time_s
        hints.quota_consumption_time = service.consumption_time_s
        if service.threshold_units and service.unit == Unit.SECONDS:
            threshold.time_quota_threshold = service.threshold_units
        elif service.threshold_units and service.unit == Unit.OCTETS:
            threshold.volume_quota_threshold = service.threshold_units
        elif service.threshold_units:
            threshold.unit_quota_threshold = service.threshold_units
    if profile.triggers:
        hints.triggers = service.triggers
    first = CreditControlAnswer(0)
    if profile.handling_hints:
        first.cc_session_failover = service.session_failover
        first.credit_control_failure_handling = service.failure_handling
        first.direct_debiting_failure_handling = service.debit_failure_handling
    redirects = profile.redirects and last.action != TERMINATE
    return Indications(
        hints=encode_service_members(hints),
        threshold=encode_service_members(threshold),
        threshold_units=service.threshold_units,
        final_units=_final_units(last, profile),
        keeps_session=redirects,
        ask_again_s=last.ask_again_s if redirects else 0,
        first_answer=encode_command_members(first),
    )


def _final_units(what: FinalUnits, profile: Profile) -> bytes:
    """RFC 8506 section 8.34: TERMINATE carries nothing else; a client that can only terminate is told to."""
    if what.action == TERMINATE or not profile.redirects:
        return encode_service_members(ServiceAnswer(final_unit_action=TERMINATE))
    answer = ServiceAnswer(
        final_unit_action=what.action,
        redirect_address_type=what.redirect_address_type,
        redirect_server_address=what.redirect_address or None,
        filter_ids=what.filter_ids,
        restriction_rules=what.rules,
    )
    if what.with_qos and profile.qos_final_units:
        answer.qos_final_unit = True
        if what.bandwidth_bit_s:
            answer.filter_rules = (bandwidth_filter_rule(what.bandwidth_bit_s),)
    return encode_service_members(answer)


_pool_references: dict[tuple[int, int, Rate], bytes] = {}


def pool_reference(pool: int, unit: int, rate: Rate) -> bytes:
    """G-S-U-Pool-Reference of units at a price, encoded; empty for what no pool can hold (RFC 8506 section 8.30)."""
    key = (pool, unit, rate)
    found = _pool_references.get(key)
    if found is None:
        scale = multiplier(rate)
        found = b""
        if unit in _POOL_UNITS and scale is not None:
            reference = PoolReference(pool, _POOL_UNITS[unit], scale[0], scale[1])
            found = encode_service_members(ServiceAnswer(pool_references=(reference,)))
        if len(_pool_references) >= 4096:
            _pool_references.clear()
        _pool_references[key] = found
    return found
