"""Sy with a real server and a policy node: subscribing, being told, ending (3GPP TS 29.219)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from balance.model import IdentityType, Subscriber
from balance.structure import move_member
from balance.subscribers import add_subscriber
from balance.subscriptions import MOST_OF_AN_ACCOUNT
from policies.counters import CounterStatus
from protocols.diameter import codec
from protocols.diameter.codec import avp
from protocols.diameter.codes import SLRequestType
from protocols.spending_limits import (
    CounterReport,
    SessionTerminationRequest,
    SpendingLimitRequest,
    decode_sla,
    decode_sta,
    encode_slr,
    encode_str,
)
from tests.live_server import LiveServer
from tests.sy_lab import MICRO, Lab, eventually, told
from tests.wire import Connection

ACTIVE = CounterReport("MAIN_BALANCE", "active")
MIDNIGHT_MS = 4_000_000_000_000
"""A whole second, far ahead."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("sy"), {"policies": "none"}) as running:
        yield running


@pytest.fixture
async def lab(server: LiveServer) -> AsyncIterator[Lab]:
    lab = Lab(server)
    yield lab
    await lab.close()


# -- subscribing -----------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 44")
async def test_row_44_all_counters_are_reported_if_none_is_named(lab: Lab) -> None:
    """TS 29.219 clause 4.5.1: without a Policy-Counter-Identifier, the status of every counter."""
    lab.source.others["FUP_MONTH"] = CounterStatus("throttled", (("normal", MIDNIGHT_MS),))
    node = await lab.node()
    answer = await node.subscribe(lab.msisdn)
    assert answer.result_code == 2001
    assert answer.reports == (CounterReport("FUP_MONTH", "throttled", (("normal", MIDNIGHT_MS // 1000),)), ACTIVE)


@pytest.mark.shows("row 44")
async def test_row_44_only_named_counters_are_reported(lab: Lab) -> None:
    lab.source.others["FUP_MONTH"] = CounterStatus("normal")
    node = await lab.node()
    assert (await node.subscribe(lab.msisdn, ["MAIN_BALANCE"])).reports == (ACTIVE,)
    assert (await node.subscribe(f"+{lab.msisdn}", ["MAIN_BALANCE", "NOBODY_HAS"])).reports == (ACTIVE,)


@pytest.mark.shows("row 44")
async def test_row_44_an_intermediate_request_changes_the_list(lab: Lab) -> None:
    """TS 29.219 clause 4.5.1: what was subscribed to before is not, unless it is named again."""
    lab.source.others["FUP_MONTH"] = CounterStatus("normal")
    node = await lab.node()
    session = await lab.subscribed(node, "MAIN_BALANCE")
    answer = await node.change(session, ["FUP_MONTH"])
    assert answer.reports == (CounterReport("FUP_MONTH", "normal"),)
    assert await lab.balance(0) == 0
    lab.source.others["FUP_MONTH"] = CounterStatus("throttled")
    assert await lab.changed() == 1
    await eventually(lambda: told(node) == [[("FUP_MONTH", "throttled")]])


@pytest.mark.shows("row 45")
async def test_row_45_unknown_counters_are_named(lab: Lab) -> None:
    """5570 in Experimental-Result, and no subscription."""
    node = await lab.node()
    answer = await node.subscribe(lab.msisdn, ["MAIN_BALANCE", "NO_SUCH", "NOR_THIS"], "unknown;1")
    assert (answer.result_code, answer.experimental_result_code, answer.reports) == (0, 5570, ())
    assert [one.value() for one in codec.split(answer.failed_avp, 0)] == ["NO_SUCH", "NOR_THIS"]
    assert await lab.kept("unknown;1") is None


@pytest.mark.shows("row 45")
@pytest.mark.parametrize("counters", [(), ("NOBODY_HAS",)])
async def test_row_45_nothing_to_tell_of(lab: Lab, counters: tuple[str, ...]) -> None:
    lab.source.withheld.add("MAIN_BALANCE")
    node = await lab.node()
    answer = await node.subscribe(lab.msisdn, counters, f"nothing;{len(counters)};{lab.number}")
    assert (answer.result_code, answer.experimental_result_code) == (0, 4241)
    assert await lab.kept(f"nothing;{len(counters)};{lab.number}") is None


@pytest.mark.shows("row 45")
async def test_row_45_a_refused_change_leaves_the_session_as_it_was(lab: Lab) -> None:
    node = await lab.node()
    session = await lab.subscribed(node)
    assert (await node.change(session, ["NO_SUCH"])).experimental_result_code == 5570
    await lab.balance(0)
    await eventually(lambda: told(node) == [[("MAIN_BALANCE", "zero")]])


@pytest.mark.shows("row 45")
async def test_row_45_unknown_users_and_sessions(lab: Lab) -> None:
    node = await lab.node()
    assert (await node.subscribe("4917999999")).result_code == 5030
    assert (await node.change("no;such;session")).result_code == 5002
    assert (await node.end("no;such;session")).result_code == 5002
    answer = await node.ask(node.request("nobody;1", SLRequestType.INITIAL_REQUEST))
    assert answer.result_code == 5005
    assert [one.code for one in codec.split(answer.failed_avp, 0)] == [443]
    await lab.terminated()
    assert (await node.subscribe(lab.msisdn)).result_code == 5030


@pytest.mark.shows("row 45")
async def test_row_45_any_identity_of_the_subscriber_will_do(lab: Lab) -> None:
    node = await lab.node()
    for identities in (((1, b"000000"), (0, b"+" + lab.msisdn.encode())), ((0, lab.msisdn.encode()), (1, b"000000"))):
        answer = await node.ask(node.request(f"ids;{identities}", SLRequestType.INITIAL_REQUEST, (), identities))
        assert answer.reports == (ACTIVE,)


@pytest.mark.shows("row 48")
async def test_row_48_a_session_is_ended(lab: Lab) -> None:
    node = await lab.node()
    session = await lab.subscribed(node)
    count = lab.statistics.subscriptions
    assert (await node.end(session)).result_code == 2001
    assert lab.statistics.subscriptions == count - 1
    assert await lab.kept(session) is None
    assert (await node.end(session)).result_code == 5002
    assert await lab.balance(0) == 0
    assert (await node.change(session)).result_code == 5002


@pytest.mark.shows("row 44")
async def test_row_44_a_session_that_is_begun_anew(lab: Lab) -> None:
    """A policy node that has lost it may use its name again, even for somebody else."""
    node = await lab.node()
    session = await lab.subscribed(node)
    count = lab.statistics.subscriptions
    assert (await node.subscribe(lab.msisdn, ["MAIN_BALANCE"], session)).result_code == 2001
    assert lab.statistics.subscriptions == count
    other = Lab(lab.server)
    assert (await node.subscribe(other.msisdn, [], session)).result_code == 2001
    kept = await lab.kept(session)
    assert kept is not None
    assert (kept.subscription.account_id, lab.statistics.subscriptions) == (other.name.encode(), count)
    assert await lab.balance(0) == 0


# -- repeats ---------------------------------------------------------------------------------------------------------


class Bare:
    """A policy node whose octets the test sees."""

    def __init__(self, lab: Lab) -> None:
        self.host = f"bare{lab.number}.policy.example.net"
        self.connection = Connection.to(lab.server.port)
        with_sy = avp("Auth-Application-Id", 16777302)
        cer = [
            avp("Origin-Host", self.host),
            avp("Origin-Realm", "policy.example.net"),
            avp("Host-IP-Address", "127.0.0.1"),
            avp("Vendor-Id", 10415),
            avp("Product-Name", "test"),
            avp("Vendor-Specific-Application-Id", [avp("Vendor-Id", 10415), with_sy]),
        ]
        cea = self.connection.ask(codec.build(257, 0, 0x80, 7, 7, cer))
        assert codec.decode(self.connection.received[0]).find(268) is not None
        inside = [[one.value() for one in _members(group)] for group in cea.find_all(260)]
        assert [10415, 16777302] in inside, "row 2: Sy is advertised inside Vendor-Specific-Application-Id"

    async def answer(self) -> bytes:
        """The next answer; notifications in between are left unanswered."""
        while True:
            message = await asyncio.to_thread(self.connection.receive)
            if not message[4] & 0x80:
                return message

    def head(self, session: str, end_to_end: int) -> tuple[int, int, bytes, bytes, bytes, bytes]:
        return (
            end_to_end + 1,
            end_to_end,
            session.encode(),
            self.host.encode(),
            b"policy.example.net",
            b"ocs.example.net",
        )


def _members(group: codec.Avp) -> list[codec.Avp]:
    value = group.value()
    assert isinstance(value, list)
    return value


@pytest.mark.shows("row 44", "row 48", "row 2", "row 16")
async def test_row_44_repeats_get_the_same_answer(lab: Lab) -> None:
    """With the T flag or without, at once or later, over this connection or another one; and change nothing."""
    bare = await asyncio.to_thread(Bare, lab)
    session = f"repeat;{lab.number}"
    initial = encode_slr(SpendingLimitRequest(*bare.head(session, 100), subscription_ids=((0, lab.msisdn.encode()),)))
    connection = bare.connection
    connection.send(initial + initial)
    first = await bare.answer()
    assert decode_sla(first).reports == (ACTIVE,)
    assert await bare.answer() == first
    await lab.balance(0, told=False)
    connection.send(initial[:4] + bytes((initial[4] | 0x10,)) + initial[5:])
    assert await bare.answer() == first
    refused = encode_slr(SpendingLimitRequest(*bare.head(session, 101), request_type=1, counters=("LATER",)))
    connection.send(refused)
    answer = await bare.answer()
    lab.source.others["LATER"] = CounterStatus("here now")
    connection.send(refused)
    assert await bare.answer() == answer
    assert decode_sla(answer).experimental_result_code == 5570
    ended = encode_str(SessionTerminationRequest(*bare.head(session, 102)))
    connection.send(ended)
    answer = await bare.answer()
    assert decode_sta(answer).result_code == 2001
    connection.send(ended)
    assert await bare.answer() == answer
    connection.send(initial)
    assert await bare.answer() == first
    assert await lab.kept(session) is None, "a repeat of the first request must not open the session again"
    connection.close()


@pytest.mark.shows("row 7", "row 13", "row 14", "row 15", "row 9")
async def test_row_44_what_is_wrong_with_a_request_is_told(lab: Lab) -> None:
    """The rules of Gy hold for Sy as well: 5005, 5004, 3003, 3001, and Proxy-Info comes back."""
    bare = await asyncio.to_thread(Bare, lab)
    identity = avp("Subscription-Id", [avp("Subscription-Id-Type", 0), avp("Subscription-Id-Data", lab.msisdn)])
    whole = [
        avp("Session-Id", f"wrong;{lab.number}"),
        avp("Auth-Application-Id", 16777302),
        avp("Origin-Host", bare.host),
        avp("Origin-Realm", "policy.example.net"),
        avp("Destination-Realm", "ocs.example.net"),
        avp("SL-Request-Type", 0),
        identity,
    ]
    proxy = avp("Proxy-Info", [avp("Proxy-Host", "relay.example.net"), avp("Proxy-State", b"\x01")])

    async def ask(avps: list[bytes], command: int = 8388635) -> codec.Message:
        message = codec.build(command, 16777302, 0xC0, 5, int.from_bytes(avps[0][-4:], "big") ^ len(avps), avps)
        return await asyncio.to_thread(bare.connection.ask, message)

    def code(message: codec.Message) -> object:
        found = message.find(268)
        return None if found is None else found.value()

    good = await ask([*whole, proxy])
    assert code(good) == 2001
    assert good.find(284) is not None
    assert good.avps[0].code == 263
    missing = await ask([*whole[:5], identity])
    assert (code(missing), missing.flags & 0x20) == (5005, 0)
    assert missing.find(258) is not None
    kind = avp("SL-Request-Type", 0)[:-4] + (7).to_bytes(4, "big")
    assert code(await ask([*whole[:5], kind, identity])) == 5004
    bad = avp("Policy-Counter-Identifier", b"\xff\xfe")
    assert code(await ask([*whole, bad])) == 5004
    elsewhere = [*whole[:4], avp("Destination-Realm", "elsewhere.example.net"), *whole[5:]]
    assert code(await ask(elsewhere)) == 3003
    unknown = await ask(whole, 8388637)
    assert (code(unknown), unknown.flags & 0x20) == (3001, 0x20)
    bare.connection.close()


# -- being told ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 46")
async def test_row_46_told_on_change_only(lab: Lab) -> None:
    """TS 29.219 clause 4.5.2, through every status and back."""
    node = await lab.node()
    session = await lab.subscribed(node)
    seen: list[list[tuple[str, str]]] = []
    for balance, status in ((900_000, "low"), (500_000, "low"), (0, "zero"), (0, "zero"), (5 * MICRO, "active")):
        begun = await lab.balance(balance)
        if not seen or seen[-1] != [("MAIN_BALANCE", status)]:
            seen.append([("MAIN_BALANCE", status)])
            assert begun == 1
            await eventually(lambda: told(node) == seen)
            await eventually(lambda status=status: node.sessions[session].status("MAIN_BALANCE") == status)  # type: ignore[misc]
        else:
            assert begun == 0
    assert told(node) == seen
    assert [request.request_type for request in node.notified] == [1, 1, 1]
    assert {request.destination_host for request in node.notified} == {node.options.origin_host.encode()}


@pytest.mark.shows("row 46")
async def test_row_46_nothing_that_was_not_subscribed_to(lab: Lab) -> None:
    lab.source.others["FUP_MONTH"] = CounterStatus("normal")
    node = await lab.node()
    await lab.subscribed(node, "FUP_MONTH")
    assert await lab.balance(0) == 0
    lab.source.others["NEW"] = CounterStatus("x")
    assert await lab.changed() == 0


@pytest.mark.shows("row 46")
async def test_row_46_a_counter_that_the_account_gets_later(lab: Lab) -> None:
    node, named = await lab.node(), await lab.node(name="named")
    await lab.subscribed(node)
    await lab.subscribed(named, "MAIN_BALANCE", "NOBODY_HAS")
    lab.source.others["NOBODY_HAS"] = CounterStatus("had by all")
    assert await lab.changed() == 2
    await eventually(lambda: told(node) == told(named) == [[("NOBODY_HAS", "had by all")]])


@pytest.mark.shows("row 46")
async def test_row_46_several_policy_nodes_and_sessions(lab: Lab) -> None:
    nodes = [await lab.node(name=f"pcrf-{number}-") for number in range(3)]
    for node in (*nodes, nodes[0]):
        await lab.subscribed(node)
    assert await lab.balance(0) == 4
    await eventually(lambda: sum(len(node.notified) for node in nodes) == 4)
    assert {request.session_id.decode() for request in nodes[0].notified} == set(nodes[0].sessions)


@pytest.mark.shows("row 46")
async def test_row_46_what_changes_meanwhile_is_told_together(lab: Lab) -> None:
    """While one notification is on its way, no other one leaves for the session; then one tells all there is."""
    node = await lab.node()
    replies: list[int | None] = [None]
    node.reply = lambda _: replies.pop() if replies else 2001
    await lab.subscribed(node)
    await lab.balance(900_000)
    await eventually(lambda: len(node.notified) == 1)
    for balance in (0, 2 * MICRO, 0, 3 * MICRO, 0):
        await lab.balance(balance)
    lab.source.others["FUP_MONTH"] = CounterStatus("throttled")
    await lab.changed()
    await eventually(lambda: len(node.notified) > 1)
    await asyncio.sleep(0.5)
    assert told(node) == [[("MAIN_BALANCE", "low")], [("FUP_MONTH", "throttled"), ("MAIN_BALANCE", "zero")]]


@pytest.mark.shows("row 46")
async def test_row_46_unanswered_it_is_repeated_with_the_t_flag(lab: Lab) -> None:
    node = await lab.node()
    replies: list[int | None] = [2001, None, None]
    node.reply = lambda _: replies.pop() if replies else 2001
    session = await lab.subscribed(node)
    await lab.balance(0)
    await eventually(lambda: len(node.notified) == 3)
    await eventually(lambda: node.sessions[session].status("MAIN_BALANCE") == "zero")
    assert [bool(request.flags & 0x10) for request in node.notified] == [False, True, True]
    assert len({request.end_to_end for request in node.notified}) == 1


@pytest.mark.shows("row 46")
@pytest.mark.parametrize("reply", [None, 5012, 3004])
async def test_row_46_what_could_not_be_told_is_told_at_the_next_change(lab: Lab, reply: int | None) -> None:
    """Also if the status is by then what it was before: the node may have taken in what it did not acknowledge."""
    node = await lab.node()
    node.reply = lambda _: reply
    session = await lab.subscribed(node)
    result = "refused" if reply == 5012 else "unanswered"
    before = lab.results().get(result, 0)
    await lab.balance(0)
    await eventually(lambda: lab.results().get(result, 0) == before + 1)
    assert len(node.notified) == 3
    assert await lab.kept(session) is not None
    node.reply = None
    await lab.balance(5 * MICRO)
    await eventually(lambda: node.sessions[session].status("MAIN_BALANCE") == "active" and len(node.notified) == 4)
    assert told(node)[-1] == [("MAIN_BALANCE", "active")]


@pytest.mark.shows("row 46")
async def test_row_46_a_session_that_the_policy_node_does_not_know_is_dropped(lab: Lab) -> None:
    """SNA 5002."""
    node = await lab.node()
    session = await lab.subscribed(node)
    lab.server.passed_ms += 10_000  # a session that has just begun may not be known yet
    node.sessions.clear()
    count = lab.statistics.subscriptions
    await lab.balance(0)
    await eventually(lambda: lab.statistics.subscriptions == count - 1)
    assert await lab.kept(session) is None
    assert (await node.change(session)).result_code == 5002
    assert len(node.notified) == 1


@pytest.mark.shows("row 46")
async def test_row_46_a_session_that_has_just_begun_is_not_dropped(lab: Lab) -> None:
    """The answer that opens it may be slower than the first notification."""
    node = await lab.node()
    replies: list[int | None] = [2001, 5002]
    node.reply = lambda _: replies.pop()
    session = await lab.subscribed(node)
    await lab.balance(0)
    await eventually(lambda: node.sessions[session].status("MAIN_BALANCE") == "zero")
    assert await lab.kept(session) is not None


@pytest.mark.shows("row 47")
async def test_row_47_pending_statuses(lab: Lab) -> None:
    """A pending status that is new, later or gone is a change; one that takes effect by itself is none."""
    server, fup = lab.server, lab.source.others
    soon_ms = server.now_ms() + 3_600_000
    fup["FUP_MONTH"] = CounterStatus("throttled")
    node = await lab.node()
    session = await lab.subscribed(node, "FUP_MONTH")
    fup["FUP_MONTH"] = CounterStatus("throttled", (("normal", soon_ms), ("throttled", MIDNIGHT_MS)))
    assert await lab.changed() == 1
    await eventually(lambda: len(node.notified) == 1)
    # No status begins before its time: fractions of a second are rounded up.
    assert node.notified[0].reports[0].pending == (
        ("normal", -(-soon_ms // 1000)),
        ("throttled", MIDNIGHT_MS // 1000),
    )
    await eventually(lambda: len(node.sessions[session].counters["FUP_MONTH"].pending) == 2)
    assert await lab.changed() == 0
    server.passed_ms += 3_700_000
    fup["FUP_MONTH"] = CounterStatus("normal", (("throttled", MIDNIGHT_MS),))
    assert await lab.changed() == 0, "the policy node has switched by itself"
    fup["FUP_MONTH"] = CounterStatus("normal")
    assert await lab.changed() == 1
    await eventually(lambda: node.sessions[session].counters["FUP_MONTH"] == CounterReport("FUP_MONTH", "normal"))


@pytest.mark.shows("row 48")
async def test_row_48_the_end_of_a_subscriber_ends_its_sessions(lab: Lab) -> None:
    """TS 29.219 clause 4.5.4: SN-Request-Type with bit 1, upon which the policy node terminates the session."""
    node = await lab.node()
    session = await lab.subscribed(node)
    await lab.terminated()
    await eventually(lambda: session not in node.sessions)
    assert [(request.request_type, request.reports) for request in node.notified] == [(2, ())]
    assert await lab.kept(session) is None
    assert [heard.what for heard in lab.heard] == ["subscribed", "aborted", "ended"]


@pytest.mark.shows("row 48")
async def test_row_48_an_abort_is_asked_for_once(lab: Lab) -> None:
    """A policy node that agrees, and does not terminate the session: it is told nothing more."""
    node = await lab.node()
    node.reply = lambda request: 2001 if request.aborts else 5012
    session = await lab.subscribed(node)
    del node.sessions[session]
    before = lab.results().get("aborted", 0)
    await lab.terminated()
    await eventually(lambda: lab.results().get("aborted", 0) == before + 1)
    assert await lab.changed() == 0
    assert (await node.end(session)).result_code == 2001


async def test_the_account_that_pays_by_now(lab: Lab) -> None:
    """A subscription follows its subscriber to another account as soon as that is noticed."""
    node = await lab.node()
    session = await lab.subscribed(node)
    payer = Lab(lab.server)
    lab.server.passed_ms += 10_000
    store = lab.server.server.store
    work = move_member(store, lab.name.encode(), payer.name.encode(), lab.server.now_ms(), "test")
    await asyncio.to_thread(lab.server.run, work)
    await lab.changed()
    await payer.balance(0)
    await eventually(lambda: told(node)[-1:] == [[("MAIN_BALANCE", "zero")]])
    kept = await lab.kept(session)
    assert kept is not None
    assert kept.subscription.account_id == payer.name.encode()
    assert await lab.balance(0) == 0


async def test_members_of_a_family_are_told_of_one_account(lab: Lab) -> None:
    other = f"{lab.msisdn}9"
    subscriber = Subscriber(
        f"{lab.name}-b".encode(), lab.name.encode(), "standard", ((IdentityType.E164, other.encode()),)
    )
    await asyncio.to_thread(lab.server.run, add_subscriber(lab.server.server.store, subscriber))
    node = await lab.node()
    await lab.subscribed(node)
    await node.subscribe(other)
    assert await lab.balance(0) == 2
    await eventually(lambda: told(node) == [[("MAIN_BALANCE", "zero")]] * 2)


async def test_an_account_has_so_many_subscriptions_at_most(lab: Lab) -> None:
    """Those told least lately go first: a node that never ends its sessions must not fill the store."""
    node = await lab.node()
    count = lab.statistics.subscriptions
    first = await lab.subscribed(node)
    lab.server.passed_ms += 1000
    await asyncio.gather(*(node.subscribe(lab.msisdn) for _ in range(MOST_OF_AN_ACCOUNT - 1)))
    assert await lab.kept(first) is not None
    last = await lab.subscribed(node)
    assert (await lab.kept(first), lab.statistics.subscriptions - count) == (None, MOST_OF_AN_ACCOUNT)
    assert await lab.kept(last) is not None
    for session in list(node.sessions):
        await node.end(session)
    assert lab.statistics.subscriptions == count


def test_idle(server: LiveServer) -> None:
    """After all of it nothing is under way, and delays were counted."""
    statistics = server.server.sy.statistics
    assert statistics.in_flight == 0
    assert sum(statistics.delays) > 0
    assert statistics.answers["SLR", 2001] > 0
    assert isinstance(server.server.sy.notifications.statistics, type(statistics))
