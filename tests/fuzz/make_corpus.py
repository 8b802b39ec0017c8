"""``python -m tests.fuzz.make_corpus``: write the corpus anew from the project's own real messages and files.

The requests are those of the scenarios, each as its client writes it: a packet gateway, Open5GS, Kamailio, a message
centre. Of those that are alike in layout one is kept. What fuzzing itself found to be worth keeping has other names
(``found-…``) and stays.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator
from hashlib import sha1
from pathlib import Path
from typing import Final

from protocols.diameter import codec
from tests.interop import samples, test_tshark_sy
from tests.occ.bulk_lab import CATALOGUE
from tests.protocols.in_memory import ccr, cer, dpr, dwr
from tests.protocols.messages import call_update, gateway_update, message_event
from tests.scenarios.clients import PROFILES
from tests.scenarios.notation import NotationError, clauses
from tests.scenarios.requests import base_message, credit_control_request, is_base_message, is_credit_control
from tests.scenarios.tables import Scenario, read_scenario, scenario_paths

CORPUS: Final = Path(__file__).parent / "corpus"
REPOSITORY: Final = Path(__file__).parents[2]
NOW_S: Final = 1_767_225_600
IDENTITIES: Final = {"E164": "491740000001", "IMSI": "262040000000001", "SIP URI": "sip:alice@example.net"}
LONGEST: Final = 3000


def _sessions() -> Iterator[list[bytes]]:
    """The requests of each session of each scenario that can be written without playing it."""
    for path in scenario_paths():
        scenario = read_scenario(path)
        sessions: dict[str, list[bytes]] = {}
        for step in scenario.steps:
            with contextlib.suppress(NotationError, KeyError, AssertionError):
                message = _message(scenario, step.client, step.session, step.sends)
                if message is not None and len(message) <= LONGEST:
                    sessions.setdefault(step.session, []).append(message)
        yield from sessions.values()


def _message(scenario: Scenario, client: str, session: str, sends: str) -> bytes | None:
    given = [re.fullmatch(r"a client(?: (\S+))? like (.+)", text) for _, text in scenario.given]
    kinds = {match[1] or "": match[2] for match in given if match}
    profile = PROFILES[kinds.get(client, kinds.get("", "a PGW"))]
    sends = "; ".join(each for each in clauses(sends) if each != "twice at once")
    if not sends:
        return None
    if is_credit_control(sends):
        made = credit_control_request(
            sends, profile, "pgw.example.net", f"pgw;{session}", "occ1.ocs.example.net", IDENTITIES, NOW_S
        )[0].octets()
    elif is_base_message(sends):
        made = base_message(sends, profile, "pgw.example.org").octets()
    else:
        return None
    return made[:12] + b"\x00\x00\x00\x01\x00\x00\x00\x02" + made[20:]


def _layout(octets: bytes) -> object:
    """What two messages have in common when only their values differ."""
    try:
        message = codec.decode(octets)
    except Exception:
        return octets
    return octets[4:12], tuple(one.code for one in message.avps)


def _messages() -> Iterator[bytes]:
    for session in _sessions():
        yield from session
    yield from (gateway_update(), call_update(), message_event(), cer(), ccr(), dwr(7), dpr())
    yield from samples.answers().values()
    yield from samples.requests().values()
    yield from test_tshark_sy.conversation()


def _one_of_each_layout(messages: Iterable[bytes]) -> list[bytes]:
    return list({_layout(each): each for each in messages if len(each) <= LONGEST}.values())


def _streams() -> Iterator[bytes]:
    whole = [each for session in _sessions() for each in session]
    some = _one_of_each_layout(whole)[:40]
    for number, each in enumerate(some):
        yield bytes((1 | number % 16, 7 + number)) + dwr() + each + each[:30]
    yield b"\x00\xff" + cer() + dwr(1) + dwr(2) + ccr() + dpr()
    yield b"\x02\x10" + cer() + cer() + ccr(9)
    yield b"\x09\xff" + dwr() + dpr(2) + ccr()
    yield b"\x05\x40" + dwr(9) * 5
    for answer in list(samples.answers().values())[:3]:
        yield b"\x01\xff" + answer


def _catalogues() -> Iterator[bytes]:
    for path in ("config/catalogue.yaml", "tests/scenarios/catalogue.yaml", "docs/catalogue.md"):
        text = (REPOSITORY / path).read_text()
        if path.endswith(".md"):
            found = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
            yield from (f"version: v\ncurrency: EUR\n{each}".encode() for each in found)
        else:
            yield text.encode()
    yield CATALOGUE.encode()


def _policies() -> Iterator[bytes]:
    yield (REPOSITORY / "config" / "policies.yaml").read_bytes()
    text = (REPOSITORY / "docs" / "policies.md").read_text()
    yield from (each.encode() for each in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))


def _bulk() -> Iterator[bytes]:
    rows = {
        0: "account,kind,currency,balance,credit_limit,state,expires\nacc-1,prepaid,EUR,10.00,,active,2030-01-31\n"
        "acc-2,postpaid,EUR,,25.50,,\n",
        1: "account;name;unit;amount;priority;expires;owner\nacc-1;data-5gb;octets;5 GiB;10;2030-01-31 12:00;sub-1\n",
        2: "account,name,since,next,owner\nacc-1,monthly,2026-01-01,2026-02-01,\n",
        3: "account\tname\tresets\tunits\tmicro\nacc-1\tinternet\t2026-02-01\t100\t20000\n",
        4: 'account,unit,kind,name,parent,pays\nacc-1,u1,company,"Example, Ltd.",,own\n',
        5: "account,subscriber,plan,msisdn,imsi,state,friends\nacc-1,sub-1,standard,+491720000001,262010000000001,"
        'active,"491720000002 491720000003"\n',
        6: '{"account": "acc-1", "kind": "prepaid", "currency": "EUR", "balance": "1.00", "buckets": [{"name": "talk", '
        '"unit": "seconds", "amount": "100 min"}], "subscribers": [{"subscriber": "s", "msisdn": "491720000001"}]}\n',
    }
    for kind, text in rows.items():
        yield bytes((kind,)) + text.encode()
    yield b'\x00\xef\xbb\xbfsep=;\naccount;kind\n"a\nb";prepaid\n\'=a;x\n'
    yield b"\x00" + "account,kind\nä,prepaid\n".encode("utf-16")


def write() -> dict[str, int]:
    """Write all; how many files each target has."""
    made = {
        "message": _one_of_each_layout(_messages()),
        "stream": list(_streams()),
        "charge": [b"".join(session[:8]) for session in _sessions() if session and session[0][5:8] == b"\x00\x01\x10"],
        "catalogue": list(_catalogues()),
        "policies": list(_policies()),
        "bulk": list(_bulk()),
    }
    for name, inputs in made.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        for octets in inputs:
            (folder / sha1(octets, usedforsecurity=False).hexdigest()[:12]).write_bytes(octets)
    return {name: len(list((CORPUS / name).iterdir())) for name in made}


if __name__ == "__main__":
    print(", ".join(f"{name}: {count} files" for name, count in write().items()))
