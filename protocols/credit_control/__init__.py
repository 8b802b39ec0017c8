"""Diameter credit control (RFC 8506 with 3GPP TS 32.299): typed CCR, CCA, RAR, RAA, ASR and ASA.

``decode_request`` and ``encode_answer`` are the server's side, ``encode_request`` and ``decode_answer`` the
client's. ``service_information`` builds the 3GPP part of requests. What of an answer does not change from request
to request can be encoded once: see ``members``.
"""

from protocols.credit_control.answer import encode_answer, encode_result, encode_service
from protocols.credit_control.answer_model import (
    AdviceOfCharge,
    CreditControlAnswer,
    PoolReference,
    RateElement,
    ReceivedAnswer,
    ServiceAnswer,
    Tariff,
)
from protocols.credit_control.client import decode_answer, encode_request
from protocols.credit_control.members import bandwidth_filter_rule, encode_command_members, encode_service_members
from protocols.credit_control.model import CreditControlRequest, Money, ServiceRequest, Units, UnitValue
from protocols.credit_control.request import decode_request
from protocols.credit_control.service_information import ims_information, ps_information, sms_information
from protocols.credit_control.session import (
    AbortSessionRequest,
    ReAuthRequest,
    SessionAnswer,
    decode_asa,
    decode_asr,
    decode_raa,
    decode_rar,
    encode_asa,
    encode_asr,
    encode_raa,
    encode_rar,
)

__all__ = [
    "AbortSessionRequest",
    "AdviceOfCharge",
    "CreditControlAnswer",
    "CreditControlRequest",
    "Money",
    "PoolReference",
    "RateElement",
    "ReAuthRequest",
    "ReceivedAnswer",
    "ServiceAnswer",
    "ServiceRequest",
    "SessionAnswer",
    "Tariff",
    "UnitValue",
    "Units",
    "bandwidth_filter_rule",
    "decode_answer",
    "decode_asa",
    "decode_asr",
    "decode_raa",
    "decode_rar",
    "decode_request",
    "encode_answer",
    "encode_asa",
    "encode_asr",
    "encode_command_members",
    "encode_raa",
    "encode_rar",
    "encode_request",
    "encode_result",
    "encode_service",
    "encode_service_members",
    "ims_information",
    "ps_information",
    "sms_information",
]
