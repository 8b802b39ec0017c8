"""What a service grants while the store cannot be reached: nothing, or so much from a journal on disk."""

from dataclasses import dataclass
from typing import Final

from balance.model import Unit
from occ.rating.sizes import UNSIGNED32_MAXIMUM, read_seconds, read_size, single_value
from occ.yamlmap import Node

LARGEST_COUNT: Final = 1_000_000_000

NEEDED: Final = ("grant", "per_session", "grants_per_session", "sessions", "grants", "for")


@dataclass(frozen=True, slots=True)
class AwayLimits:
    """How far one worker grants a service by itself. An outage lasts from the loss of the store until it is back and
    all that was granted meanwhile is settled.
    """

    grant_units: int
    """Units of one grant, at most."""
    session_units: int
    """Units granted to one session in an outage."""
    session_grants: int
    """Grants to one session in an outage."""
    sessions: int
    """Sessions that are granted anything in an outage."""
    grants: int
    """Grants in an outage."""
    granting_s: int
    """How long after the loss of the store granting goes on."""
    unknown_subscribers: bool = False
    """Also for subscribers and sessions that the worker has not seen lately: whether they exist shows later."""


def read_away(node: Node, unit: Unit, maximum_units: int) -> AwayLimits | None:
    """The value of ``when_store_is_away``: the word ``refuse`` (None), or a mapping of limits. Raises ConfigError.

    ``maximum_units``: the largest grant of the service.
    """
    if single_value(node) is not None:
        node.choice(("refuse",))
        return None
    values = node.mapping((*NEEDED, "unknown_subscribers"), required=NEEDED)
    grant = read_size(values["grant"], unit)
    if grant > maximum_units:
        raise values["grant"].error(f"{values['grant'].path} must not be larger than the largest grant of the service")
    if unit == Unit.SECONDS and grant > UNSIGNED32_MAXIMUM:
        raise values["grant"].error(f"{values['grant'].path} must be at most {UNSIGNED32_MAXIMUM} s")
    of_session = read_size(values["per_session"], unit)
    if of_session < grant:
        raise values["per_session"].error(f"{values['per_session'].path} must not be smaller than one grant")
    unknown = values.get("unknown_subscribers")
    return AwayLimits(
        grant_units=grant,
        session_units=of_session,
        session_grants=values["grants_per_session"].integer(1, LARGEST_COUNT),
        sessions=values["sessions"].integer(1, LARGEST_COUNT),
        grants=values["grants"].integer(1, LARGEST_COUNT),
        granting_s=read_seconds(values["for"]),
        unknown_subscribers=unknown is not None and unknown.choice(("refuse", "grant")) == "grant",
    )
