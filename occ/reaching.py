"""Asking a running server over HTTP what it tells of itself: its metrics and its peers."""

import json
from email.message import Message
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

TIMEOUT_S: Final = 5.0


class NotReachedError(Exception):
    """The server did not answer, or with something else; the message is one sentence."""


def bracketed(host: str) -> str:
    """A host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def reachable(host: str) -> str:
    """Where to connect to a server that listens on ``host``."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def metrics_url(host: str, port: int) -> str:
    """Where a server with these settings answers; what it tells is below."""
    return f"http://{bracketed(reachable(host))}:{port}"


def fetch(url: str) -> str:
    """What is there. Raises NotReachedError."""
    return fetch_page(url)[0].decode("utf-8", "replace")


def fetch_page(url: str) -> tuple[bytes, Message]:
    """What is there, with its headers. Raises NotReachedError."""
    try:
        # No proxy: the server is asked directly, whatever the environment says of the web.
        with build_opener(ProxyHandler({})).open(url, timeout=TIMEOUT_S) as answer:
            return answer.read(), answer.headers
    except HTTPError as error:
        raise NotReachedError(f"{url} answered {error.code}: is that an OCC server?") from error
    except (URLError, OSError, ValueError, HTTPException) as error:
        reason = str(getattr(error, "reason", error)).split("] ")[-1].lower()
        raise NotReachedError(
            f"no server answers at {url} ({reason}); start it with 'make run' or 'occ serve'"
        ) from error


def fetch_peers(url: str) -> list[dict[str, Any]]:
    """The peers of a server. Raises NotReachedError."""
    try:
        found = json.loads(fetch(url))
    except ValueError as error:
        raise NotReachedError(f"{url} did not answer with JSON: is that an OCC server?") from error
    if not isinstance(found, list) or not all(isinstance(peer, dict) for peer in found):
        raise NotReachedError(f"{url} did not answer with a list of peers: is that an OCC server?")
    return found
