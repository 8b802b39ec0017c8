"""SMPP 3.4 against a message centre made of Perl's Net::SMPP; sections are those of the specification v3.4."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.smpp.client import SmppClient, SmppRefusedError, SmppUnavailableError
from protocols.smpp.pdu import (
    BIND_TRANSCEIVER,
    DATA_DEFAULT,
    DATA_UCS2,
    DELIVER_SM,
    ENQUIRE_LINK,
    ESME_RX_T_APPN,
    RESPONSE,
    UNBIND,
    Address,
    Bind,
    Pdu,
    Receipt,
    SmppError,
    Submit,
    decode,
    read_deliver,
)
from protocols.smpp.text import GSM7, MOST_PARTS, parts_of
from tests.peers.smsc import PASSWORD, Smsc, needs_net_smpp

SENDER = Address.of("OCC")


@contextlib.asynccontextmanager
async def bound(
    smsc: Smsc, receipts: list[Receipt] | None = None, enquire_s: float = 30.0
) -> AsyncIterator[SmppClient]:
    async def on_receipt(receipt: Receipt) -> None:
        if receipts is not None:
            receipts.append(receipt)

    client = SmppClient(on_receipt, timeout_s=1.0, enquire_s=enquire_s)
    await client.connect("127.0.0.1", smsc.port, Bind("occ", PASSWORD))
    try:
        yield client
    finally:
        await client.unbind()


def message(to: str, text: str = "hello", receipts: bool = True) -> Submit:
    (part,) = parts_of(text, 1)
    return Submit(SENDER, Address.of(f"+{to}"), part.octets, part.data_coding, part.has_header, int(receipts))


async def eventually(what: object, wanted: object) -> None:
    async with asyncio.timeout(10):
        while what != wanted:  # noqa: ASYNC110 - what is awaited happens in another process
            await asyncio.sleep(0.01)


# -- the connection ----------------------------------------------------------------------------------------------------


@needs_net_smpp()
async def test_bind_submit_receipt_and_unbind() -> None:
    """4.1.5, 4.4, 4.6, 4.2, appendix B; the centre's own enquiry is answered (4.11)."""
    receipts: list[Receipt] = []
    async with Smsc() as smsc:
        async with bound(smsc, receipts) as client:
            name = await client.submit(message("491700000001"))
            other = await client.submit(message("491700000007"))
            failing = await client.submit(message("491700000666"))
            await eventually(
                receipts, [Receipt(name, "DELIVRD"), Receipt(other, "DELIVRD"), Receipt(failing, "UNDELIV")]
            )
            await smsc.saw(DELIVER_SM | RESPONSE, 3)
        await smsc.saw(UNBIND)
        (bind,) = smsc.of(BIND_TRANSCEIVER)
        assert (bind["system_id"], bind["password"], bind["interface_version"]) == ("occ", PASSWORD, 0x34)
        assert [pdu["status"] for pdu in smsc.of(DELIVER_SM | RESPONSE)] == [0, 0, 0]
        assert smsc.of(ENQUIRE_LINK | RESPONSE)
        first = smsc.submitted[0]
        assert (first["source_addr"], first["source_addr_ton"], first["source_addr_npi"]) == ("OCC", 5, 0)
        assert (first["destination_addr"], first["dest_addr_ton"], first["dest_addr_npi"]) == ("491700000001", 1, 1)
        assert (first["esm_class"], first["data_coding"], first["registered_delivery"]) == (0, 0, 1)
        assert bytes.fromhex(first["short_message"]) == b"hello"
    assert [each.delivered for each in receipts] == [True, True, False]


@needs_net_smpp()
async def test_what_the_centre_refuses() -> None:
    """5.1.3: the status of a response; the connection goes on."""
    async with Smsc() as smsc, bound(smsc) as client:
        for end, status in (("404", 0x0B), ("500", 0x08), ("058", 0x58)):
            with pytest.raises(SmppRefusedError) as caught:
                await client.submit(message(f"491700000{end}"))
            assert caught.value.status == status
        assert await client.submit(message("491700000058"))


@needs_net_smpp()
async def test_a_wrong_password_is_not_bound() -> None:
    async with Smsc() as smsc:
        client = SmppClient(lambda receipt: asyncio.sleep(0), 1.0, 30.0)
        with pytest.raises(SmppRefusedError, match="invalid password"):
            await client.connect("127.0.0.1", smsc.port, Bind("occ", "wrong"))
        assert client.closed.is_set()


@needs_net_smpp()
async def test_a_centre_that_does_not_answer_is_left() -> None:
    """7.2: the response timer; who waits for other answers on the connection is told as well."""
    async with Smsc() as smsc, bound(smsc) as client:
        with pytest.raises(SmppUnavailableError, match="did not answer"):
            await client.submit(message("491700000999"))
        assert client.closed.is_set()
        with pytest.raises(SmppUnavailableError):
            await client.submit(message("491700000001"))


