"""The command ``occ``: serve, simulate, and look after accounts, subscribers and the ledger.

Commands on accounts, customers, subscribers, sessions and the ledger are in ``occ.cli_accounts``,
``occ.cli_customers``, ``occ.cli_subscribers``, ``occ.cli_sessions`` and ``occ.cli_ledger``, those on notices in
``occ.cli_contacts`` and ``occ.cli_notices``, what all commands share in ``occ.cli_shell``.
"""

import asyncio
import errno
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from balance.model import Unit
from occ.cli_accounts import account_app
from occ.cli_bulk import export_rows, import_rows
from occ.cli_catalogue import catalogue_app
from occ.cli_cdr import cdr_app
from occ.cli_contacts import account_contact_app, subscriber_contact_app
from occ.cli_customers import customer_app
from occ.cli_decode import decode
from occ.cli_demo import demo_app
from occ.cli_doctor import doctor
from occ.cli_init import init
from occ.cli_ledger import ledger_app
from occ.cli_notices import notice_app
from occ.cli_policy import policy_app
from occ.cli_policy_node import policy_node
from occ.cli_rate import rate
from occ.cli_sessions import sessions_app
from occ.cli_shell import (
    REFUSED,
    AsJson,
    Invocation,
    OneSentenceGroup,
    RefusedError,
    WrongUsageError,
    console,
    print_json,
    quiet_logs,
    settings_of,
    size,
    table,
    units_text,
)
from occ.cli_subscribers import subscriber_app
from occ.cli_top import top
from occ.cli_trace import trace
from occ.cli_watch import watch
from occ.cli_why import why
from occ.rating.catalogue import load_catalogue
from occ.reaching import NotReachedError, bracketed, fetch_peers, metrics_url, reachable
from occ.settings import CONFIG_VARIABLE, Settings, default_config_path, load, option_name, variable_name
from occ.yamlmap import leaf_paths, nearest, shown

if TYPE_CHECKING:
    from occ.server import OnlineChargingServer
    from simulators.driver import Progress as OnProgress
    from simulators.summary import Summary

app = typer.Typer(
    cls=OneSentenceGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="OCC, an online charging server: Diameter Gy and Ro credit control over a Redis ledger.",
)
simulate_app = typer.Typer(
    no_args_is_help=True, help="Charging clients and policy nodes that run sessions against a server."
)
simulate_app.command("policy-node")(policy_node)
app.add_typer(simulate_app, name="simulate")
app.add_typer(account_app, name="account")
app.add_typer(subscriber_app, name="subscriber")
account_app.add_typer(account_contact_app, name="contact")
subscriber_app.add_typer(subscriber_contact_app, name="contact")
app.add_typer(notice_app, name="notice")
app.add_typer(customer_app, name="customer")
app.add_typer(sessions_app, name="sessions")
app.add_typer(ledger_app, name="ledger")
app.add_typer(catalogue_app, name="catalogue")
app.add_typer(policy_app, name="policy")
app.add_typer(cdr_app, name="cdr")
app.add_typer(demo_app, name="demo")
app.command()(decode)
app.command()(rate)
app.command()(doctor)
app.command()(init)
app.command()(top)
app.command()(trace)
app.command()(why)
sessions_app.command("watch")(watch)
app.command("import")(import_rows)
app.command("export")(export_rows)


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help=f"Settings file; left out: the one {CONFIG_VARIABLE} names, else config/occ.yaml."),
    ] = None,
) -> None:
    context.obj = Invocation(config)


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="occ")


