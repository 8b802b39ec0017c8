"""A server under simulated load, scraped by a real Prometheus with the project's own configuration."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from balance.model import IdentityType
from tests.live_server import PATIENCE_S, LiveServer

PROJECT: Final = Path(__file__).resolve().parents[2]
SUBSCRIBERS: Final = 6
BALANCE_MICRO: Final = 2_100_000
"""Soon used up: the load is to show levels, policies and refusals as well."""
OVERDRAFT_MICRO: Final = 1_000_000


def free_port() -> int:
    """A port below the range that systems take ports from for outgoing connections."""
    for port in range(19_000 + os.getpid() % 5_000, 30_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port is free")


def until(holds: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


class Prometheus:
    """One that scrapes one server every second."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    @contextmanager
    def scraping(self, target: str) -> Iterator["Prometheus"]:
        shutil.copytree(PROJECT / "config" / "prometheus", self.directory / "config")
        settings = yaml.safe_load((self.directory / "config" / "prometheus.yml").read_text())
        settings["global"] |= {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (self.directory / "config" / "prometheus.yml").write_text(yaml.safe_dump(settings))
        workers = [{"targets": [target], "labels": {"process": "worker"}}]
        (self.directory / "config" / "targets" / "workers.yml").write_text(yaml.safe_dump(workers))
        program = shutil.which("prometheus")
        assert program is not None
        command = [
            program,
            f"--config.file={self.directory / 'config' / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]
        with (self.directory / "log").open("wb") as log, _running(command, log):
            until(self._ready, f"Prometheus does not get ready: see {self.directory / 'log'}")
            yield self

    def _ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def get(self, path: str, **parameters: str | float) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(parameters)}", timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def latest(self, query: str) -> list[Any]:
        found: list[Any] = self.get("query", query=query)["result"]
        return found

    def history(self, query: str, seconds: float) -> list[Any]:
        now = time.time()
        found: list[Any] = self.get("query_range", query=query, start=now - seconds, end=now, step=1)["result"]
        return found


@contextmanager
def _running(command: list[str], out: Any = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=PROJECT, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def loaded(server: LiveServer) -> Iterator[None]:
    """Gateway, IMS and policy node at work, by `occ simulate`."""
    for number in range(1, SUBSCRIBERS + 1):
        name = f"4917000000{number:02}"
        server.add_account(
            f"acc-{name}",
            [(IdentityType.E164, name), (IdentityType.IMSI, f"262010000000{number:03}")],
            balance_micro=BALANCE_MICRO,
            overdraft_micro=OVERDRAFT_MICRO,
        )
    simulate = [sys.executable, "-m", "occ", "simulate"]
    whom = ["--port", str(server.port), "--prepaid", str(SUBSCRIBERS), "--postpaid", "0", "--sessions", "100000"]
    with ExitStack() as running:
        for simulator in (
            ["gateway", *whom, "--rate", "8", "--pace", "100"],
            ["ims", *whom, "--rate", "4"],
            ["policy-node", "491700000001", "--port", str(server.port)],
        ):
            running.enter_context(_running([*simulate, *simulator]))
        yield
