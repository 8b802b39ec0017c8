"""What the two sides of the tests' calls say: scenarios for sipp, put together from the messages of RFC 3261.

A scenario is a list of steps; ``write`` makes the XML of it that sipp reads. What stands in square brackets is sipp's:
``[caller]`` is the caller's number, ``[asserted]`` the header that asserts who calls, ``[called]`` and
``[callee_port]`` whom, ``[video]`` a line of the SDP; ``[last_Via:]`` is a header of the message received last.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

ANSWERING_S: Final = 0.2
"""As long as any telephone takes. Kamailio 5.6 sends the callee no BYE if the caller's 200 is there before it does."""

_CALLER: Final = "<sip:[caller]@ims.example.net>;tag=caller"
_CALLED: Final = "<sip:+4930123456@ims.example.net>"
_TARGET: Final = "sip:[called]@127.0.0.1:[callee_port]"
_NEW_VIA: Final = "Via: SIP/2.0/UDP [local_ip]:[local_port];branch=[branch]"
_SDP: Final = (
    "",
    "v=0",
    "o=- 1 1 IN IP4 [local_ip]",
    "s=-",
    "c=IN IP4 [local_ip]",
    "t=0 0",
    "m=audio 40000 RTP/AVP 8",
    "a=rtpmap:8 PCMA/8000",
)


def send(*lines: str, again: bool = False) -> str:
    """``again``: until it is answered, as RFC 3261 section 17.1 has it over UDP."""
    text = "\n".join(lines)
    if "Content-Length" not in text:
        text += "\nContent-Length: 0\n\n"
    retransmission = ' retrans="500"' if again else ""
    return f"<send{retransmission}><![CDATA[\n{text}\n]]></send>"


def receive(what: str | int, *, optional: bool = False, keep_vias: bool = False) -> str:
    """``keep_vias``: for a later answer, when another request has been the last; they are ``KEPT_VIAS`` then."""
    kind = "response" if isinstance(what, int) else "request"
    action = "".join(
        f'<ereg regexp=".*" search_in="hdr" header="Via:" occurrence="{place}" assign_to="via{place}"/>'
        for place in (1, 2)
        if keep_vias
    )
    return (
        f'<recv {kind}="{what}" optional="{str(optional).lower()}" rrs="true">'
        f"{f'<action>{action}</action>' if action else ''}</recv>"
    )


KEPT_VIAS: Final = ("Via: [$via1]", "Via: [$via2]")


def wait(seconds: float) -> str:
    return f'<pause milliseconds="{1000 * seconds:.0f}"/>'


TALK: Final = "<pause/>"
"""For as long as sipp's option -d says."""

# -- the caller --------------------------------------------------------------------------------------------------------


def _request(method: str, number: int, *more: str, tag: str = "") -> tuple[str, ...]:
    """A request of the caller's."""
    target = _TARGET if method == "INVITE" else "[next_url]"
    return (
        f"{method} {target} SIP/2.0",
        _NEW_VIA,
        *(() if method == "INVITE" else ("[routes]",)),
        f"From: {_CALLER}",
        f"To: {_CALLED}{tag}",
        "Call-ID: [call_id]",
        f"CSeq: {number} {method}",
        "Max-Forwards: 70",
        *more,
    )


INVITE: Final = send(
    *_request("INVITE", 1, "Contact: <sip:[caller]@[local_ip]:[local_port]>", "[asserted]"),
    "Content-Type: application/sdp",
    "Content-Length: [len]",
    *_SDP,
    "[video]",
    again=True,
)
ACK: Final = send(*_request("ACK", 1, tag="[peer_tag_param]"))
BYE: Final = send(*_request("BYE", 2, tag="[peer_tag_param]"), again=True)


