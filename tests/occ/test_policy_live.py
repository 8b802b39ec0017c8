"""Live sessions follow the balance, wherever its change came from: the real server, its command line, real clients."""

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from balance.directory import NewBucket, adjust_account, create_account
from balance.embedded import Address
from balance.model import AccountKind, IdentityType, Subscriber, Unit
from balance.subscribers import add_subscriber
from balance.transitions import TransitionSettings
from loadtests.processes import Worker
from occ.policy.acting import Due
from occ.server_requests import Command
from protocols.credit_control import AbortSessionRequest, ReAuthRequest
from tests.asked_client import REALM, AskedClient, always
from tests.live_server import LiveServer
from tests.occ.policy_live_lab import EURO, RULES, adjust, code, scraped, settled
from tests.reauthorisation_lab import Lab, eventually
from tests.shell import Shell


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rules") / "policies.yaml"
    path.write_text(RULES)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, rules: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server"), {"policies": str(rules)}) as running:
        yield running


@pytest.fixture(scope="module")
def shell(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("shell"), server.server.redis_address)


@pytest.fixture
async def lab(server: LiveServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Lab]:
    """An account of 5.00."""
    caplog.set_level("INFO")
    lab = Lab(server, caplog)
    server.top_up(lab.name, 4 * EURO)
    await settled(server)
    yield lab
    for client in lab.clients:
        await client.close()
    server.assert_books_balance()


def groups(client: AskedClient) -> list[str]:
    """Sessions that were asked about, in order."""
    return [asked.request.session_id.decode() for asked in client.asked if isinstance(asked.request, ReAuthRequest)]


# -- wherever it comes from ------------------------------------------------------------------------------------------


@pytest.mark.shows("row 42")
async def test_a_top_up_by_the_command_line_is_told_to_the_live_session(lab: Lab, shell: Shell) -> None:
    """Another process changes the account: the client is asked, and what was barred is granted at its next request."""
    client = await lab.client()
    await lab.session_of(client)
    adjust(lab, -4 * EURO)
    await eventually(lambda: len(client.asked) == 1)
    assert code(await client.update(lab.session)) == 4010
    began_s = time.monotonic()
    await asyncio.to_thread(shell.text, "account", "top-up", lab.name, "9.00")
    await eventually(lambda: len(client.asked) == 2)
    assert time.monotonic() - began_s < 10
    assert code(await client.update(lab.session)) == 2001
    await settled(lab.server)
    assert groups(client) == [lab.session] * 2


async def test_an_adjustment_and_a_bucket_that_expires_are_told(lab: Lab) -> None:
    """At the moment the bucket lapses, though nobody uses the account."""
    store, name = lab.server.server.store, f"expiring-{lab.number}".encode()
    now_ms = lab.server.now_ms()
    bucket = NewBucket(Unit.MONEY, 4 * EURO, expires_ms=now_ms + 60_000)

    async def add() -> None:
        await create_account(
            store, name, AccountKind.PREPAID, 978, now_ms=now_ms, reason="t", balance_micro=EURO, buckets=[bucket]
        )
        known = ((int(IdentityType.E164), b"4916" + lab.subscriber.encode()),)
        await add_subscriber(store, Subscriber(name, name, "standard", known))

    lab.server.run(add())
    client = await lab.client()
    assert (await client.begin(lab.session, "4916" + lab.subscriber)).result_code == 2001
    assert lab.server.account(name.decode()).levels == ()
    lab.server.pass_time(60_001)
    await eventually(lambda: groups(client) == [lab.session])
    assert lab.server.account(name.decode()).levels == ("low",)
    assert code(await client.update(lab.session)) == 4010


