"""Each channel over its real protocol against a server on loopback: what it sends, and what it makes of answers."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from standardwebhooks import Webhook

from balance.notices import Notice
from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError, ThrottledError
from occ.notices.channels.email import EmailChannel
from occ.notices.channels.http_text import HttpText
from occ.notices.channels.log import LogChannel
from occ.notices.channels.smpp import SmppChannel
from occ.notices.channels.sms_http import SmsHttpChannel
from occ.notices.channels.telegram import TelegramChannel
from occ.notices.channels.webhook import WebhookChannel
from occ.notices.settings import EmailSettings, SmppSettings, SmsHttpSettings, TelegramSettings, WebhookSettings
from occ.notices.templates import Text
from protocols.smpp.pdu import ENQUIRE_LINK, RESPONSE
from tests.peers.http_peer import Answer, HttpPeer
from tests.peers.smsc import PASSWORD as SMSC_PASSWORD
from tests.peers.smsc import Smsc, needs_net_smpp
from tests.peers.smtp_peer import PASSWORD, USER, SmtpPeer, make_certificate

NOW_MS = 1_800_000_000_000
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "123456:ABC-secret"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def message(address: str, body: str = 'Ihr Guthaben: 3,20 € & "mehr"', subject: str = "Ihr Guthaben") -> Message:
    notice = Notice(b"n-1", b"acc-1", b"sub-1", "account-state", "low-balance", {"balance": 3_200_000}, NOW_MS)
    return Message(notice, address, Text("de", subject, body))


def written(directory: Path, secret: str) -> Path:
    path = directory / "secret"
    path.write_text(f"{secret}\n")
    return path


@asynccontextmanager
async def opened(channel: Channel) -> AsyncIterator[Channel]:
    running = asyncio.create_task(channel.run())
    try:
        yield channel
    finally:
        await channel.close()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def answering(status: int, headers: dict[str, str] | None = None, document: object = None) -> Answer:
    return status, headers or {}, json.dumps(document).encode()


# -- e-mail ------------------------------------------------------------------------------------------------------------


async def test_email_by_starttls_with_a_login(tmp_path: Path) -> None:
    """RFC 3207, RFC 4954: the server takes nothing before both."""
    certificate = make_certificate(tmp_path)
    settings = EmailSettings(
        enabled=True, host="localhost", ca_file=certificate[1], username=USER,
        password_file=written(tmp_path, PASSWORD), sender="notices@ocs.example.net", sender_name="OCC Köln",
    )  # fmt: skip
    async with SmtpPeer(certificate) as peer:
        channel = EmailChannel(replace(settings, port=peer.port))
        assert await channel.send(message("ann@example.net", subject="Grüße")) == Taken()
        assert await channel.send(message("ann@example.net")) == Taken()
        wrong = replace(settings, port=peer.port, password_file=written(tmp_path, "not this one"))
        with pytest.raises(TemporaryError, match="535") as caught:
            await EmailChannel(wrong).send(message("ann@example.net"))
    assert "not this one" not in str(caught.value)
    sender, recipients, mail = peer.mails[0]
    assert (sender, recipients) == ("notices@ocs.example.net", ["ann@example.net"])
    assert (mail["Subject"], mail["To"]) == ("Grüße", "ann@example.net")
    assert mail["From"].addresses[0].display_name == "OCC Köln"
    assert mail.get_content().strip() == 'Ihr Guthaben: 3,20 € & "mehr"'
    assert (mail["Auto-Submitted"], mail["Content-Language"]) == ("auto-generated", "de")
    assert mail["Date"].datetime.timestamp() * 1000 == NOW_MS
    # One notice has one Message-ID, however often it is sent.
    assert peer.mails[1][2]["Message-ID"] == mail["Message-ID"] != ""


async def test_a_certificate_that_nobody_trusts_gets_no_password(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    settings = EmailSettings(enabled=True, host="localhost", username=USER, password_file=written(tmp_path, PASSWORD))
    async with SmtpPeer(certificate) as peer:
        with pytest.raises(TemporaryError):
            await EmailChannel(replace(settings, port=peer.port)).send(message("ann@example.net"))
    assert peer.mails == []


@pytest.mark.parametrize(
    ("refusal", "error"), [("550 no such user ann@example.net", PermanentError), ("451 try later", TemporaryError)]
)
async def test_what_a_mail_server_refuses(refusal: str, error: type[Exception]) -> None:
    """RFC 5321, 4.2.1: 5yz for good, 4yz for now."""
    async with SmtpPeer(refusal=refusal) as peer:
        channel = EmailChannel(EmailSettings(enabled=True, port=peer.port, tls="none"))
        with pytest.raises(error, match=refusal[:3]) as caught:
            await channel.send(message("ann@example.net"))
        assert "ann@" not in str(caught.value)
        await channel.send(message("good@example.net"))


async def test_nothing_gets_into_the_headers_of_a_mail() -> None:
    async with SmtpPeer() as peer:
        channel = EmailChannel(EmailSettings(enabled=True, port=peer.port, tls="none"))
        with pytest.raises(PermanentError):
            await channel.send(message("ann@example.net\r\nBcc: all@example.net"))
        await channel.send(message("ann@example.net", body="first\n.\nRCPT TO:<all@example.net>"))
    ((_, recipients, mail),) = peer.mails
    assert recipients == ["ann@example.net"]
    assert mail.get_content().splitlines() == ["first", ".", "RCPT TO:<all@example.net>"]


async def test_no_mail_server() -> None:
    async with SmtpPeer() as peer:
        port = peer.port
    with pytest.raises(TemporaryError):
        await EmailChannel(EmailSettings(enabled=True, port=port, tls="none")).send(message("ann@example.net"))


# -- SMS by SMPP -------------------------------------------------------------------------------------------------------


@needs_net_smpp()
async def test_sms_by_smpp_with_receipts(tmp_path: Path) -> None:
    """A text of two parts has two names, for both of which receipts come, in decimal where the centre does so."""
    receipts: list[tuple[str, bool, str]] = []

    async def on_receipt(channel: str, message_id: str, delivered: bool, detail: str) -> None:
        assert channel == "smpp"
        receipts.append((message_id, delivered, detail))

    async with Smsc() as smsc:
        settings = SmppSettings(
            enabled=True, port=smsc.port, password_file=written(tmp_path, SMSC_PASSWORD), timeout_seconds=2
        )
        async with opened(SmppChannel(settings, on_receipt)) as channel:
            await smsc.saw(ENQUIRE_LINK | RESPONSE)
            taken = await channel.send(message("491700000001", "Ж" * 100))
            assert len(taken.parts) == 2
            async with asyncio.timeout(10):
                while len(receipts) < 2:  # noqa: ASYNC110 - what is awaited happens in another process
                    await asyncio.sleep(0.01)
            assert sorted(receipts) == sorted((part, True, "DELIVRD") for part in taken.parts)
            for end, error in (("404", PermanentError), ("500", TemporaryError), ("058", ThrottledError)):
                with pytest.raises(error):
                    await channel.send(message(f"491700000{end}"))
            with pytest.raises(PermanentError, match="10 at most"):
                await channel.send(message("491700000001", "Ж" * 700))
        first, second = smsc.submitted[:2]
        assert (first["esm_class"], first["data_coding"]) == (0x40, 8)
        assert first["short_message"][6:8] == second["short_message"][6:8]
        assert SMSC_PASSWORD in {pdu.get("password") for pdu in smsc.pdus}


def test_names_in_receipts_may_be_decimal(tmp_path: Path) -> None:
    async def on_receipt(channel: str, message_id: str, delivered: bool, detail: str) -> None: ...

    settings = SmppSettings(enabled=True, receipt_ids="decimal", password_file=written(tmp_path, "x"))
    channel = SmppChannel(settings, on_receipt)
    assert channel._as_in_receipts("ABC001") == str(0xABC001)
    assert channel._as_in_receipts("not-hex") == "not-hex"


async def test_sms_without_a_message_centre(tmp_path: Path) -> None:
    async def on_receipt(channel: str, message_id: str, delivered: bool, detail: str) -> None: ...

    async with SmtpPeer() as peer:
        port = peer.port
    settings = SmppSettings(enabled=True, port=port, password_file=written(tmp_path, "x"))
    async with opened(SmppChannel(settings, on_receipt)) as channel:
        with pytest.raises(TemporaryError):
            await channel.send(message("491700000001"))


# -- SMS by HTTP -------------------------------------------------------------------------------------------------------


async def test_sms_by_a_gateway_that_takes_json(tmp_path: Path) -> None:
    with HttpPeer() as peer:
        settings = SmsHttpSettings(
            enabled=True, url=f"{peer.url}/send", authorization_file=written(tmp_path, "Bearer abc")
        )
        async with opened(SmsHttpChannel(settings)) as channel:
            await channel.send(message("491700000001"))
    (request,) = peer.requests
    assert (request.method, request.path, request.headers["authorization"]) == ("POST", "/send", "Bearer abc")
    assert request.json == {"to": "491700000001", "from": "OCC", "text": 'Ihr Guthaben: 3,20 € & "mehr"'}


async def test_sms_by_a_gateway_that_takes_a_url() -> None:
    with HttpPeer() as peer:
        url = f"{peer.url}/sms?to=%2B{{{{ to }}}}&text={{{{ text }}}}&from={{{{ sender }}}}&ref={{{{ id }}}}"
        async with opened(SmsHttpChannel(SmsHttpSettings(enabled=True, method="GET", url=url))) as channel:
            await channel.send(message("491700000001", 'a&b=c #1 "+%'))
    (request,) = peer.requests
    assert (request.method, request.body) == ("GET", b"")
    assert parse_qs(urlsplit(request.path).query) == {
        "to": ["+491700000001"], "text": ['a&b=c #1 "+%'], "from": ["OCC"], "ref": ["n-1"],
    }  # fmt: skip


async def test_sms_by_a_gateway_that_takes_a_form() -> None:
    with HttpPeer() as peer:
        settings = SmsHttpSettings(enabled=True, url=peer.url, body="to={{ to }}&text={{ text }}", body_type="form")
        async with opened(SmsHttpChannel(settings)) as channel:
            await channel.send(message("491700000001", "a&to=4666"))
    assert parse_qs(peer.requests[0].body.decode()) == {"to": ["491700000001"], "text": ["a&to=4666"]}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answering(400), PermanentError),
        (answering(422), PermanentError),
        (answering(401), TemporaryError),
        (answering(404), TemporaryError),
        (answering(302, {"Location": "http://127.0.0.1:1/"}), TemporaryError),
        (answering(500), TemporaryError),
        (answering(503), TemporaryError),
        (answering(503, {"Retry-After": "7"}), ThrottledError),
        (answering(429, {"Retry-After": "7"}), ThrottledError),
        (answering(429), ThrottledError),
    ],
)
async def test_what_a_gateway_answers(answer: Answer, error: type[Exception]) -> None:
    with HttpPeer(lambda request: answer) as peer:
        async with opened(SmsHttpChannel(SmsHttpSettings(enabled=True, url=peer.url))) as channel:
            with pytest.raises(error) as caught:
                await channel.send(message("491700000001"))
    if isinstance(caught.value, ThrottledError):
        assert caught.value.wait_s == (7 if answer[1] else 5)
    assert len(peer.requests) == 1
    assert "4917" not in str(caught.value)


@pytest.mark.parametrize(
    ("written_text", "kind", "reason"),
    [
        ('{"to": {{ recipient }}}', "json", "there is no recipient"),
        ('{"to": {{ to }', "json", "cannot be read"),
        ('{"to": "{{ to }}"}', "json", "without quotation marks"),
        ("{{ to.__class__.__mro__ }}", "form", "cannot be filled in"),
    ],
)
def test_places_that_cannot_be_filled(written_text: str, kind: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        HttpText(written_text, kind).check()


# -- Telegram ----------------------------------------------------------------------------------------------------------


def telegram(url: str, directory: Path) -> TelegramChannel:
    return TelegramChannel(TelegramSettings(enabled=True, base_url=url, token_file=written(directory, TOKEN)))


async def test_telegram(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bot API, sendMessage; the token is part of the URL and must not get into a log."""
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)  # as the process of notices does
    caplog.set_level(logging.DEBUG)
    with HttpPeer(lambda request: answering(200, document={"ok": True, "result": {"message_id": 1}})) as peer:
        async with opened(telegram(peer.url, tmp_path)) as channel:
            await channel.send(message("987654321"))
    (request,) = peer.requests
    assert (request.method, request.path) == ("POST", f"/bot{TOKEN}/sendMessage")
    assert request.json == {"chat_id": "987654321", "text": 'Ihr Guthaben: 3,20 € & "mehr"'}
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (answering(400, document={"ok": False, "description": "Bad Request: chat not found"}), PermanentError),
        (answering(403, document={"ok": False, "description": "Forbidden: bot was blocked"}), PermanentError),
        (answering(401, document={"ok": False, "description": "Unauthorized"}), TemporaryError),
        (answering(200, document={"ok": False}), TemporaryError),
        ((200, {}, b"<html>a captive portal</html>"), TemporaryError),
        (answering(502), TemporaryError),
        (answering(429, document={"ok": False, "parameters": {"retry_after": 3}}), ThrottledError),
    ],
)
async def test_what_telegram_answers(tmp_path: Path, answer: Answer, error: type[Exception]) -> None:
    with HttpPeer(lambda request: answer) as peer:
        async with opened(telegram(peer.url, tmp_path)) as channel:
            with pytest.raises(error) as caught:
                await channel.send(message("987654321"))
    if isinstance(caught.value, ThrottledError):
        assert caught.value.wait_s == 3
    assert TOKEN not in str(caught.value)


