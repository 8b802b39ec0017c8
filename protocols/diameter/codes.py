"""Numbers of the Diameter protocol under the names that the RFCs and 3GPP give them.

Flags are plain integers in small classes, since they are combined with ``|`` and ``&`` for every message;
everything that is shown to people is an ``IntEnum``, so that a log line can print the name.
"""

from enum import IntEnum
from typing import Final

VENDOR_IETF: Final[int] = 0
VENDOR_3GPP: Final[int] = 10415

PROTOCOL_VERSION: Final[int] = 1


class Flag:
    """Command flags (RFC 6733 section 3)."""

    REQUEST: Final[int] = 0x80
    PROXIABLE: Final[int] = 0x40
    ERROR: Final[int] = 0x20
    RETRANSMIT: Final[int] = 0x10


class AvpFlag:
    """AVP flags (RFC 6733 section 4.1)."""

    VENDOR: Final[int] = 0x80
    MANDATORY: Final[int] = 0x40
    PROTECTED: Final[int] = 0x20


class Application(IntEnum):
    """Application-Ids in message headers and in capability exchange."""

    BASE = 0
    CREDIT_CONTROL = 4
    SY = 16777302
    RELAY = 0xFFFFFFFF


class Command(IntEnum):
    """Command codes; the R bit tells request from answer."""

    CAPABILITIES_EXCHANGE = 257
    RE_AUTH = 258
    ACCOUNTING = 271
    CREDIT_CONTROL = 272
    ABORT_SESSION = 274
    SESSION_TERMINATION = 275
    DEVICE_WATCHDOG = 280
    DISCONNECT_PEER = 282
    SPENDING_LIMIT = 8388635
    SPENDING_STATUS_NOTIFICATION = 8388636


class ResultCode(IntEnum):
    """Result-Code values of RFC 6733 section 7.1 and RFC 8506 section 9, without their DIAMETER_ prefix."""

    MULTI_ROUND_AUTH = 1001
    SUCCESS = 2001
    LIMITED_SUCCESS = 2002
    COMMAND_UNSUPPORTED = 3001
    UNABLE_TO_DELIVER = 3002
    REALM_NOT_SERVED = 3003
    TOO_BUSY = 3004
    LOOP_DETECTED = 3005
    REDIRECT_INDICATION = 3006
    APPLICATION_UNSUPPORTED = 3007
    INVALID_HDR_BITS = 3008
    INVALID_AVP_BITS = 3009
    UNKNOWN_PEER = 3010
    AUTHENTICATION_REJECTED = 4001
    OUT_OF_SPACE = 4002
    ELECTION_LOST = 4003
    END_USER_SERVICE_DENIED = 4010
    CREDIT_CONTROL_NOT_APPLICABLE = 4011
    CREDIT_LIMIT_REACHED = 4012
    AVP_UNSUPPORTED = 5001
    UNKNOWN_SESSION_ID = 5002
    AUTHORIZATION_REJECTED = 5003
    INVALID_AVP_VALUE = 5004
    MISSING_AVP = 5005
    RESOURCES_EXCEEDED = 5006
    CONTRADICTING_AVPS = 5007
    AVP_NOT_ALLOWED = 5008
    AVP_OCCURS_TOO_MANY_TIMES = 5009
    NO_COMMON_APPLICATION = 5010
    UNSUPPORTED_VERSION = 5011
    UNABLE_TO_COMPLY = 5012
    INVALID_BIT_IN_HEADER = 5013
    INVALID_AVP_LENGTH = 5014
    INVALID_MESSAGE_LENGTH = 5015
    INVALID_AVP_BIT_COMBO = 5016
    NO_COMMON_SECURITY = 5017
    USER_UNKNOWN = 5030
    RATING_FAILED = 5031


class DisconnectCause(IntEnum):
    """Disconnect-Cause 273 (RFC 6733 section 5.4.3)."""

    REBOOTING = 0
    BUSY = 1
    DO_NOT_WANT_TO_TALK_TO_YOU = 2


class InbandSecurity(IntEnum):
    """Inband-Security-Id 299 (RFC 6733 section 6.10)."""

    NO_INBAND_SECURITY = 0
    TLS = 1


class TerminationCause(IntEnum):
    """Termination-Cause 295 (RFC 6733 section 8.15)."""

    LOGOUT = 1
    SERVICE_NOT_PROVIDED = 2
    BAD_ANSWER = 3
    ADMINISTRATIVE = 4
    LINK_BROKEN = 5
    AUTH_EXPIRED = 6
    USER_MOVED = 7
    SESSION_TIMEOUT = 8


class ReAuthRequestType(IntEnum):
    """Re-Auth-Request-Type 285 (RFC 6733 section 8.12)."""

    AUTHORIZE_ONLY = 0
    AUTHORIZE_AUTHENTICATE = 1


class CCRequestType(IntEnum):
    """CC-Request-Type 416 (RFC 8506 section 8.3)."""

    INITIAL = 1
    UPDATE = 2
    TERMINATION = 3
    EVENT = 4


class RequestedAction(IntEnum):
    """Requested-Action 436 (RFC 8506 section 8.41)."""

    DIRECT_DEBITING = 0
    REFUND_ACCOUNT = 1
    CHECK_BALANCE = 2
    PRICE_ENQUIRY = 3


