"""`make noc`: one command that starts everything, says where to look, and leaves nothing behind."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.monitoring.lab import PROJECT, free_port, until


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {
        "OCC_DIAMETER_PORT": "0",
        "OCC_METRICS_PORT": "0",
        "OCC_STORE_DATA_DIR": str(tmp_path / "data"),
        "TMPDIR": str(tmp_path),
    }


@pytest.fixture
def started(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "occ", "demo", "noc", "--rate", "5", "--prometheus-port", str(free_port())]
    process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True)
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(60)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")
def test_all_of_it_starts_and_ends_with_one_command(started: subprocess.Popen[str], tmp_path: Path) -> None:
    assert started.stdout is not None
    addresses: dict[str, str] = {}
    for line in started.stdout:
        if "Ctrl-C" in line:
            break
        name, _, address = re.sub(r"(\S) {2,}", r"\1\t", line.strip()).partition("\t")
        addresses[name] = address
    children = _below(started.pid)
    assert len(children) >= 3

    def document() -> dict[str, object]:
        with urlopen(f"{addresses['NOC page']}/data", timeout=5) as answer:
            found: dict[str, object] = json.loads(answer.read())
        return found

    until(lambda: bool(document()["answers"]), "there is no traffic", 60)
    if shutil.which("prometheus") is not None:
        query = addresses["Prometheus"].replace("/alerts", "/api/v1/query?query=sum(occ_requests_total)")

        def scraped() -> bool:
            try:
                with urlopen(query, timeout=5) as answer:
                    return bool(json.loads(answer.read())["data"]["result"])
            except OSError:
                return False

        until(scraped, "Prometheus does not scrape the server", 60)
        asked = document()["alerts"]
        assert isinstance(asked, dict)
        assert asked["asked"] is True
    started.send_signal(signal.SIGINT)
    assert started.wait(60) == 0
    until(lambda: not [each for each in children if Path(f"/proc/{each}").exists()], "processes are left", 30)
    assert not list(tmp_path.glob("occ-noc-*"))


def _below(pid: int) -> set[int]:
    """All processes that a process has started, and those that they have."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: set[int] = set()
    while more := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def test_a_server_that_cannot_start_is_one_sentence(environment: dict[str, str]) -> None:
    command = [sys.executable, "-m", "occ", "demo", "noc"]
    environment = environment | {"OCC_CATALOGUE": "nowhere.yaml"}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "nowhere.yaml" in done.stderr
    assert done.stderr.strip().endswith("the server did not start; it says why above")
    assert "Traceback" not in done.stderr
