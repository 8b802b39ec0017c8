"""Spending limit reporting, Diameter Sy (3GPP TS 29.219): typed SLR, SLA, SNR, SNA, STR and STA.

The OCS decodes ``decode_slr`` and ``decode_str``, the PCRF ``decode_snr``; both sides have all encoders, so that tests
and simulators can be either. These messages are rare next to credit control and go through the general codec.
"""

from protocols.spending_limits.answers import (
    decode_sla,
    decode_sna,
    decode_sta,
    encode_sla,
    encode_sna,
    encode_sta,
)
from protocols.spending_limits.model import (
    CounterReport,
    SessionTerminationAnswer,
    SessionTerminationRequest,
    SpendingLimitAnswer,
    SpendingLimitRequest,
    SpendingStatusNotificationAnswer,
    SpendingStatusNotificationRequest,
    SyAnswer,
    SyRequest,
)
from protocols.spending_limits.requests import (
    decode_slr,
    decode_snr,
    decode_str,
    encode_slr,
    encode_snr,
    encode_str,
    policy_counter,
)

__all__ = [
    "CounterReport",
    "SessionTerminationAnswer",
    "SessionTerminationRequest",
    "SpendingLimitAnswer",
    "SpendingLimitRequest",
    "SpendingStatusNotificationAnswer",
    "SpendingStatusNotificationRequest",
    "SyAnswer",
    "SyRequest",
    "decode_sla",
    "decode_slr",
    "decode_sna",
    "decode_snr",
    "decode_sta",
    "decode_str",
    "encode_sla",
    "encode_slr",
    "encode_sna",
    "encode_snr",
    "encode_sta",
    "encode_str",
    "policy_counter",
]