@needs_net_smpp()
async def test_a_silent_link_is_enquired_about() -> None:
    """7.2: the enquire link timer."""
    async with Smsc() as smsc, bound(smsc, enquire_s=0.1):
        await smsc.saw(ENQUIRE_LINK, 2)


async def test_nobody_listens() -> None:
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = SmppClient(lambda receipt: asyncio.sleep(0), 1.0, 30.0)
    with pytest.raises(SmppUnavailableError):
        await client.connect("127.0.0.1", port, Bind("occ", ""))
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("sent", [b"\0\0\0\x05\0", b"\xff" * 16, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_peer_that_speaks_something_else_is_left(sent: bytes) -> None:
    """3.2: no length below 16; nor is memory taken for what a length claims."""

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(sent)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    client = SmppClient(lambda receipt: asyncio.sleep(0), 5.0, 30.0)
    with pytest.raises(SmppUnavailableError):
        await client.connect("127.0.0.1", server.sockets[0].getsockname()[1], Bind("occ", ""))
    server.close()
    await server.wait_closed()


async def test_a_receipt_that_could_not_be_kept_is_asked_for_again() -> None:
    """4.6.2: a status that has the centre send it again."""
    answers: asyncio.Queue[Pdu] = asyncio.Queue()

    async def centre(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readexactly(4)
                pdu = decode(head + await reader.readexactly(int.from_bytes(head, "big") - 4))
                if pdu.command_id == BIND_TRANSCEIVER:
                    writer.write(Pdu(BIND_TRANSCEIVER | RESPONSE, 0, pdu.sequence, b"smsc\0").encode())
                    receipt = b"\0\1\x01491\0\1\x01OCC\0\4\0\0\0\0\0\0\0\0" + bytes((18,)) + b"id:a1 stat:DELIVRD"
                    writer.write(Pdu(DELIVER_SM, 0, 7, receipt).encode())
                elif pdu.command_id == UNBIND:
                    writer.write(Pdu(UNBIND | RESPONSE, 0, pdu.sequence).encode())
                else:
                    answers.put_nowait(pdu)
        except asyncio.IncompleteReadError:
            writer.close()

    async def fails(receipt: Receipt) -> None:
        assert receipt == Receipt("a1", "DELIVRD")
        raise OSError("the disk is full")

    server = await asyncio.start_server(centre, "127.0.0.1", 0)
    client = SmppClient(fails, 5.0, 30.0)
    await client.connect("127.0.0.1", server.sockets[0].getsockname()[1], Bind("occ", ""))
    answer = await asyncio.wait_for(answers.get(), 10)
    assert (answer.command_id, answer.status, answer.sequence) == (DELIVER_SM | RESPONSE, ESME_RX_T_APPN, 7)
    await client.unbind()
    server.close()
    await server.wait_closed()


# -- what does not fit, what cannot be read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bind", [Bind("x" * 16, ""), Bind("occ", "nine long"), Bind("occ", "pässe"), Bind("occ", "", "x" * 13)]
)
def test_a_bind_that_does_not_fit(bind: Bind) -> None:
    """4.1.5: system_id 15, password 8, system_type 12 octets and their NULs."""
    with pytest.raises(SmppError) as caught:
        bind.body()
    assert "nine long" not in str(caught.value)
    assert "nine long" not in repr(bind)


@given(st.binary(max_size=300))
def test_any_deliver_sm_is_read_or_refused(body: bytes) -> None:
    with contextlib.suppress(SmppError):
        _ = read_deliver(body).receipt


# -- text --------------------------------------------------------------------------------------------------------------

_SIZES = {DATA_DEFAULT: (160, 153), DATA_UCS2: (140, 134)}


def shown(parts: list[bytes], coding: int) -> str:
    text = b"".join(parts)
    if coding == DATA_UCS2:
        return text.decode("utf-16-be")
    letters = {octets: letter for letter, octets in GSM7.items()}
    found, at = [], 0
    while at < len(text):
        size = 2 if text[at] == 0x1B else 1
        found.append(letters[text[at : at + size]])
        at += size
    return "".join(found)


@given(st.text(st.sampled_from("Aa0 €[ñ¡"), min_size=1, max_size=900) | st.text("aД😀é", min_size=1, max_size=400))
def test_a_text_goes_in_as_few_parts_as_it_takes_and_none_is_too_long(text: str) -> None:
    """TS 23.038 6.2, TS 23.040 9.2.3.24.1: 160 or 153 septets, 70 or 67 UCS-2 units; nothing is cut apart."""
    parts = parts_of(text, 0x1AB)
    coding = parts[0].data_coding
    one, many = _SIZES[coding]
    assert (coding == DATA_DEFAULT) == all(letter in GSM7 for letter in text)
    assert {part.data_coding for part in parts} == {coding}
    if len(parts) == 1:
        assert not parts[0].has_header
        assert len(parts[0].octets) <= one
        assert shown([parts[0].octets], coding) == text
        return
    assert all(part.has_header for part in parts)
    assert [part.octets[:6] for part in parts] == [bytes((5, 0, 3, 0xAB, len(parts), n + 1)) for n in range(len(parts))]
    bodies = [part.octets[6:] for part in parts]
    assert all(0 < len(body) <= many for body in bodies)
    assert sum(map(len, bodies)) > one
    assert "".join(shown([body], coding) for body in bodies) == text


@pytest.mark.parametrize(
    ("text", "coding", "parts"),
    [
        ("a" * 160, DATA_DEFAULT, 1),
        ("a" * 161, DATA_DEFAULT, 2),
        ("€" * 80, DATA_DEFAULT, 1),
        ("€" * 81, DATA_DEFAULT, 2),
        ("Guthaben: 3,20\u00a0€", DATA_DEFAULT, 1),  # the space that money is written with
        ("Д" * 70, DATA_UCS2, 1),
        ("Д" * 71, DATA_UCS2, 2),
        ("😀" * 35, DATA_UCS2, 1),
        ("😀" * 67, DATA_UCS2, 3),  # 33 pairs fit into 67 units, none is cut in two
    ],
)
def test_bounds_of_alphabets(text: str, coding: int, parts: int) -> None:
    found = parts_of(text, 1)
    assert (found[0].data_coding, len(found)) == (coding, parts)


def test_the_alphabet_is_that_of_the_specification() -> None:
    """TS 23.038 6.2.1: some that are easily mixed up."""
    codes = {letter: octets.hex() for letter, octets in GSM7.items()}
    assert len(codes) == 127 + 10
    wanted = {"@": "00", "$": "02", "ò": "08", "Ç": "09", "Δ": "10", "Ξ": "1a", "É": "1f", "¤": "24", "¡": "40",
              "Ä": "5b", "§": "5f", "¿": "60", "ä": "7b", "à": "7f", "€": "1b65", "[": "1b3c", "|": "1b40"}  # fmt: skip
    assert {letter: codes[letter] for letter in wanted} == wanted
    assert "á" not in codes
    assert "ç" not in codes


def test_texts_that_cannot_be_sent() -> None:
    with pytest.raises(ValueError, match="no text"):
        parts_of("", 1)
    with pytest.raises(ValueError, match="too long"):
        parts_of("a" * (153 * MOST_PARTS + 1), 1)


# -- an independent eye ------------------------------------------------------------------------------------------------


@pytest.mark.interop
@pytest.mark.skipif(not shutil.which("tshark") or not shutil.which("text2pcap"), reason="tshark is missing")
def test_a_dissector_reads_what_is_sent(tmp_path: Path) -> None:
    """Bind and both parts of a concatenated UCS-2 message, without a malformed field."""
    parts = parts_of("Баланс вашего счёта: 3,20 €. " * 3, 0x42)
    assert len(parts) == 2
    sent = [Pdu(BIND_TRANSCEIVER, 0, 1, Bind("occ", PASSWORD).body())]
    for number, part in enumerate(parts, 2):
        submit = Submit(SENDER, Address.of("+491700000001"), part.octets, part.data_coding, part.has_header)
        sent.append(Pdu(4, 0, number, submit.body()))
    hexdump = "".join(f"000000 {pdu.encode().hex(' ')}\n\n" for pdu in sent)
    capture = tmp_path / "smpp.pcap"
    subprocess.run(
        ["text2pcap", "-q", "-T", "40000,2775", "-", str(capture)], input=hexdump, text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    columns = ["smpp.command_id", "smpp.data_coding", "gsm_sms.udh.mm.msg_parts", "gsm_sms.udh.mm.msg_part",
               "smpp.message", "_ws.malformed", "smpp.destination_addr", "smpp.system_id"]  # fmt: skip
    read = subprocess.run(
        ["tshark", "-r", str(capture), "-d", "tcp.port==2775,smpp", "-T", "fields", "-E", "separator=|",
         *(word for column in columns for word in ("-e", column))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    rows = [dict(zip(columns, line.split("|"), strict=True)) for line in read.stdout.splitlines()]
    assert [row["_ws.malformed"] for row in rows] == ["", "", ""]
    assert rows[0]["smpp.system_id"] == "occ"
    assert [row["smpp.data_coding"] for row in rows[1:]] == ["0x08", "0x08"]
    assert [(row["gsm_sms.udh.mm.msg_parts"], row["gsm_sms.udh.mm.msg_part"]) for row in rows[1:]] == [
        ("2", "1"), ("2", "2"),
    ]  # fmt: skip
    assert {row["smpp.destination_addr"] for row in rows[1:]} == {"491700000001"}
