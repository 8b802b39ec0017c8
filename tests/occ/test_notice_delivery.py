"""What becomes of notices: once, by the next channel, later, held, declined, given up; channels do not wait for others.

The gateways are HTTP servers on loopback; the store is a real one.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from balance import notices
from balance.contacts import Contact, change_contact
from balance.embedded import Address
from balance.model import IdentityType, Subscriber
from balance.notices import Notice
from balance.store import Store
from balance.subscribers import add_subscriber
from occ.notices.settings import LogSettings
from tests.occ.notice_lab import ACCOUNT, NUMBER, SUBSCRIBER, lab, notice, open_store, settings
from tests.peers.http_peer import OK, Answer, HttpPeer, Request

TELEGRAM_OK: Answer = (200, {}, b'{"ok": true}')
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
async def store(clean_redis: Address) -> AsyncIterator[Store]:
    store = await open_store(clean_redis)
    yield store
    await store.stop()


def texts(peer: HttpPeer) -> list[str]:
    return [request.json["text"] for request in peer.requests]


def refusing(status: int, headers: dict[str, str] | None = None) -> Answer:
    return status, headers or {}, b"{}"


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_notice_goes_to_the_number_of_a_subscriber_without_a_contact(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(notice("n1"))
            sent = await found.comes_to("n1", "sent")
            assert await found.counts() == {("sms_http", "sent"): 1}
    (request,) = gateway.requests
    assert request.json["to"] == NUMBER
    assert request.json["text"].startswith("OCC: your balance is €3.20.")
    assert [event.result for event in sent.events] == ["sent"]
    assert NUMBER not in repr(sent.events)
    assert await store.call("XLEN", store.keys.notices(0)) == 0


async def test_a_notice_that_is_handed_in_twice_is_delivered_once(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(notice("n1"), notice("n1", balance=1), notice("n2"))
            await found.comes_to("n2", "sent")
            await found.hand_in(notice("n1"), notice("n3"))
            await found.comes_to("n3", "sent")
            counts = await found.counts()
    assert len(gateway.requests) == 3
    assert counts["none", "duplicate"] == 2


async def test_two_processes_deliver_each_notice_once(store: Store, tmp_path: Path) -> None:
    """Servers that share a store."""
    names = [f"n{number}" for number in range(40)]
    with HttpPeer() as gateway:
        made = settings(tmp_path, sms_http=f"{gateway.url}/{{{{ id }}}}")
        async with lab(store, made) as first, lab(store, made):
            await first.hand_in(*map(notice, names))
            for name in names:
                await first.comes_to(name, "sent")
    assert sorted(request.path for request in gateway.requests) == sorted(f"/{name}" for name in names)


async def test_what_is_no_notice_holds_up_none(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        await store.call("XADD", store.keys.notices(0), "*", "n", b"\xc1")
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(notice("n1"))
            await found.comes_to("n1", "sent")
            assert (await found.counts())["none", "unreadable"] == 1


# -- whose contact, which language -------------------------------------------------------------------------------------


async def test_language_and_time_zone_are_those_of_the_contact(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            for language in ("de", "es", "ru", "pt-BR"):
                await found.contact(language=language, time_zone="America/Bogota")
                await found.hand_in(notice(language, template="suspended"))
                await found.comes_to(language, "sent")
    german, spanish, russian, other = texts(gateway)
    assert "15. Jan. 2027, 06:00" in german.replace("\u00a0", " ") or "15. Januar 2027, 06:00" in german
    assert "15 ene 2027, 6:00" in spanish
    assert "приостановлено" in russian
    assert "your line was suspended" in other


async def test_an_account_without_a_contact_is_told_by_its_first_subscriber(store: Store, tmp_path: Path) -> None:
    await add_subscriber(store, Subscriber(b"sub-0", ACCOUNT, "standard", ((int(IdentityType.E164), b"4999"),)))
    of_account = replace(notice("n1"), subscriber_id=b"")
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(of_account)
            await found.comes_to("n1", "sent")
            sms = ("sms", "4930123456")
            await change_contact(
                store, store.keys.contact_of(ACCOUNT), lambda _: Contact(language="de", channels=(sms,))
            )
            await found.hand_in(replace(of_account, notice_id=b"n2"))
            await found.comes_to("n2", "sent")
            # A subscriber without a contact of its own is reached as its account is.
            await found.hand_in(notice("n3"))
            await found.comes_to("n3", "sent")
    assert [request.json["to"] for request in gateway.requests] == ["4999", "4930123456", "4930123456"]


async def test_nobody_to_tell(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(Notice(b"n1", b"no-such-account", b"", "billing", "restored", {}, notice("x").at_ms))
            dead = await found.comes_to("n1", "dead")
    assert dead.events[-1].detail == "the customer has no address"
    assert gateway.requests == []


# -- the next channel, later -------------------------------------------------------------------------------------------


async def test_a_channel_that_fails_for_good_leaves_it_to_the_next(store: Store, tmp_path: Path) -> None:
    with HttpPeer(lambda request: refusing(403)) as bot, HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, telegram=bot.url, sms_http=gateway.url)) as found:
            await found.contact(("telegram", "42"), ("sms", NUMBER))
            await found.hand_in(notice("n1"))
            sent = await found.comes_to("n1", "sent")
            counts = await found.counts()
    assert (len(bot.requests), len(gateway.requests)) == (1, 1)
    assert sent.given_up == ("telegram",)
    assert [(event.channel, event.result) for event in sent.events] == [("telegram", "refused"), ("sms_http", "sent")]
    assert counts == {("telegram", "refused"): 1, ("sms_http", "sent"): 1}


async def test_a_channel_that_fails_for_now_is_tried_again_then_the_next(store: Store, tmp_path: Path) -> None:
    """Three attempts, half a second to a second between them."""
    with HttpPeer(lambda request: refusing(500)) as bot, HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, telegram=bot.url, sms_http=gateway.url)) as found:
            await found.contact(("telegram", "42"), ("sms", NUMBER))
            await found.hand_in(notice("n1"))
            failed = await found.until("n1", lambda each: len(each.events) == 1)
            assert (failed.state, failed.attempts) == ("waiting", 1)
            assert 500 <= failed.next_ms - failed.events[0].at_ms <= 1000
            sent = await found.comes_to("n1", "sent")
    assert (len(bot.requests), len(gateway.requests)) == (3, 1)
    assert [event.result for event in sent.events] == ["failed", "failed", "refused", "sent"]


async def test_with_no_channel_left_it_is_dead_and_can_be_revived(store: Store, tmp_path: Path) -> None:
    answers = [refusing(400), OK]
    with HttpPeer(lambda request: answers.pop(0)) as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(notice("n1"))
            dead = await found.comes_to("n1", "dead")
            assert [event.detail for event in dead.events] == [
                "to 4917****0001: answered 400", "no channel could deliver it",
            ]  # fmt: skip
            assert [each.notice.notice_id for each in await notices.listed(store, "dead", 10)] == [b"n1"]
            known = await notices.read(store, b"n1")
            assert known is not None
            anew = replace(dead, state="waiting", channel="route", given_up=(), attempts=0, revived_ms=dead.finished_ms)
            assert await notices.write(store, known, anew, (), 10) is not None
            await found.comes_to("n1", "sent")
            assert await notices.listed(store, "dead", 10) == []


async def test_a_channel_that_has_too_much_to_do_rests_for_as_long_as_it_says(store: Store, tmp_path: Path) -> None:
    """Telegram's retry_after: no attempt is used up, and no other notice is sent meanwhile."""
    answers: list[Answer] = [(429, {}, json.dumps({"ok": False, "parameters": {"retry_after": 1}}).encode())]
    times: list[float] = []

    def answer(request: Request) -> Answer:
        times.append(asyncio.run_coroutine_threadsafe(_now(), loop).result(5))
        return answers.pop(0) if answers else TELEGRAM_OK

    async def _now() -> float:
        return loop.time()

    loop = asyncio.get_running_loop()
    with HttpPeer(answer) as bot:
        made = settings(tmp_path, telegram=bot.url)
        async with lab(store, replace(made, telegram=replace(made.telegram, in_flight=1))) as found:
            await found.contact(("telegram", "42"))
            await found.hand_in(notice("n1"), notice("n2"))
            first, second = await found.comes_to("n1", "sent"), await found.comes_to("n2", "sent")
            counts = await found.counts()
    assert len(bot.requests) == 3
    assert times[1] - times[0] >= 0.99
    assert max(first.attempts, second.attempts) == 1
    assert counts == {("telegram", "throttled"): 1, ("telegram", "sent"): 2}


