"""The command ``occ``: what commands there are; serve, simulate and peers are here.

All others are in modules of their own, loaded when they are called for; what commands share is in ``occ.cli_shell``.
So must be here what only some commands need: imports of it stand in the functions.
"""

import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from balance.model import Unit
from occ.cli_later import Later, LaterGroup, loading, named
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

if TYPE_CHECKING:
    from occ.settings import Settings
    from simulators.driver import Progress as OnProgress
    from simulators.summary import Summary


class Root(OneSentenceGroup, LaterGroup):
    """The commands of ``occ``."""

    later = named(
        account=Later("occ.cli_accounts", "account_app", "Create, show, change and list accounts."),
        subscriber=Later("occ.cli_subscribers", "subscriber_app", "Add, show, change and list subscribers."),
        customer=Later("occ.cli_customers", "customer_app", "Households, companies and branches: who pays for whom."),
        sessions=Later("occ.cli_sessions", "sessions_app", "Open charging sessions."),
        notice=Later("occ.cli_notices", "notice_app", "Notices to customers: what was sent, what was given up."),
        voucher=Later("occ.cli_vouchers", "voucher_app", "Codes that are worth money once."),
        ledger=Later("occ.cli_ledger", "ledger_app", "Check the ledger, and close its books."),
        cdr=Later("occ.cli_cdr", "cdr_app", "Charging data records."),
        catalogue=Later("occ.cli_catalogue", "catalogue_app", "The tariff catalogue."),
        policy=Later(
            "occ.cli_policy", "policy_app", "The rules about what subscribers may use by what they have left."
        ),
        rate=Later(
            "occ.cli_rate",
            "rate",
            "What a use would cost, and why, step by step; exit code 1 if it would be refused.",
        ),
        why=Later(
            "occ.cli_why",
            "why",
            "Explain a price: tariff, time band, tiers, promotions, buckets, policy rules, and what moved on the "
            "account.",
        ),
        top=Later(
            "occ.cli_top",
            "top",
            "Watch the servers: traffic, latency, refusals, peers, sessions; 'q' or Ctrl-C ends.",
        ),
        trace=Later(
            "occ.cli_trace",
            "trace",
            "Show the decoded Diameter messages of a subscriber or a peer as they pass, until Ctrl-C.",
        ),
        decode=Later(
            "occ.cli_decode",
            "decode",
            "Print Diameter messages readably, with remarks on what is wrong with each and what the server would "
            "answer.",
        ),
        import_=Later(
            "occ.cli_bulk",
            "import_rows",
            "Import accounts, subscribers, buckets, offers, meters and customer units.",
        ),
        export=Later(
            "occ.cli_bulk",
            "export_rows",
            "Export accounts with their subscribers, buckets, offers, meters and customer units, but without sessions.",
        ),
        restart=Later(
            "occ.cli_restart",
            "restart",
            "Replace all workers by new processes, one after the other: new code, new settings, no failed request.",
        ),
        store=Later("occ.cli_store", "store_app", "Back up the store, and restore it."),
        api=Later("occ.cli_api", "api_app", "The management API: run it, and look after its tokens."),
        audit=Later("occ.cli_api", "audit_app", "Who did what."),
        demo=Later("occ.cli_demo", "demo_app", "What the server does, played."),
        doctor=Later(
            "occ.cli_doctor",
            "doctor",
            "Check the set-up: Python, rules, Redis, disk, ports, clock, peers, limits; exit code 1 if something "
            "is bad.",
        ),
        init=Later(
            "occ.cli_init",
            "init",
            "Write the configuration that comes with the program to a directory, to be changed there.",
        ),
    )


app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="OCC, an online charging server: Diameter Gy and Ro credit control over a Redis ledger.",
)
simulate_app = typer.Typer(
    cls=loading(
        policy_node=Later(
            "occ.cli_policy_node",
            "policy_node",
            "Subscribe to policy counters over Diameter Sy, and print each status and change as it comes.",
        )
    ),
    no_args_is_help=True,
    help="Charging clients and policy nodes that run sessions against a server.",
)
app.add_typer(simulate_app, name="simulate")


def _show_version(wanted: bool) -> None:
    if not wanted:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        typer.echo(f"occ {version('occ')}")
    except PackageNotFoundError:
        typer.echo("occ, not installed: run from its sources")
    raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file; left out: the one OCC_CONFIG names, else config/occ.yaml."),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Which OCC this is.")
    ] = False,
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
    from occ.cli_serve import serve_alone, serve_with_workers
    from occ.settings import CONFIG_VARIABLE, default_config_path, load

    config = context.ensure_object(Invocation).config
    overrides = _overrides(context.args)
    settings = load(config, overrides)
    if population is None and not no_population and config is None and not os.environ.get(CONFIG_VARIABLE):
        population = default_config_path().parent / "population.yaml"
    population = None if no_population else population
    if settings.workers is None:
        serve_alone(settings, config, population, as_json)
    else:
        serve_with_workers(settings, config, overrides, population, as_json)


def _overrides(arguments: list[str]) -> dict[str, str]:
    """Settings given as options, by dotted name: ``--diameter-port 3869`` or ``--diameter-port=3869``."""
    from occ.settings import Settings, option_name
    from occ.yamlmap import leaf_paths, nearest

    paths = {option_name(path): path for path in leaf_paths(Settings)}
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        name, given, value = rest.pop(0).partition("=")
        if not name.startswith("--"):
            raise WrongUsageError(f"serve takes options only, not {name[:80]!r}")
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
    from simulators import gateway

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
    from simulators import ims

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


def _simulation_options(make: Any, settings: "Settings", host: str | None, port: int | None, **figures: Any) -> Any:
    """A simulator's options, pointed at the server of the settings unless told otherwise. Raises WrongUsageError."""
    from occ.reaching import reachable

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
    settings: "Settings",
    sessions: int,
    simulation: "Callable[[OnProgress], Coroutine[Any, Any, Summary]]",
    as_json: bool,
) -> None:
    import asyncio

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from occ.rating.catalogue import load_catalogue
    from simulators.client import SimulationError

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
    """Diameter peers of the running server, of all its workers."""
    from occ.reaching import NotReachedError, metrics_url
    from occ.running import all_peers, metrics_urls

    settings = settings_of(context)
    metrics = settings.metrics
    urls = [metrics_url(host or metrics.host, port or metrics.port)] if host or port else metrics_urls(settings)
    try:
        found = all_peers(urls)
    except NotReachedError as error:
        raise RefusedError(str(error)) from error
    if as_json:
        print_json(found)
        return
    shown_table = table("peer", "realm", "state", "watchdog", "address", "product", ">open for", "server")
    for peer in found:
        seconds = peer.get("open_seconds") or 0
        shown_table.add_row(
            *(str(peer.get(name, "")) for name in ("origin_host", "origin_realm", "state", "watchdog")),
            str(peer.get("remote_address", "")),
            str(peer.get("product_name", "")),
            f"{seconds:.0f} s" if seconds else "",
            str(peer["server"]) if len(urls) > 1 else "",
        )
    if found:
        console().print(shown_table)
    console().print(f"{len(found)} peers.")
