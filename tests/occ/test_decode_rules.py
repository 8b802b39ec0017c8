"""Every rule of ``occ decode``: a message that breaks it, and one beside it that does not."""

from collections.abc import Callable

import pytest

from occ.decode.exchange import PAIR_RULES, SESSION_RULES
from occ.decode.remarks import Rule
from occ.decode.rules_answer import ANSWER_RULES
from occ.decode.rules_base import BASE_RULES
from occ.decode.rules_request import REQUEST_RULES
from occ.decode.streams import Found
from occ.decode.tree import DecodedMessage, Kind
from tests.conformance.claims import read_claims
from tests.occ.decode_messages import (
    GROUP_10,
    GROUP_20,
    INDICATOR,
    MIB,
    NOW_S,
    OK,
    VALID,
    WHO,
    E,
    I,
    T,
    U,
    answer,
    base,
    cca,
    ccr,
    final,
    granted,
    money,
    octets,
    pool,
    reason,
    redirect,
    seconds,
    service,
    tgpp,
    time_avp,
    used,
    wants,
)
from tests.protocols.messages import (
    ORIGIN_HOST,
    REQUIRED,
    SESSION_ID,
    VENDOR_3GPP,
    VENDOR_SPECIFIC_APPLICATION,
    gateway_update,
    group,
    message,
    packed,
    subscription,
    u32,
    u64,
)

ALL_RULES = [*BASE_RULES.rules, *REQUEST_RULES.rules, *ANSWER_RULES.rules]
RULES = {rule.name: rule for rule in ALL_RULES}

