"""The alerts that fire, as Prometheus tells them (``/api/v1/alerts``)."""

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

log = logging.getLogger("occ.noc")

ASK_INTERVAL_S: Final = 5.0
TIMEOUT_S: Final = 3.0
MOST_OCTETS: Final = 1 << 20
MOST_ALERTS: Final = 100


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert that fires."""

    name: str
    severity: str
    """page or ticket; empty where the rule does not say."""
    summary: str
    since: str
    """RFC 3339."""


class Alerts:
    """Asks Prometheus again and again, without holding anything up. ``url``: its address; None: there is none."""

    def __init__(self, url: str | None) -> None:
        self.url = url
        self.firing: tuple[Alert, ...] = ()
        self.error = ""
        """Why the alerts are not known; empty: they are."""

    async def run(self) -> None:
        """Ask until cancelled."""
        while self.url is not None:
            await self.ask()
            await asyncio.sleep(ASK_INTERVAL_S)

    async def ask(self) -> None:
        """Ask once."""
        assert self.url is not None
        try:
            self.firing, self.error = read_alerts(await asyncio.to_thread(_fetch, self.url)), ""
        except ValueError as error:
            self.firing, self.error = (), str(error)
            log.debug("alerts are not known: %s", error)


def read_alerts(content: bytes) -> tuple[Alert, ...]:
    """Those that fire, in an answer of Prometheus. Raises ValueError if it is not one."""
    try:
        told = json.loads(content)["data"]["alerts"]
        firing = [each for each in told if each["state"] == "firing"]
        found = [_alert(each["labels"], each.get("annotations") or {}, str(each["activeAt"])) for each in firing]
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError("what answers there is not Prometheus") from None
    return tuple(sorted(found, key=lambda alert: (alert.severity != "page", alert.since))[:MOST_ALERTS])


def _alert(labels: dict[str, Any], annotations: dict[str, Any], since: str) -> Alert:
    return Alert(str(labels["alertname"]), str(labels.get("severity", "")), str(annotations.get("summary", "")), since)


def _fetch(url: str) -> bytes:
    """Raises ValueError with one clause that says what is wrong."""
    try:
        # No proxy: it is asked directly, whatever the environment says of the web.
        with build_opener(ProxyHandler({})).open(f"{url.rstrip('/')}/api/v1/alerts", timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MOST_OCTETS + 1)
    except HTTPError as error:
        raise ValueError(f"it answers {error.code}") from error
    except (URLError, OSError) as error:
        raise ValueError(str(getattr(error, "reason", error)).split("] ")[-1].lower()) from error
    if len(content) > MOST_OCTETS:
        raise ValueError("its answer is longer than a mebioctet")
    return content
