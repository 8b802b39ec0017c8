"""A fault of the server itself costs one request, which is answered: what is not answered counts as under way for ever,
and enough of those turn everybody away.
"""

import asyncio
from typing import Any

import pytest

from balance.resp import StoreUnavailableError
from occ.admission import AdmissionLimits
from occ.gy import Gy
from occ.peer_rates import PeerRates
from occ.profiles import ProfileChooser, Profiles
from occ.settings import SHIPPED
from protocols.credit_control import decode_answer
from protocols.diameter.codec import avp
from protocols.diameter.events import Opened, RequestReceived, Role
from tests.occ import test_away, test_expiry
from tests.occ.test_away import AwayLab, ccr
from tests.plain import PLAIN_ONLY

lab = test_expiry.lab
away = test_away.away

ORIGIN = avp("Origin-Host", "occ1") + avp("Origin-Realm", "r")


class Client:
    """A peer that keeps what it is answered."""

    def __init__(self) -> None:
        self.capabilities = Opened("pgw", "r", Role.RESPONDER, "", frozenset(), frozenset(), 0, "", None)
        self.origin_realm = "r"
        self.results: list[int] = []

    def send(self, answer: bytes) -> bool:
        self.results.append(decode_answer(answer).result_code)
        return True


def serving(away: AwayLab) -> Gy:
    profiles = ProfileChooser(Profiles.load(SHIPPED / "profiles.yaml"), "lenient", {})
    limits, rates = AdmissionLimits(100, 60.0), PeerRates(None, {})
    gy = Gy(away.lab.charging, profiles, ORIGIN, lambda *_: None, limits, rates, lambda: away.lab.now)
    gy.away = away.away
    return gy


def ask(gy: Gy, client: Client, message: bytes) -> None:
    gy.handle_ccr(client, RequestReceived(message, 272, 4, message[4], 1, 2))


def fail(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a fault")


async def answered(gy: Gy) -> None:
    async with asyncio.timeout(5):
        while gy.statistics.in_flight:  # noqa: ASYNC110 - as the server itself counts
            await asyncio.sleep(0.01)


@PLAIN_ONLY
async def test_a_request_that_granting_stumbles_over_is_answered(
    away: AwayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store tells from within that it is gone, when nobody is there who would catch anything."""
    gy, client = serving(away), Client()
    monkeypatch.setattr(away.away, "take", fail)

    class Gone:
        def transact(self, account_id: bytes, step: object, done: Any, with_account: bool) -> None:
            asyncio.get_running_loop().call_soon(done, StoreUnavailableError("gone"))

    monkeypatch.setattr(away.lab.charging, "snapshots", Gone())
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    ask(gy, client, ccr("a", "s1", 1, 0))
    await answered(gy)
    assert client.results == [3002]


@PLAIN_ONLY
async def test_a_held_request_that_cannot_be_charged_does_not_end_settling(
    away: AwayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    gy, client = serving(away), Client()
    await away.ask(ccr("a", "s1", 1, 0))
    await away.ask(ccr("b", "s2", 1, 0))
    ask(gy, client, ccr("a", "s1", 2, 1, used=10))
    assert client.results == []
    monkeypatch.setattr(away.lab.charging, "charge", fail)
    await away.settle()
    await answered(gy)
    assert client.results == [5012]
    assert away.away.statistics.waiting == 0


async def test_names_that_no_client_can_have_are_not_kept(away: AwayLab) -> None:
    """RFC 1035 section 2.3.4: a domain name has 255 octets at most; an AVP as many as a message has room for."""
    gy = serving(away)
    told: list[bytes] = []
    gy.on_client_state = lambda host, _: told.append(host)
    gy.note_client_state(b"x" * 256, 5)
    gy.note_client_state(b"x" * 255, 5)
    assert told == [b"x" * 255]
