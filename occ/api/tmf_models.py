"""What TM Forum's TMF654 (Prepay Balance Management, v4) sends and is sent, as far as this server has it.

Attributes that are not known are passed over, as TMF630 wishes; those that would change what is done and that the
server cannot do are refused by whoever carries the request out.
"""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

Text = Annotated[str, StringConstraints(max_length=300)]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Number = Annotated[Decimal, Field(allow_inf_nan=False, ge=-(10**18), le=10**18), WithJsonSchema({"type": "number"})]
"""Exact, with as many decimals as are written."""


class UsageType(StrEnum):
    MONETARY = "monetary"
    VOICE = "voice"
    DATA = "data"
    SMS = "sms"
    OTHER = "other"


class Part(BaseModel):
    """Something within a document."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


class Quantity(Part):
    amount: Number | None = None
    units: Text | None = None
    """A currency of ISO 4217; B, kB, KiB, MB, MiB, GB, GiB, TB, TiB; s, min, h; event."""


class Money(Part):
    unit: Text | None = None
    value: Number | None = None


class Reference(Part):
    """A reference to something that has an id."""

    id: Name
    href: Text | None = None
    name: Text | None = None
    referred_type: Text | None = Field(default=None, alias="@referredType")


class RelatedParty(Reference):
    role: Text | None = None


class TimePeriod(Part):
    start: AwareDatetime | None = Field(default=None, alias="startDateTime")
    end: AwareDatetime | None = Field(default=None, alias="endDateTime")


References = Annotated[list[Reference], Field(max_length=20)]


class ActCreate(Part):
    """What all acts on balances can say."""

    description: Text | None = None
    reason: Text | None = None
    amount: Quantity
    bucket: Reference
    usage_type: UsageType = Field(alias="usageType")
    channel: Reference | None = None
    logical_resource: References | None = Field(default=None, alias="logicalResource")
    product: References | None = None
    party_account: Reference | None = Field(default=None, alias="partyAccount")
    requestor: RelatedParty | None = None
    valid_for: TimePeriod | None = Field(default=None, alias="validFor")


class TopupBalanceCreate(ActCreate):
    party_account: Reference = Field(alias="partyAccount")
    voucher: Annotated[str, StringConstraints(max_length=40)] | None = None
    """Code of a voucher; the amount is then what it is worth."""
    is_auto_topup: bool | None = Field(default=None, alias="isAutoTopup")
    number_of_periods: int | None = Field(default=None, alias="numberOfPeriods")
    recurring_period: Text | None = Field(default=None, alias="recurringPeriod")
    payment_method: Reference | None = Field(default=None, alias="paymentMethod")


class AdjustBalanceCreate(ActCreate):
    adjust_type: Literal["oneTime", "recurring"] | None = Field(default=None, alias="adjustType")


class TransferBalanceCreate(ActCreate):
    reason: Name
    channel: Reference
    logical_resource: References = Field(alias="logicalResource")
    receiver_logical_resource: Reference = Field(alias="receiverLogicalResource")
    receiver_bucket: Reference = Field(alias="receiverBucket")
    receiver_bucket_usage_type: UsageType = Field(alias="receiverBucketUsageType")
    receiver: RelatedParty | None = None
    receiver_product: Reference | None = Field(default=None, alias="receiverProduct")
    cost_owner: Literal["originator", "receiver"] | None = Field(default=None, alias="costOwner")
    transfer_cost: Money | None = Field(default=None, alias="transferCost")


class ReserveBalanceCreate(ActCreate):
    party_account: Reference = Field(alias="partyAccount")


class ActUpdate(Part):
    """What can be changed: an act can be cancelled, a reservation taken as well (completed)."""

    status: Literal["cancelled", "completed"]
    reason: Text | None = None


class SubscriptionInput(Part):
    callback: Annotated[str, StringConstraints(min_length=8, max_length=500)]
    query: Text | None = None
    """``eventType=TopupBalanceCreateEvent,AdjustBalanceCreateEvent``; left out: all events."""


def plain(model: BaseModel) -> dict[str, Any]:
    """The attributes that were given, by their names on the wire."""
    found: dict[str, Any] = model.model_dump(mode="python", by_alias=True, exclude_none=True)
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, StrEnum):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value