# -- serve -------------------------------------------------------------------------------------------------------


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    population: Annotated[
        Path | None,
        typer.Option(
            help="Sample subscribers to create where they are missing; "
            "with the configuration that comes with the project, config/population.yaml."
        ),
    ] = None,
    no_population: Annotated[bool, typer.Option("--no-population", help="Create no sample subscribers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run the server until it is stopped with Ctrl-C or SIGTERM.

    Every setting of the configuration file can be given as an option, such as --diameter-port 3869 or
    --store-data-dir /var/lib/occ.
    """
    config = context.ensure_object(Invocation).config
    settings = load(config, _overrides(context.args))
    if population is None and not no_population and config is None and not os.environ.get(CONFIG_VARIABLE):
        population = default_config_path().parent / "population.yaml"
    from occ.server import run  # noqa: PLC0415 - the other commands start without loading the server

    try:
        run(settings, None if no_population else population, _announcement(settings, config, as_json))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            raise RefusedError(_cannot_listen(settings, error)) from error
        raise


def _overrides(arguments: list[str]) -> dict[str, str]:
    """Settings given as options, by dotted name: ``--diameter-port 3869`` or ``--diameter-port=3869``."""
    paths = {option_name(path): path for path in leaf_paths(Settings)}
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise WrongUsageError(f"serve takes options only, not {name!r}")
        if name not in paths:
            raise WrongUsageError(f"there is no option {name}{nearest(name, paths)}")
        if not given:
            if not rest:
                raise WrongUsageError(f"option {name} needs a value")
            value = rest.pop(0)
        if paths[name] in found:
            raise WrongUsageError(f"option {name} is given twice")
        found[paths[name]] = value
    return found


def _announcement(settings: Settings, config: Path | None, as_json: bool) -> "Callable[[OnlineChargingServer], None]":
    def announce(server: "OnlineChargingServer") -> None:
        diameter, metrics = settings.diameter, settings.metrics
        metrics_url = f"http://{bracketed(metrics.host)}:{server.metrics_port}/metrics"
        if as_json:
            document = {
                "diameter": {
                    "host": diameter.host,
                    "port": server.diameter_port,
                    "tls_port": server.diameter_tls_port or None,
                    "origin_host": diameter.origin_host,
                    "origin_realm": diameter.origin_realm,
                },
                "metrics": metrics_url,
                "redis": server.redis_address.url,
                "data_dir": str(settings.store.data_dir),
                "pid": os.getpid(),
            }
            typer.echo(json.dumps(document))
            sys.stdout.flush()
            return
        program = server.redis_program or "external server"
        command = _elsewhere(server, settings, config) + _own_command()
        out = console()
        out.print(f"Diameter  {bracketed(diameter.host)}:{server.diameter_port}, ", end="")
        out.print(f"Origin-Host {diameter.origin_host}, realm {diameter.origin_realm}")
        if server.diameter_tls_port:
            out.print(f"          {bracketed(diameter.host)}:{server.diameter_tls_port} with TLS 1.3")
        out.print(f"Metrics   {metrics_url}")
        out.print(f"Redis     {program} at {server.redis_address.url}")
        out.print(
            f"Data      {shown(settings.store.data_dir)}, charging data records in {shown(settings.cdr.directory)}"
        )
        out.print()
        out.print("Now, in a second terminal:")
        out.print(f"  {command} simulate gateway      data sessions over Diameter Gy")
        out.print(f"  {command} simulate ims          calls and short messages over Diameter Ro")
        out.print(f"  {command} demo policies         a subscriber from full to the limit and back")
        out.print(f"  {command} account list          what they left on the accounts")
        out.print(f"  {command} ledger verify         whether the books balance")
        out.print("Ctrl-C stops the server; the data stays.")
        sys.stdout.flush()

    return announce


def _elsewhere(server: "OnlineChargingServer", settings: Settings, config: Path | None) -> str:
    """What to put before a command in another terminal, so that it finds this server: variables that it lacks there."""
    named = config or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    told = load(named, {}, {})
    needed = (
        ("diameter.host", told.diameter.host, settings.diameter.host),
        ("diameter.port", told.diameter.port, server.diameter_port),
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


# -- simulate ----------------------------------------------------------------------------------------------------

Host = Annotated[str | None, typer.Option(help="Server; left out: where the settings say it listens.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Its Diameter port; left out: that of the settings.")]
Sessions = Annotated[int, typer.Option(help="Sessions, calls and events in all.")]
Concurrency = Annotated[int, typer.Option(help="At a time at most.")]
Rate = Annotated[float, typer.Option(help="Sessions begun per second at most; 0: as fast as others end.")]
Seed = Annotated[int, typer.Option(help="The same seed means the same subscribers and usage.")]
Pace = Annotated[float, typer.Option(help="Simulated seconds per second; 0: without waiting.")]
Repeats = Annotated[float, typer.Option(help="Share of requests sent twice, 0 to 1.")]
Overshoot = Annotated[float, typer.Option(help="Usage beyond an exhausted grant, as a share of it.")]
Prepaid = Annotated[int, typer.Option(help="Prepaid subscribers of the population.")]
Postpaid = Annotated[int, typer.Option(help="Postpaid subscribers, numbered after the prepaid ones.")]


@simulate_app.command("gateway")
def simulate_gateway(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    sessions: Sessions = 100,
    concurrency: Concurrency = 20,
    rate: Rate = 0.0,
    seed: Seed = 1,
    pace: Pace = 0.0,
    repeats: Repeats = 0.0,
    overshoot: Overshoot = 0.0,
    prepaid: Prepaid = 100,
    postpaid: Postpaid = 100,
    volume: Annotated[str, typer.Option(help="Mean volume of a service of a session.")] = "4 MiB",
    restart_every: Annotated[
        int, typer.Option(help="Sessions after which the gateway loses its state and comes back; 0: never.")
    ] = 0,
    as_json: AsJson = False,
) -> None:
    """Data sessions like those of an SMF or PGW, over Diameter Gy."""
    from simulators import gateway  # noqa: PLC0415 - only these commands need the simulators

    settings = settings_of(context)
    options = _simulation_options(
        gateway.GatewayOptions,
        settings,
        host,
        port,
        sessions=sessions,
        concurrency=concurrency,
        rate=rate,
        seed=seed,
        pace=pace,
        repeats=repeats,
        overshoot=overshoot,
        prepaid=prepaid,
        postpaid=postpaid,
        volume_octets=size(volume, Unit.OCTETS, "--volume"),
        restart_every=restart_every,
    )
    _simulate(settings, sessions, lambda progress: gateway.run(options, progress), as_json)


@simulate_app.command("ims")
def simulate_ims(
    context: typer.Context,
    host: Host = None,
    port: Port = None,
    sessions: Sessions = 100,
    concurrency: Concurrency = 20,
    rate: Rate = 0.0,
    seed: Seed = 1,
    pace: Pace = 0.0,
    repeats: Repeats = 0.0,
    overshoot: Overshoot = 0.0,
    prepaid: Prepaid = 100,
    postpaid: Postpaid = 100,
    duration: Annotated[str, typer.Option(help="Mean duration of a call that is answered.")] = "2 min",
    as_json: AsJson = False,
) -> None:
    """Calls and short messages like those of an IMS, over Diameter Ro."""
    from simulators import ims  # noqa: PLC0415 - only these commands need the simulators

    settings = settings_of(context)
    options = _simulation_options(
        ims.ImsOptions,
        settings,
        host,
        port,
        sessions=sessions,
        concurrency=concurrency,
        rate=rate,
        seed=seed,
        pace=pace,
        repeats=repeats,
        overshoot=overshoot,
        prepaid=prepaid,
        postpaid=postpaid,
        call_seconds=size(duration, Unit.SECONDS, "--duration"),
    )
    _simulate(settings, sessions, lambda progress: ims.run(options, progress), as_json)


def _simulation_options(make: Any, settings: Settings, host: str | None, port: int | None, **figures: Any) -> Any:
    """A simulator's options, pointed at the server of the settings unless told otherwise. Raises WrongUsageError."""
    diameter = settings.diameter
    try:
        return make(
            host=host or reachable(diameter.host),
            port=port or diameter.port,
            destination_realm=diameter.origin_realm,
            **figures,
        )
    except ValueError as error:
        raise WrongUsageError(str(error)) from None


def _simulate(
    settings: Settings,
    sessions: int,
    simulation: "Callable[[OnProgress], Coroutine[Any, Any, Summary]]",
    as_json: bool,
) -> None:
    from simulators.client import SimulationError  # noqa: PLC0415 - only these commands need the simulators

    bar = Progress(
        TextColumn("sessions"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
        disable=as_json or not sys.stderr.isatty(),
    )
    quiet_logs()
    with bar, asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        task = bar.add_task("sessions", total=sessions)
        try:
            summary = runner.run(simulation(lambda done, total: bar.update(task, completed=done, total=total)))
        except SimulationError as error:
            raise RefusedError(str(error)) from error
        except ValueError as error:  # a population that cannot be
            raise WrongUsageError(str(error)) from error
    if as_json:
        print_json(summary.as_dict())
    else:
        _show_summary(summary, load_catalogue(settings.catalogue).currency)
    if summary.unanswered or summary.disagreements or summary.malformed:
        raise typer.Exit(REFUSED)


def _show_summary(summary: "Summary", currency: int) -> None:
    shown_table = table("", "")
    latency = summary.latency
    rows = [
        ("sessions", str(summary.sessions)),
        ("requests", str(summary.requests)),
        ("repeats", str(summary.repeats)),
        ("answers", str(summary.answers)),
        ("grants", str(summary.grants)),
        ("final grants", str(summary.final_grants)),
        *((f"refusals with {code}", str(count)) for code, count in sorted(summary.refusals.items())),
        ("unanswered requests", str(summary.unanswered)),
        ("repeats answered differently", str(summary.disagreements)),
        ("malformed answers", str(summary.malformed)),
        ("latency p50", f"{latency.p50_ms:.2f} ms"),
        ("latency p95", f"{latency.p95_ms:.2f} ms"),
        ("latency p99", f"{latency.p99_ms:.2f} ms"),
        ("latency maximum", f"{latency.max_ms:.2f} ms"),
        ("duration", f"{summary.seconds:.2f} s"),
        ("debited", units_text(summary.debited_micro, Unit.MONEY, currency)),
    ]
    if summary.restarts:
        rows.append(("restarts", f"{summary.restarts}, {summary.lost} sessions lost"))
    if summary.uncertain_micro:
        rows.append(("perhaps debited as well", units_text(summary.uncertain_micro, Unit.MONEY, currency)))
    for row in rows:
        shown_table.add_row(*row)
    console().print(shown_table)


# -- peers -------------------------------------------------------------------------------------------------------


@app.command()
def peers(
    context: typer.Context,
    host: Annotated[
        str | None, typer.Option(help="Where the server's metrics are; left out: as in the settings.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port of the metrics.")] = None,
    as_json: AsJson = False,
) -> None:
    """Diameter peers of the running server."""
    metrics = settings_of(context).metrics
    try:
        found = fetch_peers(f"{metrics_url(host or metrics.host, port or metrics.port)}/peers")
    except NotReachedError as error:
        raise RefusedError(str(error)) from error
    if as_json:
        print_json(found)
        return
    shown_table = table("peer", "realm", "state", "watchdog", "address", "product", ">open for")
    for peer in found:
        seconds = peer.get("open_seconds") or 0
        shown_table.add_row(
            *(str(peer.get(name, "")) for name in ("origin_host", "origin_realm", "state", "watchdog")),
            str(peer.get("remote_address", "")),
            str(peer.get("product_name", "")),
            f"{seconds:.0f} s" if seconds else "",
        )
    if found:
        console().print(shown_table)
    console().print(f"{len(found)} peers.")
