"""What a client is to do when the credit is used up (RFC 8506 section 5.6): end, redirect or restrict the service."""

import re
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final
from urllib.parse import urlsplit

from occ.rating.filter_rule import parse_filter_rule
from occ.rating.sizes import UNSIGNED32_MAXIMUM, read_seconds, single_value
from occ.yamlmap import Node
from protocols.diameter.codes import FinalUnitAction, RedirectAddressType

DEFAULT_ASK_AGAIN_S: Final = 300

_BANDWIDTHS: Final = {"bit/s": 1, "kbit/s": 1000, "Mbit/s": 1000**2, "Gbit/s": 1000**3}
_BANDWIDTH: Final = re.compile(r"([1-9][0-9]{0,9}) (\S+)", re.ASCII)
_URI: Final = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z_a-z~\[\]]{1,1024}")
_SIP_URI: Final = re.compile(
    r"sips?:(?:[^@\[\]]+@)?(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z][0-9A-Za-z.-]*)(?::[0-9]{1,5})?(?:[;?].*)?"
)
_FILTER_ID: Final = re.compile(r"\S(?:.*\S)?")
_LONGEST_FILTER_ID: Final = 253


@dataclass(frozen=True, slots=True)
class FinalUnits:
    """Content of Final-Unit-Indication (RFC 8506 section 8.34) and QoS-Final-Unit-Indication (section 8.68)."""

    action: int = int(FinalUnitAction.TERMINATE)
    """Final-Unit-Action, RFC 8506 section 8.35. For 0 (TERMINATE) everything below is empty."""
    redirect_address_type: int | None = None
    """Redirect-Address-Type, RFC 8506 section 8.38; None unless the action is 1 (REDIRECT)."""
    redirect_address: bytes = b""
    """Redirect-Server-Address, RFC 8506 section 8.39: text, also for an IP address (IPv6 as RFC 5952 writes it)."""
    filter_ids: tuple[bytes, ...] = ()
    """Filter-Ids: rules the gateway knows by name."""
    rules: tuple[bytes, ...] = ()
    """IPFilterRules (RFC 6733 section 4.3.1) of what stays reachable."""
    bandwidth_bit_s: int = 0
    """Bits per second that what stays reachable may have; 0: no limit. Only QoS-Final-Unit-Indication can say this."""
    with_qos: bool = False
    """Send QoS-Final-Unit-Indication beside Final-Unit-Indication (RFC 8506 section 5.6.3)."""
    ask_again_s: int = 0
    """Validity-Time while redirected or restricted (RFC 8506 section 5.6.2); 0 for TERMINATE only."""


TERMINATE: Final = FinalUnits()
"""The service ends with its last unit: what happens unless the catalogue says otherwise."""


def read_final_units(node: Node) -> FinalUnits:
    """The value of ``when_used_up``: the word ``terminate``, the word ``restrict``, or a mapping. Raises ConfigError.

    ``restrict`` restricts to what the gateway itself is configured for; no filters are sent (RFC 8506 section 5.6.3).
    """
    word = single_value(node)
    if word is not None:
        node.choice(("terminate", "restrict"))
        if word == "terminate":
            return TERMINATE
        return FinalUnits(int(FinalUnitAction.RESTRICT_ACCESS), ask_again_s=DEFAULT_ASK_AGAIN_S)
    values = node.mapping(("redirect_to", "restrict_to", "allow", "bandwidth", "qos_indication", "ask_again_after"))
    if not values.keys() & {"redirect_to", "restrict_to", "allow", "bandwidth"}:
        raise node.error(
            f"{node.path} must be 'terminate', 'restrict', or say redirect_to, restrict_to, allow or bandwidth"
        )
    address_type, address = _redirect(values.get("redirect_to"))
    bandwidth = read_bandwidth(values["bandwidth"]) if "bandwidth" in values else 0
    asked = values.get("qos_indication")
    with_qos = bool(bandwidth) if asked is None else asked.boolean()
    if asked is not None and bandwidth and not with_qos:
        raise asked.error(f"{asked.path} must not be 'no' beside a bandwidth: no other indication can carry one")
    action = FinalUnitAction.RESTRICT_ACCESS if address_type is None else FinalUnitAction.REDIRECT
    return FinalUnits(
        action=int(action),
        redirect_address_type=address_type,
        redirect_address=address,
        filter_ids=_filter_ids(values.get("restrict_to")),
        rules=_rules(values.get("allow")),
        bandwidth_bit_s=bandwidth,
        with_qos=with_qos,
        ask_again_s=read_seconds(values["ask_again_after"]) if "ask_again_after" in values else DEFAULT_ASK_AGAIN_S,
    )


