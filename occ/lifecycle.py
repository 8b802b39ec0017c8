"""What the states of an account and of a subscriber allow.

===========  ===========================================================  ==========================================
state        meaning                                                      what is granted
===========  ===========================================================  ==========================================
ordered      known, not in service yet                                    nothing but essential services (4010)
active       in service                                                   everything
suspended    out of service at the customer's wish, or for a while        essential services only (4010)
blocked      barred by the operator                                       essential services only (4010)
grace        a prepaid account that has expired; a top-up brings it back  essential services only (4010)
terminated   gone                                                         nothing: the user is unknown (5030)
===========  ===========================================================  ==========================================

An *essential* service (``essential: yes`` in the catalogue: emergency calls) is granted in every state but the last.
Usage that is reported is charged in every state. Of an account and a subscriber the stricter state holds.

Money: a top-up, a further bucket or a transfer is taken in every state but terminated; one from outside, a top-up or a
transfer, brings an account in grace back. By transfer money leaves an active account only. An adjustment is allowed in
every state, so that what is left on a terminated account can be cleared (``balance.directory``, ``balance.transfers``).

Subscribers are never in grace, postpaid accounts neither.
"""

from typing import Final

from balance.accounts import Account
from balance.model import LedgerError, LifeState
from occ.codes import END_USER_SERVICE_DENIED, USER_UNKNOWN

ALLOWED: Final[dict[LifeState, tuple[LifeState, ...]]] = {
    LifeState.ORDERED: (LifeState.ACTIVE, LifeState.TERMINATED),
    LifeState.ACTIVE: (LifeState.SUSPENDED, LifeState.BLOCKED, LifeState.GRACE, LifeState.TERMINATED),
    LifeState.SUSPENDED: (LifeState.ACTIVE, LifeState.BLOCKED, LifeState.TERMINATED),
    LifeState.BLOCKED: (LifeState.ACTIVE, LifeState.SUSPENDED, LifeState.TERMINATED),
    LifeState.GRACE: (LifeState.ACTIVE, LifeState.BLOCKED, LifeState.TERMINATED),
    LifeState.TERMINATED: (),
}
"""From each state, the states that may follow."""

_ACTIVE: Final = int(LifeState.ACTIVE)
_TERMINATED: Final = int(LifeState.TERMINATED)


def in_service(account: Account) -> bool:
    """Whether the account and all its subscribers are active: ``refusal`` is 0 for each of them."""
    return account.state == _ACTIVE and not account.out_of_service


def refusal(account: Account, subscriber_id: bytes, essential: bool) -> int:
    """Result-Code with which a service is refused because of the account's or the subscriber's state; 0: it is not."""
    state = account.state
    own = account.out_of_service.get(subscriber_id, _ACTIVE) if account.out_of_service else _ACTIVE
    if state == _ACTIVE and own == _ACTIVE:
        return 0
    if _TERMINATED in (state, own):
        return USER_UNKNOWN
    return 0 if essential else END_USER_SERVICE_DENIED


def check_change(old: int, new: int) -> None:
    """Raises LedgerError if a state must not follow another."""
    if LifeState(new) not in ALLOWED[LifeState(old)]:
        after = ", ".join(state.name.lower() for state in ALLOWED[LifeState(old)]) or "nothing"
        was, wanted = LifeState(old).name.lower(), LifeState(new).name.lower()
        raise LedgerError(f"{wanted} cannot follow {was}; what can is {after}")
