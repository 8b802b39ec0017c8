"""What ``occ demo noc`` runs: a server, simulated traffic and, where it is installed, Prometheus."""

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType
from typing import Any, Final

import yaml
from rich.console import Console

from occ.cli_shell import RefusedError
from occ.settings import SHIPPED
from occ.yamlmap import shown

STOP_S: Final = 15.0
CHECK_S: Final = 0.5
SESSIONS: Final = 100_000_000
"""Without end, as far as anybody watches."""


class _StoppedError(Exception):
    """Ctrl-C, or SIGTERM."""


class _Child:
    """A process that ends when the block does. In a session of its own: Ctrl-C in the terminal is for us to pass on."""

    def __init__(self, name: str, command: Sequence[str], out: int | None = None, err: int | None = None) -> None:
        self.name = name
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )

    def __enter__(self) -> "_Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def watch_traffic(out: Console, config: Path | None, rate: float, prometheus_port: int) -> None:
    """Run all of it until Ctrl-C or SIGTERM. Raises RefusedError if a part cannot be started or ends."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _StoppedError

    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        with ExitStack() as running:
            children = _start(running, out, config, rate, prometheus_port)
            out.print("Ctrl-C stops all of it; what was charged stays.")
            sys.stdout.flush()
            _wait(children)
    except _StoppedError:
        pass
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _start(running: ExitStack, out: Console, config: Path | None, rate: float, prometheus_port: int) -> list[_Child]:
    program, prometheus_port = shutil.which("prometheus"), _free(prometheus_port)
    occ = [sys.executable, "-m", "occ", *(("--config", str(config)) if config else ())]
    options = ["--json", "--log-level", "warning"]
    if program is not None:
        options += ["--metrics-prometheus-url", f"http://127.0.0.1:{prometheus_port}"]
    server = running.enter_context(_Child("server", [*occ, "serve", *options], out=subprocess.PIPE))
    told = _announced(server)
    metrics = str(told["metrics"])
    children = [server]
    host = str(told["diameter"]["host"])
    whom = ["--host", {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), "--port", str(told["diameter"]["port"])]
    sessions = ["--sessions", str(SESSIONS), "--rate", f"{rate:g}", "--pace", "30"]
    for name in ("gateway", "ims"):
        command = [*occ, "simulate", name, *whom, *sessions]
        children.append(running.enter_context(_Child(f"simulated {name}", command, out=subprocess.DEVNULL)))
    out.print(f"NOC page    {metrics.removesuffix('metrics')}noc")
    out.print(f"Metrics     {metrics}")
    if program is None:
        out.print("Prometheus  is not installed (Debian, Ubuntu: apt install prometheus): alerts are not known")
    else:
        directory = Path(running.enter_context(TemporaryDirectory(prefix="occ-noc-")))
        addresses = [_address(str(each["metrics"])) for each in told["workers"]]
        children.append(running.enter_context(_prometheus(program, directory, addresses, prometheus_port)))
        out.print(f"Prometheus  http://127.0.0.1:{prometheus_port}/alerts")
    out.print(f"Grafana     dashboards to import: {shown(SHIPPED / 'grafana' / 'dashboards')}")
    return children


def _free(wanted: int) -> int:
    """A port: the one that is wanted, unless another program has it."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _announced(server: _Child) -> dict[str, Any]:
    """Where the server listens. Raises RefusedError if it did not start; it has said why."""
    assert server.process.stdout is not None
    line = server.process.stdout.readline()
    if not line:
        raise RefusedError("the server did not start; it says why above")
    found: dict[str, Any] = json.loads(line)
    return found


def _address(metrics: str) -> str:
    return metrics.removeprefix("http://").removesuffix("/metrics")


def _prometheus(program: str, directory: Path, addresses: list[str], port: int) -> _Child:
    """By the configuration that comes with the project, with this server for its target; its data are thrown away."""
    shutil.copytree(SHIPPED / "prometheus", directory / "config")
    targets = [{"targets": addresses, "labels": {"process": "worker"}}]
    (directory / "config" / "targets" / "workers.yml").write_text(yaml.safe_dump(targets), encoding="utf-8")
    command = [
        program,
        f"--config.file={directory / 'config' / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    return _Child("Prometheus", command)


def _wait(children: Sequence[_Child]) -> None:
    """Until the end of the first. Raises RefusedError."""
    while True:
        for child in children:
            try:
                child.process.wait(CHECK_S / len(children))
            except subprocess.TimeoutExpired:
                continue
            raise RefusedError(f"{child.name} has ended; what it says above may tell why")
