"""Re-Auth and Abort-Session against the real server: what is sent, and what each answer means (rows 42 and 43)."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from balance.commands import ChannelSettings
from occ.reauthorisation import ReauthorisationSettings
from occ.server_requests import Meaning
from protocols.credit_control import AbortSessionRequest, ReAuthRequest
from protocols.diameter.codes import Command
from tests.asked_client import REALM, always, in_turn
from tests.live_server import LiveServer
from tests.reauthorisation_lab import Lab, eventually

QUICK = ReauthorisationSettings(answer_within_s=0.3, pauses_s=(0.05, 0.1), act_within_s=0.3)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("reauthorisation")) as running:
        running.server.reauthorisation.settings = QUICK
        running.server.reauthorisation.channel = ChannelSettings(claim_within_s=1.0)
        yield running


@pytest.fixture
async def lab(server: LiveServer, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Lab]:
    lab = Lab(server, caplog)
    yield lab
    for client in lab.clients:
        await client.close()
    server.assert_books_balance()


# -- what is sent ------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 42")
@pytest.mark.parametrize("scope", [{}, {"rating_group": 10}, {"service_identifier": 7}, {"pool": 3}])
async def test_row_42_a_re_auth_request_names_session_client_and_scope(lab: Lab, scope: dict[str, int]) -> None:
    """RFC 8506 section 5.5: Auth-Application-Id 4, AUTHORIZE_ONLY, and what the re-authorisation is limited to."""
    client = await lab.client()
    await lab.session_of(client)
    await lab.reauthorise(**scope)
    (asked,) = client.asked
    request = asked.request
    assert isinstance(request, ReAuthRequest)
    assert request.session_id == lab.session.encode()
    assert request.destination_host == client.identity.encode()
    assert request.destination_realm == REALM.encode()
    assert request.origin_host == lab.server.origin_host.encode()
    assert request.re_auth_request_type == 0
    assert [each.data for each in asked.message.find_all(258)] == [(4).to_bytes(4, "big")]
    named = (request.rating_group, request.service_identifier, request.pool_identifier)
    assert named == (scope.get("rating_group"), scope.get("service_identifier"), scope.get("pool"))
    assert asked.message.is_proxiable
    assert not asked.again


@pytest.mark.shows("row 42")
async def test_row_42_a_sub_session_is_named_by_its_number(lab: Lab) -> None:
    """RFC 8506 section 5.5: CC-Sub-Session-Id beside the Session-Id, which is that of the session."""
    client = await lab.client()
    await client.begin(lab.session, lab.subscriber, sub=5)
    results = await lab.ask(lambda asker: asker.reauthorise_account(lab.name.encode()))
    assert [result.meaning for result in results] == [Meaning.UPDATE_EXPECTED]
    request = client.asked[0].request
    assert isinstance(request, ReAuthRequest)
    assert (request.session_id, request.sub_session_id) == (lab.session.encode(), 5)


@pytest.mark.shows("row 43")
async def test_row_43_an_abort_session_request_is_about_all_sub_sessions(lab: Lab) -> None:
    """RFC 6733 section 8.5.1 knows sessions only: 5002 closes every sub-session."""
    client = await lab.client()
    client.reply = always(5002)
    for number in (1, 2):
        await client.begin(lab.session, lab.subscriber, sub=number)
    assert lab.money() == (100, 20)
    result = await lab.ask(lambda asker: asker.abort(lab.name.encode(), lab.session.encode() + b"\x002"))
    assert result.meaning is Meaning.CLIENT_LOST
    assert len(client.asked) == 1
    assert client.asked[0].request.session_id == lab.session.encode()
    assert lab.money() == (100, 0)


async def test_two_clients_of_one_account_are_both_asked(lab: Lab) -> None:
    """What a top-up does: all open sessions of the account, each at its own client."""
    first, second = await lab.client("a"), await lab.client("b")
    await lab.session_of(first)
    await lab.session_of(second, session=lab.session + ";2")
    second.reply = always(2001)
    results = await lab.ask(lambda asker: asker.reauthorise_account(lab.name.encode()))
    told = {result.client.decode(): (result.meaning, result.session_key.decode()) for result in results}
    assert told == {
        first.identity: (Meaning.UPDATE_EXPECTED, lab.session),
        second.identity: (Meaning.UPDATE_PENDING, lab.session + ";2"),
    }
    assert [asked.request.session_id.decode() for asked in first.asked] == [lab.session]


async def test_an_account_without_open_sessions_or_none_at_all(lab: Lab) -> None:
    for name in (lab.name.encode(), b"nobody"):
        assert await lab.ask(lambda asker, name=name: asker.reauthorise_account(name)) == []  # type: ignore[misc]
    assert (await lab.reauthorise()).meaning is Meaning.ENDED
    assert (await lab.abort()).meaning is Meaning.ENDED


async def test_asked_twice_at_once_the_client_is_asked_once(lab: Lab) -> None:
    client = await lab.client()
    release = asyncio.Event()

    async def reply(asked: object) -> int:
        await release.wait()
        return 2002

    client.reply = reply
    await lab.session_of(client)
    same = [asyncio.create_task(lab.reauthorise()) for _ in range(3)]
    other = asyncio.create_task(lab.reauthorise(rating_group=10))
    await eventually(lambda: len(client.asked) == 2)
    await asyncio.sleep(0.1)
    release.set()
    results = await asyncio.gather(*same, other)
    assert {result.meaning for result in results} == {Meaning.UPDATE_EXPECTED}
    groups = [asked.request.rating_group for asked in client.asked if isinstance(asked.request, ReAuthRequest)]
    assert sorted(groups, key=bool) == [None, 10]


# -- what the answers to a Re-Auth-Request mean ------------------------------------------------------------------


@pytest.mark.shows("row 42")
async def test_row_42_after_2002_an_update_comes(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code, result.client) == (
        Meaning.UPDATE_EXPECTED, 2002, client.identity.encode(),
    )  # fmt: skip
    assert (await client.update(lab.session)).result_code == 2001
    await asyncio.sleep(2 * QUICK.act_within_s)
    assert lab.unkept() == 0
    assert len(client.asked) == 1


@pytest.mark.shows("row 42")
async def test_row_42_an_update_that_does_not_come_after_2002_is_counted_and_the_session_goes_on(lab: Lab) -> None:
    """The ruling: the client asks anew at the end of its Validity-Time."""
    client = await lab.client()
    await lab.session_of(client)
    await lab.reauthorise()
    await eventually(lambda: lab.unkept() == 1)
    assert len(client.asked) == 1
    assert lab.money() == (100, 10)


@pytest.mark.shows("row 42")
async def test_row_42_after_2001_the_update_under_way_is_waited_for(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(2001)
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code) == (Meaning.UPDATE_PENDING, 2001)
    await client.update(lab.session)
    await asyncio.sleep(2 * QUICK.act_within_s)
    assert len(client.asked) == 1


@pytest.mark.shows("row 42")
async def test_row_42_a_report_that_was_charged_before_the_client_was_asked_does_not_count(lab: Lab) -> None:
    """2001, yet nothing comes: the report that was under way was charged before; so the client is asked once more."""
    client = await lab.client()
    client.reply = in_turn(2001, 2002)
    await lab.session_of(client)
    await lab.reauthorise()
    await eventually(lambda: len(client.asked) == 2)
    await client.update(lab.session)
    await asyncio.sleep(2 * QUICK.act_within_s)
    assert len(client.asked) == 2
    assert lab.unkept() == 0


async def test_a_client_that_always_says_2001_is_not_asked_for_ever(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(2001)
    await lab.session_of(client)
    await lab.reauthorise()
    await eventually(lambda: lab.unkept() == 1)
    await asyncio.sleep(2 * QUICK.act_within_s)
    assert len(client.asked) == 2


@pytest.mark.shows("row 42")
async def test_row_42_after_5002_the_session_is_closed_and_what_it_held_released(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(5002)
    await lab.session_of(client)
    await client.update(lab.session, used_mib=3)
    assert lab.money() == (97, 10)
    before = lab.server.server.charging.statistics.open_sessions
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code) == (Meaning.CLIENT_LOST, 5002)
    assert (result.released, result.currency) == (((0, 100_000),), 978)
    assert lab.open_session() is None
    assert lab.money() == (97, 0)
    assert lab.server.server.charging.statistics.open_sessions == before - 1
    await eventually(lambda: len(lab.records()) == 1)
    assert (lab.records()[0]["cause"], lab.records()[0]["debited_micro"]) == ("client-lost", 30_000)


@pytest.mark.shows("row 22", "row 42")
async def test_row_42_a_report_that_comes_after_5002_all_the_same_is_debited_once(lab: Lab) -> None:
    """Row 22: as after supervision. Its end had crossed the server's request."""
    client = await lab.client()
    client.reply = always(5002)
    await lab.session_of(client)
    await lab.reauthorise()
    assert (await client.end(lab.session, used_mib=2)).result_code == 2001
    assert lab.money() == (98, 0)


