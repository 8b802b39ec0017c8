"""What the acts of TMF654 do to the ledger: worked out from the request, done, undone. Each can be repeated.

The ledger is given the act's name as the reference, so whatever is repeated here moves money once.
"""

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Final

from balance import directory
from balance.model import MAIN_BUCKET, LedgerError
from balance.reservations import end_reservation, reserve_amount
from balance.subscribers import LONGEST_REASON
from balance.transfers import transfer_money
from occ.api.context import Context
from occ.api.errors import bad_request, conflict
from occ.api.queries import moment_ms
from occ.api.tmf_models import (
    ActCreate,
    AdjustBalanceCreate,
    ReserveBalanceCreate,
    TopupBalanceCreate,
    TransferBalanceCreate,
    UsageType,
)
from occ.api.tmf_view import bucket_meant, quantity, units_of
from occ.cli_shell import name_octets, text_of
from occ.payments import redeem_voucher, take_payment, tell_of_credit

LONGEST_RESERVATION_MS: Final = 31 * 86_400_000
RESERVED_FOR_MS: Final = 3_600_000
"""Where the request does not say until when."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Effect:
    """What an act does; kept with it, so that it can be completed or undone later."""

    account: str
    bucket: int
    unit: int
    amount: int
    currency: int
    reason: str
    receiver: str = ""
    until_ms: int = 0
    voucher: str = ""
    """Serial number, once it is known."""
    ending_ms: int = 0
    """When it began to be cancelled, or taken."""

    def pack(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def unpack(cls, written: str) -> "Effect":
        return cls(**json.loads(written))

    @property
    def account_id(self) -> bytes:
        return name_octets(self.account)

    def amount_document(self) -> Document:
        return quantity(self.amount, self.unit, self.currency)


@dataclass(frozen=True, slots=True)
class Asked:
    """What of a request must not be kept with the act."""

    source: str
    """Id of the token."""
    code: str | None = None
    """Of a voucher."""


class Kind(ABC):
    """One kind of act."""

    resource: ClassVar[str]
    """On the wire: topupBalance."""
    pending: ClassVar[bool] = False
    """Done, it waits to be taken or given back."""

    @property
    def event(self) -> str:
        """What the names of its events begin with: TopupBalance."""
        return self.resource[0].upper() + self.resource[1:]

    async def prepare(self, context: Context, body: Any) -> Effect:
        """What the request comes to. Raises ApiError if it makes no sense; nothing is done yet."""
        account, bucket = await bucket_meant(context.store, body.bucket.id, _account_name(body), "bucket")
        return Effect(
            text_of(account.account_id),
            bucket.bucket_id,
            bucket.unit,
            units_of(body.amount, bucket, account.currency, body.usage_type),
            account.currency,
            (body.reason or "management API")[:LONGEST_REASON],
        )

    @abstractmethod
    async def perform(self, context: Context, name: str, effect: Effect, asked: Asked) -> Effect:
        """Do it. Raises LedgerError if it cannot be done, StoreError."""

    @abstractmethod
    async def undo(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        """Undo it. Raises LedgerError if it cannot be undone, StoreError."""


class Topup(Kind):
    resource = "topupBalance"

    async def prepare(self, context: Context, body: TopupBalanceCreate) -> Effect:
        if body.is_auto_topup or body.recurring_period or (body.number_of_periods or 1) != 1:
            raise bad_request("recurring top-ups are not offered; leave out isAutoTopup, recurringPeriod and so on")
        if body.valid_for is not None:
            raise bad_request("validFor: a top-up is valid for as long as its bucket")
        effect = await super().prepare(context, body)
        if body.voucher is None:
            if effect.amount <= 0:
                raise bad_request("amount.amount must be more than 0; adjustBalance takes money away")
        elif effect.bucket != MAIN_BUCKET:
            raise bad_request("bucket.id: a voucher goes to the main bucket, number 1")
        return effect

    async def perform(self, context: Context, name: str, effect: Effect, asked: Asked) -> Effect:
        if asked.code is not None:
            voucher, posting = await redeem_voucher(
                context.store,
                context.vouchers(),
                context.catalogue,
                effect.account_id,
                asked.code,
                source=asked.source,
                now_ms=context.clock(),
                valid_for_ms=context.valid_for_ms,
            )
            return replace(effect, amount=posting.amount, voucher=voucher.serial)
        await take_payment(
            context.store,
            context.catalogue,
            effect.account_id,
            effect.amount,
            now_ms=context.clock(),
            reason=effect.reason,
            valid_for_ms=context.valid_for_ms,
            bucket_id=effect.bucket,
            reference=f"api-{name}",
        )
        return effect

    async def undo(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        if effect.voucher:
            raise conflict("what a voucher has paid is not cancelled; adjust the balance instead")
        await _adjust(context, f"api-{name}-cancel", effect, -effect.amount, reason)


class Adjust(Kind):
    resource = "adjustBalance"

    async def prepare(self, context: Context, body: AdjustBalanceCreate) -> Effect:
        if body.adjust_type == "recurring":
            raise bad_request("adjustType: recurring adjustments are not offered")
        effect = await super().prepare(context, body)
        if not effect.amount:
            raise bad_request("amount.amount: an adjustment of nothing is none")
        return effect

    async def perform(self, context: Context, name: str, effect: Effect, _: Asked) -> Effect:
        await _adjust(context, f"api-{name}", effect, effect.amount, effect.reason)
        return effect

    async def undo(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        await _adjust(context, f"api-{name}-cancel", effect, -effect.amount, reason)


class Transfer(Kind):
    resource = "transferBalance"

    async def prepare(self, context: Context, body: TransferBalanceCreate) -> Effect:
        if body.transfer_cost is not None and body.transfer_cost.value:
            raise bad_request("transferCost: transfers are free of charge")
        effect = await super().prepare(context, body)
        receiver, bucket = await bucket_meant(context.store, body.receiver_bucket.id, None, "receiverBucket")
        usages = {body.usage_type, body.receiver_bucket_usage_type}
        if usages != {UsageType.MONETARY} or {effect.bucket, bucket.bucket_id} != {MAIN_BUCKET}:
            raise bad_request("bucket.id, receiverBucket.id: money goes from main bucket to main bucket, number 1")
        if effect.amount <= 0:
            raise bad_request("amount.amount must be more than 0")
        return replace(effect, receiver=text_of(receiver.account_id))

    async def perform(self, context: Context, name: str, effect: Effect, _: Asked) -> Effect:
        await self._move(context, f"api-{name}", effect.account, effect.receiver, effect.amount, effect.reason)
        return effect

    async def undo(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        await self._move(context, f"api-{name}-cancel", effect.receiver, effect.account, effect.amount, reason)

    async def _move(self, context: Context, reference: str, source: str, target: str, amount: int, why: str) -> None:
        before = await directory.read_account(context.store, name_octets(target))
        await transfer_money(
            context.store,
            name_octets(source),
            name_octets(target),
            amount,
            now_ms=context.clock(),
            reason=why,
            reference=reference,
            valid_for_ms=context.valid_for_ms,
        )
        if before is not None:
            await tell_of_credit(context.store, before)


class Reserve(Kind):
    resource = "reserveBalance"
    pending = True

    async def prepare(self, context: Context, body: ReserveBalanceCreate) -> Effect:
        effect = await super().prepare(context, body)
        if effect.amount <= 0:
            raise bad_request("amount.amount must be more than 0")
        until_ms = 0
        if body.valid_for is not None and body.valid_for.end is not None:
            until_ms = moment_ms(body.valid_for.end.isoformat(), "validFor.endDateTime")
        return replace(effect, until_ms=until_ms)

    async def perform(self, context: Context, name: str, effect: Effect, _: Asked) -> Effect:
        now_ms = context.clock()
        until_ms = effect.until_ms or now_ms + RESERVED_FOR_MS
        if until_ms - now_ms > LONGEST_RESERVATION_MS:
            raise LedgerError("validFor.endDateTime: a reservation lasts 31 days at most")
        await reserve_amount(
            context.store,
            effect.account_id,
            name,
            effect.bucket,
            effect.amount,
            until_ms,
            now_ms=now_ms,
            reason=effect.reason,
        )
        return replace(effect, until_ms=until_ms)

    async def undo(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        await self._end(context, name, effect, reason, take=False)

    async def take(self, context: Context, name: str, effect: Effect, reason: str) -> None:
        """Debit what is reserved. Raises LedgerError if it is not any more, StoreError."""
        await self._end(context, name, effect, reason, take=True)

    async def _end(self, context: Context, name: str, effect: Effect, reason: str, *, take: bool) -> None:
        done = await end_reservation(
            context.store, effect.account_id, name, take=take, now_ms=context.clock(), reason=reason
        )
        if done is None:
            raise conflict("the reservation has ended already")


async def _adjust(context: Context, reference: str, effect: Effect, amount: int, reason: str) -> None:
    before = await directory.read_account(context.store, effect.account_id)
    await directory.adjust_account(
        context.store,
        effect.account_id,
        amount,
        now_ms=context.clock(),
        reason=reason,
        bucket_id=effect.bucket,
        reference=reference,
    )
    if amount > 0 and before is not None:
        await tell_of_credit(context.store, before)


def _account_name(body: ActCreate) -> str | None:
    return None if body.party_account is None else body.party_account.id
