"""What random clients send: services and units of requests, legal and not, and how they are shown to a reader."""

from collections.abc import Sequence
from dataclasses import fields

from hypothesis import strategies as st

from balance.plans import Outcome
from occ.profiles import Profile
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units
from tests.occ.machine_catalogue import EUR

Name = tuple[int | None, tuple[int, ...]]
"""Rating-Group and Service-Identifiers."""

amounts = st.integers(0, 25) | st.integers(0, 6)
huge = st.sampled_from([1_000, 85, 1 << 33, 76_000_000_000, 200_000_000_000, 1 << 54, (1 << 64) - 1])
sums = st.builds(
    lambda digits, exponent, currency: (digits, exponent, currency),
    st.integers(-3, 30),
    st.sampled_from([-6, -6, -6, -7, -5, -30]),
    st.sampled_from([EUR, EUR, None, 840]),
) | st.sampled_from([((1 << 63) - 1, 0, EUR), (-(1 << 63), 10, EUR), (1, 40, EUR), (1, -40, EUR)])


@st.composite
def units(draw: st.DrawFn, labels: bool = False, money: bool = False, used: bool = True) -> Units:
    """In every unit at once, as some clients report; or in one, which may not be that of the service."""
    amount = draw(amounts)
    if used and draw(st.integers(0, 14)) == 7:
        amount = draw(huge)
    way = draw(st.sampled_from(["all"] * 7 + ["in and out", "seconds", "nothing"]))
    found = Units()
    if way == "all":
        found = Units(time=amount, total_octets=amount, service_specific=amount)
    elif way == "in and out":
        found = Units(time=amount, input_octets=amount // 3, output_octets=amount - amount // 3)
    elif way == "seconds":
        found = Units(time=amount)
    if money and draw(st.integers(0, 2)):
        found.money = draw(sums)
    if labels:
        found.tariff_change_usage = draw(st.sampled_from([None, None, 0, 0, 1, 1, 2]))
    return found


@st.composite
def service_requests(
    draw: st.DrawFn, names: Sequence[Name], labels: bool = False, money: bool = False
) -> ServiceRequest:
    group, identifiers = draw(st.sampled_from(names))
    requested = None
    if draw(st.integers(0, 3)):
        requested = draw(units(money=money, used=False)) if draw(st.integers(0, 4)) else Units()
    used = draw(st.lists(units(labels, money), max_size=3)) if draw(st.booleans()) else []
    if len(used) == 2 and draw(st.integers(0, 3)) == 2:
        used[1] = used[0]  # as Open5GS was seen to do
    reason = draw(st.sampled_from([None] * 6 + [1, 2, 4, 6]))
    return ServiceRequest(group, identifiers, requested, tuple(used), reason)


class Services:
    """What a request asks, shown as a reader wants to see it."""

    def __init__(self, requests: tuple[ServiceRequest, ...]) -> None:
        self.requests = requests

    def __repr__(self) -> str:
        return "; ".join(map(_told, self.requests)) or "nothing"


def _told(asked: ServiceRequest) -> str:
    parts: list[str] = [f"RG {asked.rating_group}", *(f"SI {each}" for each in asked.service_identifiers)]
    parts += [f"used {_told_units(each)}" for each in asked.used]
    parts += [] if asked.requested is None else [f"wants {_told_units(asked.requested)}"]
    parts += [] if asked.reporting_reason is None else [f"reason {asked.reporting_reason}"]
    return " ".join(parts)


def _told_units(told: Units) -> str:
    values = ((each.name, getattr(told, each.name)) for each in fields(Units))
    return "{" + ", ".join(f"{name} {value}" for name, value in values if value is not None) + "}"


@st.composite
def several(
    draw: st.DrawFn, names: Sequence[Name], labels: bool = False, money: bool = False, least: int = 0, most: int = 3
) -> Services:
    one = service_requests(names, labels, money)
    return Services(tuple(draw(st.lists(one, min_size=least, max_size=most))))


class Sent:
    """A request and what came of it."""

    def __init__(self, request: CreditControlRequest, profile: Profile, outcome: Outcome) -> None:
        self.request = request
        self.profile = profile
        self.outcome = outcome

    def is_repeated_by(self, request: CreditControlRequest) -> bool:
        """Row 16."""
        return all(
            getattr(request, field) == getattr(self.request, field)
            for field in ("session_id", "request_type", "requested_action", "request_number")
        )

    def __repr__(self) -> str:
        request = self.request
        return f"request {request.request_number} of type {request.request_type}, {request.session_id!r}"