def _redirect(node: Node | None) -> tuple[int | None, bytes]:
    if node is None:
        return None, b""
    found = redirect_address(node.text())
    if found is None:
        raise node.error(
            f"{node.path} must be a URL such as http://top-up.example.net/, a SIP URI such as sip:top-up@example.net, "
            f"or an IPv4 or IPv6 address, not {node.text()[:80]!r}"
        )
    return found


def redirect_address(written: str) -> tuple[int, bytes] | None:
    """Redirect-Address-Type and Redirect-Server-Address of an address as people write it; None if it is none."""
    if not _URI.fullmatch(written):
        return None
    with suppress(ValueError):
        return int(RedirectAddressType.IPV4_ADDRESS), str(IPv4Address(written)).encode("ascii")
    with suppress(ValueError):
        if "%" not in written:  # a zone means nothing beyond the host it was written on
            return int(RedirectAddressType.IPV6_ADDRESS), str(IPv6Address(written)).encode("ascii")
    if _SIP_URI.fullmatch(written):
        return int(RedirectAddressType.SIP_URI), written.encode("ascii")
    with suppress(ValueError):
        parts = urlsplit(written)
        if parts.scheme and parts.hostname and (parts.port is None or parts.port):
            return int(RedirectAddressType.URL), written.encode("ascii")
    return None


def read_bandwidth(node: Node) -> int:
    """Bits per second of "64 kbit/s". Raises ConfigError."""
    written = node.text()
    match = _BANDWIDTH.fullmatch(written)
    if match is None or match.group(2) not in _BANDWIDTHS:
        raise node.error(
            f"{node.path} must be a bandwidth such as '64 kbit/s', in {', '.join(_BANDWIDTHS)}, not {written[:40]!r}"
        )
    bits = int(match.group(1)) * _BANDWIDTHS[match.group(2)]
    if bits > UNSIGNED32_MAXIMUM:
        raise node.error(f"{node.path} must be at most {UNSIGNED32_MAXIMUM} bit/s")
    return bits


def _filter_ids(node: Node | None) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for item in _one_or_more(node):
        _add(found, read_filter_id(item), item)
    return tuple(found)


def read_filter_id(node: Node) -> bytes:
    """A Filter-Id: the name of something that the gateway knows. Raises ConfigError."""
    written = node.text()
    if not _FILTER_ID.fullmatch(written) or not written.isprintable() or len(written) > _LONGEST_FILTER_ID:
        raise node.error(
            f"{node.path} must be the name of a filter in the gateway, at most {_LONGEST_FILTER_ID} printable "
            f"characters, not {written[:80]!r}"
        )
    return written.encode()


def _rules(node: Node | None) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for item in _one_or_more(node):
        try:
            rule = parse_filter_rule(item.text())
        except ValueError as error:
            raise item.error(f"{item.path}: {error}") from None
        _add(found, rule, item)
    return tuple(found)


def _add(found: list[bytes], one: bytes, item: Node) -> None:
    if one in found:
        raise item.error(f"{item.text()[:80]!r} stands twice in {item.path.rpartition('[')[0]}")
    found.append(one)


def _one_or_more(node: Node | None) -> list[Node]:
    if node is None:
        return []
    if single_value(node) is not None:
        return [node]
    items = node.items()
    if not items:
        raise node.error(f"{node.path} must name at least one; leave it out if there is none")
    return items
