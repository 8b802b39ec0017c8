"""Which open sessions a change of rules or levels concerns, and what is asked of their clients. Pure."""

from collections.abc import Callable
from typing import Final, NamedTuple

from balance.accounts import Account, ServiceUse, Session
from occ.policy.watching import Transition
from occ.server_requests import Command
from policies.levels import held_of
from policies.rules import Access, Case, Decision

REFUSING: Final = frozenset((Access.BAR, Access.BAR_FOR_GOOD, Access.NO_CREDIT))

Decide = Callable[[Case], Decision]

Room = Callable[[Case], int | None]
"""Money until a service is decided on in another way, micro-units; None: it never is."""

_NAMES: Final = {
    Access.FREE: "allow-free",
    Access.BAR: "bar",
    Access.BAR_FOR_GOOD: "bar-for-good",
    Access.NO_CREDIT: "refuse",
    Access.FINAL_UNITS: "final-units",
}


class Ask(NamedTuple):
    """What is asked of the client of one session."""

    command: Command
    session_key: bytes
    rating_group: int | None = None
    """The only one that it is about; None: all of the session."""
    actions: tuple[str, ...] = ()
    """What happens to the services it is about, see ``action``; "shrink": less is granted."""


def case_of(account: Account, session: Session, use: ServiceUse) -> Case:
    """A service of an open session as rules see it."""
    segment = str(session.customer[0]) if session.customer else ""
    return Case(account.kind, session.plan, segment, use.name, use.zone)


def action(decision: Decision) -> str:
    """What a decision does, in one word for figures and logs."""
    if decision.cut:
        return "cut"
    if decision.access in _NAMES:
        return _NAMES[decision.access]
    if decision.throttle:
        return "throttle"
    return "cap" if decision.most_units else "allow"


def concerned(account: Account, before: Decide, after: Decide, transition: Transition | None = None) -> list[Ask]:
    """What is to be asked of the clients of an account: of those whose services are decided on in another way now.

    ``transition``: what came to it; what the answer to the request that did it has told already is left out.
    """
    asks: list[Ask] = []
    for key, session in account.sessions.items():
        told = _told(key, transition)
        found: list[tuple[ServiceUse, Decision]] = []
        cut = False
        for use in session.services:
            case = case_of(account, session, use)
            was, now = before(case), after(case)
            if not _is_noticed(use, was, now):
                continue
            if now.cut:
                cut = True
            elif (use.rating_group, use.service_identifier) in told:
                continue
            found.append((use, now))
        if found:
            asks.append(_ask(key, session, found, cut))
    return asks


def overtaken(account: Account, room: Room, transition: Transition) -> list[Ask]:
    """What is to be asked of clients whose services hold more than may be spent until they are decided on in another
    way: others have spent it. They report, and are granted what is left until then, one step of the price at least.
    """
    asks: list[Ask] = []
    for key, session in account.sessions.items():
        told = _told(key, transition)
        found = [
            use
            for use in session.services
            if use.granted > use.step_units and (use.rating_group, use.service_identifier) not in told
            if _goes_beyond(account, use, room(case_of(account, session, use)))
        ]
        if found:
            asks.append(Ask(Command.RE_AUTH, key, _only_group(session, found), ("shrink",)))
    return asks


def _goes_beyond(account: Account, use: ServiceUse, room_micro: int | None) -> bool:
    return room_micro is not None and held_of(account, use) > max(0, room_micro)


def _told(key: bytes, transition: Transition | None) -> set[tuple[int, int]]:
    """Services of a session that the answer to the request behind a transition was about."""
    answered = transition.answered if transition is not None and transition.asked_by == key else ()
    return {(group, min(identifiers, default=-1)) for group, identifiers in answered}


def _is_noticed(use: ServiceUse, was: Decision, now: Decision) -> bool:
    """Whether the client, holding what it holds, would go on in a wrong way if it were not asked."""
    if not was.differs(now):
        return False
    if now.cut:
        return not was.cut
    refused, refuses = was.access in REFUSING, now.access in REFUSING
    if refuses:
        return not refused and bool(use.granted or use.final)
    if refused or was.access is not now.access or was.final_units != now.final_units or was.throttle != now.throttle:
        return True
    return bool(now.most_units) and use.granted > now.most_units


def _ask(key: bytes, session: Session, found: list[tuple[ServiceUse, Decision]], cut: bool) -> Ask:
    actions = tuple(dict.fromkeys(action(decision) for _, decision in found))
    if cut:
        return Ask(Command.ABORT_SESSION, key, actions=actions)
    return Ask(Command.RE_AUTH, key, _only_group(session, [use for use, _ in found]), actions)


def _only_group(session: Session, found: list[ServiceUse]) -> int | None:
    """The Rating-Group to name, if it is one of several."""
    groups = {use.rating_group for use in found}
    all_groups = {use.rating_group for use in session.services}
    only = groups.pop() if len(groups) == 1 and len(all_groups) > 1 else -1
    return None if only < 0 else only
