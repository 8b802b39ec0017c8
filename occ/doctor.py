"""What ``occ doctor`` looks at: everything around the server that has to be right for it to run well.

Each check gives findings; one that is not good says what to mend. Nothing is changed: a file that measures the disk is
taken away again.
"""

import asyncio
import ctypes
import errno
import os
import platform
import resource
import shutil
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final

from balance.embedded import Address, EmbeddedRedisError, find_running
from balance.inspection import ServerFacts, inspect_servers
from balance.resp import StoreError
from balance.server_program import MINIMUM_VERSION, find_server
from occ.away_journal import AwayJournalError, count_waiting, left_by_others
from occ.clock import now_ms
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.reaching import NotReachedError, fetch_peers, reachable
from occ.running import all_peers, is_open, metrics_urls
from occ.settings import Settings, of_worker, origin_hosts
from occ.workers_file import running_workers
from occ.yamlmap import ConfigError, shown

PYTHON: Final = (3, 11)
PACKAGES: Final = ("hiredis", "msgpack", "prometheus-client", "pyyaml", "redis", "rich", "typer", "uvloop")

SYNCS: Final = 25
SYNC_GOOD_S: Final = 0.010
SYNC_BAD_S: Final = 0.050
ROUND_TRIP_GOOD_S: Final = 0.005
CLOCKS_DIFFER_MS: Final = 1000
FILES_WANTED: Final = 4096
DISK_WANTED: Final = 2 << 30
DISK_NEEDED: Final = 256 << 20

_WHERE: Final = {"sentinel": "store.sentinels and store.master_name", "cluster": "store.cluster_nodes"}

_UNSYNCHRONISED: Final = 0x40
_TIME_ERROR: Final = 5


class Grade(Enum):
    """How a finding is."""

    GOOD = "good"
    DOUBTFUL = "doubtful"
    """The server runs, but not as well or as safely as it could."""
    BAD = "bad"
    """The server does not start, or loses or delays what it must not."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    what: str
    grade: Grade
    text: str
    mend: str = ""
    """What to do about it, one sentence; empty where it is good."""


def good(what: str, text: str) -> Finding:
    return Finding(what, Grade.GOOD, text)


def doubtful(what: str, text: str, mend: str) -> Finding:
    return Finding(what, Grade.DOUBTFUL, text, mend)


def bad(what: str, text: str, mend: str) -> Finding:
    return Finding(what, Grade.BAD, text, mend)


def examine(settings: Settings) -> Iterator[Finding]:
    """All checks, in an order in which each makes sense after those before it; never raises."""
    running = _is_running(settings)
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        interpreter,
        lambda: rules(settings),
        lambda: store(settings, running=running),
        lambda: disk(settings),
        lambda: workers(settings, running=running),
        lambda: answered_away(settings, running=running),
        lambda: ports(settings, running=running),
        clock,
        lambda: peers(settings, running=running),
        limits,
    )
    for check in checks:
        try:
            yield from check()
        except OSError as error:
            yield bad("system", f"a check could not be made: {error}", "see what the system's log says of it")


def _is_running(settings: Settings) -> bool:
    try:
        all_peers(metrics_urls(settings))
    except NotReachedError:
        return False
    return True


def workers(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether every worker answers."""
    if settings.workers is None:
        return
    cores = os.cpu_count() or 1
    text = f"{settings.workers} by the settings, {cores} cores"
    if settings.workers > cores:
        yield doubtful("workers", text, "give at most one worker to a core, and keep one for Redis")
    else:
        yield good("workers", text)
    if not running:
        return
    supervisor = running_workers(settings.store.data_dir)
    for each in () if supervisor is None else supervisor.workers:
        try:
            fetch_peers(f"http://{each.metrics}/peers")
        except NotReachedError as error:
            yield bad("workers", f"{each.origin_host}: {error}", "see the server's log for why it does not start")
        else:
            times = "" if not each.restarts else f", started again {each.restarts} times"
            yield good("workers", f"{each.origin_host} is process {each.pid}, Diameter port {each.port}{times}")