CASES: dict[str, tuple[bytes, bytes]] = {
    # base protocol
    "reserved_header_bits": (ccr(I, flags=0xC1), ccr(I)),
    "application_of_base_command": (base(280, application=4), base(280)),
    "error_bit": (answer(result=3002), answer(result=3002, flags=0x60)),
    "error_bit_of_a_permanent_failure": (answer(result=5012, flags=0x60), answer(result=5012)),
    "retransmission_bit": (answer(flags=0x50), answer()),
    "reserved_avp_bits": (ccr(I, u32(436, 0, flags=0x60)), ccr(I, u32(436, 0))),
    "mandatory_bit": (ccr(I, u32(436, 0, flags=0)), ccr(I, u32(436, 0))),
    "unknown_avps": (ccr(I, u32(9999, 0, flags=0)), ccr(I, u32(436, 0))),
    "text_that_is_none": (ccr(I, packed(1, b"\xff")), ccr(I, packed(1, "ü".encode()))),
    "date_that_cannot_be": (ccr(I, time_avp(55, 5)), ccr(I, time_avp(55, NOW_S))),
    "clocks_that_differ": (ccr(I, time_avp(55, NOW_S - 3700)), ccr(I, time_avp(55, NOW_S + 3500))),
    "session_id_first_in_request": (message([ORIGIN_HOST, SESSION_ID]), message([SESSION_ID, ORIGIN_HOST])),
    "session_id_first_in_answer": (message([OK, SESSION_ID], flags=0x40), message([SESSION_ID, OK], flags=0x40)),
    "destination_in_answer": (answer(REQUIRED["Destination-Realm"]), answer()),
    "failed_avp": (answer(result=5004), answer(group(279, u32(436, 9)), result=5004)),
    "loop": (
        ccr(I, packed(282, b"a.example"), packed(282, b"A.example")),
        ccr(I, packed(282, b"a.example"), packed(282, b"b.example")),
    ),
    "no_address": (base(257), base(257, packed(257, b"\x00\x01\x7f\x00\x00\x01"))),
    "application_inside_vendor_specific": (
        base(257, OK, u32(258, 4), flags=0),
        base(257, OK, u32(258, 4), VENDOR_SPECIFIC_APPLICATION, flags=0),
    ),
    "re_auth_request_type": (ccr(I, u32(285, 1), command=258), ccr(I, u32(285, 0), command=258)),
    # what clients do
    "identity_twice": (ccr(I, ORIGIN_HOST), ccr(I)),
    "application_only_vendor_specific": (
        ccr(I, VENDOR_SPECIFIC_APPLICATION, without=("Auth-Application-Id",)),
        ccr(I, VENDOR_SPECIFIC_APPLICATION),
    ),
    "service_without_key": (ccr(I, service(wants())), ccr(I, service(wants(), u32(439, 1)))),
    "number_with_plus": (
        ccr(I, subscription(0, b"+49171")),
        ccr(I, subscription(0, b"49171"), subscription(2, b"+1@a")),
    ),
    # requests
    "request_number": (ccr(I, number=1), ccr(I)),
    "event_without_action": (ccr(E), ccr(E, u32(436, 0))),
    "refund_of_what": (
        ccr(E, u32(436, 1)),
        ccr(E, u32(436, 1), service(packed(2022, b"x", vendor=VENDOR_3GPP))),
    ),
    "action_outside_event": (ccr(U, u32(436, 0)), ccr(E, u32(436, 0))),
    "service_context": (ccr(I).replace(b"32251@3gpp.org", b"32251.3gpp.org"), ccr(I)),
    "nobody_to_charge": (ccr(I), ccr(I, group(873, WHO, vendor=VENDOR_3GPP))),
    "services_not_announced": (ccr(I, service(), u32(455, 0)), ccr(I, service(), INDICATOR)),
    "units_at_both_levels": (ccr(U, service(used()), used()), ccr(U, service(used()))),
    "nothing_wanted_at_first": (ccr(I, service(GROUP_10)), ccr(I, service(GROUP_10, wants()))),
    "usage_without_request": (ccr(U, service(used(MIB))), ccr(U, service(used(MIB), reason(2)))),
    "units_wanted_at_the_end": (ccr(T, service(wants())), ccr(T, service(used(MIB)))),
    "usage_at_first": (ccr(I, service(used(MIB), wants())), ccr(I, service(wants()))),
    "service_twice": (ccr(U, service(GROUP_10), service(GROUP_10)), ccr(U, service(GROUP_10), service(GROUP_20))),
    "server_avps": (ccr(U, service(VALID)), ccr(U, service(wants()))),
    "usage_of_nothing": (ccr(U, used(reason(3))), ccr(U, used(seconds(0)))),
    "time_that_cannot_be": (ccr(U, service(used(seconds(1_790_000_000)))), ccr(U, service(used(seconds(86_400))))),
    "octets_that_do_not_add_up": (
        ccr(U, used(octets(10), u64(412, 5), u64(414, 4))),
        ccr(U, used(octets(9), u64(412, 5), u64(414, 4))),
    ),
    "usage_twice": (ccr(U, service(used(MIB), used(MIB))), ccr(U, service(used(MIB)), service(used(MIB)))),
    "money_without_currency": (ccr(I, wants(money(5))), ccr(I, wants(money(5, u32(425, 978))))),
    "level_of_reporting_reason": (
        ccr(U, service(used(reason(4), MIB))),
        ccr(U, service(used(reason(3), MIB), reason(4))),
    ),
    "units_after_the_end": (ccr(U, service(wants(), reason(2))), ccr(U, service(wants(), reason(4)))),
    "usage_partly_split": (
        ccr(U, used(u32(452, 0), MIB), used(MIB)),
        ccr(U, used(u32(452, 0), MIB), used(u32(452, 1), MIB)),
    ),
    "time_split": (ccr(U, used(u32(452, 0), seconds(5))), ccr(U, used(u32(452, 0), seconds(5), MIB))),
    "tariff_time_from_client": (ccr(U, wants(time_avp(451, NOW_S))), ccr(U, wants())),
    "one_side_of_a_tariff_change": (
        ccr(U, used(u32(452, 1), MIB), used(u32(452, 2), MIB)),
        ccr(U, used(u32(452, 0), MIB), used(u32(452, 1), MIB)),
    ),
    # answers
    "mandatory_and_unknown": (
        cca(I, u32(2020, 1, vendor=VENDOR_3GPP)),
        cca(I, tgpp(2020, 1), group(279, u32(2020, 1, vendor=VENDOR_3GPP))),
    ),
    "success_without_grant": (cca(I, service(OK)), cca(I, service(u32(268, 4012)))),
    "grant_without_validity": (cca(I, service(granted(MIB))), cca(I, service(granted(MIB), VALID))),
    "grant_of_nothing": (cca(I, service(granted())), cca(I, service(granted(octets(0))))),
    "validity_and_final_units_at_both_levels": (cca(I, service(VALID), VALID), cca(I, service(VALID), service(VALID))),
    "grants_at_both_levels": (cca(I, service(granted(MIB)), granted(MIB)), cca(I, granted(MIB))),
    "services_overridden": (cca(U, service(OK), result=4012), cca(U, service(u32(268, 4012)), result=4012)),
    "refused_and_granted": (cca(U, service(u32(268, 4012), granted(MIB))), cca(U, service(OK, granted(MIB)))),
    "rating_failed_without_reason": (
        cca(U, service(u32(268, 5031))),
        cca(U, service(u32(268, 5031), group(279, GROUP_10))),
    ),
    "terminate_with_more": (cca(U, service(final(0, packed(11, b"x")))), cca(U, service(final(0)))),
    "redirect_without_server": (cca(U, final(1)), cca(U, final(1, redirect(2, b"http://a/")))),
    "restrict_without_filter": (cca(U, final(2)), cca(U, final(2, packed(11, b"portal")))),
    "redirect_address": (cca(U, final(1, redirect(0, b"::1"))), cca(U, final(1, redirect(1, b"::1")))),
    "terminate_at_once": (cca(I, service(final(0))), cca(I, service(final(0), granted(MIB)))),
    "action_at_once": (cca(U, final(0), granted(octets(0))), cca(U, final(0), granted(MIB))),
    "action_without_end": (
        cca(I, service(final(2, packed(11, b"x")))),
        cca(I, service(final(2, packed(11, b"x")), VALID)),
    ),
    "only_new_final_units": (cca(U, final(0, code=669)), cca(U, final(0, code=669), final(0))),
    "pool_of_units_not_granted": (
        cca(I, service(GROUP_10, granted(seconds(5)), pool(1, 2))),
        cca(I, service(GROUP_10, granted(MIB), pool(1, 2))),
    ),
    "pool_twice": (
        cca(I, service(granted(MIB), pool(1, 2), pool(1, 2))),
        cca(I, service(granted(MIB, seconds(5)), pool(1, 2), pool(1, 0))),
    ),
    "grant_on_no_side": (cca(U, service(u32(452, 2))), cca(U, service(u32(452, 1)))),
    "half_of_two_quotas": (
        cca(U, service(GROUP_10, u32(452, 0)), service(GROUP_20)),
        cca(U, service(GROUP_10, u32(452, 0)), service(GROUP_10, u32(452, 1))),
    ),
    "tariff_change_of_time": (
        cca(U, service(granted(time_avp(451, NOW_S), seconds(5)))),
        cca(U, service(granted(time_avp(451, NOW_S), MIB))),
    ),
    "tariff_change_gone_by": (
        cca(U, service(granted(time_avp(451, NOW_S - 1), MIB))),
        cca(U, service(granted(time_avp(451, NOW_S + 1), MIB))),
    ),
    "threshold_of_nothing": (
        cca(U, service(granted(octets(100)), tgpp(869, 100))),
        cca(U, service(granted(octets(100)), tgpp(869, 99))),
    ),
    "reason_from_server": (cca(U, service(reason(2))), ccr(U, service(reason(2)))),
}


