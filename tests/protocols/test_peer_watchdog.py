"""How a connection is watched and left: RFC 3539 section 3.4.1, RFC 6733 sections 5.4 and 5.5.

"row n" is the row of the conformance table.
"""

import pytest

from protocols.diameter import codec
from protocols.diameter.codes import DisconnectCause, Flag
from protocols.diameter.events import AnswerReceived, Closed, Recovered, Suspect
from protocols.diameter.link import Disconnect
from protocols.diameter.settings import Admission, AllowedPeer, PeerPolicy
from protocols.diameter.state_table import PeerState
from protocols.diameter.watchdog import JITTER_SECONDS
from tests.protocols.in_memory import (
    OURS,
    THEIRS,
    Network,
    Side,
    Stranger,
    answer,
    base_request,
    ccr,
    changed,
    dpr,
    dwr,
    origin,
    own_request,
    result_of,
)
from tests.protocols.peer_stage import REACH, Stage

# Watchdog


def test_row_5_a_dwr_is_always_answered() -> None:
    """RFC 6733 5.5: also while disconnecting, and without Origin-State-Id as Kamailio sends it."""
    stranger = Stranger().open()
    (dwa,) = stranger.send(dwr())
    codec.check(dwa)
    assert (dwa.command, dwa.flags, dwa.hop_by_hop, dwa.end_to_end) == (280, 0, 11, 22)
    assert [avp.code for avp in dwa.avps] == [268, 264, 296, 278]
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.BUSY, stranger.now)
    sent = stranger.send(dwr())
    assert [message.command for message in sent] == [282, 280]


def test_row_5_a_malformed_dwr_is_answered_with_its_error() -> None:
    """RFC 6733 7.1.5: 5005 and the connection stays."""
    stranger = Stranger().open()
    (dwa,) = stranger.send(base_request(280, origin()[:1]))
    assert result_of(dwa) == 5005
    assert not stranger.is_closed


def test_row_5_the_watchdog_is_due_within_2_seconds_of_twinit() -> None:
    """RFC 3539 3.4.1: Tw = Twinit +- 2 s, drawn anew for every connection."""
    waits = set()
    for seed in range(50):
        stranger = Stranger(side=Side(OURS, seed)).open()
        due = stranger.link.receiver.next_timeout()
        assert due is not None
        waits.add(due - stranger.now)
    assert min(waits) >= 30 - JITTER_SECONDS
    assert max(waits) <= 30 + JITTER_SECONDS
    assert max(waits) - min(waits) > 2


def test_row_5_the_floor_of_twinit_is_6_seconds() -> None:
    """RFC 3539 3.4.1: "Twinit MUST NOT be set lower than 6 seconds"."""
    assert changed(OURS, watchdog_seconds=6.0).watchdog_seconds == 6.0
    with pytest.raises(ValueError, match="watchdog_seconds"):
        changed(OURS, watchdog_seconds=5.9)


def test_row_5_two_idle_nodes_watch_each_other_for_ever() -> None:
    """RFC 3539 3.4.1: DWR and DWA keep an idle connection open."""
    ours, theirs = Side(OURS), Side(THEIRS)
    network = Network()
    wire = network.dial(ours, theirs)
    network.advance(3600)
    assert wire.closed == [False, False]
    assert ours.of_kind(Suspect) == []


def test_row_5_traffic_puts_the_watchdog_off() -> None:
    """RFC 3539 3.4.1: any message received resets Tw."""
    stranger = Stranger().open()
    for _ in range(10):
        assert [message.command for message in stranger.advance(20)] == []
        stranger.send(ccr())


def test_row_5_an_unanswered_dwr_makes_suspect_then_closes_with_what_was_pending() -> None:
    """RFC 3539 3.4.1, RFC 6733 5.5.4: Failover after one Tw, CloseConnection after the next."""
    stranger = Stranger().open()
    waiting = own_request()
    stranger.link.send_request(waiting)
    stranger.received()
    (request,) = stranger.advance(33)
    assert (request.command, request.flags) == (280, Flag.REQUEST)
    codec.check(request)
    assert stranger.advance(33) == []
    assert stranger.last() == Suspect("pgw.example.org")
    assert not stranger.is_closed
    assert stranger.advance(33) == []
    closed = stranger.last()
    assert isinstance(closed, Closed)
    assert closed.unanswered == (waiting,)
    assert stranger.link.disconnect is Disconnect.ABORT


