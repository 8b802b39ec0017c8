"""Rules, and what the tests of live sessions under them share."""

from typing import Any
from urllib.request import urlopen

from balance.directory import adjust_account
from balance.transitions import waiting
from tests.live_server import LiveServer
from tests.reauthorisation_lab import Lab, eventually

EURO = 1_000_000
RULES = """
levels:
  low: {when: balance below 2.00, until: balance at least 3.00}
  out: {when: balance at most 0.50}
rules:
  - {rule: cut-off, when: out, services: [internet], do: cut, notify: barred, restored: restored}
  - {rule: bar-low, when: low, services: [internet], do: bar, notify: low-balance, emit: went-low}
"""


def adjust(lab: Lab, micro: int) -> None:
    store, now_ms = lab.server.server.store, lab.server.now_ms()
    lab.server.run(adjust_account(store, lab.name.encode(), micro, now_ms=now_ms, reason="test"))


async def settled(server: LiveServer) -> None:
    """All transitions were acted on."""

    async def left() -> int:
        return await waiting(server.server.store)

    await eventually(lambda: not server.run(left()))


def code(answer: Any) -> int:
    return int(answer.services[0].result_code)


def scraped(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text
