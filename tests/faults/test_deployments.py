"""Redis with sentinels, and in a cluster: a primary is killed, slots move, under load.

Clients repeat every request until it is answered. Afterwards their history is held against the ledger, as in
``test_kills``.

What makes these tests fail, each taken away alone:

- WAIT behind each commit (``Lane._send``): what was answered while no replica could be reached is gone with the
  primary;
- asking the sentinels again after a loss (``Primary._connect``): nothing is charged any more;
- following MOVED, ASK and TRYAGAIN (``balance.cluster``): clients see errors while slots move;
- ``keys.lanes()`` in the outbox and in supervision: records are left, and sessions stay open;
- a category of commands in the access control list of docs/store.md: the server does not start, or a command fails.

What a server that took over may lack is looked at in ``tests/balance/test_cluster.py``.
"""

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest

from balance.address import Access, Address
from balance.cluster import slot_of
from balance.keys import Keys
from tests.failover import CENT, Session, Way
from tests.faults.clients import NOT_CARRIED_OUT
from tests.faults.deployments import Process, Sharded, Watched, port_with_bus
from tests.faults.rig import PARTITIONS, REPOSITORY, Server, await_it
from tests.faults.test_kills import BALANCES_MICRO, KILLS, Note, Scene, run
from tests.peers.smtp_peer import make_certificate

FAILOVERS = 1 if KILLS <= 2 else 3
MOVES = 6 if KILLS <= 2 else 12


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def refused(server: Server, subscriber: str) -> None:
    """A request now gets the answer that sends its client elsewhere."""
    session = Session("probe.clients.example.net", f"probe;{time.monotonic_ns()}", subscriber)
    with Way(server.port, session.client) as way:
        assert way.charge(session.event()).result_code in NOT_CARRIED_OUT


def resumed(server: Server) -> float:
    """Wait until the server says that it is ready; how long that took."""
    began = time.monotonic()
    await_it(lambda: server.get("/ready")[0] == 200, "charging does not resume")
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.promise("A primary may be killed: sentinels have a replica take over, and what WAIT covered is not lost")
def test_a_primary_watched_by_sentinels_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """Cut off from its replicas first: what it is given from then on, nobody else has."""
    watched = Watched(stack)
    scene = Scene(tmp_path, stack, shared=False, address=watched.address(wait_replicas=1, wait_ms=300))
    (server,) = scene.servers
    took: list[float] = []
    killed: list[Process] = []

    def kill() -> None:
        for dead in killed:
            dead.start()
            dead.call("CONFIG", "SET", "masterauth", "")  # sentinels write what is set into the file
            await_it(lambda: watched.primary().info("connected_slaves") == "2", "the killed one does not come back")
        watched.cut_replication()
        time.sleep(0.5)
        killed[:] = [watched.primary()]
        watched.kill_primary()
        refused(server, "491700000001")
        took.append(resumed(server))
        assert watched.primary() is not killed[0]
        for each in watched.servers:
            if each.answers():
                each.call("CONFIG", "SET", "masterauth", "")

    figures = run(scene, kill, FAILOVERS)
    record_property("figures", f"{figures}; charging again after {max(took):.1f} s")


