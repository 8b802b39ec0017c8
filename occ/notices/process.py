"""The process that delivers notices, beside the server and of lower priority: ``python -m occ.notices.process``.

The server checks templates and secrets before it starts this process (``check``).
"""

import asyncio
import contextlib
import json
import logging
import sys
from typing import Any, Final

from balance.embedded import Address
from balance.resp import StoreError
from balance.store import Store, StoreSettings
from occ.child_process import ChildProcess, begin, told_to_stop
from occ.clock import now_ms
from occ.notices.delivery import LEASE_MARGIN_S, Deliveries
from occ.notices.opening import check_channels, open_channels
from occ.notices.settings import NoticesSettings, as_job, from_job
from occ.notices.templates import Templates
from occ.yamlmap import ConfigError

log = logging.getLogger("occ.notices")

FINISH_S: Final = 5.0
"""For attempts that are under way when the process is to end."""
_TALKATIVE: Final = ("httpx", "httpcore", "aiosmtplib", "asyncio")
"""Libraries whose logs would hold URLs with tokens, addresses and texts."""


class NoticesProcess(ChildProcess):
    """The server's side of it."""

    def __init__(
        self,
        address: Address,
        partitions: int,
        settings: NoticesSettings,
        log_level: str,
        lease_margin_s: float = LEASE_MARGIN_S,
    ) -> None:
        """``lease_margin_s``: see ``delivery``."""
        job = {
            "store": address.as_job(),
            "partitions": partitions,
            "settings": as_job(settings),
            "log_level": log_level,
            "lease_margin_s": lease_margin_s,
        }
        super().__init__("occ.notices.process", job, "the process of notices", "what it left is due again later")


def check(settings: NoticesSettings) -> Templates:
    """The texts; they, secrets and certificates are there and in order. Raises ConfigError."""
    check_channels(settings)
    return load_templates(settings)


def load_templates(settings: NoticesSettings) -> Templates:
    """The texts of the settings. Raises ConfigError."""
    assert settings.templates is not None  # once loaded
    return Templates.load(settings.templates, settings.language)


async def _main(job: dict[str, Any]) -> None:
    settings = from_job(NoticesSettings, job["settings"])
    templates = load_templates(settings)
    store = Store(StoreSettings(Address.from_job(job["store"]), job["partitions"], account_cache_entries=1))
    await store.start()

    async def receipt(channel: str, message_id: str, delivered: bool, detail: str) -> None:
        await deliveries.receipt(channel, message_id, delivered, detail)

    ways = open_channels(settings, receipt)
    deliveries = Deliveries(store, settings, templates, ways, now_ms, lease_margin_s=job["lease_margin_s"])
    stop = await told_to_stop()
    running = asyncio.create_task(deliveries.run())
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    await deliveries.finish(FINISH_S)
    await store.stop()


def main() -> None:
    job = json.loads(sys.argv[1])
    begin(job["log_level"])
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        asyncio.run(_main(job))
    except (ConfigError, StoreError, OSError) as error:
        sys.exit(f"occ notices: {error}")


if __name__ == "__main__":
    main()