class CheckBalanceResult(IntEnum):
    """Check-Balance-Result 422 (RFC 8506 section 8.6)."""

    ENOUGH_CREDIT = 0
    NO_CREDIT = 1


class CCSessionFailover(IntEnum):
    """CC-Session-Failover 418 (RFC 8506 section 8.4)."""

    FAILOVER_NOT_SUPPORTED = 0
    FAILOVER_SUPPORTED = 1


class CreditControlFailureHandling(IntEnum):
    """Credit-Control-Failure-Handling 427 (RFC 8506 section 8.14)."""

    TERMINATE = 0
    CONTINUE = 1
    RETRY_AND_TERMINATE = 2


class DirectDebitingFailureHandling(IntEnum):
    """Direct-Debiting-Failure-Handling 428 (RFC 8506 section 8.15)."""

    TERMINATE_OR_BUFFER = 0
    CONTINUE = 1


class MultipleServicesIndicator(IntEnum):
    """Multiple-Services-Indicator 455 (RFC 8506 section 8.40)."""

    MULTIPLE_SERVICES_NOT_SUPPORTED = 0
    MULTIPLE_SERVICES_SUPPORTED = 1


class TariffChangeUsage(IntEnum):
    """Tariff-Change-Usage 452 (RFC 8506 section 8.27)."""

    UNIT_BEFORE_TARIFF_CHANGE = 0
    UNIT_AFTER_TARIFF_CHANGE = 1
    UNIT_INDETERMINATE = 2


class FinalUnitAction(IntEnum):
    """Final-Unit-Action 449 (RFC 8506 section 8.35)."""

    TERMINATE = 0
    REDIRECT = 1
    RESTRICT_ACCESS = 2


class RedirectAddressType(IntEnum):
    """Redirect-Address-Type 433 (RFC 8506 section 8.38)."""

    IPV4_ADDRESS = 0
    IPV6_ADDRESS = 1
    URL = 2
    SIP_URI = 3


class CCUnitType(IntEnum):
    """CC-Unit-Type 454 (RFC 8506 section 8.32)."""

    TIME = 0
    MONEY = 1
    TOTAL_OCTETS = 2
    INPUT_OCTETS = 3
    OUTPUT_OCTETS = 4
    SERVICE_SPECIFIC_UNITS = 5


class TreatmentAction(IntEnum):
    """Treatment-Action 572 (RFC 5777 section 5.1)."""

    DROP = 0
    SHAPE = 1
    MARK = 2
    PERMIT = 3


class QoSSemantics(IntEnum):
    """QoS-Semantics 575 (RFC 5777 section 5.4)."""

    QOS_DESIRED = 0
    QOS_AVAILABLE = 1
    QOS_DELIVERED = 2
    MINIMUM_QOS = 3
    QOS_AUTHORIZED = 4


class SubscriptionIdType(IntEnum):
    """Subscription-Id-Type 450 (RFC 8506 section 8.47)."""

    END_USER_E164 = 0
    END_USER_IMSI = 1
    END_USER_SIP_URI = 2
    END_USER_NAI = 3
    END_USER_PRIVATE = 4


class ReportingReason(IntEnum):
    """Reporting-Reason 872 of 3GPP (TS 32.299 clause 7.2.175)."""

    THRESHOLD = 0
    QHT = 1
    FINAL = 2
    QUOTA_EXHAUSTED = 3
    VALIDITY_TIME = 4
    OTHER_QUOTA_TYPE = 5
    RATING_CONDITION_CHANGE = 6
    FORCED_REAUTHORISATION = 7
    POOL_EXHAUSTED = 8
    UNUSED_QUOTA_TIMER = 9


class RoleOfNode(IntEnum):
    """Role-Of-Node 829 of 3GPP (TS 32.299 clause 7.2.177)."""

    ORIGINATING_ROLE = 0
    TERMINATING_ROLE = 1
    FORWARDING_ROLE = 2


class AocRequestType(IntEnum):
    """AoC-Request-Type 2055 of 3GPP (TS 32.299 clause 7.2.18)."""

    AOC_NOT_REQUESTED = 0
    AOC_FULL = 1
    AOC_COST_ONLY = 2
    AOC_TARIFF_ONLY = 3


class ChargeReasonCode(IntEnum):
    """Charge-Reason-Code 2118 of 3GPP (TS 32.299 clause 7.2)."""

    UNKNOWN = 0
    USAGE = 1
    COMMUNICATION_ATTEMPT_CHARGE = 2
    SETUP_CHARGE = 3
    ADD_ON_CHARGE = 4


class SLRequestType(IntEnum):
    """SL-Request-Type 2904 of 3GPP (TS 29.219 clause 5.3.4)."""

    INITIAL_REQUEST = 0
    INTERMEDIATE_REQUEST = 1


class SNRequestType:
    """Bits of SN-Request-Type 2907 of 3GPP (TS 29.219 clause 5.3.7); where it is absent, only the first is meant."""

    NORMAL: Final[int] = 0x1
    ABORT_SESSION: Final[int] = 0x2


class ExperimentalResultCode(IntEnum):
    """Experimental-Result-Code 298 of 3GPP on Sy (TS 29.219 clause 5.5), without the DIAMETER_ prefix."""

    ERROR_NO_AVAILABLE_POLICY_COUNTERS = 4241
    ERROR_UNKNOWN_POLICY_COUNTERS = 5570
