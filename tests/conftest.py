"""Fixtures that more than one package's tests use."""

import asyncio
import os
import signal
from collections.abc import Iterator

import hypothesis
import pytest
import redis

from balance.embedded import Address, EmbeddedRedis, EmbeddedSettings
from tests.live_server import forget_directories

# A slow machine is no fault of the product; and what is merged must not hang on what a run happens to try.
hypothesis.settings.register_profile("occ", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("occ")

# A shell lets what it starts in the background ignore SIGINT, and so would every command that a test starts and stops.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A real Redis or Valkey server with `appendfsync always`, shared by all tests; not to be stopped by them."""
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path_factory.mktemp("redis")))
    # A loop of its own: asyncio.run would take the current loop away from the tests.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(server.start())
        yield server
        loop.run_until_complete(server.stop())
    finally:
        loop.close()


@pytest.fixture
def clean_redis(redis_server: EmbeddedRedis) -> Address:
    """Where the shared server listens; nothing is stored in it."""
    with redis.Redis.from_url(redis_server.address.url) as client:
        client.flushall()
    forget_directories(redis_server.address.url)
    return redis_server.address
