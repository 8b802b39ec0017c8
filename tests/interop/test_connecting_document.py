"""docs/connecting.md: freeDiameter connects by the lines that the page gives for it."""

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.interop.test_freediameter import PATIENCE_S
from tests.live_server import LiveServer

PAGE = Path(__file__).parents[2] / "docs" / "connecting.md"

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("freeDiameterd") is None or shutil.which("openssl") is None,
        reason="freeDiameterd or openssl is not installed; apt install freediameter openssl",
    ),
]


def lines_for_freediameter() -> str:
    section = PAGE.read_text(encoding="utf-8").split("## freeDiameter")[1]
    found = re.search(r"^```\n(Identity.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def test_freediameter_connects_by_the_lines_of_the_page(live_server: LiveServer, tmp_path: Path) -> None:
    text = lines_for_freediameter()
    identity = re.findall(r'Identity = "(.+?)"', text)[0]
    assert f'ConnectPeer = "{live_server.origin_host}"' in text
    openssl = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={identity}"]
    made = [*openssl, "-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(made, check=True, capture_output=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        own_port = probe.getsockname()[1]
    text = text.replace("/etc/freeDiameter", str(tmp_path)).replace("Port = 3868", f"Port = {live_server.port}")
    here = f'Port = {own_port};\nSecPort = 0;\nNo_IPv6;\nListenOn = "127.0.0.1";\n'
    (tmp_path / "fd.conf").write_text(here + text)
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