def test_row_5_a_suspect_peer_recovers_with_any_message() -> None:
    """RFC 3539 3.4.1, SUSPECT: "Receive non-DWA: Failback()"."""
    stranger = Stranger().open()
    (request,) = stranger.advance(66)
    stranger.send(dwr())
    assert isinstance(stranger.events[-1], Recovered)
    stranger.send(answer(request))
    assert [message.command for message in stranger.advance(33)] == [280]


def test_row_5_what_was_closed_for_silence_has_to_prove_itself() -> None:
    """RFC 3539 3.4.1, REOPEN: a DWR at once, and no requests of ours until three DWAs came."""
    allowed = AllowedPeer("pgw.example.org", connect_host="10.0.0.1")
    stage = Stage()
    stage.side = Side(changed(OURS, policy=PeerPolicy(Admission.STRICT, (allowed,))))
    stage.peer = stage.side.table.find_or_add("pgw.example.org")
    for step in REACH[PeerState.I_OPEN]:
        step(stage)
    for _ in range(3):
        due = stage.peer.next_timeout()
        assert due is not None
        stage.now = due
        stage.events += stage.peer.handle_timeout(due)
    assert stage.state() is PeerState.CLOSED
    stage.events.clear()
    for step in REACH[PeerState.I_OPEN]:
        step(stage)
    for wait in (0, 40, 40):
        stage.now += wait
        stage.events += stage.peer.handle_timeout(stage.now)
        assert [event for event in stage.events if isinstance(event, Recovered)] == []
        stage.receive_answer()
    assert isinstance(stage.events[-1], Recovered)


def test_row_5_unanswered_watchdogs_while_reopening_close_too() -> None:
    """RFC 3539 3.4.1, REOPEN: Timer expires & Pending twice closes."""
    allowed = AllowedPeer("pgw.example.org", connect_host="10.0.0.1")
    stage = Stage()
    stage.side = Side(changed(OURS, policy=PeerPolicy(Admission.STRICT, (allowed,))))
    stage.peer = stage.side.table.find_or_add("pgw.example.org")
    for _ in range(2):
        for step in REACH[PeerState.I_OPEN]:
            step(stage)
        for _ in range(3):
            due = stage.peer.next_timeout()
            assert due is not None
            stage.now = due
            stage.peer.handle_timeout(due)
        assert stage.state() is PeerState.CLOSED


# Disconnection


@pytest.mark.parametrize(("cause", "may_reconnect"), [(0, True), (1, False), (2, False)])
def test_row_6_a_dpr_is_answered_and_its_sender_closes(cause: int, may_reconnect: bool) -> None:
    """RFC 6733 5.4: DPA 2001; "the receiver of the DPA initiates the transport disconnect"; 5.4.3 for the cause."""
    stranger = Stranger().open()
    (dpa,) = stranger.send(dpr(cause))
    codec.check(dpa)
    assert (dpa.command, dpa.flags, result_of(dpa)) == (282, 0, 2001)
    assert not stranger.is_closed
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "", stranger.now)
    closed = stranger.events[-1]
    assert isinstance(closed, Closed)
    assert closed.may_reconnect is may_reconnect
    assert DisconnectCause(cause).name in closed.reason


def test_row_6_a_peer_that_does_not_close_after_our_dpa_is_closed() -> None:
    """RFC 6733 5.6, Closing: Timeout is Error."""
    stranger = Stranger().open()
    stranger.send(dpr())
    stranger.advance(OURS.disconnect_timeout_seconds + 1)
    assert stranger.is_closed


