"""Requests of Sy: SLR and STR of the PCRF, SNR of the OCS (3GPP TS 29.219 clause 5.6, RFC 6733 section 8.4)."""

from typing import Final

from protocols.diameter.codec import Avp, avp
from protocols.diameter.codes import VENDOR_3GPP, Command, SLRequestType, SNRequestType
from protocols.spending_limits import parts
from protocols.spending_limits.model import (
    SessionTerminationRequest,
    SpendingLimitRequest,
    SpendingStatusNotificationRequest,
)

_SUBSCRIPTION_ID: Final = 443
_SUBSCRIPTION_ID_DATA: Final = 444
_SUBSCRIPTION_ID_TYPE: Final = 450
_TERMINATION_CAUSE: Final = 295
_SL_REQUEST_TYPE: Final = 2904
_SN_REQUEST_TYPE: Final = 2907


def policy_counter(identifier: str) -> bytes:
    """One Policy-Counter-Identifier, as it stands in requests and in the Failed-AVP of a refusal."""
    return avp("Policy-Counter-Identifier", identifier)


def encode_slr(request: SpendingLimitRequest) -> bytes:
    """A whole Spending-Limit-Request."""
    identities = [
        avp("Subscription-Id", [avp("Subscription-Id-Type", kind), avp("Subscription-Id-Data", data)])
        for kind, data in request.subscription_ids
    ]
    counters = [policy_counter(each) for each in request.counters]
    return parts.build_request(
        Command.SPENDING_LIMIT, request, [avp("SL-Request-Type", request.request_type), *identities, *counters]
    )


def decode_slr(buffer: bytes) -> SpendingLimitRequest:
    """Read and check one whole Spending-Limit-Request. Raises DiameterError, ready to be answered."""
    message = parts.checked(buffer, Command.SPENDING_LIMIT, is_request=True)
    counters = [parts.text(one) for one in message.find_all(parts.POLICY_COUNTER_IDENTIFIER, VENDOR_3GPP)]
    kind = parts.number(message.find(_SL_REQUEST_TYPE, VENDOR_3GPP))
    return SpendingLimitRequest(
        *parts.head_of(message),
        request_type=int(SLRequestType.INITIAL_REQUEST) if kind is None else kind,
        subscription_ids=tuple(_identity(group) for group in message.find_all(_SUBSCRIPTION_ID)),
        counters=tuple(dict.fromkeys(counters)),
    )


def _identity(group: Avp) -> tuple[int, bytes]:
    kind, data = 0, b""
    for one in parts.members(group):
        if one.vendor:
            continue
        if one.code == _SUBSCRIPTION_ID_TYPE:
            kind = int.from_bytes(one.data, "big")
        elif one.code == _SUBSCRIPTION_ID_DATA:
            data = one.data
    return kind, data


def encode_snr(request: SpendingStatusNotificationRequest) -> bytes:
    """A whole Spending-Status-Notification-Request."""
    written = [parts.encode_reports(request.reports)]
    if request.request_type != SNRequestType.NORMAL:
        written.append(avp("SN-Request-Type", request.request_type))
    return parts.build_request(Command.SPENDING_STATUS_NOTIFICATION, request, written)


def decode_snr(buffer: bytes) -> SpendingStatusNotificationRequest:
    """Read and check one whole Spending-Status-Notification-Request. Raises DiameterError, ready to be answered."""
    message = parts.checked(buffer, Command.SPENDING_STATUS_NOTIFICATION, is_request=True)
    kind = parts.number(message.find(_SN_REQUEST_TYPE, VENDOR_3GPP))
    return SpendingStatusNotificationRequest(
        *parts.head_of(message),
        reports=parts.reports(message),
        request_type=SNRequestType.NORMAL if kind is None else kind,
    )


def encode_str(request: SessionTerminationRequest) -> bytes:
    """A whole Session-Termination-Request of Sy."""
    return parts.build_request(
        Command.SESSION_TERMINATION, request, [avp("Termination-Cause", request.termination_cause)]
    )


def decode_str(buffer: bytes) -> SessionTerminationRequest:
    """Read and check one whole Session-Termination-Request of Sy. Raises DiameterError, ready to be answered."""
    message = parts.checked(buffer, Command.SESSION_TERMINATION, is_request=True)
    return SessionTerminationRequest(
        *parts.head_of(message), termination_cause=parts.number(message.find(_TERMINATION_CAUSE)) or 0
    )