async def test_no_telegram(tmp_path: Path) -> None:
    with HttpPeer() as peer:
        url = peer.url
    async with opened(telegram(url, tmp_path)) as channel:
        with pytest.raises(TemporaryError) as caught:
            await channel.send(message("987654321"))
    assert TOKEN not in str(caught.value)


# -- webhooks ----------------------------------------------------------------------------------------------------------


async def test_a_webhook_is_signed_as_the_standard_says(tmp_path: Path) -> None:
    """Verified by the reference implementation of Standard Webhooks; one changed octet is found out."""
    with HttpPeer() as peer:
        settings = WebhookSettings(enabled=True, secret_file=written(tmp_path, SECRET), allow_http=True)
        async with opened(WebhookChannel(settings)) as channel:
            await channel.send(message(f"{peer.url}/hook?customer=1"))
            await channel.send(message(f"{peer.url}/hook?customer=1"))
    first, second = peer.requests
    document = Webhook(SECRET).verify(first.body, first.headers)
    assert document["text"] == 'Ihr Guthaben: 3,20 € & "mehr"'
    assert (document["id"], document["account"], document["class"]) == ("n-1", "acc-1", "account-state")
    assert document["values"] == {"balance": 3_200_000}
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    with pytest.raises(Exception, match="signature"):
        Webhook(SECRET).verify(first.body.replace(b"3200000", b"9200000"), first.headers)