@pytest.mark.parametrize("result", [2001, 5012, None], ids=["2001", "an error", "no Result-Code, as Kamailio"])
def test_row_6_our_dpr_ends_with_its_dpa(result: int | None) -> None:
    """RFC 6733 5.4: upon the DPA, whatever it says, we close."""
    stranger = Stranger().open()
    peer = stranger.side.table.find_or_add("pgw.example.org")
    peer.stop(DisconnectCause.REBOOTING, stranger.now)
    (request,) = stranger.received()
    codec.check(request)
    assert (request.command, request.flags) == (282, Flag.REQUEST)
    assert request.avps[-1].value() == 0
    stranger.send(answer(request, result))
    assert stranger.link.disconnect is Disconnect.FLUSH
    assert isinstance(stranger.events[-1], Closed)


def test_row_6_two_dprs_that_cross() -> None:
    """RFC 6733 5.4: both are answered, both ends close."""
    ours, theirs = Side(OURS), Side(THEIRS)
    network = Network()
    wire = network.dial(ours, theirs)
    network.run()
    ours.table.find_or_add(THEIRS.origin_host).stop(DisconnectCause.REBOOTING, network.now)
    theirs.table.find_or_add(OURS.origin_host).stop(DisconnectCause.REBOOTING, network.now)
    network.run()
    assert wire.closed == [True, True]


def test_row_6_requests_after_the_dpr_of_their_sender_are_dropped() -> None:
    """RFC 6733 5.6: Closing has no Rcv-Message; what is dropped is counted."""
    stranger = Stranger().open()
    stranger.send(dpr())
    stranger.send(ccr())
    assert stranger.link.statistics.requests_discarded == 1
    assert stranger.of_requests() == []


def test_row_6_requests_that_cross_our_dpr_are_served_before_we_close() -> None:
    """RFC 6733 5.4: what the peer sent before it knew is answered; what it sends after its DPA is dropped."""
    stranger = Stranger().open()
    peer = stranger.side.table.find_or_add("pgw.example.org")
    stranger.send(ccr(1))
    peer.stop(DisconnectCause.REBOOTING, stranger.now)
    (request,) = stranger.send(ccr(2))
    assert [each.hop_by_hop for each in stranger.of_requests()] == [1, 2]
    stranger.send(answer(request))
    assert not stranger.is_closed, "both are still to be answered"
    stranger.send(ccr(3))
    assert stranger.link.statistics.requests_discarded == 1
    for number in (1, 2):
        assert peer.close_answered(stranger.now) == []
        stranger.link.send_answer(codec.encode(codec.decode(ccr(number, flags=0))))
    assert [type(event) for event in peer.close_answered(stranger.now)] == [Closed]
    assert stranger.link.disconnect is Disconnect.FLUSH, "the answers go out before"
    assert peer.close_answered(stranger.now) == []


def test_row_6_what_is_never_answered_holds_our_leave_up_no_longer_than_a_silent_peer() -> None:
    stranger = Stranger().open()
    stranger.send(ccr())
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.REBOOTING, stranger.now)
    stranger.advance(OURS.disconnect_timeout_seconds + 1)
    assert stranger.is_closed


def test_row_6_answers_to_our_requests_are_still_taken_after_our_dpr() -> None:
    """RFC 6733 5.6: they are no messages that Closing would have to serve."""
    stranger = Stranger().open()
    waiting = own_request()
    stranger.link.send_request(waiting)
    (request,) = stranger.received()
    stranger.side.table.find_or_add("pgw.example.org").stop(DisconnectCause.REBOOTING, stranger.now)
    stranger.send(answer(request))
    last = stranger.events[-1]
    assert isinstance(last, AnswerReceived)
    assert last.request is waiting


def test_row_6_a_peer_comes_back_after_it_left() -> None:
    """RFC 6733 5.4.3: what it said about reconnecting binds us, not the peer itself."""
    stranger = Stranger().open()
    stranger.send(dpr(2))
    stranger.side.events += stranger.link.receiver.link_lost(stranger.link, "", stranger.now)
    Stranger(side=stranger.side).open()
