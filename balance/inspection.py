"""What a Redis server says of itself, as far as the ledger depends on it."""

import asyncio
import re
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from balance.address import Address
from balance.cluster import primaries_of
from balance.commands import redis_ms
from balance.connecting import open_primary, primary_of
from balance.resp import RedisLink, StoreError, StoreUnavailableError

CONNECT_WITHIN_S: Final = 5.0
PINGS: Final = 20
SETTINGS: Final = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "save", "min-replicas-to-write")


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """One server."""

    name: str
    """Redis or Valkey."""
    version: tuple[int, int, int]
    settings: dict[str, str]
    """Of ``SETTINGS``; those that it does not tell are missing."""
    clock_ms: int
    """Milliseconds since 1970 by its clock."""
    round_trip_s: float
    """The median of some."""
    is_replica: bool
    replicas: int


async def inspect_servers(address: Address) -> list[tuple[str, ServerFacts]]:
    """Ask every server of a store that takes writes; where each is, and what it says. Raises StoreError, OSError."""
    if not address.clustered:
        place = await primary_of(asyncio.get_running_loop(), address)
        return [(place.url, await inspect_server(place))]
    places = await primaries_of(address)
    return [(place.url, await inspect_server(place)) for place in places]


async def inspect_server(address: Address) -> ServerFacts:
    """Ask a running server. Raises StoreError, OSError if it cannot be reached."""
    try:
        async with asyncio.timeout(CONNECT_WITHIN_S):
            link = await open_primary(asyncio.get_running_loop(), address)
            try:
                return await _facts(link)
            finally:
                link.close()
    except TimeoutError:
        raise StoreUnavailableError(f"nobody answers at {address.url} within {CONNECT_WITHIN_S:g} s") from None


async def _facts(link: RedisLink) -> ServerFacts:
    told = bytes(await link.call("INFO")).decode("utf-8", "replace")
    info = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    name, number = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    major, minor, patch = ([int(part) for part in re.findall(r"\d+", number)] + [0, 0, 0])[:3]
    settings: dict[str, str] = {}
    for each in SETTINGS:
        try:
            reply = await link.call("CONFIG", "GET", each)
        except StoreError:
            continue  # a server of a provider may not tell
        if len(reply) >= 2:
            settings[each] = bytes(reply[1]).decode("utf-8", "replace")
    times = []
    for _ in range(PINGS):
        began = perf_counter()
        await link.call("PING")
        times.append(perf_counter() - began)
    return ServerFacts(
        name,
        (major, minor, patch),
        settings,
        await redis_ms(link),
        sorted(times)[PINGS // 2],
        info.get("role") == "slave",
        int(info.get("connected_slaves", "0")),
    )
