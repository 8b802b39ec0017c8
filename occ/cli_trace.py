"""The command ``occ trace``: the Diameter messages of one subscriber or peer, as they pass, to the screen or a file."""

import asyncio
import json
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from balance import broadcast, traces
from balance.directory import read_accounts
from balance.model import Subscriber
from balance.resp import StoreUnavailableError
from balance.store import Store
from balance.subscribers import session_accounts
from occ.cli_decode import print_messages
from occ.cli_shell import RefusedError, WrongUsageError, console, on_store, text_of
from occ.cli_watch import one_subscriber
from occ.yamlmap import shown

if TYPE_CHECKING:  # the other commands start without loading the protocols
    from occ.decode.streams import Flow
    from occ.tracing import Caught, Trace

LOOK_EVERY_S: Final = 0.1
KEEP_EVERY_S: Final = 1.0
LATE_S: Final = 10.0
"""How much longer than the trace its watcher waits for the servers to tell that it is over."""
DIAMETER_PORT: Final = 3868


def trace(
    context: typer.Context,
    who: Annotated[
        str,
        typer.Argument(
            metavar="MSISDN|PEER", help="A subscriber: MSISDN, other identity or name; or the Origin-Host of a peer."
        ),
    ],
    pcap: Annotated[
        Path | None, typer.Option(help="Write a capture that Wireshark opens, instead of printing; replaced if there.")
    ] = None,
    seconds: Annotated[float, typer.Option("--for", min=1.0, max=3600.0, help="Seconds; an hour at most.")] = 60.0,
    count: Annotated[int, typer.Option(min=1, max=100_000, help="End after so many messages.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per message and line.")] = False,
) -> None:
    """Show the decoded Diameter messages of a subscriber or a peer as they pass, until Ctrl-C.

    All servers of the store take part. Nothing is caught before the command runs, nor after it has ended.
    """
    if pcap is not None and as_json:
        raise WrongUsageError("give either --pcap or --json")
    with ExitStack() as files:
        show = _to_screen(as_json) if pcap is None else _to_file(files, pcap)

        async def work(store: Store) -> int:
            asked = await _trace(store, who, seconds, count)
            if not as_json:
                whose = f"peer {who}" if asked.peer else f"subscriber {who}"
                typer.echo(f"occ: waiting for messages of {whose} for {seconds:g} s; Ctrl-C ends", err=True)
            try:
                return await _follow(store, asked, show)
            finally:
                with suppress(StoreUnavailableError):
                    await traces.forget(store, asked.name)

        seen = on_store(context, work)
    if pcap is not None:
        console().print(f"{seen} messages in {shown(pcap)}.")
    elif not as_json:
        typer.echo(f"occ: {seen} messages", err=True)


async def _trace(store: Store, who: str, seconds: float, count: int) -> "Trace":
    from occ.tracing import Trace  # noqa: PLC0415

    name = secrets.token_hex(12).encode()
    subscriber = await one_subscriber(store, who)
    if subscriber is None and "." not in who:
        raise RefusedError(
            f"there is no subscriber {who}, and no peer has such a name: 'occ subscriber list' and 'occ peers' show "
            "those there are"
        )
    if subscriber is None:
        return Trace(name, peer=who, seconds=seconds, count=count)
    identities = tuple({value for _, value in subscriber.identities})
    return Trace(name, identities, await _open_sessions(store, subscriber), seconds=seconds, count=count)


async def _open_sessions(store: Store, subscriber: Subscriber) -> tuple[bytes, ...]:
    accounts = await read_accounts(store, await session_accounts(store, subscriber))
    return tuple(
        key.partition(b"\0")[0]
        for account in accounts
        if account is not None
        for key, session in account.sessions.items()
        if session.subscriber_id == subscriber.subscriber_id
    )


# -- what is caught ------------------------------------------------------------------------------------------------

Show = Callable[["Caught"], None]


