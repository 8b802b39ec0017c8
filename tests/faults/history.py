"""A history of concurrent operations on a few accounts, and the check of it: a pure function over plain records.

Clients write down when they begin an operation, every answer they get to it, and that they never got one. Afterwards
the ledger says what it holds: for every account its balance, and for every operation what was debited for it, entry by
entry. The check knows prices and nothing of how the server works. What it holds a history to:

- conservation: what was paid in is what is left and what was debited, to the micro-unit;
- an operation is debited once at most; one that was answered with success, exactly once and at its price;
- nothing is debited that no client asked for;
- all answers to one operation are the same, however often it is repeated and whichever process answers;
- credit is promised once: whenever grants are held, they and what was debited before are no more than was paid in.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class Key(NamedTuple):
    """What names an operation, for the client and in the journal."""

    session: str
    kind: int
    """CC-Request-Type."""
    number: int
    """CC-Request-Number."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer that a client has got."""

    at_s: float
    succeeded: bool
    """2001: what was reported is debited, once. Otherwise whether it is, only the ledger knows."""
    granted_micro: int
    """What the granted units cost."""
    body: bytes
    """All that must not differ from one answer to the next."""


@dataclass(slots=True)
class Operation:
    """One request with all its repeats."""

    key: Key
    account: str
    began_s: float
    price_micro: int
    """What it debits if it is carried out; of a direct debit, what is asked for."""
    answers: list[Answer] = field(default_factory=list)
    """Empty: nobody knows whether it was carried out."""
    given_up: bool = False
    """The client sends nothing more for this session."""


@dataclass(slots=True)
class Ledger:
    """What the ledger holds in the end."""

    paid_in_micro: dict[str, int]
    balances_micro: dict[str, int]
    debits: Sequence[tuple[str, Key, int]]
    """(account, operation, micro-units) of every journal entry that took something."""
    reserved_micro: dict[str, int] = field(default_factory=dict)
    """What is reserved of each account when all sessions are over."""


def check(operations: Iterable[Operation], ledger: Ledger) -> list[str]:
    """What is wrong with a history, a sentence each; nothing if it could have happened."""
    known = list(operations)
    return [
        *_conservation(ledger),
        *_at_most_once(known, ledger),
        *_same_answers(known),
        *_promises(known, ledger),
        *(f"{account}: {micro} are still reserved" for account, micro in ledger.reserved_micro.items() if micro),
    ]


def _conservation(ledger: Ledger) -> Iterable[str]:
    debited: Counter[str] = Counter()
    for account, _, micro in ledger.debits:
        debited[account] += micro
    for account, paid_in in ledger.paid_in_micro.items():
        left = ledger.balances_micro.get(account, 0)
        if left + debited[account] != paid_in:
            yield f"{account}: {left} left and {debited[account]} debited, not the {paid_in} that were paid in"
        if left < 0:
            yield f"{account}: {left} left"
    for account in debited.keys() - ledger.paid_in_micro.keys():
        yield f"{account}: debited, but nobody opened it"


def _at_most_once(operations: list[Operation], ledger: Ledger) -> Iterable[str]:
    entries: defaultdict[Key, list[tuple[str, int]]] = defaultdict(list)
    for account, key, micro in ledger.debits:
        entries[key].append((account, micro))
    for operation in operations:
        debits = entries.pop(operation.key, [])
        if len(debits) > 1:
            yield f"{operation.key}: debited {len(debits)} times, {debits}"
            continue
        # Nothing is not entered.
        account, micro = debits[0] if debits else (operation.account, 0)
        if account != operation.account:
            yield f"{operation.key}: debited to {account}, not to {operation.account}"
        if any(answer.succeeded for answer in operation.answers):
            if micro != operation.price_micro:
                yield f"{operation.key}: answered with success, {micro} debited, not {operation.price_micro}"
        elif micro not in (0, operation.price_micro):
            yield f"{operation.key}: {micro} debited, neither nothing nor {operation.price_micro}"
    for key, debits in entries.items():
        yield f"{key}: debited {debits}, and no client asked for it"


def _same_answers(operations: list[Operation]) -> Iterable[str]:
    for operation in operations:
        if any(answer.body != operation.answers[0].body for answer in operation.answers):
            yield f"{operation.key}: answered in {len({answer.body for answer in operation.answers})} ways"
        for answer in operation.answers:
            if answer.at_s < operation.began_s:
                yield f"{operation.key}: answered before it was asked"


def _promises(operations: list[Operation], ledger: Ledger) -> Iterable[str]:
    """A grant is certainly held from its answer until the session's next request; a debit is certain once answered."""
    changes: defaultdict[str, list[tuple[float, int, int]]] = defaultdict(list)
    by_session: defaultdict[str, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_session[operation.key.session].append(operation)
    for session in by_session.values():
        session.sort(key=lambda operation: operation.began_s)
        for operation, following in zip(session, [*session[1:], None], strict=True):
            answer = next((each for each in operation.answers if each.succeeded), None)
            if answer is None:
                continue
            if operation.price_micro:
                changes[operation.account].append((answer.at_s, 1, operation.price_micro))
            if answer.granted_micro and following is not None:
                # At the same moment what ends comes first: it may have made room for what begins.
                changes[operation.account].append((answer.at_s, 1, answer.granted_micro))
                changes[operation.account].append((following.began_s, 0, -answer.granted_micro))
    for account, steps in changes.items():
        held = 0
        for at_s, _, micro in sorted(steps):
            held += micro
            if held > ledger.paid_in_micro.get(account, 0):
                yield f"{account}: at {at_s:.3f} s {held} are debited or promised, more than was ever paid in"
                break