def answered_away(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether there is a server to settle each journal of requests that were answered without the store."""
    supervisor = running_workers(settings.store.data_dir)
    known = set(origin_hosts(settings))
    known.update(each.origin_host for each in (() if supervisor is None else supervisor.workers))
    for name, path in left_by_others(settings.store.away_dir, known).items():
        try:
            waiting = count_waiting(path)
        except AwayJournalError as error:
            yield bad(
                "away journals", str(error), "it is of no server that the settings know: put it aside and keep it"
            )
            continue
        if waiting:
            yield (bad if running else doubtful)(
                "away journals",
                f"{waiting} requests that {name} answered without the store are not charged, and the settings know no "
                "server of that name",
                "start a server of that name, or all of OCC anew ('occ restart' is not enough): the first to start "
                "settles them",
            )


# -- the program and its rules ---------------------------------------------------------------------------------------


def interpreter() -> Iterator[Finding]:
    """Python and the packages it needs."""
    text = f"{platform.python_implementation()} {platform.python_version()}"
    if sys.version_info[:2] < PYTHON:
        yield bad("python", text, "install Python 3.11 or later and make the virtual environment anew")
    else:
        yield good("python", text)
    missing = []
    for package in PACKAGES:
        try:
            version(package)
        except PackageNotFoundError:
            missing.append(package)
    if missing:
        yield bad(
            "packages", f"missing: {', '.join(missing)}", f"run 'pip install {' '.join(missing)}', or 'make setup'"
        )
    try:
        import_module("uvloop")
        yield good("uvloop", f"version {version('uvloop')}")
    except ImportError as error:
        yield bad("uvloop", f"it cannot be loaded: {error}", "run 'pip install --force-reinstall uvloop'")


def rules(settings: Settings) -> Iterator[Finding]:
    """Catalogue, policies, profiles. The settings themselves are right, or there would be none."""
    from occ.policy.reloading import load as load_policies  # noqa: PLC0415 - loads the server
    from occ.profiles import Profiles  # noqa: PLC0415

    catalogue: Catalogue | None = None
    try:
        catalogue = load_catalogue(settings.catalogue)
        services, plans = len(catalogue.services), len(catalogue.plans)
        yield good("catalogue", f"{shown(settings.catalogue)}: {services} services, {plans} plans")
    except ConfigError as error:
        yield bad("catalogue", str(error), "mend that line; 'occ catalogue check' tells of all of them")
    try:
        if settings.profiles is not None:
            Profiles.load(settings.profiles)
            yield good("profiles", shown(settings.profiles))
    except ConfigError as error:
        yield bad("profiles", str(error), "mend that line")
    if catalogue is None:
        return
    try:
        load_policies(settings.policies, catalogue)
        yield good("policies", "none" if settings.policies is None else shown(settings.policies))
    except ConfigError as error:
        yield bad("policies", str(error), "mend that line; 'occ policy check' tells of all of them")


# -- Redis and the disk ----------------------------------------------------------------------------------------------


def store(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """The Redis server: the program of the embedded one, or the one that runs."""
    address = settings.store.address
    if settings.store.mode == "embedded":
        try:
            program = find_server(settings.store.server_binary)
            yield good("redis program", str(program))
        except EmbeddedRedisError as error:
            yield bad("redis program", str(error), "install one, or name it in store.server_binary")
        address = asyncio.run(find_running(settings.store.redis_dir))
        if address is None:
            if running:
                yield bad(
                    "redis",
                    f"a server runs, but not the Redis of {shown(settings.store.redis_dir)}",
                    "name the server's own settings with --config, or its data with OCC_STORE_DATA_DIR",
                )
            else:
                yield good("redis", "not running; it starts with the server")
            return
    assert address is not None
    yield from _running_store(settings, address)


def _running_store(settings: Settings, address: Address) -> Iterator[Finding]:
    try:
        found = asyncio.run(inspect_servers(address))
    except (OSError, StoreError) as error:
        where = _WHERE.get(settings.store.mode, "store.url")
        yield bad(
            "redis", f"{address.url}: {error}", f"start it, or correct {where}; its own log says why it is not there"
        )
        return
    for url, facts in found:
        yield from _one_server(settings, url, facts)
    yield from _replication(settings, [facts for _, facts in found])


def _one_server(settings: Settings, url: str, facts: ServerFacts) -> Iterator[Finding]:
    number = ".".join(map(str, facts.version))
    if facts.name == "Redis" and facts.version < MINIMUM_VERSION:
        wanted = ".".join(map(str, MINIMUM_VERSION[:2]))
        yield bad("redis", f"{facts.name} {number}", f"install Redis {wanted} or later, or Valkey")
    else:
        yield good("redis", f"{facts.name} {number} at {url}")
    if facts.is_replica:
        yield bad("redis", "it is a replica, and takes no writes", "name the primary in store.url")
    yield from durability(settings, facts)
    if facts.round_trip_s > ROUND_TRIP_GOOD_S:
        yield doubtful(
            "redis round trip",
            f"{facts.round_trip_s * 1000:.1f} ms, and each request waits for one at least",
            "put the server beside Redis, on the same machine or the same switch",
        )
    else:
        yield good("redis round trip", f"{facts.round_trip_s * 1000:.2f} ms")
    apart = facts.clock_ms - now_ms()
    if abs(apart) > CLOCKS_DIFFER_MS:
        yield bad(
            "redis clock",
            f"it is {abs(apart) / 1000:.1f} s {'ahead of' if apart > 0 else 'behind'} ours",
            "synchronise both machines by NTP: what one server asks another would else seem too old",
        )


def _replication(settings: Settings, found: list[ServerFacts]) -> Iterator[Finding]:
    """Whether what is answered is on more than one server, where others are to take over."""
    store = settings.store
    if store.mode in ("embedded", "external") and not store.wait_replicas:
        return
    fewest = min(facts.replicas for facts in found)
    if fewest < store.wait_replicas:
        yield bad(
            "redis replicas",
            f"a primary has {fewest}, and every debit waits for {store.wait_replicas}",
            "start the replicas that are missing, or lower store.wait_replicas",
        )
    elif not fewest:
        yield bad("redis replicas", "a primary has none: nobody takes over", "give every primary a replica")
    elif not store.wait_replicas:
        yield doubtful(
            "redis replicas",
            f"each primary has {fewest} or more, and answers do not wait for them: the last debits before a primary "
            "is lost can be lost with it",
            "set store.wait_replicas to 1",
        )
    else:
        text = f"each primary has {fewest} or more, and every debit waits for {store.wait_replicas}"
        yield good("redis replicas", text)
    if any(facts.settings.get("min-replicas-to-write", "1") == "0" for facts in found):
        yield doubtful(
            "redis replicas",
            "a primary that is cut off from all others goes on writing (min-replicas-to-write is 0)",
            "set 'min-replicas-to-write 1' on all servers",
        )


def durability(settings: Settings, facts: ServerFacts) -> Iterator[Finding]:
    """Whether an answer leaves only when its debit is on disk, and nothing is thrown away when memory is short."""
    told = facts.settings
    if not told:
        yield doubtful(
            "redis durability",
            "the server does not tell its settings",
            "make sure yourself of appendonly yes, appendfsync always and maxmemory-policy noeviction",
        )
        return
    fsync = told.get("appendfsync")
    if told.get("appendonly") != "yes":
        yield bad(
            "redis durability",
            "appendonly is off: all money since the last snapshot is lost if Redis ends",
            "set 'appendonly yes' in redis.conf",
        )
    elif fsync != "always":
        wanted = settings.store.mode == "embedded" and settings.store.fsync == fsync
        text = f"appendfsync is {fsync}: up to a second of debits is lost if the machine fails"
        mend = "set store.fsync to always" if wanted else "set 'appendfsync always' in redis.conf"
        yield doubtful("redis durability", text, mend)
    else:
        yield good("redis durability", "an answer leaves when its debit is on disk (appendfsync always)")
    policy = told.get("maxmemory-policy", "noeviction")
    if told.get("maxmemory", "0") != "0" and policy != "noeviction":
        yield bad(
            "redis memory",
            f"maxmemory-policy is {policy}: Redis throws accounts away when its memory is full",
            "set 'maxmemory-policy noeviction' in redis.conf",
        )


def disk(settings: Settings) -> Iterator[Finding]:
    """Room, permissions, and how long it takes until what was written is on it."""
    directory = settings.store.data_dir
    while not directory.exists():
        directory = directory.parent
    if not os.access(directory, os.W_OK | os.X_OK):
        yield bad("disk", f"{directory} cannot be written to", f"give it to the user of the server: chown {directory}")
        return
    free = shutil.disk_usage(directory).free
    text = f"{free / (1 << 30):.1f} GiB free in {directory}"
    if free < DISK_NEEDED:
        yield bad("disk", text, "free some, or move store.data_dir: a full disk stops charging")
    elif free < DISK_WANTED:
        yield doubtful("disk", text, "free some: the journal grows with every request")
    else:
        yield good("disk", text)
    times = _sync_times(directory)
    median, worst = statistics.median(times), max(times)
    text = f"{median * 1000:.1f} ms until 4 KiB are on it, {worst * 1000:.1f} ms at worst"
    if median > SYNC_BAD_S:
        yield bad("disk sync", text, "use a faster disk: no answer leaves before its debit is on disk")
    elif median > SYNC_GOOD_S:
        yield doubtful("disk sync", text, "an SSD with power-loss protection takes less than a millisecond")
    else:
        yield good("disk sync", text)


def _sync_times(directory: Path) -> list[float]:
    times = []
    with NamedTemporaryFile(dir=directory, prefix=".occ-doctor-", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"\0" * 4096)
            began = time.perf_counter()
            os.fdatasync(file.fileno()) if hasattr(os, "fdatasync") else os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return times


# -- network ---------------------------------------------------------------------------------------------------------


def ports(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Whether the server can listen where it is told to."""
    wanted: list[tuple[str, str, int]] = []
    for number in range(1, (settings.workers or 1) + 1):
        diameter, metrics = of_worker(settings, number).diameter, of_worker(settings, number).metrics
        wanted.append(("Diameter port", diameter.host, diameter.port))
        if diameter.tls.certificate is not None:
            wanted.append(("Diameter TLS port", diameter.host, diameter.tls.port))
        wanted.append(("metrics port", metrics.host, metrics.port))
    for what, host, port in wanted:
        if port == 0:
            yield doubtful(what, "any free one", "choose one, or nobody knows where to find the server")
            continue
        failure = _cannot_listen(host, port)
        where = f"{host} port {port}"
        if failure is None:
            yield good(what, f"{where} is free")
        elif failure == errno.EADDRINUSE and running:
            yield good(what, f"{where} is in use, by the server that runs")
        elif failure == errno.EADDRINUSE:
            yield bad(
                what, f"{where} is in use by another program", "stop that ('ss -ltnp' names it), or choose another port"
            )
        else:
            option = "diameter.host" if "Diameter" in what else "metrics.host"
            yield bad(what, f"{where}: {os.strerror(failure).lower()}", f"give an address of this machine in {option}")


def _cannot_listen(host: str, port: int) -> int | None:
    """The error number of an attempt to listen; None if it works."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            attempt.bind(address)
            attempt.listen()
    except socket.gaierror:
        return errno.EADDRNOTAVAIL
    except OSError as error:
        return error.errno or errno.EIO
    return None


def peers(settings: Settings, *, running: bool) -> Iterator[Finding]:
    """Who may connect, and who has."""
    diameter = settings.diameter
    if diameter.peers.mode == "lab" and reachable(diameter.host) not in ("127.0.0.1", "::1", "localhost"):
        yield doubtful(
            "peers",
            f"lab mode lets in peers from loopback only, though the server listens on {diameter.host}",
            "set diameter.peers.mode to strict and list the peers with their networks",
        )
    for peer in diameter.peers.policy.peers:
        if peer.connect_host is None:
            continue
        try:
            socket.getaddrinfo(peer.connect_host, peer.connect_port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            text = f"{peer.identity}: the host {peer.connect_host} is not known"
            yield bad("peers", text, "correct its connect_host, or enter it in /etc/hosts or the DNS")
    if not running:
        count = len(diameter.peers.allowed)
        yield good("peers", f"{diameter.peers.mode} mode, {count} listed; who is connected shows once the server runs")
        return
    known = all_peers(metrics_urls(settings))
    for each in known:
        if not is_open(each):
            text = f"{each.get('origin_host')} is {each.get('state')}"
            yield doubtful("peers", text, "see the log of the server and of the peer for why it is not open")
    opened = sum(map(is_open, known))
    yield good("peers", f"{diameter.peers.mode} mode, {opened} open")


# -- the machine -----------------------------------------------------------------------------------------------------


def clock() -> Iterator[Finding]:
    """Whether somebody keeps the clock right: tariffs, sessions and records go by it."""
    synchronised = _is_synchronised()
    if synchronised is None:
        yield doubtful("clock", "this system does not tell whether it is synchronised", "see to it that NTP runs")
    elif synchronised:
        yield good("clock", "synchronised")
    else:
        mend = "run an NTP client: apt install chrony, or timedatectl set-ntp true; in a container, on its host"
        yield doubtful("clock", "the kernel says that nobody keeps it right", mend)


def _is_synchronised() -> bool | None:
    """What the kernel says (adjtimex(2)); None where it cannot be asked."""
    try:
        adjtimex = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return None
    words = (ctypes.c_long * 64)()  # struct timex with mode 0, which only reads; status is its sixth word
    state = adjtimex(words)
    if state < 0:
        return None
    return state != _TIME_ERROR and not words[5] & _UNSYNCHRONISED


def limits() -> Iterator[Finding]:
    """Open files, and what Redis wants of the kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = "any number" if soft == resource.RLIM_INFINITY else f"{soft} at a time"
    if soft != resource.RLIM_INFINITY and soft < FILES_WANTED:
        how = "ulimit -n" if hard == resource.RLIM_INFINITY or hard >= FILES_WANTED else "LimitNOFILE= of the service,"
        yield doubtful("open files", text, f"raise it to {FILES_WANTED} with {how} {FILES_WANTED}: each peer takes one")
    else:
        yield good("open files", text)
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    if overcommit.is_file() and overcommit.read_text().strip() not in ("1", ""):
        yield doubtful(
            "memory",
            "vm.overcommit_memory is not 1: Redis may fail to rewrite its append-only file",
            "run 'sysctl vm.overcommit_memory=1' and keep it in /etc/sysctl.d",
        )