async def test_a_slow_channel_slows_no_other(store: Store, tmp_path: Path) -> None:
    """One that never answers, with more notices than it may have under way; the others go on at once."""
    release = threading.Event()

    def slow(request: Request) -> Answer:
        release.wait(30)
        return TELEGRAM_OK

    with HttpPeer(slow) as bot, HttpPeer() as gateway:
        made = settings(tmp_path, telegram=bot.url, sms_http=gateway.url)
        made = replace(made, telegram=replace(made.telegram, in_flight=2, timeout_seconds=20))
        async with lab(store, made) as found:
            await found.contact(("telegram", "42"))
            await found.hand_in(*(notice(f"slow{number}") for number in range(20)))
            # Both are under way: from here on the customer wants another channel, which the others would take as well.
            async with asyncio.timeout(10):
                while len(bot.requests) < 2:  # noqa: ASYNC110 - it is a thread that is asked
                    await asyncio.sleep(0.01)
            await found.contact(("sms", NUMBER))
            quick = [f"quick{number}" for number in range(20)]
            await found.hand_in(*map(notice, quick))
            for name in quick:
                await found.comes_to(name, "sent")
            assert len(bot.requests) == 2
            release.set()
            for number in range(20):
                await found.comes_to(f"slow{number}", "sent")


