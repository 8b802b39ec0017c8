"""The catalogue read anew by running servers: who is charged by which prices, and what a mistake changes."""

import asyncio
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from typer.testing import CliRunner, Result

from balance.embedded import Address
from balance.model import IdentityType
from occ.cli import app
from occ.reload import Reloaded
from tests.asked_client import REALM, AskedClient
from tests.live_server import PATIENCE_S, LiveServer

CATALOGUE = """\
version: {version}
currency: EUR
services:
  internet:
    context: 32251@3gpp.org
    rating_groups: [10]
    unit: octets
    quota: 10 MiB
    validity: 30 min
plans:
  standard:
    internet: {price} per 1 MiB
"""
_numbers = itertools.count(1)


def write(directory: Path, version: str, price: str = "0.01", more: str = "") -> Path:
    """A folder of one file."""
    folder = directory / "catalogue"
    folder.mkdir(exist_ok=True)
    (folder / "catalogue.yaml").write_text(CATALOGUE.format(version=version, price=price) + more)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    (tmp_path / "occ.yaml").write_text("store:\n  data_dir: data\ncatalogue: catalogue\n")
    with LiveServer(tmp_path, {"catalogue": str(write(tmp_path, "one"))}) as running:
        yield running


@pytest.fixture
def second(server: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Another worker on the store of the first, with files of its own."""
    directory = tmp_path_factory.mktemp("second")
    settings = {
        "diameter.origin_host": "occ2.ocs.example.net",
        "store.mode": "external",
        "store.url": server.server.redis_address.url,
        "catalogue": str(write(directory, "one")),
    }
    with LiveServer(directory, settings) as running:
        yield running


@pytest.fixture
async def client(server: LiveServer) -> AsyncIterator[AskedClient]:
    client = await AskedClient(f"pgw{next(_numbers)}.{REALM}").connect(server.port)
    yield client
    await client.close()


def run(server: LiveServer, *arguments: str) -> Result:
    config = str(server.directory / "occ.yaml")
    result = CliRunner().invoke(app, ["--config", config, "catalogue", "reload", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


async def reload(server: LiveServer, code: int = 0) -> list[str]:
    """What ``occ catalogue reload`` says, and leaves with."""
    result = await asyncio.to_thread(run, server)
    assert result.exit_code == code, result.output
    return re.split(r" (?=occ\d\.ocs)", " ".join(result.output.split()))


def subscriber(server: LiveServer, plan: str = "standard") -> str:
    msisdn = f"4917{next(_numbers):06}"
    server.add_account(f"acc-{msisdn}", [(IdentityType.E164, msisdn)], balance_micro=10_000_000, plan=plan)
    return msisdn


def spent(server: LiveServer, msisdn: str) -> int:
    """Cents."""
    return (10_000_000 - server.account(f"acc-{msisdn}").buckets[0].balance) // 10_000


def edition(server: LiveServer) -> str:
    return server.server.charging.rules.catalogue.edition


def metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        return str(answer.read().decode())


async def test_running_sessions_keep_their_price_and_the_next_has_the_new_one(
    server: LiveServer, client: AskedClient
) -> None:
    msisdn, session = subscriber(server), "pgw;1;running"
    await client.begin(session, msisdn)
    before = edition(server)
    write(server.directory, "two", "0.10")
    assert await reload(server) == [f"occ1.ocs.example.net: {edition(server)} is in force, before it {before}."]
    assert re.fullmatch(r"two \([0-9a-f]{8}\)", edition(server))
    await client.update(session, 5)
    assert spent(server, msisdn) == 5
    await client.begin("pgw;1;next", msisdn)
    await client.end("pgw;1;next", 2)
    assert spent(server, msisdn) == 5 + 20
    await client.end(session, 1)
    assert spent(server, msisdn) == 5 + 20 + 1
    server.assert_books_balance()


async def test_a_mistake_is_told_and_changes_nothing(
    server: LiveServer, client: AskedClient, caplog: pytest.LogCaptureFixture
) -> None:
    msisdn, before = subscriber(server), edition(server)
    write(server.directory, "two", "0,10")
    (said,) = await reload(server, 1)
    assert re.match(
        r"occ1\.ocs\.example\.net: \S*catalogue\.yaml:12: plans\.standard\.internet: '0,10' is not an ", said
    )
    assert said.endswith(f"; {before} stays in force.")
    assert any(record.name == "occ.reload" and record.levelno == logging.ERROR for record in caplog.records)
    assert edition(server) == before
    await client.begin("pgw;1;1", msisdn)
    await client.end("pgw;1;1", 3)
    assert spent(server, msisdn) == 3
    write(server.directory, "three", "0.10")
    await reload(server)
    assert edition(server).startswith("three ")


async def test_what_has_not_changed_is_said_to_be_in_force(server: LiveServer) -> None:
    catalogue = server.server.charging.rules.catalogue
    assert await reload(server) == [
        f"occ1.ocs.example.net: {catalogue.edition} is in force already, nothing has changed."
    ]
    assert server.server.charging.rules.catalogue is catalogue


async def test_another_currency_takes_a_restart(server: LiveServer) -> None:
    before = edition(server)
    file = write(server.directory, "two") / "catalogue.yaml"
    file.write_text(file.read_text().replace("EUR", "USD"))
    (said,) = await reload(server, 1)
    assert "the currency is USD now and was EUR: this takes a restart of all servers" in said
    assert edition(server) == before


async def test_a_plan_that_is_no_longer_there_is_told_and_sells_nothing(
    server: LiveServer, client: AskedClient
) -> None:
    """Row 28: what its subscribers ask for cannot be rated."""
    write(server.directory, "two", more="  other:\n    internet: 0.02 per 1 MiB\n")
    await reload(server)
    msisdn = subscriber(server, "other")
    assert (await client.begin("pgw;1;1", msisdn)).result_code == 2001
    write(server.directory, "three")
    (said,) = await reload(server)
    assert said.endswith("; it no longer has plan other.")
    assert (await client.begin("pgw;1;2", msisdn)).result_code == 5031
    await client.end("pgw;1;1", 1)
    assert spent(server, msisdn) == 2


async def test_every_worker_of_the_store_reads_its_own_files(server: LiveServer, second: LiveServer) -> None:
    write(server.directory, "two", "0.10")
    write(second.directory, "two", "0.10")
    said = await reload(server)
    assert [line.split(":")[0] for line in said] == ["occ1.ocs.example.net", "occ2.ocs.example.net"]
    assert edition(server) == edition(second)
    assert edition(server).startswith("two ")
    # One of them has a mistake: it goes on by what it has, the other does not wait for it.
    write(server.directory, "three")
    write(second.directory, "three", "-1")
    said = await reload(server, 1)
    assert "three (" in said[0]
    assert "catalogue.yaml:12: " in said[1]
    assert (edition(server)[:5], edition(second)[:5]) == ("three", "two (")


async def test_the_same_as_json(server: LiveServer, second: LiveServer) -> None:
    write(server.directory, "two")
    before = edition(server)
    result = await asyncio.to_thread(run, server, "--json")
    assert result.exit_code == 0
    done = {"result": "done", "edition": edition(server), "before": before, "mistake": "", "gone": []}
    same = {"result": "unchanged", "edition": before, "before": before, "mistake": "", "gone": []}
    assert json.loads(result.stdout) == [
        {"worker": "occ1.ocs.example.net", **done},
        {"worker": "occ2.ocs.example.net", **same},
    ]


async def test_metrics_tell_the_edition_in_force(server: LiveServer) -> None:
    write(server.directory, "two")
    await reload(server)
    write(server.directory, "three", "x")
    await reload(server, 1)
    await reload(server, 1)
    text = metrics(server.server.metrics_port)
    assert f'occ_catalogue_info{{edition="{edition(server)}",version="two"}} 1.0' in text
    for result, count in (("done", 1), ("unchanged", 0), ("failed", 2)):
        assert f'occ_catalogue_reloads_total{{result="{result}"}} {count}.0' in text


async def test_requests_are_answered_while_a_large_catalogue_is_read(server: LiveServer, client: AskedClient) -> None:
    msisdn = subscriber(server)
    folder = write(server.directory, "two", "0.10", "numbering: {country_code: 49}\ndestinations: {file: world.csv}\n")
    rows = "".join(f"{number},zone-{number % 200}\n" for number in range(200_000, 300_000))
    (folder / "world.csv").write_text("prefix,zone\n" + rows)
    reading = asyncio.create_task(reload(server))
    answered = 0
    while not reading.done():
        await client.begin(f"pgw;1;{answered}", msisdn)
        await client.end(f"pgw;1;{answered}", 0)
        answered += not reading.done()
    await reading
    assert answered > 3
    destinations = server.server.charging.rules.catalogue.destinations
    assert destinations is not None
    assert len(destinations) == 100_000


def test_a_store_without_servers(clean_redis: Address, tmp_path: Path) -> None:
    (tmp_path / "occ.yaml").write_text(f"store:\n  mode: external\n  url: {clean_redis.url}\n  data_dir: data\n")
    result = CliRunner().invoke(app, ["--config", str(tmp_path / "occ.yaml"), "catalogue", "reload"])
    assert result.exit_code == 1
    assert "no running server answered" in result.stderr


def test_a_result_travels_whole() -> None:
    done = Reloaded("failed", "one (1)", "one (1)", "a file:3: a mistake", ("plan standard", "service internet"))
    assert Reloaded.unpack(done.pack()) == done
    with pytest.raises(ValueError, match="no result"):
        Reloaded.unpack(b"\x01")


def test_sighup_has_one_server_read_it_anew(tmp_path: Path) -> None:
    """The real program, signalled from outside; a mistake does not end it."""
    write(tmp_path, "one")
    (tmp_path / "occ.yaml").write_text(
        "diameter:\n  port: 0\nmetrics:\n  port: 0\nstore:\n  data_dir: data\ncatalogue: catalogue\n"
    )
    command = [sys.executable, "-m", "occ", "--config", str(tmp_path / "occ.yaml"), "serve", "--json"]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert program.stdout is not None
        started = json.loads(program.stdout.readline())
        port = int(started["metrics"].split(":")[2].split("/")[0])

        def until(text: str) -> None:
            give_up = time.monotonic() + PATIENCE_S
            while text not in metrics(port):
                assert time.monotonic() < give_up, text
                time.sleep(0.05)

        until('version="one"} 1.0')
        write(tmp_path, "two", "0,1")
        os.kill(started["pid"], signal.SIGHUP)
        until('occ_catalogue_reloads_total{result="failed"} 1.0')
        until('version="one"} 1.0')
        write(tmp_path, "three")
        os.kill(started["pid"], signal.SIGHUP)
        until('version="three"} 1.0')
    finally:
        program.send_signal(signal.SIGTERM)
        _, log = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 0
    assert "catalogue.yaml:12: " in log
