"""freeDiameter over TLS: certificates on both sides, from the first octet (RFC 6733 sections 2.1 and 13.1)."""

import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.interop.test_freediameter import PATIENCE_S, RELAY, RELAY_REALM, until
from tests.live_server import LiveServer
from tests.occ.test_tls import SERVER, Authority, settings

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(
        shutil.which("freeDiameterd") is None, reason="freeDiameterd is not installed; apt install freediameter"
    ),
]

CONFIGURATION = """
Identity = "{identity}";
Realm = "{realm}";
Port = 0;
SecPort = 0;
No_SCTP;
No_IPv6;
ListenOn = "127.0.0.1";
TLS_Cred = "{certificate}" , "{key}";
TLS_CA = "{trusted}";
LoadExtension = "dict_nasreq.fdx";
LoadExtension = "dict_dcca.fdx";
ConnectPeer = "{server}" {{ ConnectTo = "127.0.0.1"; Port = {port}; No_SCTP; No_IPv6; }};
"""


def test_a_connection_opens_where_both_certificates_name_their_owners(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "issuer").found()
    certificate, key = authority.issue(RELAY, RELAY)
    configuration, log = tmp_path / "freediameter.conf", tmp_path / "log"
    with LiveServer(tmp_path, settings(authority, *authority.issue(SERVER, SERVER))) as server:
        configuration.write_text(
            CONFIGURATION.format(
                identity=RELAY,
                realm=RELAY_REALM,
                certificate=certificate,
                key=key,
                trusted=authority.path,
                server=SERVER,
                port=server.server.diameter_tls_port,
            ),
            encoding="ascii",
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["freeDiameterd", "-c", configuration, "-dd"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: f"'STATE_OPEN'\t'{SERVER}'" in log.read_text(errors="replace"), "the connection", log)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            finally:
                process.kill()
                process.wait()