@pytest.mark.shows("row 42")
async def test_row_42_5002_from_a_client_that_has_just_reported_closes_nothing(lab: Lab) -> None:
    """It knows the session: its report has come since it was asked."""
    client = await lab.client()
    await lab.session_of(client)

    async def reply(asked: object) -> int:
        await client.update(lab.session)
        return 5002

    client.reply = reply
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_PENDING
    assert lab.money() == (99, 10)


@pytest.mark.shows("row 42")
@pytest.mark.parametrize("code", [5012, 4010, 5005])
async def test_row_42_another_refusal_leaves_the_session_to_its_validity_time(lab: Lab, code: int) -> None:
    client = await lab.client()
    client.reply = always(code)
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code, result.is_effective) == (Meaning.REFUSED, code, False)
    assert len(client.asked) == 1
    session = lab.open_session()
    assert session is not None
    assert not session.refused


# -- attempts ----------------------------------------------------------------------------------------------------


@pytest.mark.shows("row 42")
async def test_row_42_silence_is_met_with_repeats_and_then_given_up(lab: Lab) -> None:
    """RFC 6733 section 5.5.4: repeats bear the T flag and the first one's End-to-End Identifier."""
    client = await lab.client()
    client.reply = always(None)
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert result.meaning is Meaning.UNANSWERED
    assert "no answer in time" in result.reason
    assert [asked.again for asked in client.asked] == [False, True, True]
    assert len({asked.message.end_to_end for asked in client.asked}) == 1
    assert lab.money() == (100, 10)