async def _follow(store: Store, asked: "Trace", show: Show) -> int:
    """Show what all servers catch, until they have ended it; how many messages. Raises RefusedError without servers."""
    await traces.keep(store, asked.name)
    keeping = asyncio.create_task(_keep(store, asked.name))
    asking = asyncio.create_task(broadcast.ask_all(store, asked.pack()))
    seen = left_out = 0
    ended: set[str] = set()
    try:
        async with asyncio.timeout(asked.seconds + LATE_S):
            async for caught in _caught(store, asked.name):
                left_out += caught.left_out
                if caught.end:
                    ended.add(caught.worker)
                else:
                    show(caught)
                    seen += 1
                if seen >= asked.count or (asking.done() and _workers(asking) <= ended):
                    break
                if asking.done():
                    _workers(asking)
    except TimeoutError:
        pass
    finally:
        for task in (keeping, asking):
            task.cancel()
        await asyncio.gather(keeping, asking, return_exceptions=True)
    if left_out:
        typer.echo(f"occ: {left_out} messages were left out: there were more than the store took", err=True)
    return seen


def _workers(asking: "asyncio.Task[list[broadcast.Reply]]") -> set[str]:
    """The servers that take part. Raises RefusedError if none does, StoreError."""
    replies = asking.result()
    if not replies:
        raise RefusedError("no running server of this store has answered; start one with 'make run' or 'occ serve'")
    failed = [text_of(reply.worker) for reply in replies if reply.result is None]
    if len(failed) == len(replies):
        raise RefusedError(f"{', '.join(failed)} could not begin the trace; the server's log says why")
    return {text_of(reply.worker) for reply in replies if reply.result is not None}


async def _keep(store: Store, name: bytes) -> None:
    while True:
        await asyncio.sleep(KEEP_EVERY_S)
        with suppress(StoreUnavailableError):
            await traces.keep(store, name)


async def _caught(store: Store, name: bytes) -> "AsyncIterator[Caught]":
    from occ.tracing import unpack_caught  # noqa: PLC0415

    after = traces.BEGINNING
    while True:
        try:
            page = await traces.read(store, name, after)
        except StoreUnavailableError:
            page = []
        for entry_id, packed in page:
            after = entry_id
            for caught in unpack_caught(packed):
                yield caught
        if not page:
            await asyncio.sleep(LOOK_EVERY_S)


# -- where it goes -------------------------------------------------------------------------------------------------


def _flow(caught: "Caught") -> "Flow":
    """Which way a message went, and by what connection."""
    from occ.decode.packets import Endpoint  # noqa: PLC0415
    from occ.decode.streams import Flow  # noqa: PLC0415

    own, remote = Endpoint(*caught.own), Endpoint(*caught.remote)
    return Flow("TCP", 0, own, remote) if caught.is_sent else Flow("TCP", 0, remote, own)


def _to_screen(as_json: bool) -> Show:
    from occ.decode.document import message_document  # noqa: PLC0415
    from occ.decode.messages import LiveDecoder  # noqa: PLC0415
    from occ.decode.streams import Found  # noqa: PLC0415

    decoder = LiveDecoder()
    count = 0

    def show(caught: "Caught") -> None:
        nonlocal count
        count += 1
        found: Found = Found(caught.message, _flow(caught), count, caught.time_ns)
        message = decoder.take(found)
        if as_json:
            sys.stdout.write(
                json.dumps({"server": caught.worker, "peer": caught.peer, **message_document(message)}) + "\n"
            )
        else:
            print_messages([message], f"  {caught.worker} {'to' if caught.is_sent else 'from'} {_peer(caught)}")
        sys.stdout.flush()

    return show


def _peer(caught: "Caught") -> str:
    return text_of(caught.peer.encode()) if caught.peer else "a peer that has not said its name"


def _to_file(files: ExitStack, path: Path) -> Show:
    """The server's end of a connection has port 3868 in the file, whatever it is, so that Wireshark knows it."""
    from occ.decode.capture_file import CaptureWriter  # noqa: PLC0415

    file = files.enter_context(path.open("wb"))
    writer = CaptureWriter(file)
    writer.flush()

    def show(caught: "Caught") -> None:
        flow = _flow(
            caught._replace(remote=(caught.remote[0], DIAMETER_PORT))
            if caught.is_dialed
            else caught._replace(own=(caught.own[0], DIAMETER_PORT))
        )
        writer.write(flow.source, flow.destination, caught.time_ns, caught.message)
        writer.flush()

    return show
