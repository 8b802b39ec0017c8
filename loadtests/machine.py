"""The operating system's accounting of the processes under load, and the facts of the machine (Linux, /proc)."""

import os
import platform
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Final, NamedTuple

FSYNC_PROBES: Final = 200

_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


class MachineError(Exception):
    """The machine cannot be measured; one sentence says why."""


class Usage(NamedTuple):
    """What a process has used so far."""

    cpu_s: float
    """User and system time of all its threads, ended ones too."""
    resident_octets: int


def usage(pid: int) -> Usage:
    """Read /proc/<pid>. Raises MachineError where there is no such process or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise MachineError(f"process {pid} cannot be measured: {error}; the load test needs Linux") from error
    # The command's name in parentheses may hold spaces; utime and stime are fields 14 and 15, proc(5).
    fields = stat[stat.rindex(")") + 2 :].split()
    resident = 0
    for row in status.splitlines():
        if row.startswith("VmRSS:"):
            resident = int(row.split()[1]) * 1024
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, resident)


class Processor(NamedTuple):
    """What all cores together have done so far."""

    busy_s: float
    """Time spent on any process, or in the kernel."""
    stolen_s: float
    """Time the hypervisor gave to other machines though something wanted to run here."""


def processor() -> Processor:
    """Read /proc/stat. Raises MachineError where there is none."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0].split()
    except OSError as error:
        raise MachineError(f"the processor cannot be measured: {error}; the load test needs Linux") from error
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in first[1:9])
    return Processor((user + nice + system + irq + softirq) / _TICKS, steal / _TICKS)


def pin(pid: int, cores: set[int]) -> None:
    """Let a process and its threads run on these cores only."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def put_first(pid: int) -> bool:
    """Let a process have its core whenever it wants it; False if that is not allowed here.

    For a generator that shares a core with what it measures: it stands for clients on other machines, whose waiting for
    a processor is not the server's latency. What it takes is taken from the store and the outbox beside it.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_RR, os.sched_param(1))
    except (AttributeError, OSError):  # another system, or no permission
        return False
    return True


def child_running(pid: int, module: str) -> int | None:
    """The child of a process that runs a Python module, or None."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may have ended meanwhile
            stat = (process / "stat").read_text(encoding="ascii", errors="replace")
            parent = int(stat[stat.rindex(")") + 2 :].split()[1])
            if parent == pid and module.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return int(process.name)
    return None


class Placement(NamedTuple):
    """Which cores who runs on; empty sets: anywhere."""

    worker: set[int]
    redis: set[int]
    generator: set[int]

    def describe(self) -> str:
        if not self.worker:
            return "not pinned: worker, Redis and generator share all cores"
        if self.redis == self.generator:
            return (
                f"worker on core {_names(self.worker)}; Redis, outbox and generator share core {_names(self.redis)}; "
                f"for the floor its client takes the worker's core and Redis has its own to itself"
            )
        return (
            f"worker on core {_names(self.worker)}, Redis on core {_names(self.redis)}, "
            f"generator on core {_names(self.generator)}; the floor's client takes the worker's core"
        )


def placement(pinned: bool) -> Placement:
    """Worker and Redis on a core each, and the generator on a third or, on two cores, beside Redis: the worker is the
    one whose maximum is sought, so nothing else runs on its core. On a single core nothing is pinned."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not pinned or len(cores) < 2:
        return Placement(set(), set(), set())
    return Placement({cores[0]}, {cores[1]}, set(cores[2:]) or {cores[1]})


class Places(NamedTuple):
    """Which cores two servers and two stores run on; empty sets: anywhere. The generator of a server, and its outbox,
    are beside a store."""

    first: Placement
    second: Placement

    def describe(self) -> str:
        """Who shares a core with whom, in words."""
        first, second = self
        if not first.worker:
            return "not pinned: servers, stores and generators share all cores"
        by_core: dict[int, list[str]] = {}
        for what, core in (
            ("worker 1", first.worker),
            ("workers 2 and 3, one of which is loaded at a time", second.worker),
            ("Redis 1", first.redis),
            ("Redis 2", second.redis),
            ("outbox and generator of worker 1", first.generator),
            ("outboxes and generators of workers 2 and 3", second.generator),
        ):
            for each in core:
                by_core.setdefault(each, []).append(what)
        return "; ".join(f"core {core}: {', '.join(what)}" for core, what in sorted(by_core.items()))


def places(pinned: bool) -> Places:
    """Each server on a core that no other server is on while it is loaded, and apart from the store that it waits for
    where it is alone.

    With four cores or more each store has one of its own too, and from the fifth on so have the generators; with three
    the stores share one. With two, a worker shares its core with the other's store: what one of each does is on core 0
    (the worker) and core 1 (all else), and what the second of each does is the other way round. On a single core
    nothing is pinned.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not pinned or len(cores) < 2:
        return Places(placement(pinned=False), placement(pinned=False))
    stores = cores[2:4] if len(cores) >= 4 else [cores[2]] * 2 if len(cores) == 3 else [cores[1], cores[0]]
    rest = set(cores[4:])
    first, second = (Placement({cores[n]}, {stores[n]}, rest or {stores[n]}) for n in (0, 1))
    return Places(first, second)


def _names(cores: set[int]) -> str:
    return ", ".join(str(core) for core in sorted(cores))


def filesystem(directory: Path) -> str:
    """Type of the file system a directory is on; on a tmpfs an fsync costs nothing, which makes the figures void."""
    best, kind = "", "an unknown file system"
    try:
        mounts = Path("/proc/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return kind
    for row in mounts.splitlines():
        fields = row.split()
        point = fields[1].replace("\\040", " ")
        if directory.resolve().is_relative_to(point) and len(point) >= len(best):
            best, kind = point, fields[2]
    return f"{kind} (an fsync costs nothing there: do not compare)" if kind in ("tmpfs", "ramfs") else kind


def fsync_times_s(directory: Path) -> list[float]:
    """How long the disk takes to make a small append durable, many times, the shortest first. Raises OSError."""
    file = directory / "fsync.probe"
    times = []
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        for _ in range(FSYNC_PROBES):
            os.write(descriptor, bytes(4096))
            started = perf_counter()
            os.fsync(descriptor)
            times.append(perf_counter() - started)
    finally:
        os.close(descriptor)
        file.unlink()
    return sorted(times)


def describe_fsync(directory: Path) -> str:
    """The same in words: no answer can be faster with `appendfsync always`."""
    times = fsync_times_s(directory)
    half, most = times[len(times) // 2], times[len(times) * 99 // 100]
    return f"{filesystem(directory)}; fsync of 4 kB takes {half * 1e3:.2f} ms (median), {most * 1e3:.2f} ms (p99)"


def describe() -> str:
    """Processor, cores, system and interpreter in one line."""
    model = platform.processor() or platform.machine()
    try:
        for row in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if row.startswith("model name"):
                model = row.partition(":")[2].strip()
                break
    except OSError:
        pass
    return (
        f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}"
    )