@pytest.mark.shows("row 42")
async def test_row_42_a_busy_client_is_asked_again(lab: Lab) -> None:
    """3004 is an answer to that attempt: the next one is a new request."""
    client = await lab.client()
    client.reply = in_turn(3004, 3004, 2002)
    await lab.session_of(client)
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED
    assert [asked.again for asked in client.asked] == [False, False, False]
    assert len({asked.message.end_to_end for asked in client.asked}) == 3


async def test_a_client_that_does_not_know_the_command_is_asked_once(lab: Lab) -> None:
    """3001 would be the answer to every further attempt."""
    client = await lab.client()
    client.reply = always(3001)
    await lab.session_of(client)
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code) == (Meaning.UNANSWERED, 3001)
    assert len(client.asked) == 1


@pytest.mark.shows("row 42")
async def test_row_42_a_session_behind_an_agent_is_asked_for_through_it(lab: Lab) -> None:
    relay = await lab.client("relay", relay=True)
    host = f"behind{lab.number}.{REALM}"
    await lab.session_of(relay, behind=host)
    result = await lab.reauthorise()
    assert (result.meaning, result.client) == (Meaning.UPDATE_EXPECTED, host.encode())
    assert relay.asked[0].request.destination_host == host.encode()


@pytest.mark.shows("row 42")
async def test_row_42_a_session_that_went_on_through_another_peer_is_asked_for_there(lab: Lab) -> None:
    """The peer that the last request came by, though both are open and neither is the client itself."""
    first, second = await lab.client("proxy-a"), await lab.client("proxy-b")
    host = f"behind{lab.number}.{REALM}"
    await lab.session_of(first, behind=host)
    await second.update(lab.session, client=host)
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED
    assert (len(first.asked), len(second.asked)) == (0, 1)


