"""What the channels over HTTP share: one client each, and what answers mean."""

import ssl
from pathlib import Path
from typing import Final

import httpx

from occ.notices.channel import TemporaryError, ThrottledError

LONGEST_WAIT_S: Final = 600.0
WAIT_S: Final = 5.0
"""When it is not said how long to wait."""


def client(timeout_s: int, in_flight: int, ca_file: Path | None) -> httpx.AsyncClient:
    """Raises OSError or ssl.SSLError for a file that holds no certificates."""
    # Redirections are not followed: what is signed, or holds a token, is for the one it was sent to. Proxies of the
    # environment are used for https and http alike, as operators expect of a server in their network.
    return httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=ca_file),
        timeout=timeout_s,
        limits=httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight),
        follow_redirects=False,
        headers={"User-Agent": "occ-notices"},
    )


async def sent(http: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    """The answer to a request, read to its end. Raises TemporaryError if there is none; it names no URL."""
    try:
        return await http.send(request)
    except httpx.TimeoutException:
        raise TemporaryError("no answer in time") from None
    except httpx.HTTPError as error:
        raise TemporaryError(f"no answer: {type(error).__name__}") from None


def raise_for_overload(response: httpx.Response, wait_s: float | None = None) -> None:
    """Raises ThrottledError for 429, and for 503 that says when to come again; TemporaryError for other 5xx."""
    asked = response.headers.get("retry-after", "")
    if wait_s is None and asked.isdigit():
        wait_s = float(asked)
    if response.status_code == 429 or (response.status_code == 503 and wait_s is not None):
        raise ThrottledError(f"answered {response.status_code}", min(wait_s or WAIT_S, LONGEST_WAIT_S))
    if response.status_code >= 500:
        raise TemporaryError(f"answered {response.status_code}")
