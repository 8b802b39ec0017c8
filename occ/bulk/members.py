"""What rows of subscribers and of customer units mean for the store, a batch at a time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from balance import directory, structure, subscribers
from balance.accounts import Account
from balance.bulk import IMPORT, add_members
from balance.model import IdentityType, LedgerError, LifeState, Subscriber
from balance.records import unpack_subscriber
from balance.store import Store
from balance.structure import CustomerUnit, Pays, UnitKind
from balance.subscribers import check_subscriber, describe_identity, own_account
from occ.bulk import values
from occ.bulk.reconcile import Item, OnExisting, Rules, Verdict
from occ.bulk.rows import IDENTITY_COLUMNS, SubscriberRow, UnitRow
from occ.entitlements import bring_all_up_to_date, concern
from occ.lifecycle import check_change
from occ.rating.currency import currency_name


@dataclass(slots=True)
class Members:
    """Enters and compares subscribers and units."""

    store: Store
    rules: Rules
    reference: str
    dry_run: bool
    new_currency: Callable[[bytes], int | None]
    """In a dry run: the currency of an account that would have been entered by now; None: no such account."""
    claimed: Callable[[int, bytes], bool]
    """In a dry run: whether an identity belongs to a subscriber that would have been entered by now; now it does."""
    known_unit: Callable[[bytes], bool]
    """In a dry run: whether a unit would have been entered by now."""

    # -- subscribers -----------------------------------------------------------------------------------------------

    async def settle(self, items: Sequence[Item]) -> int:
        """Judge rows of subscribers, no two about the same one, and do what they say; how many were added.

        Raises StoreError.
        """
        rows = [_subscriber_row(item) for item in items]
        values_known = await self.store.call("MGET", *(self.store.keys.subscriber(row.subscriber) for row in rows))
        accounts = await directory.read_accounts(self.store, [row.account for row in rows])
        new: list[tuple[Item, Subscriber]] = []
        known: list[tuple[Item, SubscriberRow, Subscriber]] = []
        for item, row, packed, account in zip(items, rows, values_known, accounts, strict=True):
            try:
                if packed is None:
                    new.append((item, self._new(row, account)))
                else:
                    known.append((item, row, unpack_subscriber(packed)))
            except LedgerError as error:
                item.judge(Verdict.REJECTED, str(error))
        await asyncio.gather(*(self._compare(*each) for each in known))
        if self.rules.repeated:
            # It may have been cut off when the subscribers were written, and not what comes with their plans.
            await self._bring_up_to_date([subscriber for _, _, subscriber in known])
        if not new:
            return 0
        added = [subscriber for _, subscriber in new]
        if self.dry_run:
            refusals = await self._would_refuse(added)
        else:
            refusals = await add_members(self.store, added, self.rules.now_ms, self.reference)
        for (item, _), refusal in zip(new, refusals, strict=True):
            if refusal is None:
                item.judge(Verdict.ACCEPTED)
            else:
                item.judge(Verdict.REJECTED, str(refusal))
        entered = [each for each, refusal in zip(added, refusals, strict=True) if refusal is None]
        await self._bring_up_to_date(entered)
        return sum(refusal is None for refusal in refusals)

    async def _bring_up_to_date(self, entered: Sequence[Subscriber]) -> None:
        """Give subscribers the offers of their plans that the files do not list: the running periods are paid for."""
        if self.dry_run or not concern(self.rules.catalogue):
            return
        if not entered:
            return
        keys = [self.store.keys.subscriber(each.subscriber_id) for each in entered]
        values_now = await self.store.call("MGET", *keys)
        as_entered = [unpack_subscriber(value) for value in values_now if value is not None]
        now_ms, catalogue = self.rules.now_ms, self.rules.catalogue
        await bring_all_up_to_date(self.store, catalogue, as_entered, now_ms, self.reference, paid=True)

    def _new(self, row: SubscriberRow, account: Account | None) -> Subscriber:
        """Raises LedgerError."""
        currency = account.currency if account is not None else self.new_currency(row.account)
        if currency is None:
            raise LedgerError(
                f"there is no account {row.account.decode()}, neither in the store nor in an accepted row"
            )
        if row.plan is None:
            raise LedgerError("plan is missing, and the subscriber is new")
        self._check_currency(row, currency)
        subscriber = Subscriber(
            row.subscriber,
            row.account,
            row.plan,
            row.identities,
            row.state or 0,
            row.cap_day_micro or 0,
            row.cap_month_micro or 0,
            row.activated_ms or 0,
            row.segment or "",
            row.friends or (),
            next_plan=row.next_plan or "",
            next_plan_ms=row.next_plan_ms or 0,
        )
        if subscriber.state == LifeState.GRACE:
            raise LedgerError("only a prepaid account can be in grace, not a subscriber")
        check_subscriber(subscriber)
        return subscriber

    def _check_currency(self, row: SubscriberRow, currency: int) -> None:
        catalogue = self.rules.catalogue
        for plan in (row.plan, row.next_plan):
            if plan and plan in catalogue.plans and catalogue.currency_of(plan) != currency:
                raise LedgerError(
                    f"account {row.account.decode()} is in {currency_name(currency)}, but the prices of plan {plan} "
                    f"are in {currency_name(catalogue.currency_of(plan))}"
                )

    async def _would_refuse(self, added: Sequence[Subscriber]) -> list[LedgerError | None]:
        """What entering them would come to."""
        refusals: list[LedgerError | None] = []
        wanted = [identity for each in added for identity in each.identities]
        held = await self.store.call("MGET", *(self.store.keys.identity(*each) for each in wanted)) if wanted else []
        holders = dict(zip(wanted, held, strict=True))
        for each in added:
            refusal = None
            for identity in each.identities:
                if (holder := holders[identity]) is not None:
                    owner = unpack_subscriber(holder).subscriber_id.decode()
                    refusal = LedgerError(
                        f"identity {describe_identity(*identity)} belongs to subscriber {owner} already"
                    )
                elif self.claimed(*identity):
                    refusal = LedgerError(f"identity {describe_identity(*identity)} belongs to another row already")
            refusals.append(refusal)
        return refusals

    async def _compare(self, item: Item, row: SubscriberRow, known: Subscriber) -> None:
        if self.rules.on_existing is OnExisting.SKIP:
            return
        wanted = _wanted(row, known)
        if wanted == known and row.account == own_account(known):
            return
        differences = _differences(row, known, wanted)
        if self.rules.on_existing is OnExisting.COMPARE:
            item.judge(Verdict.REJECTED, ", ".join(differences))
            return
        try:
            check_subscriber(wanted)
            if wanted.state != known.state:
                check_change(known.state, wanted.state)
            if not self.dry_run:
                await self._update(row, known, wanted, ", ".join(differences))
        except LedgerError as error:
            item.judge(Verdict.REJECTED, str(error))
        else:
            item.judge(Verdict.ACCEPTED)

    async def _update(self, row: SubscriberRow, known: Subscriber, wanted: Subscriber, what: str) -> None:
        """Raises LedgerError."""
        now_ms, name = self.rules.now_ms, known.subscriber_id
        if row.account != own_account(known):
            await structure.move_member(self.store, name, row.account, now_ms, self.reference)
        if wanted.state != known.state:
            state = LifeState(wanted.state)
            await subscribers.set_subscriber_state(self.store, name, state, now_ms, self.reference, check_change)
        changed = await subscribers.change_subscriber(
            self.store, name, lambda now: replace(_wanted(row, now), state=now.state)
        )
        await subscribers.note(
            self.store, changed.account_id, f"{IMPORT}-subscriber", (self.reference, name, what), now_ms
        )
        await self._bring_up_to_date([changed])

    # -- units -----------------------------------------------------------------------------------------------------

    async def settle_units(self, items: Sequence[Item]) -> None:
        """Judge rows of units, none below another, and do what they say. Raises StoreError."""
        await asyncio.gather(*(self._settle_unit(item) for item in items))

    async def _settle_unit(self, item: Item) -> None:
        row = item.row
        assert isinstance(row, UnitRow)
        try:
            known = await structure.unit_named(self.store, row.unit)
            if known is None:
                await self._new_unit(row)
                item.judge(Verdict.ACCEPTED)
            else:
                await self._compare_unit(item, row, known)
        except LedgerError as error:
            item.judge(Verdict.REJECTED, str(error))

    async def _new_unit(self, row: UnitRow) -> None:
        """Raises LedgerError."""
        unit = CustomerUnit(
            row.unit,
            int(UnitKind.INDIVIDUAL) if row.kind is None else row.kind,
            row.name or "",
            row.parent or b"",
            int(Pays.ITSELF) if row.pays is None else row.pays,
            row.account,
        )
        structure.check_unit(unit)
        if not self.dry_run:
            await structure.create_unit(self.store, unit, self.rules.now_ms, self.reference)
            return
        account = await directory.read_account(self.store, unit.account_id)
        if account is None and self.new_currency(unit.account_id) is None:
            raise LedgerError(f"there is no account {unit.account_id.decode()} for unit {unit.unit_id.decode()}")
        holder = await structure.unit_of_account(self.store, unit.account_id)
        if holder is not None:
            raise LedgerError(f"account {unit.account_id.decode()} is that of unit {holder.unit_id.decode()} already")
        above = unit.parent and await structure.unit_named(self.store, unit.parent) is None
        if above and not self.known_unit(unit.parent):
            raise LedgerError(f"there is no customer or unit {unit.parent.decode()} to stand below")

    async def _compare_unit(self, item: Item, row: UnitRow, known: CustomerUnit) -> None:
        """Raises LedgerError."""
        now_ms, how = self.rules.now_ms, self.rules.on_existing
        if how is OnExisting.SKIP:
            return
        found: list[str] = []
        _differ(found, "account", known.account_id, row.account, values.write_name)
        refused = bool(found)  # a unit keeps its account
        _differ(found, "kind", known.kind, row.kind, values.write_unit_kind)
        _differ(found, "name", known.name, row.name, values.write_text)
        _differ(found, "parent", known.parent, row.parent, values.write_name)
        _differ(found, "pays", known.pays, row.pays, values.write_pays)
        if found and (refused or how is OnExisting.COMPARE):
            item.judge(Verdict.REJECTED, ", ".join(found))
        elif found:
            if not self.dry_run:
                await structure.change_unit(
                    self.store, row.unit, lambda unit: _wanted_unit(row, unit), now_ms, self.reference
                )
            item.judge(Verdict.ACCEPTED)
        elif self.rules.repeated and not self.dry_run:
            # It may have been cut off when the unit was written, and those below not seen to.
            await structure.create_unit(self.store, known, now_ms, self.reference)


def _wanted_unit(row: UnitRow, unit: CustomerUnit) -> CustomerUnit:
    said: dict[str, Any] = {"kind": row.kind, "name": row.name, "parent": row.parent, "pays": row.pays}
    return replace(unit, **{name: value for name, value in said.items() if value is not None})


def _subscriber_row(item: Item) -> SubscriberRow:
    assert isinstance(item.row, SubscriberRow)
    return item.row


def _wanted(row: SubscriberRow, known: Subscriber) -> Subscriber:
    """A subscriber as the row would have it; what the row leaves out stays. Who pays is not its affair."""
    said: dict[str, Any] = {name: getattr(row, name) for name in _PLAIN}
    if row.next_plan is not None:
        said["next_plan_ms"] = row.next_plan_ms or 0
    changes = {name: value for name, value in said.items() if value is not None}
    if row.identities:
        types = {kind for kind, _ in row.identities}
        mine = tuple(each for each in known.identities if each[0] in types)
        if set(mine) != set(row.identities):
            others = [each for each in known.identities if each[0] not in types]
            changes["identities"] = tuple(sorted((*others, *row.identities), key=lambda each: each[0]))
    return replace(known, **changes)


_PLAIN: Final = (
    "plan", "state", "cap_day_micro", "cap_month_micro", "activated_ms", "segment", "friends", "next_plan",
)  # fmt: skip


def _differences(row: SubscriberRow, known: Subscriber, wanted: Subscriber) -> list[str]:
    found: list[str] = []
    _differ(found, "account", own_account(known), row.account, values.write_name)
    for name, write in _WRITERS.items():
        _differ(
            found, name.removesuffix("_micro").removesuffix("_ms"), getattr(known, name), getattr(wanted, name), write
        )
    for column, kind in IDENTITY_COLUMNS.items():
        _differ(found, column, _of_type(known, kind), _of_type(wanted, kind), values.write_list)
    return found


_WRITERS: Final[dict[str, values.Write]] = {
    "plan": values.write_text,
    "state": values.write_state,
    "cap_day_micro": values.write_limit,
    "cap_month_micro": values.write_limit,
    "activated_ms": values.write_moment,
    "segment": values.write_text,
    "friends": values.write_list,
    "next_plan": values.write_text,
    "next_plan_ms": values.write_moment,
}


def _of_type(subscriber: Subscriber, kind: IdentityType) -> tuple[bytes, ...]:
    return tuple(value for each, value in subscriber.identities if each == kind)


def _differ(found: list[str], name: str, here: object, said: object, write: values.Write) -> None:
    if said is not None and said != here:
        mine, theirs = write(here), write(said)
        found.append(f"{name} is {mine or 'nothing'} in the store and {theirs or 'nothing'} in the row")
