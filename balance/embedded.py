"""Find, launch, check and stop a private redis-server (or valkey-server).

The server listens on a Unix socket in a directory of its own and keeps its data in an append-only file. It
ends with the process that started it, however that ends, and two processes never open the same data.

    server = EmbeddedRedis(EmbeddedSettings(data_dir=Path("data/redis")))
    address = await server.start()
    ...
    await server.stop()
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from balance.address import Address
from balance.server_program import EmbeddedRedisError, ServerProgram, find_server

__all__ = ["Address", "EmbeddedRedis", "EmbeddedRedisError", "EmbeddedSettings", "find_running"]

log = logging.getLogger("balance.embedded")

SOCKET_PATH_OCTETS: Final = 103
"""Longest path of a Unix socket that every system takes (sun_path: 108 octets on Linux, 104 on macOS)."""
TORN_TAIL_OCTETS: Final = 1 << 20
"""What one write of the server can leave unfinished; more than this missing is damage, not a torn write."""

_LOG_OCTETS: Final = 1 << 20
_LOG_TAIL_OCTETS: Final = 1 << 16
_EXCHANGE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.02
_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """How to run the private server."""

    data_dir: Path
    """Directory of its data, its log and its socket; made if it is not there."""
    server_binary: str | None = None
    """Program, a path or a name on PATH; None: the first that `find_server` finds."""
    fsync: str = "always"
    """"always": a write is answered when it is on disk; "everysec": up to a second of writes can be lost."""
    load_timeout_seconds: float = 300.0
    """Longest time to read the data at start."""
    stop_timeout_seconds: float = 10.0
    """Longest time to end, before the server is killed; and longest time to wait for a former one to end."""

    def __post_init__(self) -> None:
        if self.fsync not in ("always", "everysec"):
            raise ValueError(f"fsync is {self.fsync!r}; give always or everysec")


class _TornFileError(EmbeddedRedisError):
    def __init__(self, file: Path) -> None:
        super().__init__(f"the append-only file {file} ends in the middle of a command")
        self.file = file


class EmbeddedRedis:
    """One private server process.

    To be started from a thread that lives as long as the server is needed (the main thread): the kernel ends
    the server when the thread that started it ends.
    """

    def __init__(self, settings: EmbeddedSettings) -> None:
        self.settings = settings
        self._directory = settings.data_dir.absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self._program: ServerProgram | None = None
        self._address: Address | None = None
        self._locks: list[int] = []
        self._log_start = 0

    async def __aenter__(self) -> "EmbeddedRedis":
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        """The process was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def address(self) -> Address:
        """Where it listens. Raises EmbeddedRedisError before it was started."""
        if self._address is None:
            raise EmbeddedRedisError("the embedded Redis server is not running")
        return self._address

    @property
    def pid(self) -> int:
        """Its process id. Raises EmbeddedRedisError before it was started."""
        if self._process is None:
            raise EmbeddedRedisError("the embedded Redis server is not running")
        return self._process.pid

    @property
    def program(self) -> ServerProgram:
        """What runs. Raises EmbeddedRedisError before it was started."""
        if self._program is None:
            raise EmbeddedRedisError("the embedded Redis server is not running")
        return self._program

    def cpu_seconds(self) -> float:
        """CPU time, user and system, its process has used so far, by the operating system's accounting."""
        try:
            # Fields 14 and 15 (proc_pid_stat(5)), counted after the name, which may hold anything.
            used = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[11:13]
        except OSError:
            raise EmbeddedRedisError("the CPU time of the embedded Redis server cannot be read here") from None
        return (int(used[0]) + int(used[1])) / os.sysconf("SC_CLK_TCK")

    async def start(self) -> Address:
        """Launch the server and wait until it has read its data.

        Raises EmbeddedRedisError; then nothing is left running and the data is as it was.
        """
        if self.running:
            raise EmbeddedRedisError(f"the embedded Redis server is already running as process {self.pid}")
        self._release()
        program = find_server(self.settings.server_binary)
        try:
            self._make_directory()
            former = await self._lock()
            try:
                return await self._launch(program, former)
            except _TornFileError as torn:
                log.warning("%s", _mend(program, torn.file))
                return await self._launch(program, former)
        except BaseException as failure:
            self._kill()
            self._release()
            if isinstance(failure, OSError):
                raise EmbeddedRedisError(
                    f"the embedded Redis server cannot be started in {self._directory}: {failure}"
                ) from failure
            raise

    async def stop(self) -> None:
        """End the server, its data on disk; kill it if it takes too long. May be repeated."""
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(OSError, TimeoutError):
                await _exchange(self.address, b"SHUTDOWN")
            if not await _ended(process, _EXCHANGE_SECONDS):
                process.terminate()
                if not await _ended(process, self.settings.stop_timeout_seconds):
                    log.warning("the embedded Redis server (process %d) did not stop and is killed", process.pid)
            self._kill()
        self._release()

    # Start, step by step.

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._directory, os.R_OK | os.W_OK | os.X_OK):
            raise EmbeddedRedisError(f"the data directory {self._directory} is not writable by this user")

    async def _lock(self) -> str | None:
        """Claim the directory: one lock for this process, and one that the server holds as long as it lives.

        The kernel drops both with their process, so neither can be stale. A server that outlives its owner is
        asked to stop (it is on its way already where the kernel told it, as Linux does). Returns what last ran
        on the data.
        """
        owner = self._directory / "owner.lock"
        if not self._claim(owner):
            raise EmbeddedRedisError(
                f"the data in {self._directory} is in use by process {_read_owner(owner).get('pid', '?')}; "
                "stop that server first, or name another data directory"
            )
        former = _read_owner(owner)
        deadline = asyncio.get_running_loop().time() + self.settings.stop_timeout_seconds
        asked = False
        while not self._claim(self._directory / "server.lock"):
            if asyncio.get_running_loop().time() > deadline:
                raise EmbeddedRedisError(
                    f"the data in {self._directory} is still open in the Redis server of an earlier run "
                    f"(process {former.get('server_pid', 'unknown')}), which does not stop; end it first"
                )
            if not asked and "socket" in former:
                log.warning("waiting for the Redis server of an earlier run to stop")
                with contextlib.suppress(OSError, TimeoutError):
                    await _exchange(Address(unix_path=Path(former["socket"])), b"SHUTDOWN")
            asked = True
            await asyncio.sleep(_POLL_SECONDS)
        if "socket" in former:
            _remove_socket(Path(former["socket"]))
        return former.get("program")

    def _claim(self, path: Path) -> bool:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:
            os.close(descriptor)
            raise
        self._locks.append(descriptor)
        return True

    async def _launch(self, program: ServerProgram, former: str | None) -> Address:
        socket = _socket_path(self._directory)
        self._address = Address(unix_path=socket)
        self._program = program
        configuration = self._directory / "redis.conf"
        _write_whole(configuration, _configuration(self.settings.fsync, self._directory, socket))
        self._process = self._spawn(program, configuration)
        self._note(former)
        await self._ready(self._process, self._address, former)
        self._note(str(program))
        return self._address

    def _note(self, program: str | None) -> None:
        """Write down who owns the data, where the server listens, and what last ran on the data."""
        note = {"pid": os.getpid(), "server_pid": self.pid, "socket": str(self.address.unix_path)}
        if program is not None:
            note["program"] = program
        os.ftruncate(self._locks[0], 0)
        os.pwrite(self._locks[0], json.dumps(note).encode(), 0)

    def _spawn(self, program: ServerProgram, configuration: Path) -> "subprocess.Popen[bytes]":
        journal = self._directory / "redis.log"
        with contextlib.suppress(FileNotFoundError):
            if journal.stat().st_size > _LOG_OCTETS:
                journal.replace(journal.with_suffix(".log.1"))
        with journal.open("ab") as output:
            self._log_start = output.tell()
            return subprocess.Popen(
                [str(program.path), str(configuration)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                # A session of its own: Ctrl-C on the terminal reaches our process only, which then stops it.
                start_new_session=True,
                pass_fds=(self._locks[1],),
                preexec_fn=_end_with_parent(),  # noqa: PLW1509 - two system calls, no lock of Python's is taken
            )

    async def _ready(self, process: "subprocess.Popen[bytes]", address: Address, former: str | None) -> None:
        """Wait until PING is answered with PONG: a server that is still reading its data answers LOADING."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.load_timeout_seconds
        told = False
        while True:
            if process.poll() is not None:
                raise self._explained(process.returncode, former)
            reply = b""
            with contextlib.suppress(OSError, TimeoutError):
                reply = await _exchange(address, b"PING")
            if reply.startswith(b"+PONG"):
                return
            if reply.startswith(b"-LOADING") and not told:
                log.info("the embedded Redis server is reading its data")
                told = True
            if loop.time() > deadline:
                raise EmbeddedRedisError(
                    f"the embedded Redis server has not read its data in {self._directory} after "
                    f"{self.settings.load_timeout_seconds:g} s; see {self._directory / 'redis.log'}"
                )
            await asyncio.sleep(_POLL_SECONDS)

    def _explained(self, code: int, former: str | None) -> EmbeddedRedisError:
        """Why the server ended at start, from what it wrote to its log."""
        with (self._directory / "redis.log").open("rb") as journal:
            end = journal.seek(0, os.SEEK_END)
            journal.seek(max(self._log_start, end - _LOG_TAIL_OCTETS))
            said = journal.read().decode(errors="replace")
        bad = re.search(
            r"(Bad file format|Unexpected end of file) reading the append only file(?: ([^\s:]+?)[.:] )?", said
        )
        # A snapshot of a format it does not know is read as commands, and must never be "repaired" as such.
        if re.search("RDB format version|Wrong signature", said) or (bad and (bad[2] or "").endswith(".rdb")):
            return EmbeddedRedisError(
                f"{self.program} cannot read the data in {self._directory}, last used by "
                f"{former or 'another server'}; name that program in store.server_binary, or restore a backup"
            )
        if bad:
            file = _append_only_file(self._directory, bad[2])
            if bad[1] == "Unexpected end of file":
                return _TornFileError(file)
            return _damaged(self.program, self._directory, file)
        last = [line for line in said.splitlines() if line.strip()]
        reason = re.sub(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ . ", "", last[-1]) if last else "no reason given"
        return EmbeddedRedisError(
            f"{self.program} ended with status {code} while it started ({reason}); see {self._directory / 'redis.log'}"
        )

    # End.

    def _kill(self) -> None:
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()

    def _release(self) -> None:
        """Forget a process that has ended, remove its socket and drop the locks."""
        if self._address is not None and self._address.unix_path is not None:
            _remove_socket(self._address.unix_path)
        self._process = self._program = self._address = None
        while self._locks:
            os.close(self._locks.pop())


async def find_running(data_dir: Path) -> Address | None:
    """Where the server listens that another process has started on this data; None if there is none."""
    note = _read_owner(data_dir / "owner.lock")
    if "socket" not in note:
        return None
    address = Address(unix_path=Path(note["socket"]))
    with contextlib.suppress(OSError, TimeoutError):
        if await _exchange(address, b"PING"):
            return address
    return None


def _configuration(fsync: str, directory: Path, socket: Path) -> bytes:
    lines = [
        "# Written at every start; changes made here are lost.",
        "port 0",
        f"unixsocket {_quoted(socket)}",
        "unixsocketperm 700",
        "protected-mode yes",
        "daemonize no",
        "databases 1",
        f"dir {_quoted(directory)}",
        "appendonly yes",
        f"appendfsync {fsync}",
        "no-appendfsync-on-rewrite no",
        # Redis would cut off everything behind the first gap, however much that is; see _mend.
        "aof-load-truncated no",
        'save ""',
        "maxmemory 0",
        "maxmemory-policy noeviction",
        "loglevel notice",
        'logfile ""',
    ]
    return os.fsencode("\n".join(lines) + "\n")


def _quoted(path: Path) -> str:
    """A path as redis.conf takes it: in quotes, with escapes."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c >= " " else f"\\x{ord(c):02x}" for c in escaped) + '"'


def _write_whole(path: Path, content: bytes) -> None:
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _socket_path(directory: Path) -> Path:
    """`run/redis.sock` in the data directory; where that is too long a path, in a private directory."""
    run = directory / "run"
    if len(os.fsencode(run / "redis.sock")) > SOCKET_PATH_OCTETS:
        for place in (os.environ.get("XDG_RUNTIME_DIR"), tempfile.gettempdir(), "/tmp"):
            if place and len(os.fsencode(place)) < SOCKET_PATH_OCTETS - 30 and os.access(place, os.W_OK | os.X_OK):
                return Path(tempfile.mkdtemp(prefix="occ-", dir=place)) / "redis.sock"
    run.mkdir(mode=0o700, exist_ok=True)
    run.chmod(0o700)
    return run / "redis.sock"


def _remove_socket(socket: Path) -> None:
    with contextlib.suppress(OSError):
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()


def _read_owner(path: Path) -> dict[str, Any]:
    """Process ids and socket that the last owner noted; empty if there was none."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _end_with_parent() -> Callable[[], None] | None:
    """For the child, before it becomes the server: ask the kernel for SIGTERM when the parent is gone."""
    if _LIBC is None:
        return None
    prctl = _LIBC.prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


async def _exchange(address: Address, command: bytes) -> bytes:
    """First line of the reply to a command; empty when the server hangs up. Raises OSError, TimeoutError."""
    async with asyncio.timeout(_EXCHANGE_SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(address.unix_path))
        try:
            writer.write(command + b"\r\n")
            return await reader.readline()
        finally:
            writer.close()


async def _ended(process: "subprocess.Popen[bytes]", seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while process.poll() is None:
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def _append_only_file(directory: Path, name: str | None) -> Path:
    """Since 7.0 a directory of files, of which the log names one; before, one file."""
    return directory / "appendonlydir" / name if name else directory / "appendonly.aof"


def _mend(program: ServerProgram, file: Path) -> str:
    """Cut off an unfinished last write, keeping it beside the file, and say so in one sentence.

    A crash in the middle of a write leaves such a tail, and none of it was answered yet. A gap further up
    looks the same to Redis but is damage: what follows was answered. The size tells them apart.
    """
    whole = program.check_aof(file)
    size = file.stat().st_size
    if whole is None or not 0 < size - whole <= TORN_TAIL_OCTETS:
        raise _damaged(program, file.parent, file)
    kept = file.with_name(f"{file.name}.torn-{whole}")
    with file.open("r+b") as torn:
        torn.seek(whole)
        _write_whole(kept, torn.read())
        torn.truncate(whole)
        os.fsync(torn.fileno())
    return (
        f"the append-only file {file} ended in the middle of a write, as after a crash: its last "
        f"{size - whole} octets, never acknowledged, were moved to {kept}; "
        f"to check the rest, run {program.check_aof_command(file.parent)} {shlex.quote(str(file))}"
    )


def _damaged(program: ServerProgram, directory: Path, file: Path) -> EmbeddedRedisError:
    whole = program.check_aof(file)
    where = f" after octet {whole}" if whole is not None else ""
    command = f"{program.check_aof_command(directory)} --fix {shlex.quote(str(file))}"
    return EmbeddedRedisError(
        f"the append-only file {file} is damaged{where}: restore it from a backup, or copy {file.parent} to "
        f"a safe place and run {command}, which drops all that follows"
    )
