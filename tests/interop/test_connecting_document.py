"""docs/connecting.md and config/clients: programs connect by the files that are given for them."""

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from occ.settings import load
from simulators import gateway
from simulators.client import SimulationError
from tests.interop.test_freediameter import PATIENCE_S
from tests.live_server import LiveServer

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "connecting.md"
CLIENTS = PROJECT / "config" / "clients"

needs_freediameter = pytest.mark.skipif(
    shutil.which("freeDiameterd") is None or shutil.which("openssl") is None,
    reason="freeDiameterd or openssl is not installed; apt install freediameter openssl",
)


def block(heading: str, start: str) -> str:
    """The fenced block of a section that starts with some text."""
    section = PAGE.read_text(encoding="utf-8").split(f"## {heading}")[1]
    found = re.search(rf"^```\w*\n({start}.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def shipped_for_freediameter() -> str:
    """The file, which has every line of the page."""
    text = (CLIENTS / "freediameter" / "client.conf").read_text(encoding="utf-8")
    for line in block("freeDiameter", "Identity").splitlines():
        assert line in text
    return text


def test_every_file_for_clients_is_on_the_page_and_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    files = [path for path in CLIENTS.rglob("*") if path.is_file()]
    assert len(files) >= 6
    assert [path for path in files if f"(../{path.relative_to(PROJECT)})" not in text] == []


@pytest.mark.interop
@needs_freediameter
def test_freediameter_connects_by_its_file(live_server: LiveServer, tmp_path: Path) -> None:
    text = shipped_for_freediameter()
    identity = re.findall(r'Identity = "(.+?)"', text)[0]
    assert f'ConnectPeer = "{live_server.origin_host}"' in text
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={identity}"]
    made = [*openssl, "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        own_port = probe.getsockname()[1]
    places = {
        "/etc/freeDiameter": str(tmp_path),
        "Port = 3868": f"Port = {live_server.port}",
        "\nPort = 3869;": f'\nPort = {own_port};\nNo_IPv6;\nListenOn = "127.0.0.1";',
    }
    for was, here in places.items():
        assert was in text
        text = text.replace(was, here)
    (tmp_path / "fd.conf").write_text(text)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ["freeDiameterd", "-c", str(tmp_path / "fd.conf")], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while live_server.server.node.handle(identity) is None:
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.02)
    finally:
        process.terminate()
        try:
            process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def test_a_gateway_connects_by_the_settings_for_it_and_no_other_does(tmp_path: Path) -> None:
    """The networks are this machine's here; everything else is the file's, which is what the page says."""
    text = (CLIENTS / "gateway" / "occ.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(block("Any other gateway", "diameter:")) == yaml.safe_load(text)
    config = tmp_path / "occ.yaml"
    config.write_text(text.replace("192.0.2.0/24", "127.0.0.0/8").replace("0.0.0.0", "127.0.0.1"), encoding="utf-8")
    (listed,) = load(config, environ={}).diameter.peers.policy.peers
    for name in ("catalogue.yaml", "policies.yaml"):
        shutil.copy(PROJECT / "config" / name, tmp_path)
    shutil.copytree(PROJECT / "config" / "destinations", tmp_path / "destinations")
    with LiveServer(tmp_path / "server", config=config) as server:
        known = gateway.GatewayOptions(
            port=server.port,
            sessions=3,
            prepaid=1,
            postpaid=0,
            origin_host=listed.identity,
            origin_realm=str(listed.realm),
        )
        summary = await gateway.run(known, lambda done, total: None)
        assert summary.answers == summary.requests > 0
        stranger = gateway.GatewayOptions(port=server.port, sessions=1, prepaid=1, postpaid=0)
        with pytest.raises(SimulationError):
            await gateway.run(stranger, lambda done, total: None)
