"""The command ``occ top``: traffic, latency, refusals, peers and sessions of running servers, as they change.

It asks the servers' metrics listener, and the store for what last moved on the accounts; it changes nothing anywhere.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from balance.accounts import Account
from balance.directory import read_accounts
from balance.journal import PAGE_ENTRIES, read_record
from balance.model import Unit
from balance.records import JournalRecord
from balance.store import Store
from occ.cli_accounts import why_text
from occ.cli_shell import (
    AsJson,
    RefusedError,
    console,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_text,
    units_text,
)
from occ.figures import Between, Figures, Labels, Scrape, added, figures, read_metrics
from occ.masking import masked
from occ.reaching import NotReachedError, fetch
from occ.running import all_peers, metrics_urls

FRAME_WIDTH: Final = 120
MOVES_SHOWN: Final = 8
REFUSALS_SHOWN: Final = 8
SIDE_BY_SIDE: Final = 100
UPPER_HEIGHT: Final = 10
HISTORY: Final = 60
LONGEST_KEY: Final = 64
GONE: Final = "\x04"
"""The terminal is."""
ENDING: Final = ("q", "Q", "\x1b", GONE)
"""What ends the full screen: q, Escape."""
_BARS: Final = " ▁▂▃▄▅▆▇█"
_ORDER: Final = ("initial", "update", "termination", "event", "unreadable")

RESULTS: Final = {
    "3002": "unable to deliver",
    "3004": "too busy",
    "4010": "end-user service denied",
    "4011": "credit control not applicable",
    "4012": "credit limit reached",
    "5003": "authorization rejected",
    "5005": "missing AVP",
    "5012": "unable to comply",
    "5030": "user unknown",
    "5031": "rating failed",
}
"""The Result-Codes that operators meet most (RFC 6733 section 7.1, RFC 8506 section 9)."""


def top(
    context: typer.Context,
    at: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST:PORT", help="Metrics of a server; once for each; left out: those of the settings."),
    ] = None,
    every: Annotated[float, typer.Option(min=0.2, max=60.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    show_names: Annotated[bool, typer.Option("--names", help="Show names of accounts in full.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the servers: traffic, latency, refusals, peers, sessions; 'q' or Ctrl-C ends.

    --json prints the figures of one frame.
    """
    urls = [f"http://{each}" for each in at] if at else metrics_urls(settings_of(context))
    watcher = Watcher(context, urls, show_names=show_names)
    watcher.look()
    if once or as_json or not sys.stdout.isatty():
        time.sleep(every)
        watcher.look()
        if as_json:
            print_json(_as_json(watcher))
            return
        out = console()
        out.print(frame(watcher, FRAME_WIDTH), width=FRAME_WIDTH)
        return
    _full_screen(watcher, every)


# -- looking -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watcher:
    """What was seen so far."""

    context: typer.Context
    urls: list[str]
    show_names: bool
    scrape: Scrape | None = None
    figures: Figures = field(default_factory=Figures)
    peers: list[dict[str, Any]] = field(default_factory=list)
    history: list[float] = field(default_factory=list)
    """Requests per second at earlier looks."""
    moves: list[tuple[JournalRecord, Account]] = field(default_factory=list)
    trouble: list[str] = field(default_factory=list)
    """What could not be seen this time."""

    def look(self) -> None:
        """Ask all servers and the store. Raises RefusedError if none of the servers answers the first time."""
        self.trouble = []
        said: list[Mapping[tuple[str, Labels], float]] = []
        peers = self.peers
        for url in self.urls:
            try:
                said.append(read_metrics(fetch(f"{url}/metrics")))
            except NotReachedError as error:
                self.trouble.append(str(error))
            except ValueError:
                self.trouble.append(f"{url}/metrics did not answer with metrics: is that an OCC server?")
        if self.scrape is None and not said:
            raise RefusedError(self.trouble[0])
        with suppress(NotReachedError):  # told already
            peers = all_peers(self.urls)
        now = added(time.monotonic(), said)
        if said:
            if self.scrape is not None:
                self.figures = figures(Between(self.scrape, now))
                self.history = [*self.history, sum(self.figures.requests_s.values())][-HISTORY:]
            self.scrape, self.peers = now, peers
        try:
            self.moves = on_store(self.context, _latest)
        except Exception as error:
            if not isinstance(error, RefusedError | OSError) and type(error).__module__.split(".")[0] != "balance":
                raise
            self.moves = []
            self.trouble.append(f"the ledger is not shown: {error}")


