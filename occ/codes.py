"""Numbers of RFC 8506 and TS 32.299 by which charging decides.

Plain integers: the hot path compares them several times a request, and members of an enumeration cost three times
as much.
"""

from typing import Final

# CC-Request-Type, RFC 8506 section 8.3
INITIAL: Final = 1
UPDATE: Final = 2
TERMINATION: Final = 3
EVENT: Final = 4

# Requested-Action, RFC 8506 section 8.41
DIRECT_DEBITING: Final = 0
REFUND_ACCOUNT: Final = 1
CHECK_BALANCE: Final = 2
PRICE_ENQUIRY: Final = 3

# Check-Balance-Result, RFC 8506 section 8.6
ENOUGH_CREDIT: Final = 0
NO_CREDIT: Final = 1

# Result-Code, RFC 6733 section 7.1 and RFC 8506 section 9
SUCCESS: Final = 2001
UNABLE_TO_DELIVER: Final = 3002
TOO_BUSY: Final = 3004
END_USER_SERVICE_DENIED: Final = 4010
CREDIT_CONTROL_NOT_APPLICABLE: Final = 4011
CREDIT_LIMIT_REACHED: Final = 4012
UNKNOWN_SESSION_ID: Final = 5002
AUTHORIZATION_REJECTED: Final = 5003
INVALID_AVP_VALUE: Final = 5004
MISSING_AVP: Final = 5005
UNABLE_TO_COMPLY: Final = 5012
USER_UNKNOWN: Final = 5030
RATING_FAILED: Final = 5031

# Final-Unit-Action, RFC 8506 section 8.35
TERMINATE: Final = 0
REDIRECT: Final = 1
RESTRICT_ACCESS: Final = 2

# Tariff-Change-Usage, RFC 8506 section 8.27
BEFORE_TARIFF_CHANGE: Final = 0
AFTER_TARIFF_CHANGE: Final = 1
EITHER_SIDE: Final = 2

# Reporting-Reason, TS 32.299 clause 7.2.175
REASON_FINAL: Final = 2
RATING_CONDITION_CHANGE: Final = 6

# Multiple-Services-Indicator, RFC 8506 section 8.40
MULTIPLE_SERVICES_SUPPORTED: Final = 1