async def test_what_a_member_of_the_family_uses_is_told_to_the_others(lab: Lab) -> None:
    """One account, two lines: the line whose own request it was has its answer and is not asked."""
    other = f"4915{lab.number:06}"
    store = lab.server.server.store
    member = Subscriber(other.encode(), lab.name.encode(), "standard", ((int(IdentityType.E164), other.encode()),))
    lab.server.run(add_subscriber(store, member))
    client, busy = await lab.client(), await lab.client("other")
    await lab.session_of(client)
    theirs = lab.session + ";other"
    assert (await busy.begin(theirs, other)).result_code == 2001
    adjust(lab, -2_900_000)
    assert code(await busy.update(theirs, used_mib=11)) == 4010
    await eventually(lambda: groups(client) == [lab.session])
    await settled(lab.server)
    assert busy.asked == []


@pytest.mark.shows("row 42")
async def test_the_client_that_brought_it_about_has_it_in_its_answer_and_is_not_asked(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    adjust(lab, -2_900_000)
    assert code(await client.update(lab.session, used_mib=11)) == 4010
    await settled(lab.server)
    assert client.asked == []


@pytest.mark.shows("row 43")
async def test_a_session_that_is_cut_is_aborted(lab: Lab) -> None:
    """RFC 6733 section 8.5; what it reports at its end is debited."""
    client = await lab.client()
    client.reply = always(2001)
    await lab.session_of(client)
    adjust(lab, -4_600_000)
    await eventually(lambda: len(client.asked) == 1)
    assert isinstance(client.asked[0].request, AbortSessionRequest)
    assert (await client.end(lab.session)).result_code == 2001


async def test_several_changes_at_once_are_one_question(lab: Lab) -> None:
    """A client that has agreed to report is not asked again before it has: its report is decided on by the latest."""
    client = await lab.client()
    await lab.session_of(client)
    for micro in (-4 * EURO, 4 * EURO, -4 * EURO):
        adjust(lab, micro)
        await settled(lab.server)
    assert groups(client) == [lab.session]
    assert code(await client.update(lab.session)) == 4010


async def test_an_account_that_hovers_within_its_band_disturbs_nobody(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    adjust(lab, -3_100_000)
    await eventually(lambda: len(client.asked) == 1)
    await client.update(lab.session)
    for micro in (500_000, -500_000) * 3:  # 2.40 and 1.90, about the 2.00 at which it began
        adjust(lab, micro)
    await settled(lab.server)
    assert len(client.asked) == 1
    adjust(lab, 1_200_000)
    await eventually(lambda: len(client.asked) == 2)


async def test_who_holds_more_than_is_left_until_a_threshold_is_asked_before_it_is_reached(lab: Lab) -> None:
    """Others have spent it: the client reports, and what it is granted then ends at the threshold."""
    client = await lab.client()
    await lab.session_of(client)
    assert lab.money() == (500, 10)
    adjust(lab, -2_900_000)
    await settled(lab.server)
    assert client.asked == [], "all that it holds may be used"
    for micro in (-50_000, -20_000):
        adjust(lab, micro)
    await settled(lab.server)
    assert groups(client) == [lab.session]
    answer = await client.update(lab.session, used_mib=1)
    assert code(answer) == 2001
    assert answer.services[0].granted is not None
    assert (lab.money(), lab.account().levels) == ((202, 2), ())
    adjust(lab, -10_000)
    await eventually(lambda: len(client.asked) == 2)
    await client.update(lab.session, used_mib=0)
    adjust(lab, -5_000)
    await settled(lab.server)
    assert (len(client.asked), lab.account().levels) == (2, ()), "one step is always granted"


# -- what else is told -----------------------------------------------------------------------------------------------


async def test_notices_events_hooks_and_a_line_in_the_log(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    due: list[Due] = []
    moved: list[bytes] = []

    async def on_notice(each: Due) -> None:
        due.append(each)

    async def on_transition(account_id: bytes, now_ms: int) -> None:
        moved.append(account_id)
        raise ValueError("this keeps nothing from the others")

    acting = lab.server.server.acting
    acting.on_notice.append(on_notice)
    acting.on_transition.append(on_transition)
    try:
        adjust(lab, -4_600_000)
        await eventually(lambda: len(due) == 2)
        adjust(lab, 9 * EURO)
        await eventually(lambda: len(due) == 3)
        await settled(lab.server)
    finally:
        acting.on_notice.clear()
        acting.on_transition.clear()
    assert [(each.template, each.rule, each.restored) for each in due] == [
        ("barred", "cut-off", False),
        ("low-balance", "bar-low", False),
        ("restored", "cut-off", True),
    ]
    assert len({each.notice_id for each in due}) == 3
    assert moved == [lab.name.encode()] * 2
    store = lab.server.server.store
    entries = lab.server.run(store.call("XREVRANGE", "occ:policy-events", "+", "-", "COUNT", 50))
    told = [json.loads(fields[1]) for _, fields in entries]
    mine = [each for each in reversed(told) if each["account"] == lab.name]
    assert [each.get("event") or each.get("notice") for each in mine] == [
        "barred", "low-balance", "went-low", "restored",
    ]  # fmt: skip
    lines = [record.getMessage() for record in caplog.records if record.name == "occ.policy.acting"]
    assert any("is at low, out, before at none: no session to ask; notices barred, low-balance" in one for one in lines)
    assert not any(lab.name in one for one in lines)


async def test_metrics_tell_what_rules_did(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    adjust(lab, -4 * EURO)
    await eventually(lambda: len(client.asked) == 1)
    await settled(lab.server)
    assert (await client.begin(f"{lab.session};2", lab.subscriber, "")).result_code == 4010
    text = await asyncio.to_thread(scraped, lab.server.server.metrics_port)
    for wanted in (
        'occ_policy_transitions_total{change="entered",level="low"}',
        'occ_policy_actions_total{action="bar"}',
        'occ_policy_rules_applied_total{rule="bar-low"}',
        'occ_policy_pushes_total{command="re-auth",result="update-expected"}',
        "occ_policy_push_seconds_bucket",
        "occ_policies_info{edition=",
    ):
        assert wanted in text, wanted


# -- several servers, and one that dies ------------------------------------------------------------------------------


async def test_the_session_s_client_is_at_another_server(lab: Lab, rules: Path, tmp_path: Path) -> None:
    """Whichever server acts on it, the one that has the connection asks."""
    settings = {
        "policies": str(rules),
        "diameter.origin_host": "occ2.ocs.example.net",
        "store.mode": "external",
        "store.url": lab.server.server.redis_address.url,
    }
    with LiveServer(tmp_path, settings) as second:
        client = AskedClient(f"pgw{lab.number}.{REALM}")
        lab.clients.append(await client.connect(second.port))
        await lab.session_of(client)
        for at, micro in enumerate((-4 * EURO, 9 * EURO, -9 * EURO, 9 * EURO)):
            adjust(lab, micro)
            await eventually(lambda at=at: len(client.asked) == at + 1)  # type: ignore[misc]
            await client.update(lab.session)
        assert {asked.request.origin_host for asked in client.asked} == {b"occ2.ocs.example.net"}
        await client.close()
        lab.clients.remove(client)


@pytest.mark.slow
async def test_no_transition_is_lost_when_the_server_is_killed(
    clean_redis: Address, rules: Path, tmp_path: Path
) -> None:
    """SIGKILL between a push and its answer, and between a commit and its push: after the restart both clients know."""
    (tmp_path / "data").mkdir()
    command = [sys.executable, "-m", "occ", "serve", "--json", "--no-population", "--policies", str(rules)]
    shell = Shell(tmp_path, clean_redis)
    worker = Worker(command, clean_redis.url, tmp_path / "data", 64, {})
    client, again = AskedClient(f"pgw.{REALM}"), AskedClient(f"pgw.{REALM}")
    client.reply = always(None)

    async def occ(*arguments: str) -> None:
        await asyncio.to_thread(shell.text, *arguments)

    try:
        await worker.start()
        await client.connect(worker.port)
        for name in ("1", "2"):
            await occ("account", "create", f"acc-{name}", "--balance", "5.00")
            line = ("--account", f"acc-{name}", "--plan", "standard", "--msisdn", f"491700{name}")
            await occ("subscriber", "add", f"sub-{name}", *line)
            assert (await client.begin(f"pgw;{name}", f"491700{name}")).result_code == 2001
        await occ("account", "adjust", "--reason", "test", "acc-1", "--", "-4.00")
        await eventually(lambda: groups(client) == ["pgw;1"])
        worker.signal(signal.SIGSTOP)
        await occ("account", "adjust", "--reason", "test", "acc-2", "--", "-4.00")
        worker.signal(signal.SIGKILL)
        await worker.stop()
        await client.close()
        assert groups(client) == ["pgw;1"]
        await worker.start()
        await again.connect(worker.port)
        await eventually(lambda: sorted(groups(again)) == ["pgw;1", "pgw;2"])
        for name in ("1", "2"):
            assert code(await again.update(f"pgw;{name}")) == 4010
    finally:
        await client.close()
        await again.close()
        await worker.stop()


def test_the_settings_of_transitions_leave_a_living_server_time() -> None:
    """A server that reads as often as it should is never taken for dead."""
    settings = TransitionSettings()
    assert settings.dead_s > 3 * settings.read_s
    assert Command.RE_AUTH.value == "re-auth"


# -- clients that are slow, or silent --------------------------------------------------------------------------------


async def test_a_change_that_comes_while_a_request_awaits_its_answer_is_told(lab: Lab) -> None:
    """The client reports at once, is barred, and only then answers the request; what came in between is news."""
    client = await lab.client()
    await lab.session_of(client)
    gate = asyncio.Event()

    async def late(_: object) -> int:
        await gate.wait()
        return 2002

    client.reply = late
    adjust(lab, -4 * EURO)
    await eventually(lambda: len(client.asked) == 1)
    assert code(await client.update(lab.session)) == 4010
    lab.server.top_up(lab.name, 9 * EURO)
    await asyncio.sleep(0.3)
    gate.set()
    await eventually(lambda: len(client.asked) == 2)
    assert code(await client.update(lab.session)) == 2001
    await settled(lab.server)


# -- clients that do not answer --------------------------------------------------------------------------------------


async def test_a_silent_client_of_many_sessions_keeps_no_other_client_waiting(
    rules: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More transitions wait for its answers than a server works on at once."""
    at_once = 3
    monkeypatch.setattr("balance.transitions.TransitionSettings", partial(TransitionSettings, at_once=at_once))
    with LiveServer(tmp_path / "server", {"policies": str(rules)}) as server:
        silent, other = AskedClient(f"silent.{REALM}"), AskedClient(f"other.{REALM}")
        silent.reply = always(None)
        try:
            for client in (silent, other):
                await client.connect(server.port)
            for number in range(2 * at_once + 1):
                name, line = f"acc-{number}", f"491700{number}"
                server.add_account(name, [(IdentityType.E164, line)], balance_micro=5 * EURO)
                client = other if number == 2 * at_once else silent
                assert (await client.begin(f"{client.identity};{number}", line)).result_code == 2001
            for number in range(2 * at_once + 1):
                change = adjust_account(
                    server.server.store, b"acc-%d" % number, -4 * EURO, now_ms=server.now_ms(), reason="test"
                )
                server.run(change)
            await eventually(lambda: len(other.asked) == 1)
            await eventually(lambda: len({asked.request.session_id for asked in silent.asked}) == 2 * at_once)
            assert server.server.acting.statistics.under_way >= 2 * at_once, "all of the silent client's still wait"
        finally:
            await silent.close()
            await other.close()
