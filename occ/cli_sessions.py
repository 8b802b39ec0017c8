"""Commands on open sessions: list them, have their clients ask anew, end them."""

import asyncio
from collections.abc import Sequence
from heapq import nsmallest
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from balance import commands, directory
from balance.accounts import Account, Session
from balance.model import Unit
from balance.store import Store
from occ.cli_later import Later, loading
from occ.cli_shell import (
    REFUSED,
    AsJson,
    Limit,
    RefusedError,
    WrongUsageError,
    console,
    existing_account,
    name_octets,
    on_store,
    print_json,
    settings_of,
    table,
    text_of,
    time_json,
    time_text,
    units_text,
)
from occ.clock import now_ms
from occ.rating.catalogue import load_catalogue
from occ.yamlmap import ConfigError

if TYPE_CHECKING:  # the other commands start without loading the protocols
    from occ.server_requests import Result, ServerRequest

ASKED_AT_ONCE: Final = 64
LARGEST_NUMBER: Final = 0xFFFFFFFF

sessions_app = typer.Typer(
    cls=loading(
        watch=Later(
            "occ.cli_watch",
            "watch",
            "Show grants, usage and balance of a subscriber as they change, until Ctrl-C.",
        )
    ),
    no_args_is_help=True,
    help="Open charging sessions.",
)


@sessions_app.command("list")
def list_sessions(
    context: typer.Context,
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    limit: Limit = 50,
    as_json: AsJson = False,
) -> None:
    """Open sessions, the oldest first."""

    async def work(store: Store) -> tuple[list[tuple[Account, Session]], int]:
        if account is not None:
            found = await existing_account(store, account)
            every = [(found, session) for session in found.sessions.values()]
            return nsmallest(limit, every, key=_age), len(every)
        oldest: list[tuple[Account, Session]] = []
        count = 0
        async for page in directory.accounts(store):
            several = [(found, session) for found in page for session in found.sessions.values()]
            count += len(several)
            oldest = nsmallest(limit, oldest + several, key=_age)
        return oldest, count

    sessions, count = on_store(context, work)
    if as_json:
        print_json([session_json(found, session) for found, session in sessions])
        return
    if sessions:
        console().print(sessions_table(sessions))
    console().print(f"{len(sessions)} of {count} open sessions.")


def _age(item: tuple[Account, Session]) -> tuple[int, bytes]:
    return item[1].started_ms, item[1].session_id


def sessions_table(sessions: list[tuple[Account, Session]]) -> Table:
    """Sessions with what each of their services used and was granted."""
    shown = table("session", "account", "service", ">used", ">granted", ">debited", "started (UTC)", "expires (UTC)")
    for account, session in sessions:
        first = (text_of(session.session_id), text_of(account.account_id))
        times = (time_text(session.started_ms), time_text(session.expires_ms))
        if not session.services:
            shown.add_row(*first, "", "", "", "", *times)
        for use in session.services:
            unit = Unit(use.unit)
            shown.add_row(
                *first,
                use.name if use.rating_group < 0 else f"{use.name} ({use.rating_group})",
                units_text(use.used, unit, account.currency),
                units_text(use.granted, unit, account.currency),
                units_text(use.debited_micro, Unit.MONEY, account.currency),
                *times,
            )
            first, times = ("", ""), ("", "")
    return shown


def session_json(account: Account, session: Session) -> dict[str, Any]:
    """A session as plain data for JSON."""
    return {
        "session_id": text_of(session.session_id),
        "account": text_of(account.account_id),
        "subscriber": text_of(session.subscriber_id),
        "plan": session.plan,
        "origin_host": text_of(session.origin_host),
        "started": time_json(session.started_ms),
        "expires": time_json(session.expires_ms),
        "services": [
            {
                "service": use.name,
                "rating_group": use.rating_group if use.rating_group >= 0 else None,
                "service_identifier": use.service_identifier if use.service_identifier >= 0 else None,
                "unit": Unit(use.unit).name.lower(),
                "used": use.used,
                "granted": use.granted,
                "debited_micro": use.debited_micro,
                "leaked_micro": use.leaked_micro,
                "reserved": [{"bucket": bucket_id, "amount": amount} for bucket_id, amount in use.parts],
            }
            for use in session.services
        ],
    }


