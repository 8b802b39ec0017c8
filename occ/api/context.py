"""What the requests of one API process share: the store, the settings, the catalogue as it stands in its file."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request

from balance.accounts import Account
from balance.broadcast import BroadcastListener
from balance.model import Subscriber
from balance.store import Store
from balance.subscribers import find_subscribers
from balance.vouchers import Vouchers
from occ.api.errors import ApiError, bad_request, not_found
from occ.cli_shell import name_octets, text_of
from occ.payments import voucher_pepper
from occ.policy.watching import watch_by_rules_in_force
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.reload import COMMAND as RELOAD_CATALOGUE
from occ.reload import DONE, FAILED, UNCHANGED, Reloaded
from occ.settings import Settings
from occ.yamlmap import ConfigError

log = logging.getLogger("occ.api")

DAY_MS = 86_400_000


class Context:
    """Everything a request may need."""

    def __init__(self, settings: Settings, store: Store, clock: Callable[[], int]) -> None:
        """``clock``: milliseconds since the Unix epoch, UTC."""
        self.settings = settings
        self.store = store
        self.clock = clock
        self.catalogue: Catalogue = load_catalogue(settings.catalogue)

    @property
    def valid_for_ms(self) -> int:
        """How long a prepaid account is in service after a top-up; 0: for ever."""
        return self.settings.charging.prepaid_valid_days * DAY_MS

    def vouchers(self, *, create: bool = False) -> Vouchers:
        """The vouchers under the pepper of the settings. Raises ConfigError."""
        return Vouchers(self.store, voucher_pepper(self.settings.vouchers.pepper_file, create=create))

    async def listen(self) -> None:
        """Follow what the servers are told: another catalogue, other rules. Until cancelled."""
        await BroadcastListener(self.store, b"api", self._execute).run()

    async def _execute(self, command: bytes) -> bytes:
        before = self.catalogue.edition
        await watch_by_rules_in_force(self.store)
        if command != RELOAD_CATALOGUE:
            return Reloaded(UNCHANGED, before, before).pack()
        try:
            self.catalogue = await asyncio.to_thread(load_catalogue, self.settings.catalogue)
        except ConfigError as error:
            return Reloaded(FAILED, before, before, str(error)).pack()
        after = self.catalogue.edition
        return Reloaded(UNCHANGED if after == before else DONE, after, before).pack()


def context_of(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found


async def subscriber_meant(store: Store, written: str) -> Subscriber:
    """The subscriber of that name or identity. Raises ApiError if there is none, or more than one."""
    found = {each.subscriber_id: each for each, _ in await find_subscribers(store, name_octets(written))}
    if not found:
        raise not_found(f"there is no subscriber {written[:80]}, and none with that identity")
    if len(found) > 1:
        names = " and ".join(sorted(text_of(name) for name in found))
        raise ApiError(409, f"{written[:80]} may be either of {names}; use another name or identity")
    return next(iter(found.values()))


async def account_meant(store: Store, written: str) -> Account:
    """The account of that name. Raises ApiError if there is none."""
    from balance.directory import read_account  # noqa: PLC0415

    found = await read_account(store, name_octets(written))
    if found is None:
        raise not_found(f"there is no account {written[:80]}")
    return found


def one_of(written: str, words: dict[str, Any], what: str) -> Any:
    """What a word stands for. Raises ApiError."""
    if written not in words:
        raise bad_request(f"{what} must be one of {', '.join(words)}, not {written[:40]!r}")
    return words[written]


def as_fields(value: Any) -> dict[str, Any]:
    return asdict(value)
