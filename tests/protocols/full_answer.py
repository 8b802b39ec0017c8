"""An answer that says nearly all that answers can say, the request it belongs to, and where it comes from."""

from protocols.credit_control import CreditControlAnswer, ServiceAnswer, Units, decode_request
from tests.protocols.messages import gateway_update, packed, u32

OUR_ORIGIN = packed(264, b"occ1.ocs.example.net") + packed(296, b"ocs.example.net")


REQUEST = decode_request(gateway_update())
FULL_ANSWER = CreditControlAnswer(
    2001,
    (
        ServiceAnswer(
            10,
            (),
            2001,
            Units(total_octets=1_000_000),
            600,
            volume_quota_threshold=100_000,
            time_quota_threshold=30,
            unit_quota_threshold=1,
            quota_holding_time=3600,
        ),
        ServiceAnswer(20, (7, 8), 4012, failed_avp=u32(432, 20)),
        ServiceAnswer(
            30,
            (),
            2001,
            Units(time=60, service_specific=2, money=(123, -2, 978)),
            300,
            final_unit_action=1,
            redirect_address_type=2,
            redirect_server_address=b"http://top-up.example.net/",
        ),
        ServiceAnswer(
            40,
            final_unit_action=2,
            filter_ids=(b"portal-only",),
            restriction_rules=(b"permit out ip from any to 10.0.0.1",),
        ),
    ),
    granted=Units(input_octets=1, output_octets=2),
    validity_time=60,
    final_unit_action=0,
    cost=(5, -2, 978),
    check_balance_result=0,
    cc_session_failover=1,
    credit_control_failure_handling=2,
    direct_debiting_failure_handling=1,
    low_balance_indication=1,
    remaining_balance=(99, 0, 978),
    failed_avp=u32(415, 1),
    error_message=b"text",
)
