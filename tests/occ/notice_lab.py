"""A store with subscribers, the delivery of its notices, and gateways on loopback that take them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from balance import notices
from balance.contacts import Contact, change_contact
from balance.directory import create_account
from balance.embedded import Address
from balance.model import AccountKind, IdentityType, Subscriber
from balance.notices import Delivery, Notice
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from occ.notices.delivery import Deliveries
from occ.notices.opening import open_channels
from occ.notices.settings import (
    LogSettings,
    NoticesSettings,
    RetrySettings,
    SmsHttpSettings,
    TelegramSettings,
    WebhookSettings,
)
from occ.notices.templates import Templates
from occ.settings import SHIPPED

PARTITIONS = 4
ACCOUNT, SUBSCRIBER, NUMBER = b"acc-1", b"sub-1", "491700000001"
NOON_MS = 1_800_010_800_000
"""2027-01-15 12:00 in Berlin."""
PATIENCE_S = 20.0


async def open_store(address: Address) -> Store:
    """With an account and its subscriber."""
    store = Store(StoreSettings(address, PARTITIONS))
    await store.start()
    await create_account(store, ACCOUNT, AccountKind.PREPAID, 978, now_ms=1, reason="test")
    await add_subscriber(
        store, Subscriber(SUBSCRIBER, ACCOUNT, "standard", ((int(IdentityType.E164), NUMBER.encode()),))
    )
    return store


def notice(name: str, klass: str = "account-state", template: str = "low-balance", **values: Any) -> Notice:
    told = {"balance": 3_200_000, "currency": "EUR", **values}
    return Notice(name.encode(), ACCOUNT, SUBSCRIBER, klass, template, told, NOON_MS)


def settings(directory: Path, **urls: str) -> NoticesSettings:
    """The channels ``sms_http``, ``telegram`` and ``webhook`` at these URLs; others are off. Retries are at once."""
    secret = directory / "secret"
    secret.write_text("secret\n")
    made = NoticesSettings(templates=SHIPPED / "templates", log=LogSettings(enabled=False))
    made = replace(made, retry=RetrySettings(attempts=3, first_seconds=1, longest_seconds=1))
    quick: dict[str, Any] = {"enabled": True, "timeout_seconds": 10, "per_second": 1000}
    if "sms_http" in urls:
        made = replace(made, sms_http=SmsHttpSettings(url=urls["sms_http"], **quick))
    if "telegram" in urls:
        made = replace(made, telegram=TelegramSettings(base_url=urls["telegram"], token_file=secret, **quick))
    if "webhook" in urls:
        made = replace(made, webhook=WebhookSettings(allow_http=True, secret_file=secret, **quick))
    return made


@dataclass
class Lab:
    """Deliveries of one store, which run."""

    store: Store
    deliveries: Deliveries
    skipped_ms: int = 0
    """By so much their clock is put forward."""

    async def hand_in(self, *given: Notice) -> None:
        await notices.enqueue(self.store, given)

    async def state(self, name: str) -> Delivery | None:
        known = await notices.read(self.store, name.encode())
        return None if known is None else known.delivery

    async def until(self, name: str, what: Callable[[Delivery], bool]) -> Delivery:
        """The notice, once it is so."""
        found: Delivery | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    found = await self.state(name)
                    if found is not None and what(found):
                        return found
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(f"{name} is {found}") from None

    async def comes_to(self, name: str, state: str) -> Delivery:
        return await self.until(name, lambda delivery: delivery.state == state)

    async def counts(self) -> dict[tuple[str, str], int]:
        return dict((await notices.figures(self.store)).counts)

    async def contact(self, *channels: tuple[str, str], **fields: Any) -> None:
        key = self.store.keys.contact(SUBSCRIBER)
        await change_contact(self.store, key, lambda _: Contact(channels=channels, **fields))


@asynccontextmanager
async def lab(store: Store, made: NoticesSettings, begins_ms: int = NOON_MS) -> AsyncIterator[Lab]:
    """``begins_ms``: what time it is."""
    started = time.monotonic()

    def clock() -> int:
        return begins_ms + int((time.monotonic() - started) * 1000) + found.skipped_ms

    async def receipt(channel: str, message_id: str, delivered: bool, detail: str) -> None:
        await deliveries.receipt(channel, message_id, delivered, detail)

    assert made.templates is not None
    templates = Templates.load(made.templates, made.language)
    deliveries = Deliveries(store, made, templates, open_channels(made, receipt), clock, chance=lambda: 1.0)
    found = Lab(store, deliveries)
    running = asyncio.create_task(deliveries.run())
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await deliveries.finish(1.0)
