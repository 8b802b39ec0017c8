"""A Redis in memory: the commands that the product uses, the real scripts, and connections that can break.

What a command changes stays, whatever becomes of the connection: as with ``appendfsync always``. A connection that
breaks has carried out some of what was sent, in order, and its answers are lost.
"""

import asyncio
from collections.abc import Callable
from hashlib import sha1
from random import Random
from typing import Any, Final

import hiredis
import lupa.lua51 as lua

Reply = Any

_WRITE_DELAY_S: Final = (0.0002, 0.004)


class _RefusedError(Exception):
    """An error reply."""


class MemoryRedis:
    """Data, scripts and connections. ``now_ms``: the server's own clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, random: Random, now_ms: Callable[[], int]) -> None:
        self.loop = loop
        self.random = random
        self.now_ms = now_ms
        self.data: dict[bytes, Any] = {}
        self.expires_ms: dict[bytes, int] = {}
        self.is_up = True
        self.connections: list[Connection] = []
        self.commands = 0
        self._scripts: dict[bytes, Any] = {}
        self._entries = 0
        self._lua = lua.LuaRuntime(encoding=None, unpack_returned_tuples=False)
        self._lua.globals()[b"call"] = self._from_script
        self._lua.execute(b"redis = {call = call}")

    def connect(self, protocol: asyncio.Protocol) -> None:
        if not self.is_up:
            raise ConnectionRefusedError("the server is down")
        connection = Connection(self, protocol)
        self.connections.append(connection)
        protocol.connection_made(connection)

    def crash(self) -> None:
        """All connections break; what was carried out is on disk."""
        self.is_up = False
        for connection in tuple(self.connections):
            connection.break_off()

    # -- scripts -------------------------------------------------------------------------------------------------

    def _from_script(self, *arguments: Any) -> Any:
        return self._to_lua(self.execute([_as_bytes(each) for each in arguments]))

    def _to_lua(self, reply: Reply) -> Any:
        if reply is None:
            return False
        if isinstance(reply, list):
            return self._lua.table_from([self._to_lua(each) for each in reply])
        return reply

    def _from_lua(self, value: Any) -> Reply:
        if lua.lua_type(value) == "table":
            return [self._from_lua(value[index]) for index in range(1, len(value) + 1)]
        if value is None or value is False:
            return None
        return int(value) if isinstance(value, int | float) else value

    def _load(self, text: bytes) -> bytes:
        digest = sha1(text, usedforsecurity=False).hexdigest().encode()
        if digest not in self._scripts:
            self._scripts[digest] = self._lua.eval(b"function(KEYS, ARGV) " + text + b"\nend")
        return digest

    def _run(self, digest: bytes, arguments: list[bytes]) -> Reply:
        script = self._scripts.get(digest)
        if script is None:
            raise _RefusedError("NOSCRIPT No matching script.")
        count = int(arguments[0])
        keys, values = arguments[1 : 1 + count], arguments[1 + count :]
        return self._from_lua(script(self._lua.table_from(keys), self._lua.table_from(values)))

    # -- commands ------------------------------------------------------------------------------------------------

    def answer(self, arguments: list[bytes]) -> Reply:
        """The reply to a command; an Exception for one that is refused."""
        self.commands += 1
        try:
            return self.execute(arguments)
        except _RefusedError as error:
            return error

    def execute(self, arguments: list[bytes]) -> Reply:
        name = arguments[0].decode().upper()
        method = getattr(self, f"_{name.lower()}", None)
        if method is None:
            raise _RefusedError(f"ERR unknown command '{name}'")
        return method(*arguments[1:])

    def _get_key(self, key: bytes) -> Any:
        until = self.expires_ms.get(key)
        if until is not None and until <= self.now_ms():
            del self.expires_ms[key]
            self.data.pop(key, None)
        return self.data.get(key)

    def _script(self, word: bytes, text: bytes) -> Reply:
        assert word.upper() == b"LOAD"
        return self._load(text)

    def _evalsha(self, digest: bytes, *arguments: bytes) -> Reply:
        return self._run(digest, list(arguments))

    def _eval(self, text: bytes, *arguments: bytes) -> Reply:
        return self._run(self._load(text), list(arguments))

    def _get(self, key: bytes) -> Reply:
        return self._get_key(key)

    def _mget(self, *keys: bytes) -> Reply:
        return [self._get_key(key) for key in keys]

    def _getrange(self, key: bytes, first: bytes, last: bytes) -> Reply:
        value: bytes = self._get_key(key) or b""
        return value[int(first) : int(last) + 1]

    def _set(self, key: bytes, value: bytes, *options: bytes) -> Reply:
        words = [each.upper() for each in options]
        if b"NX" in words and self._get_key(key) is not None:
            return None
        self.data[key] = value
        self.expires_ms.pop(key, None)
        for word, factor in ((b"PX", 1), (b"EX", 1000)):
            if word in words:
                self.expires_ms[key] = self.now_ms() + int(options[words.index(word) + 1]) * factor
        return b"OK"

    def _mset(self, *pairs: bytes) -> Reply:
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.data[key] = value
            self.expires_ms.pop(key, None)
        return b"OK"

    def _del(self, *keys: bytes) -> Reply:
        return sum(self.data.pop(key, None) is not None for key in keys)

    def _exists(self, *keys: bytes) -> Reply:
        return sum(self._get_key(key) is not None for key in keys)

    def _hsetnx(self, key: bytes, field: bytes, value: bytes) -> Reply:
        table = self.data.setdefault(key, {})
        return 0 if field in table else (table.update({field: value}) or 1)

    def _hset(self, key: bytes, field: bytes, value: bytes) -> Reply:
        self.data.setdefault(key, {})[field] = value
        return 1

    def _hget(self, key: bytes, field: bytes) -> Reply:
        return self.data.get(key, {}).get(field)

    def _hgetall(self, key: bytes) -> Reply:
        return [part for pair in self.data.get(key, {}).items() for part in pair]

    def _sadd(self, key: bytes, *members: bytes) -> Reply:
        self.data.setdefault(key, {}).update(dict.fromkeys(members))
        return len(members)

    def _srem(self, key: bytes, *members: bytes) -> Reply:
        return sum(self.data.get(key, {}).pop(each, b"") is None for each in members)

    def _pexpire(self, key: bytes, ttl_ms: bytes) -> Reply:
        if self._get_key(key) is None:
            return 0
        self.expires_ms[key] = self.now_ms() + int(ttl_ms)
        return 1

    def _zadd(self, key: bytes, *pairs: bytes) -> Reply:
        for score, member in zip(pairs[::2], pairs[1::2], strict=True):
            self.data.setdefault(key, {})[member] = int(score)
        return len(pairs) // 2

    def _zrem(self, key: bytes, *members: bytes) -> Reply:
        return sum(self.data.get(key, {}).pop(each, None) is not None for each in members)

    def _zrangebyscore(self, key: bytes, low: bytes, high: bytes, *limit: bytes) -> Reply:
        assert low == b"-inf"
        found = sorted((score, member) for member, score in self.data.get(key, {}).items() if score <= int(high))
        return [member for _, member in found][int(limit[1]) : int(limit[1]) + int(limit[2])] if limit else found

    def _xadd(self, key: bytes, *arguments: bytes) -> Reply:
        fields = list(arguments[arguments.index(b"*") + 1 :])
        self._entries += 1
        entry = b"%d-%d" % (self.now_ms(), self._entries)
        self.data.setdefault(key, []).append((entry, fields))
        return entry

    # SCAN is asked for open sessions only when a client has restarted.
    def _zscan(self, key: bytes, cursor: bytes, *_: bytes) -> Reply:
        assert cursor == b"0"
        return [b"0", [part for member, score in self.data.get(key, {}).items() for part in (member, b"%d" % score)]]


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%d" % int(value)


class Connection(asyncio.Transport):
    """One client's connection: commands are carried out in order, a little after they were sent, and answered."""

    def __init__(self, server: MemoryRedis, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._server = server
        self._protocol = protocol
        self._reader = hiredis.Reader()
        self._waiting: list[list[bytes]] = []
        self._free_at = 0.0
        self._broken = False

    def is_closing(self) -> bool:
        return self._broken

    def write(self, data: Any) -> None:
        self._reader.feed(bytes(data))
        sent = []
        while (command := self._reader.gets()) is not False:
            sent.append(command)
        self._waiting += sent
        server = self._server
        self._free_at = max(self._free_at, server.loop.time()) + server.random.uniform(*_WRITE_DELAY_S)
        server.loop.call_at(self._free_at, self._carry_out, len(sent))

    def _carry_out(self, count: int) -> None:
        if self._broken:
            return
        commands, self._waiting = self._waiting[:count], self._waiting[count:]
        replies = b"".join(encode(self._server.answer(command)) for command in commands)
        self._protocol.data_received(replies)

    def break_off(self, forgotten: bool = False) -> None:
        """Break: some of what was sent is still carried out, nothing is answered.

        ``forgotten``: whoever was connected is gone as well and is not told.
        """
        if self._broken:
            return
        self._broken = True
        for command in self._waiting[: self._server.random.randint(0, len(self._waiting))]:
            self._server.answer(command)
        self._waiting.clear()
        self._server.connections.remove(self)
        if not forgotten:
            self._server.loop.call_soon(self._protocol.connection_lost, ConnectionResetError("broken"))

    def close(self) -> None:
        self.break_off()

    @property
    def protocol(self) -> asyncio.Protocol:
        return self._protocol


def encode(reply: Reply) -> bytes:
    """A reply in RESP2."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, Exception):
        return b"-%b\r\n" % str(reply).encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, list):
        return b"*%d\r\n%b" % (len(reply), b"".join(encode(each) for each in reply))
    return b"$%d\r\n%b\r\n" % (len(reply), reply)