async def _latest(store: Store) -> list[tuple[JournalRecord, Account]]:
    """What last moved on the accounts, the newest first."""
    newest: list[tuple[bytes, bytes]] = []
    for lane in store.keys.lanes():
        page = await store.call("XREVRANGE", store.keys.journal(lane), "+", "-", "COUNT", MOVES_SHOWN)
        newest += [(bytes(entry_id), packed) for entry_id, fields in page for packed in reversed(fields[1::2])]
    records = [read_record(*each) for each in newest[:PAGE_ENTRIES]]
    records = sorted(records, key=lambda record: -record.at_ms)[:MOVES_SHOWN]
    accounts = await read_accounts(store, [record.account_id for record in records])
    return [(record, account) for record, account in zip(records, accounts, strict=True) if account is not None]


# -- one frame -----------------------------------------------------------------------------------------------------


def frame(watcher: Watcher, width: int) -> RenderableType:
    """All panels, one below the other where the terminal is narrow."""
    made = watcher.figures
    height = UPPER_HEIGHT if width >= SIDE_BY_SIDE else None
    upper: list[RenderableType] = [
        Panel(_traffic(watcher), title="Traffic", title_align="left", height=height),
        Panel(_latency(made), title="Latency", title_align="left", height=height),
        Panel(_sessions(made), title="Sessions and money", title_align="left", height=height),
        Panel(_store(made), title="Store", title_align="left", height=height),
    ]
    if width >= SIDE_BY_SIDE:
        grid = Table.grid(expand=True)
        for _ in upper:
            grid.add_column(ratio=1)
        grid.add_row(*upper)
        upper = [grid]
    rows = [_head(watcher), *upper]
    rows.append(Panel(_refusals(made), title="Refusals", title_align="left"))
    rows.append(Panel(_peers(watcher.peers), title=f"Peers ({made.peers_up:.0f} open)", title_align="left"))
    rows.append(Panel(_moves(watcher), title="Latest in the ledger", title_align="left"))
    rows += [Text(f"! {each}", style="yellow") for each in watcher.trouble]
    return Group(*rows)


def _head(watcher: Watcher) -> Text:
    servers = ", ".join(url.removeprefix("http://") for url in watcher.urls)
    return Text.assemble(("occ top", "bold"), f"  {time.strftime('%H:%M:%S')}  {servers}")


def _pairs(*rows: tuple[str, str]) -> Table:
    made = Table.grid(padding=(0, 1), expand=True)
    made.add_column(overflow="fold")
    made.add_column(justify="right")
    for row in rows:
        made.add_row(*row)
    return made


def _traffic(watcher: Watcher) -> RenderableType:
    made = watcher.figures
    kinds = [kind for kind in _ORDER if made.requests_s.get(kind)]
    rows = [("requests/s", f"{sum(made.requests_s.values()):,.1f}")]
    rows += [(f"  {kind}", f"{made.requests_s[kind]:,.1f}") for kind in kinds]
    rows += [("under way", f"{made.in_flight:.0f}"), ("turned away/s", f"{made.turned_away_s:.1f}")]
    return Group(_pairs(*rows), Text(_sparkline(watcher.history), style="cyan", no_wrap=True, overflow="crop"))


def _sparkline(values: list[float]) -> str:
    highest = max(values, default=0.0)
    if not highest:
        return ""
    return "".join(_BARS[min(len(_BARS) - 1, int(value / highest * (len(_BARS) - 1) + 0.5))] for value in values[-24:])


def _latency(made: Figures) -> RenderableType:
    return _pairs(*((f"{name} % within", _duration(value)) for name, value in made.latency_s.items()))


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "no answers"
    return "over 2.5 s" if seconds == float("inf") else f"{seconds * 1000:g} ms"