def judged(octets_: bytes, rule: Rule) -> list[str]:
    shown = DecodedMessage(1, Found(octets_, time_ns=NOW_S * 1_000_000_000))
    return [remark.text for remark in rule.remarks(shown)] if rule.concerns(shown) else []


@pytest.mark.parametrize("name", RULES)
def test_every_rule_sees_what_breaks_it_and_nothing_else(name: str) -> None:
    breaks, keeps = CASES[name]
    found = judged(breaks, RULES[name])
    assert len(found) == 1, found
    assert judged(keeps, RULES[name]) == []


def test_every_case_is_of_a_rule() -> None:
    assert CASES.keys() == RULES.keys()
    assert len(RULES) == len(ALL_RULES)


@pytest.mark.parametrize("rule", [*ALL_RULES, *PAIR_RULES.rules, *SESSION_RULES.rules], ids=lambda rule: rule.name)
def test_every_rule_says_where_it_comes_from(rule: Rule) -> None:
    """A row of the conformance table, a section, or a fact about a client that the table has."""
    known = {claim.key for group_ in read_claims() for claim in group_.claims}
    assert rule.judge.__doc__
    assert not rule.row or f"row {rule.row}" in known
    for source in rule.clause.split(", "):
        assert source.startswith(("RFC 6733 ", "RFC 8506 ", "TS 32.299 clause ")) or source in known, source


