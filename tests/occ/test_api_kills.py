"""The API is killed in the middle of an act: repeated by its key, at another process, the act counts once.

Between the process and its Redis stands a proxy that knows the script by which money moves, and kills the process just
before Redis is given it, or just after Redis has carried it out. The client then does what the documentation tells it
to: the same request with the same key.
"""

import hashlib
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest

from balance.embedded import Address, EmbeddedRedis
from tests.occ.api_lab import BASE, PATIENCE_S, ROOT, Answer, Api
from tests.shell import Shell

MOVES_MONEY = hashlib.sha1((ROOT / "balance" / "scripts" / "commit.lua").read_bytes()).hexdigest().encode()
"""What Redis calls the script by."""


class Proxy:
    """Passes on what goes between one API process and Redis, until the time has come to kill the process."""

    def __init__(self, redis: Address, movement: int, before: bool) -> None:
        """``movement``: the number of the movement of money at which it is killed; ``before``: it is not made."""
        assert redis.unix_path is not None
        self._redis = str(redis.unix_path)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._left = movement
        self._before = before
        self.victim: Victim | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._redis)
            self._sockets += [client, server]
            for work in (self._requests, self._replies):
                threading.Thread(target=work, args=(client, server), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while octets := client.recv(1 << 16):
                self._left -= octets.count(MOVES_MONEY)
                if self._left == 0 and self._before:
                    self._kill()
                    return
                server.sendall(octets)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while octets := server.recv(1 << 16):
                if self._left == 0:  # the movement has been made
                    self._kill()
                    return
                client.sendall(octets)

    def _kill(self) -> None:
        assert self.victim is not None
        self.victim.kill()


class Victim(Api):
    """An API process that is killed; it uses the tokens of another one."""

    def make_tokens(self) -> None:
        pass

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()


@pytest.fixture(scope="module")
def survivor(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("survivor")
    with Api(Shell(directory, redis_server.address), directory) as running:
        running.empty()
        yield running


@dataclass(frozen=True)
class Request:
    path: str
    body: dict[str, Any]
    key: str

    def send(self, api: Api) -> Answer:
        return api.send("POST", self.path, self.body, headers={"Idempotency-Key": self.key})


def cut_off(survivor: Api, redis: Address, directory: Path, request: Request, movement: int, before: bool) -> None:
    """Send a request to a process that is killed in the middle of it."""
    proxy = Proxy(redis, movement, before)
    directory.mkdir()
    shell = Shell(directory, redis)
    shell.config.write_text(shell.config.read_text().replace(redis.url, proxy.url))
    try:
        victim = Victim(shell, directory)
        with victim:
            victim.tokens = survivor.tokens
            proxy.victim = victim
            with pytest.raises((http.client.HTTPException, OSError)):
                request.send(victim)
    finally:
        proxy.close()


def act(amount: str, account: str) -> dict[str, Any]:
    return {
        "amount": {"amount": float(amount), "units": "EUR"},
        "usageType": "monetary",
        "bucket": {"id": f"{account}:1"},
        "partyAccount": {"id": account},
    }


def transfer(amount: str, account: str) -> dict[str, Any]:
    return act(amount, account) | {
        "reason": "gift",
        "channel": {"id": "app"},
        "logicalResource": [{"id": "4917"}],
        "receiverLogicalResource": {"id": "4918"},
        "receiverBucket": {"id": f"{account}-other:1"},
        "receiverBucketUsageType": "monetary",
    }


def balance(api: Api, account: str) -> Decimal:
    found = api.get(f"{BASE}/bucket/{account}:1")["remainingValue"]["amount"]
    return Decimal(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resource", "movement", "before"),
    [
        ("topupBalance", 1, True),
        ("topupBalance", 1, False),
        ("transferBalance", 1, False),  # taken from the one, not yet given to the other
        ("transferBalance", 2, False),
    ],
)
def test_an_act_that_is_cut_off_counts_once(
    survivor: Api, redis_server: EmbeddedRedis, tmp_path: Path, resource: str, movement: int, before: bool
) -> None:
    account = f"{resource}-{movement}-{before}"
    for name in (account, f"{account}-other"):
        survivor.shell.json("account", "create", name, "--balance", "10.00")
    is_topup = resource == "topupBalance"
    body = act("5.00", account) if is_topup else transfer("5.00", account)
    request = Request(f"{BASE}/{resource}", body, account)
    cut_off(survivor, redis_server.address, tmp_path / "victim", request, movement, before)
    moved = Decimal(5 if is_topup else -5)
    assert balance(survivor, account) == 10 + (0 if before else moved)
    for _ in range(2):
        answer = request.send(survivor)
        assert answer.status == 201, answer.body
        assert answer.json["status"] == "completed"
    assert balance(survivor, account) == 10 + moved
    assert balance(survivor, f"{account}-other") == (10 if is_topup else 15)
    assert survivor.shell.json("ledger", "verify")["consistent"]
