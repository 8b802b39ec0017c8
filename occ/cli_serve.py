"""What ``occ serve`` says when it has started, or cannot; and how it runs several workers."""

import errno
import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from occ.cli_shell import RefusedError, console
from occ.reaching import bracketed
from occ.settings import CONFIG_VARIABLE, Settings, load, variable_name
from occ.yamlmap import shown

if TYPE_CHECKING:
    from occ.server import OnlineChargingServer
    from occ.supervisor import Supervisor


def serve_alone(settings: Settings, config: Path | None, population: Path | None, as_json: bool) -> None:
    """One process that charges, until it is stopped. Raises RefusedError, and as ``occ.server.run``."""
    from occ.server import run

    def announce(server: "OnlineChargingServer") -> None:
        one = Listening(
            settings.diameter.origin_host,
            server.diameter_port,
            server.diameter_tls_port,
            server.metrics_port,
            os.getpid(),
        )
        _announce(settings, config, as_json, Started([one], server.redis_address.url, server.redis_program))

    try:
        run(settings, population, announce)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise RefusedError(_cannot_listen(settings, error)) from error
        raise


def serve_with_workers(
    settings: Settings, config: Path | None, overrides: dict[str, str], population: Path | None, as_json: bool
) -> None:
    """A supervisor and its workers, until it is stopped. Raises RefusedError, and as ``occ.supervisor.run``."""
    from occ.listening import CannotListenError
    from occ.supervisor import Given, SupervisorError, run
    from occ.workers_file import InUseError

    def announce(supervisor: "Supervisor") -> None:
        servers = [
            Listening(each.origin_host, each.port, each.tls_port, int(each.metrics.rpartition(":")[2]), each.pid)
            for each in supervisor.workers
        ]
        started = Started(servers, supervisor.redis_address.url, supervisor.redis_program)
        _announce(settings, config, as_json, started)

    try:
        run(settings, Given(config, overrides, population), announce)
    except (SupervisorError, CannotListenError, InUseError) as error:
        raise RefusedError(str(error)) from error


# -- what has started ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listening:
    """Where one server that charges is to be found."""

    origin_host: str
    port: int
    tls_port: int
    """0: it does not listen with TLS."""
    metrics_port: int
    pid: int


@dataclass(frozen=True, slots=True)
class Started:
    """What was started."""

    servers: list[Listening]
    redis_url: str
    redis_program: str
    """Empty: Redis was there."""


def _announce(settings: Settings, config: Path | None, as_json: bool, started: Started) -> None:
    """Say where to find it."""
    if as_json:
        typer.echo(json.dumps(_document(settings, started)))
        sys.stdout.flush()
        return
    diameter = settings.diameter
    out = console()
    for one in started.servers:
        out.print(f"Diameter  {bracketed(diameter.host)}:{one.port}, ", end="")
        out.print(f"Origin-Host {one.origin_host}, realm {diameter.origin_realm}")
        if one.tls_port:
            out.print(f"          {bracketed(diameter.host)}:{one.tls_port} with TLS 1.3")
    for one in started.servers:
        out.print(f"Metrics   {_metrics_url(settings, one)}")
        out.print(f"NOC page  {_metrics_url(settings, one).removesuffix('metrics')}noc")
    out.print(f"Redis     {started.redis_program or 'external server'} at {started.redis_url}")
    out.print(f"Data      {shown(settings.store.data_dir)}, charging data records in {shown(settings.cdr.directory)}")
    command = _elsewhere(started.servers[0], settings, config) + _own_command()
    out.print()
    out.print("Now, in a second terminal:")
    out.print(f"  {command} simulate gateway      data sessions over Diameter Gy")
    out.print(f"  {command} simulate ims          calls and short messages over Diameter Ro")
    out.print(f"  {command} demo policies         a subscriber from full to the limit and back")
    out.print(f"  {command} account list          what they left on the accounts")
    out.print(f"  {command} ledger verify         whether the books balance")
    out.print("Ctrl-C stops the server; the data stays.")
    sys.stdout.flush()


def _metrics_url(settings: Settings, one: Listening) -> str:
    return f"http://{bracketed(settings.metrics.host)}:{one.metrics_port}/metrics"


def _document(settings: Settings, started: Started) -> dict[str, Any]:
    """The first server, and under ``workers`` all of them."""
    workers = [
        {
            "diameter": {
                "host": settings.diameter.host,
                "port": one.port,
                "tls_port": one.tls_port or None,
                "origin_host": one.origin_host,
                "origin_realm": settings.diameter.origin_realm,
            },
            "metrics": _metrics_url(settings, one),
            "pid": one.pid,
        }
        for one in started.servers
    ]
    return {
        **workers[0],
        "redis": started.redis_url,
        "data_dir": str(settings.store.data_dir),
        "pid": os.getpid(),
        "workers": workers,
    }


def _elsewhere(server: Listening, settings: Settings, config: Path | None) -> str:
    """What to put before a command in another terminal, so that it finds this server: variables that it lacks there."""
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    told = load(named, {}, {})
    needed = (
        ("diameter.host", told.diameter.host, settings.diameter.host),
        ("diameter.port", told.diameter.port, server.port),
        ("diameter.origin_realm", told.diameter.origin_realm, settings.diameter.origin_realm),
        ("metrics.host", told.metrics.host, settings.metrics.host),
        ("metrics.port", told.metrics.port, server.metrics_port),
        ("store.data_dir", told.store.data_dir, settings.store.data_dir),
    )
    variables = {variable_name(path): str(here) for path, there, here in needed if there != here}
    if named is not None:
        variables[CONFIG_VARIABLE] = str(named)
    return "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())


def _own_command() -> str:
    """What to type to run this program again from the same directory."""
    program = Path(sys.argv[0])
    if program.name == "__main__.py":
        return f"{shown(Path(sys.executable))} -m occ"
    on_path = shutil.which(program.name)
    if on_path is not None and Path(on_path).resolve() == program.resolve():
        return program.name
    return shown(program)


def _cannot_listen(settings: Settings, error: OSError) -> str:
    diameter, metrics = settings.diameter, settings.metrics
    reason = os.strerror(error.errno or 0).lower()
    # asyncio names the address that was refused, the HTTP server of the metrics does not.
    if str(diameter.port) in str(error):
        where, option = f"Diameter at {bracketed(diameter.host)}:{diameter.port}", "--diameter-port"
    else:
        where, option = f"metrics at {bracketed(metrics.host)}:{metrics.port}", "--metrics-port"
    return f"cannot listen for {where}: {reason}; stop what uses it, or choose another with {option}"