# -- requests to clients -----------------------------------------------------------------------------------------

SessionId = Annotated[str, typer.Argument(help="Session-Id, as 'occ sessions list' shows it.")]


@sessions_app.command("reauth")
def reauthorise(
    context: typer.Context,
    session_id: Annotated[
        str | None, typer.Argument(help="Session-Id, as 'occ sessions list' shows it; or give --account.")
    ] = None,
    account: Annotated[str | None, typer.Option(help="All open sessions of this account.")] = None,
    rating_group: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_NUMBER, help="Only this Rating-Group of the session.")
    ] = None,
    service_identifier: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_NUMBER, help="Only this service of the session.")
    ] = None,
    pool: Annotated[
        int | None, typer.Option(min=0, max=LARGEST_NUMBER, help="Only this credit pool of the session.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Have the client of a session report what was used and ask for credit anew (Re-Auth-Request).

    Exit code 1 if a client did not agree; it asks anew at the end of its Validity-Time then.
    """
    from occ.server_requests import Command, ServerRequest  # noqa: PLC0415

    if (session_id is None) == (account is None):
        raise WrongUsageError("give either a Session-Id or --account")
    scope = (rating_group, service_identifier, pool)
    if sum(number is not None for number in scope) > 1:
        raise WrongUsageError("give one of --rating-group, --service-identifier and --pool")

    async def work(store: Store) -> _Answered:
        if account is not None:
            found = await existing_account(store, account)
            account_id, sessions = found.account_id, list(found.sessions.values())
        else:
            account_id, sessions = await _existing_sessions(store, session_id or "")
        return await _ask(
            store,
            [(ServerRequest(Command.RE_AUTH, account_id, session.session_id, *scope), session) for session in sessions],
        )

    answered = on_store(context, work)
    if not answered and not as_json:
        console().print(f"account {account} has no open session.")
    _show(context, answered, as_json)


@sessions_app.command("abort")
def abort(context: typer.Context, session_id: SessionId, as_json: AsJson = False) -> None:
    """Have the client end a session (Abort-Session-Request).

    Where the client does not agree, or cannot be asked, its next request for the session is denied.
    """
    from occ.server_requests import Command, ServerRequest  # noqa: PLC0415

    async def work(store: Store) -> _Answered:
        account_id, sessions = await _existing_sessions(store, session_id)
        request = ServerRequest(Command.ABORT_SESSION, account_id, sessions[0].session_id)
        return await _ask(store, [(request, sessions[0])])

    _show(context, on_store(context, work), as_json)


_Answered = list[tuple["ServerRequest", Session, "Result"]]


async def _existing_sessions(store: Store, session_id: str) -> tuple[bytes, list[Session]]:
    from occ.server_requests import find_sessions  # noqa: PLC0415

    found = await find_sessions(store, name_octets(session_id))
    if found is None:
        raise RefusedError(f"there is no open session {session_id}")
    return found


async def _ask(store: Store, requests: Sequence[tuple["ServerRequest", Session]]) -> _Answered:
    """Have the running servers ask the clients, some at a time."""
    slots = asyncio.Semaphore(ASKED_AT_ONCE)

    async def one(request: "ServerRequest", session: Session) -> "Result":
        async with slots:
            return await ask_one(store, request, session)

    results = await asyncio.gather(*(one(*each) for each in requests))
    return [(request, session, result) for (request, session), result in zip(requests, results, strict=True)]


async def ask_one(store: Store, request: "ServerRequest", session: Session) -> "Result":
    from occ import server_requests as asking  # noqa: PLC0415

    command = asking.pack_request(request, session.origin_host, session.via)
    try:
        return asking.unpack_result(await commands.ask(store, command))
    except commands.UnclaimedError:
        denied = request.command is asking.Command.ABORT_SESSION and await asking.deny(store, request, now_ms())
        return asking.Result(asking.Meaning.NO_CONNECTION, request.session_key, session.origin_host, denied=denied)


def _show(context: typer.Context, answered: _Answered, as_json: bool) -> None:
    """Each result in a sentence; exit code 1 if one is not what was wanted."""
    if as_json:
        print_json([result_json(request, result) for request, _, result in answered])
    for request, session, result in answered:
        if not as_json:
            name = f"{text_of(request.session_key)}: " if len(answered) > 1 else ""
            console().print(name + sentence(request, result, _longest_validity_s(context, session)))
    if not all(is_done(request, result) for request, _, result in answered):
        raise typer.Exit(REFUSED)


def is_done(request: "ServerRequest", result: "Result") -> bool:
    from occ.server_requests import Command, Meaning  # noqa: PLC0415

    return result.is_effective or (request.command is Command.ABORT_SESSION and result.meaning is Meaning.ENDED)


def _longest_validity_s(context: typer.Context, session: Session) -> int:
    """The longest Validity-Time that the session's client can have been told; 0: not known."""
    try:
        services = load_catalogue(settings_of(context).catalogue).services
    except ConfigError:
        return 0
    used = {use.name for use in session.services}
    return max((service.validity_time_s for service in services if service.name in used), default=0)


def sentence(request: "ServerRequest", result: "Result", validity_s: int) -> str:
    """What a request to a client came to, for people. ``validity_s``: longest Validity-Time it may have; 0: unknown."""
    from occ.server_requests import Command, Meaning  # noqa: PLC0415

    client, code = text_of(result.client), result.result_code
    if request.command is Command.ABORT_SESSION:
        then = "its next request is denied" if result.denied else "the session goes on"
    else:
        bound = f" (at most {_duration_text(validity_s)})" if validity_s else ""
        then = f"it asks anew when its Validity-Time ends{bound}"
    return {
        Meaning.UPDATE_EXPECTED: f"{client} answered {code}: it reports and asks anew.",
        Meaning.UPDATE_PENDING: f"{client} answered {code}, and is reporting already.",
        Meaning.ACKNOWLEDGED: f"{client} answered {code}, as it always does; {then}.",
        Meaning.TERMINATION_EXPECTED: f"{client} answered {code}: it ends the session.",
        Meaning.CLIENT_LOST: f"{client} does not know the session; it was closed, {_released_text(result)}.",
        Meaning.REFUSED: f"{client} refused with {code or 'an answer without Result-Code'}; {then}.",
        Meaning.UNANSWERED: f"nobody answered for {client} ({text_of(result.reason.encode())}); {then}.",
        Meaning.NO_CONNECTION: f"no running server has a connection with {client}; {then}.",
        Meaning.NOT_ASKED: f"{client} does not act on such requests and was not asked; {then}.",
        Meaning.ENDED: "the session has ended.",
        Meaning.FAILED: f"the server could not do it: {result.reason}.",
    }[result.meaning]


def _released_text(result: "Result") -> str:
    amounts = [units_text(amount, Unit(unit), result.currency) for unit, amount in result.released]
    return f"which released {' and '.join(amounts)}" if amounts else "it had reserved nothing"


def _duration_text(seconds: int) -> str:
    return f"{seconds // 60} min" if seconds % 60 == 0 else f"{seconds} s"


def result_json(request: "ServerRequest", result: "Result") -> dict[str, Any]:
    return {
        "session_id": text_of(request.session_id),
        "sub_session_id": request.sub_session_id,
        "account": text_of(request.account_id),
        "command": request.command.value,
        "client": text_of(result.client) or None,
        "result": result.meaning.value,
        "result_code": result.result_code or None,
        "denied": result.denied,
        "released": [{"unit": Unit(unit).name.lower(), "amount": amount} for unit, amount in result.released],
        "reason": result.reason or None,
    }