async def test_marketing_stands_behind_all_others(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        made = settings(tmp_path, sms_http=f"{gateway.url}/{{{{ id }}}}")
        await change_contact(store, store.keys.contact(SUBSCRIBER), lambda _: Contact(consent={"marketing": True}))
        await notices.enqueue(store, [notice(f"ad{number}", "marketing") for number in range(30)])
        await notices.enqueue(store, [notice("zero")])
        made = replace(made, sms_http=replace(made.sms_http, in_flight=1, per_second=20))
        async with lab(store, made) as found:
            await found.comes_to("zero", "sent")
            before = [request.path for request in gateway.requests]
            assert "/zero" in before[:4]


# -- who does not want it, quiet hours, age ----------------------------------------------------------------------------


async def test_consent_is_by_class(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(notice("ad", "marketing"))
            await found.comes_to("ad", "declined")
            await found.contact(consent={"marketing": True, "billing": False})
            await found.hand_in(notice("ad2", "marketing"), notice("bill", "billing"), notice("state"))
            await found.comes_to("ad2", "sent")
            await found.comes_to("state", "sent")
            await found.comes_to("bill", "declined")
            counts = await found.counts()
    assert counts == {("none", "declined"): 2, ("sms_http", "sent"): 2}


async def test_quiet_hours_hold_marketing_alone(store: Store, tmp_path: Path) -> None:
    """It is noon: quiet hours from 11 to 13 hold it until 13."""
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.contact(consent={"marketing": True}, quiet=(11 * 60, 13 * 60))
            await found.hand_in(notice("ad", "marketing"), notice("state"), notice("bill", "billing"))
            await found.comes_to("state", "sent")
            await found.comes_to("bill", "sent")
            held = await found.comes_to("ad", "held")
            assert held.next_ms == notice("x").at_ms + HOUR_MS
            figures = await notices.figures(store)
            assert (figures.lists["held"], figures.oldest_ms) == (1, 0)
            found.skipped_ms = HOUR_MS
            await found.comes_to("ad", "sent")


async def test_what_is_too_old_is_given_up(store: Store, tmp_path: Path) -> None:
    old = replace(notice("n1"), at_ms=notice("n1").at_ms - 48 * HOUR_MS - 1)
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(old)
            dead = await found.comes_to("n1", "dead")
    assert "too old" in dead.events[-1].detail
    assert gateway.requests == []


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (notice("n1", template="no-such"), "there is no template no-such"),
        (replace(notice("n1"), values={}), "needs balance"),
        (replace(notice("n1"), values={"balance": 1}), "no currency"),
        (replace(notice("n1"), values={"balance": "x", "currency": "EUR"}), "whole number"),
    ],
)
async def test_what_cannot_be_put_into_words_is_dead(store: Store, tmp_path: Path, given: Notice, reason: str) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await found.hand_in(given)
            dead = await found.comes_to("n1", "dead")
    assert reason in dead.events[-1].detail
    assert gateway.requests == []


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_the_log_takes_what_no_channel_could_have_taken(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not what a channel failed to deliver: that is dead."""
    caplog.set_level("INFO")
    with HttpPeer(lambda request: refusing(400)) as gateway:
        made = replace(settings(tmp_path, sms_http=gateway.url), log=LogSettings())
        async with lab(store, made) as found:
            await found.hand_in(notice("n1"))
            await found.comes_to("n1", "dead")
            await found.contact(("email", "ann@example.net"))
            await found.hand_in(notice("n2"))
            await found.comes_to("n2", "logged")
    assert "low-balance for a****@example.net (en): OCC: your balance is €3.20." in caplog.text


async def test_a_channel_that_is_disabled_gives_up_what_it_had(store: Store, tmp_path: Path) -> None:
    """After a minute: another server may have it enabled until then."""
    with HttpPeer(lambda request: refusing(500)) as bot, HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, telegram=bot.url)) as found:
            await found.contact(("telegram", "42"), ("sms", NUMBER))
            await found.hand_in(notice("n1"))
            await found.until("n1", lambda each: len(each.events) == 1)
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            found.skipped_ms = 70_000
            await found.comes_to("n1", "sent")


# -- receipts ----------------------------------------------------------------------------------------------------------


async def sent_in_parts(store: Store, name: str) -> None:
    """As if SMPP had taken a notice in two parts."""
    taken = notices.Delivery(notice(name), "waiting", "smpp", notice(name).at_ms, next_ms=notice(name).at_ms + 60_000)
    assert await notices.accept(store, taken, 60_000)
    known = await notices.read(store, name.encode())
    assert known is not None
    sent = replace(taken, state="sent", parts=("a1", "a2"), finished_ms=taken.accepted_ms)
    assert await notices.write(store, known, sent, [("smpp", "sent")], 10) is not None


async def test_a_notice_is_delivered_when_all_its_parts_are(store: Store, tmp_path: Path) -> None:
    async with lab(store, settings(tmp_path)) as found:
        await sent_in_parts(store, "n1")
        await found.deliveries.receipt("smpp", "a2", True, "DELIVRD")
        await found.deliveries.receipt("smpp", "a2", True, "DELIVRD")
        half = await found.state("n1")
        assert half is not None
        assert (half.state, half.parts) == ("sent", ("a1",))
        await found.deliveries.receipt("smpp", "a1", True, "DELIVRD")
        whole = await found.state("n1")
        assert whole is not None
        assert (whole.state, whole.parts) == ("delivered", ())
        assert (await found.counts())["smpp", "delivered"] == 1
        await found.deliveries.receipt("smpp", "zzz", True, "DELIVRD")
        assert (await found.counts())["smpp", "unknown receipt"] == 1


async def test_a_receipt_of_failure_has_the_next_channel_tried(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        async with lab(store, settings(tmp_path, sms_http=gateway.url)) as found:
            await sent_in_parts(store, "n1")
            await found.deliveries.receipt("smpp", "a1", False, "UNDELIV")
            sent = await found.until("n1", lambda each: each.channel == "sms_http" and each.state == "sent")
            counts = await found.counts()
    assert sent.given_up == ("smpp",)
    assert counts == {("smpp", "sent"): 1, ("smpp", "undelivered"): 1, ("sms_http", "sent"): 1}


# -- memory ------------------------------------------------------------------------------------------------------------


async def test_the_history_is_bounded_by_number_and_by_age(store: Store, tmp_path: Path) -> None:
    with HttpPeer() as gateway:
        made = replace(settings(tmp_path, sms_http=gateway.url), history_entries=5, history_days=1)
        async with lab(store, made) as found:
            for number in range(12):
                await found.hand_in(notice(f"n{number}"))
                await found.comes_to(f"n{number}", "sent")
            assert [each.notice.notice_id for each in await notices.listed(store, "finished", 100)] == [
                b"n%d" % number for number in (11, 10, 9, 8, 7)
            ]
            assert len(await store.call("KEYS", "{notices}:n:*")) == 5
        assert await notices.forget(store, notice("x").at_ms + 25 * HOUR_MS) == 5
    assert await store.call("KEYS", "{notices}:n:*") == []
    assert await notices.listed(store, "finished", 100) == []
