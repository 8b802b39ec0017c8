"""Which open sessions other levels, or other rules, concern, and what is asked of their clients."""

import pytest

from balance.accounts import Account, ServiceUse, Session
from occ.masking import masked
from occ.policy.concerned import Ask, concerned
from occ.policy.watching import Transition
from occ.server_requests import Command
from policies.rules import AS_PRICED, Access, Case, Decision

BARRED = Decision(Access.BAR, rules=("a",))
SLOW = Decision(throttle="slow", rules=("b",))
PAGE = Decision(Access.FINAL_UNITS, final_units="page")
RE_AUTH, ABORT = Command.RE_AUTH, Command.ABORT_SESSION


def session(key: bytes, *services: tuple[int, str, int], plan: str = "standard") -> Session:
    """Its services as (Rating-Group, name, granted)."""
    made = Session(key, b"sub", plan, b"pgw", 0, 0, 0)
    made.services = [ServiceUse(group, -1, name, 1, granted=granted) for group, name, granted in services]
    return made


def asks(
    sessions: list[Session], now: dict[str, Decision], was: dict[str, Decision] | None = None, **transition: object
) -> list[Ask]:
    account = Account(b"acc", 2, 0, 978, 0, 0, [], {each.session_id: each for each in sessions})
    told = Transition(b"acc", 2, 0, (), ("low",), **transition)  # type: ignore[arg-type]

    def by(decisions: dict[str, Decision], case: Case) -> Decision:
        return decisions.get(case.service, AS_PRICED)

    return concerned(account, lambda case: by(was or {}, case), lambda case: by(now, case), told)


def test_only_sessions_with_a_service_that_is_decided_on_in_another_way_are_asked() -> None:
    found = asks([session(b"1", (10, "internet", 5)), session(b"2", (20, "portal", 5))], {"internet": BARRED})
    assert found == [Ask(RE_AUTH, b"1", None, ("bar",))]


def test_one_of_several_rating_groups_is_asked_for_by_its_number() -> None:
    """RFC 8506 section 5.5: a Re-Auth-Request names one Rating-Group, or means all."""
    several = session(b"1", (10, "internet", 5), (20, "portal", 5), (30, "shop", 5))
    assert asks([several], {"portal": SLOW}) == [Ask(RE_AUTH, b"1", 20, ("throttle",))]
    assert asks([several], {"portal": SLOW, "shop": PAGE}) == [Ask(RE_AUTH, b"1", None, ("throttle", "final-units"))]
    without = session(b"1", (-1, "internet", 5), (20, "portal", 5))
    assert asks([without], {"internet": SLOW}) == [Ask(RE_AUTH, b"1", None, ("throttle",))]


def test_what_the_answer_to_the_request_has_told_is_not_asked_for() -> None:
    sessions = [session(b"1", (10, "internet", 5), (20, "portal", 5)), session(b"2", (10, "internet", 5))]
    now = {"internet": BARRED, "portal": BARRED}
    assert asks(sessions, now, asked_by=b"1", answered=((10, ()),)) == [
        Ask(RE_AUTH, b"1", 20, ("bar",)),
        Ask(RE_AUTH, b"2", None, ("bar",)),
    ]


def test_a_session_that_is_cut_is_aborted_even_if_its_own_request_was_answered() -> None:
    cut = Decision(Access.BAR, cut=True)
    sessions = [session(b"1", (10, "internet", 0), (20, "portal", 5))]
    assert asks(sessions, {"internet": cut}, asked_by=b"1", answered=((10, ()),)) == [Ask(ABORT, b"1", None, ("cut",))]
    assert asks(sessions, {"internet": cut}, {"internet": cut}) == []


@pytest.mark.parametrize(
    ("was", "now", "granted", "is_asked"),
    [
        (AS_PRICED, Decision(rules=("tell",)), 5, False),
        (AS_PRICED, BARRED, 0, False),  # it holds nothing, and asks before it goes on
        (BARRED, AS_PRICED, 0, True),
        (BARRED, Decision(Access.BAR_FOR_GOOD), 0, False),
        (PAGE, AS_PRICED, 0, True),
        (AS_PRICED, Decision(Access.FREE), 5, True),
        (SLOW, AS_PRICED, 5, True),
        (AS_PRICED, Decision(most_units=4), 5, True),
        (AS_PRICED, Decision(most_units=5), 5, False),
        (Decision(most_units=4), AS_PRICED, 4, False),
    ],
)
def test_a_client_is_asked_where_it_would_go_on_in_a_wrong_way(
    was: Decision, now: Decision, granted: int, is_asked: bool
) -> None:
    found = asks([session(b"1", (10, "internet", granted))], {"internet": now}, {"internet": was})
    assert bool(found) is is_asked


def test_a_client_that_redirects_is_asked_when_its_service_is_barred() -> None:
    redirecting = session(b"1", (10, "internet", 0))
    redirecting.services[0].final = 2
    assert asks([redirecting], {"internet": BARRED}, {"internet": PAGE})


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"acc-491700000001", "acc-4917****0001"),
        (b"491700000001", "4917****0001"),
        (b"123456", "12**56"),
        (b"household-7", "hou****"),
        (b"\x1b[2J", "\\x1b[2****"),
    ],
)
def test_logs_show_names_in_part(name: bytes, shown: str) -> None:
    assert masked(name) == shown
