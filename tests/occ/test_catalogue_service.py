"""What a service of the catalogue may say of its grants, and how mistakes in it are reported."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balance.model import Unit
from occ.rating.away import AwayLimits
from occ.rating.filter_rule import parse_filter_rule
from occ.rating.final_units import TERMINATE, FinalUnits, redirect_address
from occ.rating.service import TRIGGER_TYPES, Service, read_service
from occ.yamlmap import ConfigError, parse_yaml

MIB = 1 << 20
DATA = "context: 32251@3gpp.org\nunit: octets\nquota: 10 MiB\nvalidity: 30 min\n"
CALLS = "context: 32260@3gpp.org\nunit: seconds\nquota: 60 s\nvalidity: 5 min\n"
LINES = 4
AWAY = """\
when_store_is_away:
  grant: 5 MiB
  per_session: 20 MiB
  grants_per_session: 7
  sessions: 8
  grants: 9
  for: 10 min
"""


def read(more: str, start: str = DATA) -> Service:
    return read_service("internet", parse_yaml(start + more, "catalogue.yaml", Path()))


def final_units(written: str) -> FinalUnits:
    return read(f"when_used_up: {written}\n").final_units


def mistake(more: str, start: str = DATA) -> tuple[int | None, str]:
    """Line, counted from the first of ``more``, and message."""
    with pytest.raises(ConfigError) as caught:
        read(more, start)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("catalogue.yaml:")
    assert caught.value.line is not None
    return caught.value.line - LINES, caught.value.message


def test_what_a_service_leaves_out_is_not_told_to_clients() -> None:
    assert read("") == Service("internet", b"32251@3gpp.org", None, Unit.OCTETS, 10 * MIB, 10 * MIB, 1800)
    service = read("")
    assert (service.threshold_units, service.pool, service.triggers) == (0, 0, ())
    assert (service.holding_time_s, service.consumption_time_s) == (None, None)
    assert (service.failure_handling, service.debit_failure_handling, service.session_failover) == (None, None, None)
    assert service.charges_overshoot
    assert not service.two_quotas
    assert service.final_units is TERMINATE


def test_what_is_granted_without_a_store() -> None:
    assert read("").away is None
    assert read("when_store_is_away: refuse\n").away is None
    assert read(AWAY).away == AwayLimits(5 * MIB, 20 * MIB, 7, 8, 9, 600)
    assert read(AWAY + "  unknown_subscribers: grant\n").away == AwayLimits(5 * MIB, 20 * MIB, 7, 8, 9, 600, True)
    assert read(AWAY + "  unknown_subscribers: refuse\n").away == read(AWAY).away


def test_everything_a_service_can_say() -> None:
    service = read(
        "report_early: 1 MiB\n"
        "holding_time: 10 min\n"
        "pool: 4294967295\n"
        "reauthorise_on: [change-in-rat, change-in-qos]\n"
        "client_failure: retry-and-terminate\n"
        "debit_failure: continue\n"
        "failover: yes\n"
        "usage_beyond_grant: waive\n"
        "tariff_switch: two-quotas\n"
        "when_used_up:\n  redirect_to: http://top-up.example.net/\n"
    )
    assert service == Service(
        "internet",
        b"32251@3gpp.org",
        None,
        Unit.OCTETS,
        10 * MIB,
        10 * MIB,
        1800,
        threshold_units=MIB,
        holding_time_s=600,
        pool=4294967295,
        triggers=(2, 4),
        failure_handling=2,
        debit_failure_handling=1,
        session_failover=1,
        charges_overshoot=False,
        two_quotas=True,
        final_units=FinalUnits(1, 2, b"http://top-up.example.net/", ask_again_s=300),
    )


@pytest.mark.parametrize(
    ("written", "field", "value"),
    [
        ("holding_time: 0 s", "holding_time_s", 0),
        ("holding_time: none", "holding_time_s", 0),
        ("client_failure: terminate", "failure_handling", 0),
        ("client_failure: continue", "failure_handling", 1),
        ("debit_failure: terminate-or-buffer", "debit_failure_handling", 0),
        ("failover: no", "session_failover", 0),
        ("usage_beyond_grant: charge", "charges_overshoot", True),
        ("tariff_switch: one-quota", "two_quotas", False),
        ("when_used_up: terminate", "final_units", TERMINATE),
    ],
)
def test_values(written: str, field: str, value: object) -> None:
    """RFC 8506 sections 8.4, 8.14, 8.15; Quota-Holding-Time 0 is no limit (TS 32.299)."""
    assert getattr(read(written + "\n"), field) == value


def test_time_that_stops_when_nothing_is_used_may_have_two_quotas() -> None:
    """RFC 8506 section 5.1.1: the tariff change mechanism is not for time that runs continuously."""
    assert read("consumption_time: 10 s\ntariff_switch: two-quotas\n", CALLS).consumption_time_s == 10
    line, message = mistake("tariff_switch: two-quotas\n", CALLS)
    assert line == 1
    assert "runs continuously" in message
    assert not read("tariff_switch: one-quota\n", CALLS).two_quotas


def test_the_triggers_of_the_standard() -> None:
    """TS 32.299 clause 7.2.236."""
    assert len(TRIGGER_TYPES) == len(set(TRIGGER_TYPES.values())) == 41
    for name, number in TRIGGER_TYPES.items():
        assert read(f"reauthorise_on: [{name}]\n").triggers == (number,)


@pytest.mark.parametrize(
    ("more", "line", "reason"),
    [
        ("report_erly: 1 MiB\n", 1, "did you mean 'report_early'?"),
        ("report_early: 10 MiB\n", 1, "smaller than the quota"),
        ("report_early: 1 s\n", 1, "no unit for octets"),
        ("maximum_quota: 20 GB\nreport_early: 10485761 B\n", 2, "smaller than the quota"),
        ("holding_time: 10\n", 1, "'60 s'"),
        ("holding_time: 0 min\n", 1, "not a size"),
        ("holding_time: 99999 d\n", 1, "4294967295"),
        ("consumption_time: 10 s\n", 1, "for services in seconds"),
        ("pool: 0\n", 1, "1 to 4294967295"),
        ("pool: 4294967296\n", 1, "1 to 4294967295"),
        ("pool: main\n", 1, "whole number"),
        ("reauthorise_on: change-in-qos\n", 1, "a list"),
        ("reauthorise_on: []\n", 1, "at least one event"),
        ("reauthorise_on:\n  - change-in-rat\n  - change-in-qoss\n", 3, "did you mean 'change-in-qos'?"),
        ("reauthorise_on: [change-in-rat, change-in-rat]\n", 1, "twice"),
        ("reauthorise_on: [2]\n", 1, "known: change-in-3gpp-ps-data-off"),
        ("reauthorise_on: [change-in-qos, change-in-qos-delay-class]\n", 1, "one includes the other"),
        ("reauthorise_on: [change-in-location-tac, change-in-location]\n", 1, "one includes the other"),
        ("client_failure: retry\n", 1, "terminate, continue, retry-and-terminate"),
        ("debit_failure: terminate\n", 1, "did you mean 'terminate-or-buffer'?"),
        ("failover: maybe\n", 1, "true or false"),
        ("usage_beyond_grant: charged\n", 1, "did you mean 'charge'?"),
        ("tariff_switch: two\n", 1, "one-quota, two-quotas"),
        ("when_store_is_away: grant\n", 1, "refuse"),
        ("when_store_is_away:\n", 1, "key 'grant' is missing"),
        (AWAY.replace("  for: 10 min\n", ""), 2, "key 'for' is missing"),
        (AWAY.replace("grants: 9", "grant_count: 9"), 6, "did you mean"),
        (AWAY.replace("grant: 5 MiB", "grant: 11 MiB"), 2, "largest grant of the service"),
        (AWAY.replace("per_session: 20 MiB", "per_session: 4 MiB"), 3, "not be smaller than one grant"),
        (AWAY.replace("grant: 5 MiB", "grant: 5 min"), 2, "no unit for octets"),
        (AWAY.replace("sessions: 8", "sessions: 0"), 5, "from 1 to"),
        (AWAY + "  unknown_subscribers: yes\n", 8, "refuse, grant"),
        ("when_used_up: redirect\n", 1, "terminate, restrict"),
        ("when_used_up:\n", 1, "'terminate', 'restrict'"),
        ("when_used_up: {}\n", 1, "say redirect_to"),
        ("when_used_up: [terminate]\n", 1, "mapping"),
        ("when_used_up:\n  ask_again_after: 5 min\n", 2, "say redirect_to"),
        ("when_used_up:\n  redirect: http://a/\n", 2, "did you mean 'redirect_to'?"),
        ("when_used_up:\n  redirect_to: top-up.example.net\n", 2, "http://top-up.example.net/"),
        ("when_used_up:\n  restrict_to: []\n", 2, "at least one"),
        ("when_used_up:\n  restrict_to:\n", 2, "at least one"),
        ("when_used_up:\n  restrict_to: [portal, portal]\n", 2, "stands twice in when_used_up.restrict_to"),
        ("when_used_up:\n  restrict_to: ' portal'\n", 2, "name of a filter"),
        ("when_used_up:\n  restrict_to: [a, {b: c}]\n", 2, "single value"),
        ("when_used_up:\n  allow:\n    - permit in ip from any to any\n    - permit\n", 4, "too short"),
        ("when_used_up:\n  allow: permit in ip from any to\n", 2, "too short"),
        ("when_used_up:\n  restrict_to: a\n  bandwidth: 64 kbps\n", 3, "'64 kbit/s'"),
        ("when_used_up:\n  restrict_to: a\n  bandwidth: 64\n", 3, "'64 kbit/s'"),
        ("when_used_up:\n  restrict_to: a\n  bandwidth: 5 Gbit/s\n", 3, "at most 4294967295 bit/s"),
        ("when_used_up:\n  bandwidth: 64 kbit/s\n  qos_indication: no\n", 3, "beside a bandwidth"),
        ("when_used_up:\n  restrict_to: a\n  ask_again_after: 0 s\n", 3, "not a size"),
    ],
)
def test_a_mistake_is_named_with_its_line(more: str, line: int, reason: str) -> None:
    found, message = mistake(more)
    assert reason in message
    assert found == line


# -- what follows the last unit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "kind", "address"),
    [
        ("192.0.2.10", 0, b"192.0.2.10"),
        ("2001:db8::1", 1, b"2001:db8::1"),
        ("2001:0DB8:0:0:0:0:0:1", 1, b"2001:db8::1"),
        ("http://top-up.example.net/", 2, b"http://top-up.example.net/"),
        ("https://[2001:db8::1]:8443/top-up?from=gy#now", 2, b"https://[2001:db8::1]:8443/top-up?from=gy#now"),
        ("sip:top-up@example.net", 3, b"sip:top-up@example.net"),
        ("sips:+491700@ims.example.net:5061;user=phone", 3, b"sips:+491700@ims.example.net:5061;user=phone"),
        ("sip:announcement.example.net", 3, b"sip:announcement.example.net"),
    ],
)
def test_the_type_of_a_redirect_address_is_recognised(written: str, kind: int, address: bytes) -> None:
    """RFC 8506 sections 8.38 and 8.39; IPv6 as RFC 5952 writes it."""
    assert redirect_address(written) == (kind, address)
    assert final_units(f"{{redirect_to: '{written}'}}") == FinalUnits(1, kind, address, ask_again_s=300)


@pytest.mark.parametrize(
    "written",
    ["", "top-up.example.net", "192.0.2.256", "192.0.2.1/24", "fe80::1%eth0", "[2001:db8::1]", "http://", "http:///x",
     "http://host:99999/", "http://host:0/", "http://a b/", "mailto:a@example.net", "sip:", "sip:@example.net",
     "sip:a@", "tel:+4930", "http://exämple.net/", "http://host/\n", "/top-up"],
)  # fmt: skip
def test_what_is_no_redirect_address(written: str) -> None:
    assert redirect_address(written) is None


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_is_not(written: str) -> None:
    found = redirect_address(written)
    assert found is None or (found[0] in range(4) and found[1].isascii())


def test_restricting_by_filters_rules_and_bandwidth() -> None:
    """RFC 8506 sections 5.6.3, 8.34 and 8.68."""
    assert final_units("restrict") == FinalUnits(2, ask_again_s=300)
    assert final_units("{restrict_to: portal-only}") == FinalUnits(2, filter_ids=(b"portal-only",), ask_again_s=300)
    found = final_units(
        "\n  restrict_to: [portal-only, Zeitung ü]\n  allow:\n    - permit in ip from any to 192.0.2.10\n"
        "    - permit  out ip from 192.0.2.10 to any\n  bandwidth: 64 kbit/s\n  ask_again_after: 10 min"
    )
    assert found == FinalUnits(
        2,
        filter_ids=(b"portal-only", "Zeitung ü".encode()),
        rules=(b"permit in ip from any to 192.0.2.10", b"permit out ip from 192.0.2.10 to any"),
        bandwidth_bit_s=64_000,
        with_qos=True,
        ask_again_s=600,
    )
    assert final_units("{bandwidth: 2 Mbit/s}") == FinalUnits(
        2, bandwidth_bit_s=2_000_000, with_qos=True, ask_again_s=300
    )
    assert final_units("{restrict_to: a, qos_indication: yes}").with_qos
    assert not final_units("{restrict_to: a, qos_indication: no}").with_qos


def test_a_redirection_may_leave_something_reachable() -> None:
    """RFC 8506 section 5.6.2: what the filters name is treated by them, the rest is redirected."""
    found = final_units("{redirect_to: 'http://a/', restrict_to: free-sites, allow: permit in 17 from any to any 53}")
    assert found == FinalUnits(
        1, 2, b"http://a/", (b"free-sites",), (b"permit in 17 from any to any 53",), ask_again_s=300
    )


@pytest.mark.parametrize(
    "rule",
    [
        "permit in ip from any to 192.0.2.10",
        "deny out ip from !assigned to any",
        "permit in 6 from assigned 1024-65535 to 192.0.2.0/24 80,443,8000-8080",
        "permit in 17 from any to 2001:db8::/32 53",
        "permit out 132 from !192.0.2.1 36412 to assigned",
        "permit in 6 from any to 0.0.0.0/0 setup tcpflags syn,!ack tcpoptions mss,!cc",
        "permit in 6 from any to any 80 established",
        "permit in 1 from any to any icmptypes 0,3,8-11",
        "deny in ip from any to any frag ipoptions ssrr,!rr",
        "permit in 0 from any to any",
        "permit in 255 from any to any",
    ],
)
def test_filter_rules_of_the_rfc(rule: str) -> None:
    """RFC 6733 section 4.3.1."""
    assert parse_filter_rule(rule) == rule.encode()


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("", "printable"),
        ("permit in ip from any to any\n", "printable"),
        ("permit in ip from any to änywhere", "printable"),
        ("permit in ip from any to " + "1" * 1024, "at most 1024"),
        ("allow in ip from any to any", "action must be permit or deny, not 'allow'"),
        ("Permit in ip from any to any", "action"),
        ("permit both ip from any to any", "direction must be in or out"),
        ("permit in tcp from any to any", "tcp is 6"),
        ("permit in 256 from any to any", "0 to 255"),
        ("permit in 06 from any to any", "0 to 255"),
        ("permit in ip to any from any", "must be from"),
        ("permit in ip from any any to any", "'to' must follow the source, not 'any'"),
        ("permit in 6 from any 80 81 to any", "'to' must follow the source, not '81'"),
        ("permit in 6 from any 80 443,444 to", "'to' must follow"),
        ("permit in 6 from any 80 to", "destination is missing"),
        ("permit in ip from any to 192.0.2.300", "no address"),
        ("permit in ip from any to 192.0.2.10/24", "no bits beyond it"),
        ("permit in ip from any to 192.0.2.0/33", "no address"),
        ("permit in ip from any to 192.0.2.0/255.255.255.0", "no address"),
        ("permit in ip from any to 192.0.2.0/", "no address"),
        ("permit in ip from any to ::1%lo", "no address"),
        ("permit in ip from any to ! any", "no address"),
        ("permit in ip from any to portal.example.net", "no address"),
        ("permit in ip from any to any 80", "protocol 6 (TCP), 17 (UDP) or 132 (SCTP)"),
        ("permit in 6 from any to any 80-", "no list of ports"),
        ("permit in 6 from any to any 90-80", "no list of ports"),
        ("permit in 6 from any to any 65536", "at most 65535"),
        ("permit in 6 from any to any 80,,81", "no list of ports"),
        ("permit in ip from any to any quickly", "no option"),
        ("permit in ip from any to any frag frag", "twice"),
        ("permit in 17 from any to any established", "protocol 6 (TCP) only"),
        ("permit in 6 from any to any tcpflags", "tcpflags takes a list"),
        ("permit in 6 from any to any tcpflags syn,fun", "ack, fin"),
        ("permit in 17 from any to any icmptypes 8", "protocol 1 (ICMP)"),
        ("permit in 1 from any to any icmptypes", "ICMP types"),
        ("permit in 1 from any to any icmptypes 256", "at most 255"),
        ("permit in 6 from any to any 80 frag", "first fragment"),
    ],
)
def test_what_is_no_filter_rule(rule: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_filter_rule(rule)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


words = st.sampled_from(
    ["permit", "deny", "in", "out", "ip", "6", "1", "from", "to", "any", "!any", "assigned", "192.0.2.1", "::/0", "80",
     "!", "80-90", "frag", "setup", "tcpflags", "syn", "icmptypes", "ipoptions", "rr", "-", ","]
)  # fmt: skip


@given(st.lists(words, max_size=12).map(" ".join))
def test_words_in_any_order_are_a_rule_or_a_sentence(rule: str) -> None:
    try:
        written = parse_filter_rule(rule)
    except ValueError:
        return
    assert written == rule.encode()
    assert re.fullmatch(rb"(permit|deny) (in|out) (ip|[0-9]+) from !?\S+( \S+)? to !?\S+.*", written)