@pytest.mark.slow
@pytest.mark.promise("A primary of a cluster may be killed: its replica takes over, and nothing answered is lost")
def test_a_primary_of_a_cluster_is_killed(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    sharded = Sharded(stack)
    scene = Scene(tmp_path, stack, shared=False, address=sharded.address(wait_replicas=1, wait_ms=300))
    (server,) = scene.servers
    hot = slot_of(Keys(PARTITIONS, clustered=True).account(b"hot-1"))
    took: list[float] = []
    killed: list[Process] = []

    def kill() -> None:
        for dead in killed:
            dead.start()
            await_it(lambda: sharded.owner(hot).info("connected_slaves") == "1", "the killed one does not come back")
        killed[:] = [sharded.owner(hot)]
        killed[0].kill()
        refused(server, "491700000001")
        took.append(resumed(server))
        assert sharded.owner(hot) is not killed[0]
        killed[0].start()  # WAIT needs it: each primary has one replica
        killed.clear()

    figures = run(scene, kill, FAILOVERS)
    record_property("figures", f"{figures}; charging again after {max(took):.1f} s")


@pytest.mark.slow
@pytest.mark.promise("Slots of a cluster may move under load, and no client sees an error")
def test_slots_move_under_load(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """Those of hot accounts and of the directory, half of their keys here and half there for a while."""
    sharded = Sharded(stack)
    scene = Scene(tmp_path, stack, shared=False, address=sharded.address())
    keys = Keys(PARTITIONS, clustered=True)
    slots = [slot_of(keys.account(name.encode())) for name in BALANCES_MICRO] + [slot_of(keys.unit_changes)]
    moved = 0

    def move() -> None:
        nonlocal moved
        slot = slots[moved % len(slots)]
        moved += 1
        target = next(each for each in sharded.primaries() if each is not sharded.owner(slot))
        sharded.move(slot, target, between=lambda: time.sleep(0.3))

    figures = run(scene, move, MOVES)
    assert ", 0 of them repeated" in figures
    record_property("figures", figures.replace("kills", "slots moved"))


@pytest.mark.promise("The store is reached by TLS alone, by a user that may do no more than it needs")
def test_a_store_behind_tls_and_an_access_control_list(tmp_path: Path, stack: ExitStack, record_property: Note) -> None:
    """The list is that of docs/store.md; all that servers and commands do with a store is done."""
    key, certificate = make_certificate(tmp_path)
    (rule,) = re.findall("^user occ on .* ~.*$", (REPOSITORY / "docs" / "store.md").read_text(), re.MULTILINE)
    rule = rule.replace("PASSWORD", sha256(b"correct horse").hexdigest())
    (tmp_path / "users").write_text(f"user default off\nuser admin on >admin ~* &* +@all\n{rule}\n")
    port = port_with_bus()
    files = {"cert-file": certificate, "key-file": key, "ca-cert-file": certificate, "auth-clients": "yes"}
    lines = [f"port 0\ntls-port {port}\naclfile {tmp_path / 'users'}", *(f"tls-{n} {f}" for n, f in files.items())]
    redis = Process(lines, port=port)
    redis.access = {
        "host": "localhost",
        "ssl": True,
        "ssl_ca_certs": str(certificate),
        "ssl_certfile": str(certificate),
    }
    redis.access |= {"ssl_keyfile": str(key), "username": "admin", "password": "admin"}
    stack.callback(redis.end)
    redis.start()
    password = tmp_path / "password"
    password.write_text("correct horse\n")
    access = Access("occ", password, tls=True, ca_file=certificate, certificate=certificate, key=key)
    server = Server(tmp_path, Address(host="localhost", port=port, access=access))
    stack.callback(server.end)
    numbers = server.start().add_accounts({"one": 100 * CENT})
    session = Session("pgw.clients.example.net", "pgw.clients.example.net;1;1", numbers["one"])
    with Way(server.port, session.client) as way:
        answers = [way.charge(each) for each in (session.initial(), session.update(2), session.termination(1))]
    assert [answer.result_code for answer in answers] == [2001, 2001, 2001]
    assert server.money_micro() == {"one": 97 * CENT}
    await_it(lambda: len(server.records()) == 1 and not server.outbox_entries(), "the record is not delivered")
    for command in (["ledger", "verify"], ["account", "list"], ["store", "backup", str(tmp_path / "saved")]):
        assert server.occ(*command).returncode == 0, command
    assert server.get("/health")[0] == 200
    await_it(lambda: "occ_directory_watched 1.0" in server.get("/metrics")[1], "changes of identities are not told")
    # What nobody needs is forbidden: so it was this user who did all that.
    assert redis.call("ACL", "DRYRUN", "occ", "FLUSHALL") != b"OK"
    assert {entry[entry.index(b"object") + 1] for entry in redis.call("ACL", "LOG")} <= {b"nothing"}
    assert "correct horse" not in Path(f"/proc/{server.pid}/cmdline").read_text()
    record_property("figures", "a session, its record, a check and a backup")