@pytest.mark.parametrize(
    ("status", "error"), [(404, PermanentError), (410, PermanentError), (302, PermanentError), (408, TemporaryError),
                          (500, TemporaryError), (429, ThrottledError)]
)  # fmt: skip
async def test_what_a_webhook_answers(tmp_path: Path, status: int, error: type[Exception]) -> None:
    """A redirection is not followed: what is signed is for the one it was sent to."""
    with HttpPeer(lambda request: answering(status, {"Location": "/elsewhere"})) as peer:
        settings = WebhookSettings(enabled=True, secret_file=written(tmp_path, "plain"), allow_http=True)
        async with opened(WebhookChannel(settings)) as channel:
            with pytest.raises(error):
                await channel.send(message(peer.url))
    assert len(peer.requests) == 1


async def test_a_webhook_in_the_clear_is_not_called(tmp_path: Path) -> None:
    with HttpPeer() as peer:
        settings = WebhookSettings(enabled=True, secret_file=written(tmp_path, "plain"))
        async with opened(WebhookChannel(settings)) as channel:
            with pytest.raises(PermanentError, match="allow_http"):
                await channel.send(message(peer.url))
    assert peer.requests == []


# -- the log -----------------------------------------------------------------------------------------------------------


async def test_the_log_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    await LogChannel().send(message("491700000001", "OCC: +491700000001 has 3.20 EUR"))
    await LogChannel().send(message("ann@example.net"))
    assert "491700000001" not in caplog.text
    assert "ann@" not in caplog.text
    assert "4917****0001 has 3.20 EUR" in caplog.text