def _of_the_invite(method: str, tag: str = "") -> str:
    """What belongs to the INVITE's own transaction (RFC 3261 sections 9.1 and 17.1.1.3): the same branch."""
    return send(
        f"{method} {_TARGET} SIP/2.0",
        "[last_Via:]",
        f"From: {_CALLER}",
        f"To: {_CALLED}{tag}",
        "Call-ID: [call_id]",
        f"CSeq: 1 {method}",
        "Max-Forwards: 70",
        again=method == "CANCEL",
    )


CANCEL: Final = _of_the_invite("CANCEL")
ACK_OF_REFUSAL: Final = _of_the_invite("ACK", "[peer_tag_param]")

_RINGS: Final = (INVITE, receive(100, optional=True), receive(180, optional=True))
_HEARS_RINGING: Final = (INVITE, receive(100, optional=True), receive(180))
_TALKS: Final = (*_RINGS, receive(200), ACK)

# -- the callee --------------------------------------------------------------------------------------------------------


def reply(status: str, *more: str, again: bool = False) -> str:
    return send(
        f"SIP/2.0 {status}",
        "[last_Via:]",
        "[last_Record-Route:]",
        "[last_From:]",
        "[last_To:];tag=callee",
        "[last_Call-ID:]",
        "[last_CSeq:]",
        "Contact: <sip:callee@[local_ip]:[local_port]>",
        *more,
        again=again,
    )


RINGING: Final = reply("180 Ringing")
ANSWER: Final = reply("200 OK", "Content-Type: application/sdp", "Content-Length: [len]", *_SDP, again=True)
OK: Final = send("SIP/2.0 200 OK", "[last_Via:]", "[last_From:]", "[last_To:]", "[last_Call-ID:]", "[last_CSeq:]")
BYE_OF_CALLEE: Final = send(
    "BYE [next_url] SIP/2.0",
    _NEW_VIA,
    "[routes]",
    f"From: {_CALLED};tag=callee",
    f"To: {_CALLER}",
    "[last_Call-ID:]",
    "CSeq: 1 BYE",
    "Max-Forwards: 70",
    again=True,
)

TERMINATED: Final = send(
    "SIP/2.0 487 Request Terminated",
    *KEPT_VIAS,
    "[last_From:]",
    "[last_To:];tag=callee",
    "[last_Call-ID:]",
    "CSeq: 1 INVITE",
    again=True,
)
"""To the INVITE, after the CANCEL has been answered."""

# -- the scenarios -----------------------------------------------------------------------------------------------------

CALLERS: Final[dict[str, Sequence[str]]] = {
    "hangs up": (*_TALKS, TALK, BYE, receive(200)),
    "is hung up on": (*_TALKS, receive("BYE"), wait(ANSWERING_S), OK),
    "gives up": (
        INVITE,
        receive(100, optional=True),
        receive(180),
        TALK,
        CANCEL,
        receive(200),
        receive(487),
        ACK_OF_REFUSAL,
    ),
    "hears busy": (*_RINGS, receive(486), ACK_OF_REFUSAL),
    "hears no answer": (*_RINGS, receive(408), ACK_OF_REFUSAL),
    "must pay": (*_RINGS, receive(402), ACK_OF_REFUSAL),
}
"""By what becomes of the call."""

_ANSWERS: Final = (receive("INVITE"), RINGING, ANSWER, receive("ACK"))

CALLEES: Final[dict[str, Sequence[str]]] = {
    "answers": (*_ANSWERS, receive("BYE"), OK),
    "hangs up": (*_ANSWERS, TALK, BYE_OF_CALLEE, receive(200)),
    "is busy": (receive("INVITE"), reply("486 Busy Here", again=True), receive("ACK")),
    "rings": (receive("INVITE", keep_vias=True), RINGING, receive("CANCEL"), OK, TERMINATED, receive("ACK")),
}


def write(path: Path, name: str, steps: Sequence[str]) -> Path:
    """Write a scenario for sipp's option -sf; its path."""
    body = "\n".join(steps)
    path.write_text(
        f'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE scenario SYSTEM "sipp.dtd">\n'
        f'<scenario name="{name}">\n{body}\n</scenario>\n',
        encoding="utf-8",
    )
    return path