@pytest.mark.shows("row 42")
async def test_row_42_where_one_way_fails_another_is_tried(lab: Lab) -> None:
    """A relay that cannot deliver (3002), then one that does not answer, then the client itself."""
    host = f"behind{lab.number}.{REALM}"
    first, second = await lab.client("relay-a", relay=True), await lab.client("relay-b", relay=True)
    await lab.session_of(first, behind=host)

    async def cannot_deliver(asked: object) -> tuple[int, str]:
        return 3002, first.identity

    first.reply = cannot_deliver
    second.reply = always(2002)
    result = await lab.reauthorise()
    assert (result.meaning, result.result_code) == (Meaning.UPDATE_EXPECTED, 2002)
    assert (len(first.asked), len(second.asked)) == (1, 1)


@pytest.mark.shows("row 42")
async def test_row_42_a_lost_connection_is_made_up_for_by_another_way(lab: Lab) -> None:
    client = await lab.client()
    relay = await lab.client("relay", relay=True)
    await lab.session_of(client)

    async def hang_up(asked: object) -> None:
        await client.close()

    client.reply = hang_up
    assert (await lab.reauthorise()).meaning is Meaning.UPDATE_EXPECTED
    assert [asked.again for asked in relay.asked] == [True]
    assert relay.asked[0].request.destination_host == client.identity.encode()


@pytest.mark.shows("row 42")
async def test_row_42_a_client_that_comes_back_meanwhile_is_asked_then(lab: Lab) -> None:
    client = await lab.client()
    await lab.session_of(client)
    await client.close()
    asking = asyncio.create_task(lab.reauthorise())
    await asyncio.sleep(0.2)
    again = await lab.client()
    assert (await asking).meaning is Meaning.UPDATE_EXPECTED
    assert len(again.asked) == 1


async def test_an_agent_that_was_only_tried_cannot_close_a_session(lab: Lab) -> None:
    """5002 counts from the client, or from where its last request came from: not from just any relay."""
    client = await lab.client()
    client.reply = always(None)
    relay = await lab.client("relay", relay=True)
    await lab.session_of(client)

    async def unknown(asked: object) -> tuple[int, str]:
        return 5002, relay.identity

    relay.reply = unknown
    assert (await lab.reauthorise()).meaning is Meaning.UNANSWERED
    assert relay.asked
    assert lab.money() == (100, 10)


async def test_a_client_that_cannot_be_reached_at_all(lab: Lab) -> None:
    """The session may not be touched: the client will report sooner or later."""
    client = await lab.client()
    await lab.session_of(client)
    await client.close()
    result = await lab.reauthorise()
    assert (result.meaning, result.is_effective) == (Meaning.NO_CONNECTION, False)
    assert lab.money() == (100, 10)


# -- what the answers to an Abort-Session-Request mean -----------------------------------------------------------


@pytest.mark.shows("row 43")
async def test_row_43_after_2001_the_termination_is_waited_for(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(2001)
    await lab.session_of(client)
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.TERMINATION_EXPECTED, False)
    assert isinstance(client.asked[0].request, AbortSessionRequest)
    assert client.asked[0].message.command == Command.ABORT_SESSION
    assert (await client.end(lab.session, used_mib=4)).result_code == 2001
    assert lab.money() == (96, 0)


@pytest.mark.shows("row 43")
async def test_row_43_a_termination_that_does_not_come_is_counted_and_nothing_more_granted(lab: Lab) -> None:
    """It is not taken for ended: supervision ends it, or the client's own T."""
    client = await lab.client()
    client.reply = always(2001)
    await lab.session_of(client)
    await lab.abort()
    await eventually(lambda: lab.unkept() == 1)
    answer = await client.update(lab.session)
    assert [service.result_code for service in answer.services] == [4010]
    assert lab.money() == (99, 0)
    assert (await client.end(lab.session, used_mib=1)).result_code == 2001
    assert lab.money() == (98, 0)