def _sessions(made: Figures) -> RenderableType:
    money = [(f"{currency}/min", f"{amount:,.2f}") for currency, amount in sorted(made.money_minute.items())]
    return _pairs(("open", f"{made.sessions:,.0f}"), ("reservations", f"{made.reservations:,.0f}"), *money)


def _store(made: Figures) -> RenderableType:
    return _pairs(
        ("commits/s", f"{made.commits_s:,.1f}"),
        ("99 % within", _duration(made.round_trip_s)),
        ("conflicts/s", f"{made.conflicts_s:.1f}"),
        ("reconnects", f"{made.reconnects:.0f}"),
    )


def _refusals(made: Figures) -> RenderableType:
    if not made.refusals:
        return Text("none since the servers started", style="green")
    lines = table("result", "", ">per second", ">in all")
    for code, rate, total in made.refusals[:REFUSALS_SHOWN]:
        lines.add_row(code, RESULTS.get(code, ""), f"{rate:.1f}", f"{total:,.0f}")
    return Group(lines, Text(f"{made.refused_share:.1%} of the answers of this interval"))


def _peers(peers: list[dict[str, Any]]) -> RenderableType:
    if not peers:
        return Text("no peer is connected or configured", style="yellow")
    lines = table("peer", "state", "watchdog", "address", ">requests", ">answers", ">errors")
    for peer in peers:
        counts = peer.get("statistics") or {}
        lines.add_row(
            *(
                text_of(str(peer.get(name, "")).encode())
                for name in ("origin_host", "state", "watchdog", "remote_address")
            ),
            *(str(counts.get(name, 0)) for name in ("requests_received", "answers_sent", "errors_sent")),
        )
    return lines


def _moves(watcher: Watcher) -> RenderableType:
    if not watcher.moves:
        return Text("nothing yet")
    lines = table("when (UTC)", "account", "what", ">change", ">balance", ">reserved", "why")
    for record, account in watcher.moves:
        name = text_of(record.account_id) if watcher.show_names else masked(record.account_id)
        change = next(iter(record.changes), None)
        bucket = None if change is None else account.bucket(change.bucket_id)
        unit = Unit(bucket.unit) if bucket is not None else Unit.MONEY
        amounts = ("", "", "")
        if change is not None:
            amounts = (
                units_text(change.balance_delta, unit, account.currency),
                units_text(change.balance_after, unit, account.currency),
                units_text(change.reserved_after, unit, account.currency),
            )
        why = Text(why_text(record.reason), no_wrap=True, overflow="ellipsis")
        lines.add_row(time_text(record.at_ms)[11:], name, record.operation, *amounts, why)
    return lines


def _as_json(watcher: Watcher) -> dict[str, Any]:
    made = watcher.figures
    return {
        "servers": watcher.urls,
        "requests_per_second": made.requests_s,
        "latency_seconds": {
            name: None if value is None or value == float("inf") else value for name, value in made.latency_s.items()
        },
        "refusals": [{"result": code, "per_second": rate, "total": total} for code, rate, total in made.refusals],
        "in_flight": made.in_flight,
        "turned_away_per_second": made.turned_away_s,
        "open_sessions": made.sessions,
        "open_reservations": made.reservations,
        "money_per_minute": made.money_minute,
        "peers_up": made.peers_up,
        "peers": [{"origin_host": peer.get("origin_host"), "state": peer.get("state")} for peer in watcher.peers],
        "store": {
            "commits_per_second": made.commits_s,
            "conflicts_per_second": made.conflicts_s,
            "reconnects": made.reconnects,
        },
        "not_seen": watcher.trouble,
    }


# -- full screen ---------------------------------------------------------------------------------------------------


def _full_screen(watcher: Watcher, every: float) -> None:
    out = Console(highlight=False, markup=False, emoji=False)
    with _keys() as pressed, Live(console=out, screen=True, auto_refresh=False) as live:
        while True:
            live.update(frame(watcher, out.width), refresh=True)
            if pressed(every) in ENDING:
                return
            watcher.look()


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """``pressed(seconds)``: the key that was pressed meanwhile, or an empty string."""
    if not sys.stdin.isatty():
        yield _no_key
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        # All that is there: the keys for arrows and functions begin with the character of Escape.
        return (os.read(terminal, LONGEST_KEY).decode("latin-1") or GONE) if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
