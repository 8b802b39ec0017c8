"""Octets as the requests of one peer, charged: decoder, Gy, charging and ledger over a Redis in memory.

Every message is given twice, as a client repeats one that was not answered. Each is answered, the repeat as the first
was; afterwards supervision ends what was left open, nothing is reserved any more, the journal agrees with the account,
and what is gone from the account is what the charging data records say was debited.
"""

import asyncio
import copy
import logging
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from balance.directory import NewBucket, create_account
from balance.embedded import Address
from balance.model import AccountKind, Subscriber, Unit
from balance.records import unpack_account, unpack_journal, unpack_outbox
from balance.store import Store, StoreSettings
from balance.subscribers import add_subscriber
from balance.verify import _against_limits, _against_sessions
from occ.admission import AdmissionLimits
from occ.cdr import as_json_fields
from occ.charging import Charging
from occ.expiry import Expiry
from occ.gy import Gy
from occ.peer_rates import PeerRates
from occ.profiles import ProfileChooser, Profiles
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rules import ChargingSettings, Rules
from occ.server import _router
from occ.settings import SHIPPED
from protocols.credit_control import decode_request
from protocols.diameter import codec
from protocols.diameter.errors import DiameterError
from protocols.diameter.events import Opened, RequestReceived, Role
from protocols.diameter.node import NodeSettings
from tests.simulation.auditor import _audit_journal
from tests.simulation.memory_redis import MemoryRedis
from tests.simulation.virtual_time import VirtualLoop

EPOCH_MS: Final = 1_767_225_600_000
EUR: Final = 978
BALANCE_MICRO: Final = 5_000_000
MOST_MESSAGES: Final = 8
DAY_MS: Final = 86_400_000
IDENTITIES: Final = ((0, b"491740000001"), (1, b"262040000000001"), (2, b"sip:alice@example.net"))
ACCOUNTS: Final = ((b"prepaid", AccountKind.PREPAID), (b"postpaid", AccountKind.POSTPAID))
SETTINGS: Final = NodeSettings("occ1.ocs.example.net", "ocs.example.net")
LIMITS: Final = AdmissionLimits(in_flight=100, queue_delay_s=60.0)
ORIGIN: Final = codec.avp("Origin-Host", SETTINGS.origin_host) + codec.avp("Origin-Realm", SETTINGS.origin_realm)


