"""What the states of accounts and subscribers allow, and that a change reaches running sessions at once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import pytest

from balance.accounts import Account
from balance.directory import set_account_state, set_expiry, top_up_account
from balance.model import AccountKind, LedgerError, LifeState, Subscriber
from balance.structure import add_member
from balance.subscribers import session_accounts, set_subscriber_state
from occ.clock import now_ms
from occ.codes import END_USER_SERVICE_DENIED, USER_UNKNOWN
from occ.lifecycle import ALLOWED, check_change, refusal
from occ.server_requests import standing_has_changed
from protocols.credit_control import ReceivedAnswer
from tests.live_server import LiveServer
from tests.reauthorisation_lab import Lab, eventually

ACTIVE, ORDERED, SUSPENDED, BLOCKED, GRACE, TERMINATED = (
    LifeState.ACTIVE, LifeState.ORDERED, LifeState.SUSPENDED, LifeState.BLOCKED, LifeState.GRACE, LifeState.TERMINATED,
)  # fmt: skip


DAY_MS = 86_400_000


def account(state: LifeState, **out_of_service: LifeState) -> Account:
    noted = {name.encode(): int(own) for name, own in out_of_service.items()}
    return Account(b"acc-1", 1, int(AccountKind.PREPAID), 978, 0, 0, [], {}, int(state), 0, [], [], noted)


# -- what is granted ---------------------------------------------------------------------------------------------------


def test_who_is_active_is_granted_everything() -> None:
    assert refusal(account(ACTIVE), b"anna", essential=False) == 0
    assert refusal(account(ACTIVE, ben=BLOCKED), b"anna", essential=False) == 0


@pytest.mark.parametrize("state", [ORDERED, SUSPENDED, BLOCKED, GRACE])
def test_who_is_out_of_service_is_granted_essential_services_only(state: LifeState) -> None:
    """Emergency calls; everything else is 4010 (RFC 8506 section 9.1)."""
    for found in (account(state), account(ACTIVE, anna=state), account(state, anna=state)):
        assert refusal(found, b"anna", essential=False) == END_USER_SERVICE_DENIED
        assert refusal(found, b"anna", essential=True) == 0


@pytest.mark.parametrize("other", LifeState)
def test_who_is_terminated_is_unknown(other: LifeState) -> None:
    """5030 (RFC 8506 section 9.2), whatever the other of account and subscriber is, and for emergency calls as well."""
    for found in (account(TERMINATED, anna=other), account(other, anna=TERMINATED)):
        for essential in (False, True):
            assert refusal(found, b"anna", essential) == USER_UNKNOWN


# -- what may follow what ----------------------------------------------------------------------------------------------


def test_every_state_is_there() -> None:
    assert set(ALLOWED) == set(LifeState)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(LifeState, LifeState)))
def test_what_may_follow(old: LifeState, new: LifeState) -> None:
    allowed = {
        ORDERED: {ACTIVE, TERMINATED},
        ACTIVE: {SUSPENDED, BLOCKED, GRACE, TERMINATED},
        SUSPENDED: {ACTIVE, BLOCKED, TERMINATED},
        BLOCKED: {ACTIVE, SUSPENDED, TERMINATED},
        GRACE: {ACTIVE, BLOCKED, TERMINATED},
        TERMINATED: set(),
    }
    if new in allowed[old]:
        check_change(old, new)
        return
    with pytest.raises(LedgerError) as caught:
        check_change(old, new)
    sentence = str(caught.value)
    assert sentence.startswith(f"{new.name.lower()} cannot follow {old.name.lower()}; what can is ")
    named = sentence.rpartition(" is ")[2]
    assert (set() if named == "nothing" else set(named.split(", "))) == {each.name.lower() for each in allowed[old]}


# -- running sessions --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("lifecycle"), {"charging.grace_days": "5"}) as running:
        yield running


@pytest.fixture
async def lab(server: LiveServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Lab]:
    made = Lab(server, caplog)
    yield made
    for client in made.clients:
        await client.close()
    server.assert_books_balance()


async def put(lab: Lab, state: LifeState, subscriber: str) -> None:
    """Put a subscriber into a state, and tell its sessions, as the command line does."""
    store = lab.server.server.store

    async def change() -> None:
        changed = await set_subscriber_state(store, subscriber.encode(), state, now_ms(), "test", check_change)
        for account_id in await session_accounts(store, changed):
            await standing_has_changed(store, account_id, changed.subscriber_id)

    await asyncio.to_thread(lab.server.run, change())


def result(answer: ReceivedAnswer) -> tuple[int, int]:
    """At command level, and of the service."""
    (service,) = answer.services
    assert service.result_code is not None
    return answer.result_code, service.result_code


async def test_a_running_session_is_barred_and_let_in_again_at_once(lab: Lab) -> None:
    """The client is asked to report (RFC 8506 section 5.5); what it used is charged, and nothing more is granted."""
    client = await lab.client()
    await lab.session_of(client)
    assert lab.money() == (100, 10)
    await put(lab, SUSPENDED, lab.name)
    await eventually(lambda: len(client.asked) == 1)
    assert result(await client.update(lab.session, used_mib=3)) == (2001, END_USER_SERVICE_DENIED)
    assert lab.money() == (97, 0)
    await put(lab, ACTIVE, lab.name)
    await eventually(lambda: len(client.asked) == 2)
    assert result(await client.update(lab.session, used_mib=0)) == (2001, 2001)
    assert lab.money() == (97, 10)
    await client.end(lab.session)


async def test_a_session_of_somebody_terminated_ends(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    await put(lab, TERMINATED, lab.name)
    await eventually(lambda: len(client.asked) == 1)
    assert result(await client.update(lab.session, used_mib=3)) == (2001, USER_UNKNOWN)
    await client.end(lab.session, used_mib=1)
    assert lab.money() == (96, 0)
    assert (await client.begin("another", lab.subscriber)).result_code == USER_UNKNOWN


async def test_only_sessions_of_that_subscriber_are_told(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)

    async def add_ben() -> None:
        ben = Subscriber(b"ben", lab.name.encode(), "standard", ((0, b"4930"),))
        assert await add_member(lab.server.server.store, ben, now_ms(), "test")

    await asyncio.to_thread(lab.server.run, add_ben())
    assert (await client.begin("of ben", "4930")).result_code == 2001
    await put(lab, BLOCKED, "ben")
    await eventually(lambda: len(client.asked) == 1)
    assert client.asked[0].request.session_id == b"of ben"
    assert result(await client.update(lab.session, used_mib=1)) == (2001, 2001)
    assert result(await client.update("of ben", used_mib=1)) == (2001, END_USER_SERVICE_DENIED)
    for session in (lab.session, "of ben"):
        await client.end(session)


async def test_an_account_is_barred_with_all_whom_it_pays_for(lab: Lab) -> None:
    client = await lab.client()
    for number in range(3):
        await lab.session_of(client, session=f"{lab.session};{number}")
    store, name = lab.server.server.store, lab.name.encode()

    async def block() -> int:
        await set_account_state(store, name, BLOCKED, now_ms(), "fraud", check_change)
        return await standing_has_changed(store, name)

    assert await asyncio.to_thread(lab.server.run, block()) == 3
    await eventually(lambda: len(client.asked) == 3)
    for number in range(3):
        assert result(await client.update(f"{lab.session};{number}", used_mib=1)) == (
            2001,
            END_USER_SERVICE_DENIED,
        )
        await client.end(f"{lab.session};{number}", used_mib=0)
    assert (await client.begin("another", lab.subscriber)).result_code == END_USER_SERVICE_DENIED
    assert lab.money() == (97, 0)


async def test_a_prepaid_account_expires_is_brought_back_and_ends(lab: Lab) -> None:
    """By the clock: in grace for as long as the settings say, then terminated, unless somebody tops it up."""
    server, store, name = lab.server, lab.server.server.store, lab.name.encode()
    client = await lab.client()

    async def live_until(days: int) -> None:
        await set_expiry(store, name, server.now_ms() + days * DAY_MS, server.now_ms(), "test")

    async def top_up(valid_days: int) -> None:
        await top_up_account(store, name, 1, now_ms=server.now_ms(), reason="voucher", valid_for_ms=valid_days * DAY_MS)

    async def pass_days(days: int) -> None:
        await asyncio.to_thread(server.pass_time, days * DAY_MS)

    async def begin(session: str) -> int:
        return (await client.begin(f"{lab.session};{session}", lab.subscriber)).result_code

    await asyncio.to_thread(server.run, live_until(10))
    await pass_days(9)
    assert (lab.account().state, await begin("a")) == (ACTIVE, 2001)
    await client.end(f"{lab.session};a", used_mib=0)
    await pass_days(2)
    assert (lab.account().state, await begin("b")) == (GRACE, END_USER_SERVICE_DENIED)
    await asyncio.to_thread(server.run, top_up(20))
    assert (lab.account().state, await begin("c")) == (ACTIVE, 2001)
    await client.end(f"{lab.session};c", used_mib=0)
    await pass_days(21)
    assert lab.account().state == GRACE
    await pass_days(5)
    assert (lab.account().state, await begin("d")) == (TERMINATED, USER_UNKNOWN)
    with pytest.raises(LedgerError, match="terminated and takes no money"):
        await asyncio.to_thread(server.run, top_up(20))