@pytest.mark.shows("row 43")
async def test_row_43_after_5002_the_session_is_closed(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(5002)
    await lab.session_of(client)
    result = await lab.abort()
    assert (result.meaning, result.released) == (Meaning.CLIENT_LOST, ((0, 100_000),))
    assert lab.money() == (100, 0)
    await eventually(lambda: [record["cause"] for record in lab.records()] == ["client-lost"])


@pytest.mark.shows("row 43", "open5gs-abort-refused")
@pytest.mark.parametrize("code", [5012, 5005, 4999])
async def test_row_43_a_client_that_refuses_is_denied_at_its_next_request(lab: Lab, code: int) -> None:
    """The session is not taken for ended: what it reports is debited, and it is told 4010."""
    client = await lab.client()
    client.reply = always(code)
    await lab.session_of(client)
    result = await lab.abort()
    assert (result.meaning, result.result_code, result.denied) == (Meaning.REFUSED, code, True)
    assert result.is_effective
    assert lab.money() == (100, 10)
    answer = await client.update(lab.session, used_mib=2)
    assert [service.result_code for service in answer.services] == [4010]
    assert lab.money() == (98, 0)
    assert (await client.end(lab.session, used_mib=0)).result_code == 2001


@pytest.mark.shows("row 43")
async def test_row_43_nor_is_anything_granted_to_one_that_does_not_answer_or_cannot_be_reached(lab: Lab) -> None:
    client = await lab.client()
    client.reply = always(None)
    await lab.session_of(client)
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.UNANSWERED, True)
    await lab.session_of(client, session=lab.session + ";2")
    await client.close()
    lab.session += ";2"
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.NO_CONNECTION, True)
    session = lab.open_session()
    assert session is not None
    assert session.refused


# -- clients that cannot ------------------------------------------------------------------------------------------


@pytest.mark.shows("row 42", "open5gs-reauth-without-update")
async def test_row_42_open5gs_is_taken_at_its_word_and_not_waited_for(lab: Lab) -> None:
    smf = await lab.client("smf", product_name="freeDiameter", gx=True)
    smf.reply = always(2001)
    await lab.session_of(smf)
    assert (await lab.reauthorise()).meaning is Meaning.ACKNOWLEDGED
    await asyncio.sleep(2 * QUICK.act_within_s)
    assert len(smf.asked) == 1
    assert lab.unkept() == 0


@pytest.mark.shows("row 42", "open5gs-reauth-without-update")
async def test_row_42_open5gs_tells_when_it_has_lost_a_session(lab: Lab) -> None:
    smf = await lab.client("smf", product_name="freeDiameter", gx=True)
    smf.reply = always(5002)
    await lab.session_of(smf)
    assert (await lab.reauthorise()).meaning is Meaning.CLIENT_LOST
    assert lab.money() == (100, 0)


@pytest.mark.shows("row 43", "open5gs-abort-refused")
async def test_row_43_open5gs_is_not_asked_to_abort_but_denied(lab: Lab) -> None:
    smf = await lab.client("smf", product_name="freeDiameter", gx=True)
    await lab.session_of(smf)
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.NOT_ASKED, True)
    assert smf.asked == []
    assert lab.money() == (100, 10)


@pytest.mark.shows("row 42", "row 43", "kamailio-never-answers")
async def test_kamailio_is_never_asked(lab: Lab) -> None:
    cscf = await lab.client("cscf", product_name="CDiameterPeer")
    await lab.session_of(cscf)
    result = await lab.reauthorise()
    assert (result.meaning, result.is_effective) == (Meaning.NOT_ASKED, False)
    result = await lab.abort()
    assert (result.meaning, result.denied) == (Meaning.NOT_ASKED, True)
    assert cscf.asked == []
    answer = await cscf.update(lab.session)
    assert [service.result_code for service in answer.services] == [4010]
