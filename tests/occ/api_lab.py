"""The management API as a process of its own, on a loopback socket; tests talk to it as any client does."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import redis

from tests.shell import Shell

ROOT = Path(__file__).resolve().parents[2]
BASE = "/tmf-api/prepayBalanceManagement/v4"
PATIENCE_S = 30.0


class Answer:
    """What the API answered."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        """The body, its numbers exact."""
        return json.loads(self.body, parse_float=Decimal)


class Api:
    """The process. ``shell``: whose settings it has, and by whose commands tokens are made."""

    def __init__(self, shell: Shell, directory: Path) -> None:
        self.shell = shell
        with shell.config.open("a") as file:
            file.write(f"  data_dir: {directory / 'data'}\napi:\n  port: 0\n")
        self.log = directory / "api.log"
        self.port = 0
        self.tokens: dict[str, str] = {}

    def __enter__(self) -> "Api":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OCC_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "occ", "--config", str(self.shell.config), "api", "--json"],
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment | {"PYTHONPATH": str(ROOT)},
            )
        assert self._process.stdout is not None
        told = self._process.stdout.readline()
        assert told, self.log.read_text()
        self.port = int(json.loads(told)["url"].rpartition(":")[2])
        self.make_tokens()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        assert self._process.wait(PATIENCE_S) in (0, -15), self.log.read_text()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def make_tokens(self) -> None:
        """One of each role."""
        for role in ("viewer", "care", "operator", "admin"):
            self.tokens[role] = self.shell.json("api", "token", "create", role, "--role", role)["token"]

    def empty(self) -> None:
        """Have nothing in the store but new tokens."""
        with redis.Redis.from_url(self.shell.address.url) as client:
            layout = client.hgetall("occ:layout")
            client.flushall()
            client.hset("occ:layout", mapping=layout)
        self.make_tokens()

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        role: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Answer:
        """One request. ``body``: JSON text, or what becomes it; ``role``: whose token it bears."""
        sent = dict(headers or {})
        if role is not None:
            sent["Authorization"] = f"Bearer {self.tokens[role]}"
        text = None
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            text = body if isinstance(body, str | bytes) else json.dumps(body)
        wanted = quote(path, safe="/:;=@+") + (f"?{urlencode(query)}" if query else "")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, wanted, text, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def get(self, path: str, role: str = "admin", **query: Any) -> Any:
        """What a GET shows."""
        answer = self.send("GET", path, role=role, **query)
        assert answer.status == 200, answer.body
        return answer.json

    def post(self, path: str, body: Any, status: int = 201, role: str = "admin", **headers: str) -> Any:
        """What a POST is answered; ``key``: its Idempotency-Key."""
        sent = {"Idempotency-Key": headers["key"]} if "key" in headers else {}
        answer = self.send("POST", path, body, role, sent)
        assert answer.status == status, answer.body
        return answer.json

    def refused(self, status: int, method: str, path: str, body: Any = None, **how: Any) -> str:
        """The message of an error, whose body is as TMF654 has it."""
        answer = self.send(method, path, body, **how)
        assert answer.status == status, answer.body
        document = answer.json
        assert set(document) >= {"code", "reason", "message", "status"}
        assert document["status"] == str(status)
        message: str = document["message"]
        return message