# -- the other ways to break the rules with several ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "breaks", "text"),
    [
        (
            "error_bit",
            answer(result=2001, flags=0x60),
            "the E bit is set, but Result-Code 2001 (DIAMETER_SUCCESS) is no protocol error",
        ),
        (
            "error_bit",
            answer(result=4012, flags=0x60),
            "the E bit is set, but Result-Code 4012 (DIAMETER_CREDIT_LIMIT_REACHED) is no protocol error",
        ),
        (
            "mandatory_bit",
            ccr(I, packed(281, b"x")),
            "the M bit is set, although the definition forbids it: Error-Message",
        ),
        ("request_number", ccr(E, number=3), "CC-Request-Number is 3 in an event instead of 0"),
        (
            "request_number",
            ccr(U, number=0),
            "CC-Request-Number is 0, which is that of the first request of the session",
        ),
        (
            "services_not_announced",
            ccr(I, service()),
            (
                "Multiple-Services-Credit-Control is used, but Multiple-Services-Indicator is missing instead of 1: "
                "answered by service all the same, unless the client's profile has needs_indicator"
            ),
        ),
        (
            "level_of_reporting_reason",
            ccr(U, service(GROUP_10, reason(3))),
            "Reporting-Reason QUOTA_EXHAUSTED (3) of Rating-Group 10 belongs into Used-Service-Unit",
        ),
        (
            "time_that_cannot_be",
            ccr(U, used(seconds(71_582_788))),
            "CC-Time 71582788 at command level is more than a month: can that have been used?",
        ),
        (
            "one_side_of_a_tariff_change",
            ccr(U, used(u32(452, 2), MIB)),
            "usage at command level is split at a tariff change, but none is told before and after it",
        ),
        (
            "redirect_without_server",
            cca(U, service(GROUP_10, u32(439, 7), final(1, code=669))),
            (
                "QoS-Final-Unit-Indication of Rating-Group 10, Service-Identifier 7 with REDIRECT has no "
                "Redirect-Server: where to?"
            ),
        ),
        ("redirect_address", cca(U, final(1, redirect(2, b"portal"))), "Redirect-Server-Address 'portal' is no URL"),
        ("redirect_address", cca(U, final(1, redirect(3, b"tel:1"))), "Redirect-Server-Address 'tel:1' is no SIP_URI"),
        (
            "threshold_of_nothing",
            cca(U, service(granted(seconds(5)), tgpp(869, 9))),
            "Volume-Quota-Threshold of the service without Rating-Group goes with no grant of CC-Total-Octets",
        ),
        (
            "mandatory_and_unknown",
            cca(I, final(0, code=669)),
            "a plain credit-control client does not know QoS-Final-Unit-Indication, and drops the answer for its M bit",
        ),
        (
            "mandatory_and_unknown",
            cca(I, u32(7777, 0)),
            "a plain credit-control client does not know AVP 7777/0, and drops the answer for its M bit",
        ),
        (
            "action_at_once",
            cca(I, service(GROUP_10, final(1, redirect(2, b"http://a/")))),
            "Final-Unit-Indication of Rating-Group 10 comes with no units: the client does REDIRECT at once",
        ),
    ],
)
def test_what_a_rule_says(name: str, breaks: bytes, text: str) -> None:
    assert judged(breaks, RULES[name]) == [text]


def test_kinds_tell_clients_habits_from_breaches() -> None:
    kinds: dict[str, Callable[[Rule], bool]] = {
        "identity_twice": lambda rule: rule.kind is Kind.TOLERATED,
        "action_at_once": lambda rule: rule.kind is Kind.NOTE,
        "terminate_with_more": lambda rule: rule.kind is Kind.BREACH,
    }
    for name, holds in kinds.items():
        assert holds(RULES[name])


def test_a_good_request_and_a_good_answer_break_no_rule() -> None:
    request = ccr(I, WHO, INDICATOR, service(GROUP_10, wants(MIB)), service(GROUP_20, wants()))
    reply = cca(I, service(granted(MIB), GROUP_10, VALID, OK), service(GROUP_20, u32(268, 4010)))
    for octets_ in (request, reply):
        assert [text for rule in ALL_RULES for text in judged(octets_, rule)] == []


def test_what_is_remarked_of_a_request_as_a_gateway_sends_it() -> None:
    found = {rule.name for rule in ALL_RULES if judged(gateway_update(), rule)}
    assert found == {"action_outside_event", "usage_twice", "clocks_that_differ"}
