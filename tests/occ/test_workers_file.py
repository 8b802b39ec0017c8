"""What a supervisor tells of its workers, and the sockets it has for them."""

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from occ.cli import app
from occ.listening import CannotListenError, bound, close, port_of
from occ.running import all_peers, metrics_urls
from occ.settings import load
from occ.workers_file import (
    InUseError,
    Replacements,
    RunningWorkers,
    WorkerFacts,
    WorkersFile,
    running_workers,
)

FACTS = WorkerFacts(2, "occ2.ocs.example.net", 4711, 3869, 0, "127.0.0.1:9465", 1)


@pytest.fixture
def claimed(tmp_path: Path) -> Iterator[WorkersFile]:
    file = WorkersFile(tmp_path / "data")
    assert not file.claim()
    yield file
    file.release()


def test_what_runs_is_told_for_as_long_as_it_runs(tmp_path: Path, claimed: WorkersFile) -> None:
    assert running_workers(tmp_path / "data") is None, "it has not told yet"
    told = RunningWorkers(os.getpid(), (FACTS,), Replacements(1, 1, "why"))
    claimed.write(told)
    assert running_workers(tmp_path / "data") == told
    settings = load(None, {"store.data_dir": str(tmp_path / "data")}, environ={})
    assert metrics_urls(settings) == ["http://127.0.0.1:9465"]
    claimed.release()
    assert running_workers(tmp_path / "data") is None
    assert metrics_urls(settings) == ["http://127.0.0.1:9464"]
    several = load(None, {"store.data_dir": str(tmp_path), "workers": "2"}, environ={})
    assert metrics_urls(several) == ["http://127.0.0.1:9464", "http://127.0.0.1:9465"]


def test_one_supervisor_for_a_directory(tmp_path: Path, claimed: WorkersFile) -> None:
    with pytest.raises(InUseError, match=r"workers run by the data in .* already; stop them first"):
        WorkersFile(tmp_path / "data").claim()


def test_what_a_killed_supervisor_left_is_not_believed(tmp_path: Path) -> None:
    """The kernel drops its lock with it; the process id in the file may be anybody's by now."""
    child = os.fork()
    if not child:
        file = WorkersFile(tmp_path)
        file.claim()
        file.write(RunningWorkers(os.getpid(), (FACTS,)))
        os._exit(0)
    os.waitpid(child, 0)
    assert (tmp_path / "workers.json").exists()
    assert running_workers(tmp_path) is None
    after = WorkersFile(tmp_path)
    assert after.claim(), "there was one before, which may still be leaving"
    assert running_workers(tmp_path) is None, "who has the lock now has not told yet, and must not be signalled"
    after.release()


def test_restart_without_workers_says_what_to_do(tmp_path: Path) -> None:
    found = CliRunner().invoke(app, ["restart"], env={"OCC_STORE_DATA_DIR": str(tmp_path)})
    assert found.exit_code == 1
    assert "no workers run by the data in" in found.output
    assert "'occ serve --workers 1'" in found.output


def test_sockets_keep_connections_that_come_before_anybody_accepts() -> None:
    """What a worker that goes has not accepted, the one that comes finds."""
    sockets = bound("127.0.0.1", 0, "Diameter", "--diameter-port")
    try:
        with closing(socket.create_connection(("127.0.0.1", port_of(sockets)), timeout=10)) as early:
            early.sendall(b"early")
            goes = sockets[0].dup()
            goes.close()
            accepted, _ = sockets[0].accept()
            with closing(accepted):
                assert accepted.recv(5) == b"early"
        with pytest.raises(CannotListenError, match=r"cannot listen for metrics at 127\.0\.0\.1:\d+: address already"):
            bound("127.0.0.1", port_of(sockets), "metrics", "--metrics-port")
    finally:
        close(sockets)


def test_a_peer_that_any_worker_has_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "http://a/peers": [{"origin_host": "x", "state": "R-Open"}, {"origin_host": "y", "state": "Closed"}],
        "http://b/peers": [{"origin_host": "X", "state": "Closed"}, {"origin_host": "y", "state": "Closed"}],
    }
    monkeypatch.setattr("occ.running.fetch_peers", lambda url: told[url])
    assert [(each["origin_host"], each["state"], each["server"]) for each in all_peers(["http://a", "http://b"])] == [
        ("x", "R-Open", "a"),
        ("y", "Closed", "a"),
    ]