class _Faults(logging.Handler):
    """What the product logs as an error is a fault of its own: no input may bring it about."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(self.format(record))


class _Peer:
    """Takes the answers."""

    def __init__(self) -> None:
        applications = frozenset((4,))
        self.capabilities = Opened(
            "pgw.example.net", "example.net", Role.RESPONDER, "127.0.0.1", applications, applications, 0, "fuzz", None
        )
        self.origin_realm = "example.net"
        self.answers: list[bytes] = []

    def send(self, answer: bytes) -> bool:
        self.answers.append(answer)
        return True


class _Laboratory:
    """What is made once: the catalogue, the scripts, and a store with two accounts to start from."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.redis = MemoryRedis(self.loop, Random(1), self.now_ms)
        self.loop.servers["/memory"] = self.redis.connect
        self.catalogue = _catalogue()
        self.profiles = ProfileChooser(Profiles.load(SHIPPED / "profiles.yaml"), "lenient", {})
        self.faults = _Faults()
        for name in ("occ", "balance", "protocols"):
            logging.getLogger(name).addHandler(self.faults)
            logging.getLogger(name).propagate = False
        self.loop.run_until_complete(self._populate())
        self._start = copy.deepcopy((self.redis.data, self.redis.expires_ms))
        self._entries = self.redis._entries

    def now_ms(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000)

    async def _store(self) -> Store:
        store = Store(StoreSettings(Address(Path("/memory")), partitions=4))
        await store.start()
        return store

    async def _populate(self) -> None:
        store = await self._store()
        for number, (name, kind) in enumerate(ACCOUNTS):
            postpaid = kind is AccountKind.POSTPAID
            await create_account(
                store,
                name,
                kind,
                EUR,
                now_ms=self.now_ms(),
                reason="test",
                balance_micro=0 if postpaid else BALANCE_MICRO,
                credit_limit_micro=BALANCE_MICRO if postpaid else 0,
                buckets=[NewBucket(Unit.MONEY, 30_000, 50, 0)],
            )
            identities = tuple((kind, value[:-1] + b"%d" % (number + 1)) for kind, value in IDENTITIES[:2])
            await add_subscriber(store, Subscriber(name, name, "standard", identities + IDENTITIES[2:][number:]))
        await store.stop()

    def reset(self) -> None:
        """As it was in the beginning, the time of day included."""
        self.loop._virtual.now = 0.0
        self.redis.data, self.redis.expires_ms = copy.deepcopy(self._start)
        self.redis._entries = self._entries
        self.redis.random.seed(1)
        self.faults.found.clear()

    async def charge(self, messages: list[bytes]) -> None:
        store = await self._store()
        charging = Charging(store, Rules(self.catalogue, ChargingSettings(late_termination_ms=600_000)))
        gy = Gy(charging, self.profiles, ORIGIN, _router(SETTINGS), LIMITS, PeerRates(None, {}), self.now_ms)
        for message in messages:
            first, second = [await self._ask(gy, message) for _ in range(2)]
            assert first == second, f"answered {first.hex()}, then {second.hex()}"
            await asyncio.sleep(30.0)
        expiry = Expiry(charging, self.now_ms)
        await expiry.scan(self.now_ms() + 400 * DAY_MS)
        await store.stop()

    async def _ask(self, gy: Gy, message: bytes) -> bytes:
        peer = _Peer()
        command, application = int.from_bytes(message[5:8], "big"), int.from_bytes(message[8:12], "big")
        identifiers = int.from_bytes(message[12:16], "big"), int.from_bytes(message[16:20], "big")
        gy.handle_ccr(peer, RequestReceived(message, command, application, message[4], *identifiers))
        while gy.statistics.in_flight:
            await asyncio.sleep(0.001)
        [answer] = peer.answers
        whole = codec.decode(answer)
        if _is_valid(message):  # of one that is not, the answer has parts in it as they came
            codec.check(whole)
        assert answer[12:20] == message[12:20]
        return answer

    def audit(self) -> None:
        faults = self.faults.found
        debited = dict.fromkeys((name.decode() for name, _ in ACCOUNTS), 0)
        for record in self._records():
            debited[record["account_id"]] += record["debited_micro"]
        journal = [unpack_journal(packed) for fields in self._stream(b":journal") for packed in fields[1::2]]
        for name, kind in ACCOUNTS:
            key = next(key for key in self.redis.data if key.endswith(b":a:" + name))
            account = unpack_account(name, self.redis.data[key])
            faults += [*_against_sessions(account), *_against_limits(account)]
            assert not account.sessions
            _audit_journal(account, [record for record in journal if record.account_id == name], faults)
            paid_in = 30_000 + (BALANCE_MICRO if kind is AccountKind.PREPAID else 0)
            left = sum(bucket.balance for bucket in account.buckets if bucket.unit == Unit.MONEY)
            if left + debited[name.decode()] != paid_in:
                faults.append(f"{name!r} has {left}, {debited[name.decode()]} were debited, not {paid_in} in all")
        assert not faults, faults

    def _records(self) -> Iterator[dict[str, Any]]:
        for fields in self._stream(b":outbox"):
            for packed in fields[1::2]:
                yield from map(as_json_fields, unpack_outbox(packed))

    def _stream(self, suffix: bytes) -> list[list[bytes]]:
        return [fields for key, entries in self.redis.data.items() if key.endswith(suffix) for _, fields in entries]


def _catalogue() -> Catalogue:
    """That of the scenarios, which has a service of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "catalogue.yaml"
        path.write_text((Path(__file__).parents[2] / "scenarios" / "catalogue.yaml").read_text())
        return load_catalogue(path)


@cache
def _laboratory() -> _Laboratory:
    return _Laboratory()


def frames(octets: bytes) -> list[bytes]:
    """Requests of the credit-control application, as a link would hand them out."""
    found: list[bytes] = []
    at = 0
    while len(octets) - at >= codec.HEADER_LENGTH and len(found) < MOST_MESSAGES:
        length = int.from_bytes(octets[at + 1 : at + 4], "big")
        if length < codec.HEADER_LENGTH or length & 3 or length > len(octets) - at:
            break
        message = octets[at : at + length]
        at += length
        if message[0] == 1 and message[4] & 0xA0 == 0x80 and message[5:12] == b"\x00\x01\x10\x00\x00\x00\x04":
            found.append(message)
    return found


def _is_valid(message: bytes) -> bool:
    try:
        decode_request(message)
    except DiameterError:
        return False
    return True


def run(octets: bytes) -> None:
    messages = frames(octets)
    if not messages:
        return
    laboratory = _laboratory()
    laboratory.reset()
    laboratory.loop.run_until_complete(laboratory.charge(messages))
    laboratory.audit()
