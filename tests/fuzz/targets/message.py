"""Octets as one message: the codec, the typed decoders of credit control and of Sy, and ``occ decode``.

Nothing but DiameterError may come out of a decoder, with a Failed-AVP that is one whole AVP and an answer that can be
read. A message read through a shape that was learnt from another one must be what reading it in full gives.
"""

import contextlib
import json
import zlib
from collections.abc import Callable
from typing import Any

from occ.cli_decode import _lines
from occ.decode.document import message_document
from occ.decode.messages import decoded
from occ.decode.streams import Found, Streams
from protocols.credit_control import (
    client,
    decode_answer,
    decode_asa,
    decode_asr,
    decode_raa,
    decode_rar,
    decode_request,
    request,
)
from protocols.diameter import codec
from protocols.diameter.codec import Avp
from protocols.diameter.codes import Command
from protocols.diameter.errors import DiameterError
from protocols.diameter.shape import MAX_SHAPES, Shape
from protocols.spending_limits import decode_sla, decode_slr, decode_sna, decode_snr, decode_sta, decode_str

ORIGIN = codec.avp("Origin-Host", "occ1.ocs.example.net") + codec.avp("Origin-Realm", "ocs.example.net")
Decoder = Callable[[bytes], Any]
DECODERS: dict[tuple[int, bool], Decoder] = {
    (Command.CREDIT_CONTROL, True): decode_request,
    (Command.CREDIT_CONTROL, False): decode_answer,
    (Command.RE_AUTH, True): decode_rar,
    (Command.RE_AUTH, False): decode_raa,
    (Command.ABORT_SESSION, True): decode_asr,
    (Command.ABORT_SESSION, False): decode_asa,
    (Command.SPENDING_LIMIT, True): decode_slr,
    (Command.SPENDING_LIMIT, False): decode_sla,
    (Command.SPENDING_STATUS_NOTIFICATION, True): decode_snr,
    (Command.SPENDING_STATUS_NOTIFICATION, False): decode_sna,
    (Command.SESSION_TERMINATION, True): decode_str,
    (Command.SESSION_TERMINATION, False): decode_sta,
}
"""By command and R bit."""
LEARNT: dict[Decoder, Callable[[bytes], Shape[Any]]] = {decode_request: request.learn, decode_answer: client.learn}
"""Those that read through shapes, and how each learns one."""
OTHERS = tuple(DECODERS.values())
SHOWN_OF = 32
"""One message of so many is also shown as ``occ decode`` does, which takes longer than all of the rest."""


def run(octets: bytes) -> None:
    drawn = zlib.crc32(octets)
    command = int.from_bytes(octets[5:8], "big")
    decoder = DECODERS.get((command, len(octets) > 4 and octets[4] & 0x80 != 0), _whole)
    said = _outcome(octets, decoder)
    learn = LEARNT.get(decoder)
    if learn is not None:
        in_full = _outcome(octets, lambda whole: learn(whole).apply(whole))
        if said != in_full:
            raise AssertionError(f"by its shape {said!r}, in full {in_full!r}")
    _outcome(octets, OTHERS[drawn % len(OTHERS)])
    with contextlib.suppress(DiameterError):
        _read_all(codec.decode(octets).avps)
    assert len(request.SHAPES) <= MAX_SHAPES
    assert len(client.ANSWER_SHAPES) <= MAX_SHAPES
    if drawn // len(OTHERS) % SHOWN_OF == 0:
        _show(octets)


def _whole(octets: bytes) -> None:
    codec.check(codec.decode(octets))


def _outcome(octets: bytes, decoder: Decoder) -> object:
    """What a decoder makes of it; of a refusal, what it says."""
    try:
        return decoder(octets)
    except DiameterError as error:
        if error.failed_avp is not None:
            [failed] = codec.split(error.failed_avp, 0)
            assert failed.encode() == error.failed_avp
        if len(octets) >= codec.HEADER_LENGTH and octets[4] & 0x80:
            codec.decode(codec.error_answer(octets, error, ORIGIN))
        return int(error.result_code), error.failed_avp


def _read_all(avps: list[Avp], depth: int = 0) -> None:
    for one in avps:
        try:
            value = one.value()
        except DiameterError:
            continue
        if isinstance(value, list) and depth < 20:
            _read_all(value, depth + 1)


def _show(octets: bytes) -> None:
    """What ``occ decode`` does with a message of a file, but for writing."""
    for message in decoded(Streams([Found(octets.ljust(codec.HEADER_LENGTH, b"\x00"))])):
        for line in _lines(message):
            assert "".join(text for text, _ in line).isprintable()
        json.dumps(message_document(message), allow_nan=False)
