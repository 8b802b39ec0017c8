"""Diameter over TLS: only who shows a certificate of the right issuer, that names its Origin-Host, gets in.

RFC 6733 sections 2.1, 5.6 and 13.1: TLS from the first octet; both sides are authenticated.
"""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from occ.diameter_settings import TlsSettings
from occ.settings import SHIPPED, load
from occ.tls import tls_contexts
from occ.yamlmap import ConfigError
from protocols.diameter import codec
from protocols.diameter.node import ConnectError, Node
from tests.live_server import LiveServer
from tests.protocols.in_memory import LOOPBACK, THEIRS, ccr
from tests.protocols.real_sockets import ignore

SERVER = "occ1.ocs.example.net"
CLIENT = THEIRS.origin_host
MISSING_AVP = 5005
"""The answer to the incomplete request of these tests: its sender got in."""
NEW_KEY = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


@dataclass(frozen=True)
class Authority:
    """Who issues certificates; ``path``: its own."""

    directory: Path

    @property
    def path(self) -> Path:
        return self.directory / "ca.pem"

    def found(self) -> "Authority":
        self.directory.mkdir()
        _openssl(
            *NEW_KEY, "-x509", "-nodes", "-days", "2", "-subj", f"/CN={self.directory.name}",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",  # Python 3.13 and later insist on it
            "-keyout", str(self.directory / "ca.key"), "-out", str(self.path),
        )  # fmt: skip
        return self

    def issue(self, name: str, alternative: str | None = None, password: str = "") -> tuple[Path, Path]:
        """(certificate, key) for a Common Name, and a subjectAltName if one is given."""
        key, request, certificate = (self.directory / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        lock = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        _openssl(*NEW_KEY, *lock, "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
        extensions = self.directory / "extensions"
        names = f"subjectAltName=DNS:{alternative}\n" if alternative else ""
        extensions.write_text(f"{names}subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n", encoding="ascii")
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.path), "-CAkey", str(self.directory / "ca.key"),
            "-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours").found()


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "theirs").found()


def settings(authority: Authority, certificate: Path, key: Path) -> dict[str, str]:
    return {
        "diameter.tls.port": "0",
        "diameter.tls.certificate": str(certificate),
        "diameter.tls.key": str(key),
        "diameter.tls.trusted": str(authority.path),
    }


@pytest.fixture(scope="module")
def server(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server"), settings(ours, *ours.issue(SERVER, SERVER))) as running:
        yield running


def client_side(trusted: Authority, shown: tuple[Path, Path] | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(trusted.path))
    if shown is not None:
        context.load_cert_chain(*shown)
    return context


async def answer_to_a_request(server: LiveServer, context: ssl.SSLContext) -> int:
    """Result-Code of the answer to a request for credit. Raises ConnectError for who does not get in."""
    node = Node(THEIRS, ignore)
    try:
        port = server.server.diameter_tls_port
        handle = await node.connect(LOOPBACK, port, tls=context, server_hostname=SERVER)
        found = codec.decode((await handle.request(ccr())).message).find(268)
        assert found is not None
        return int.from_bytes(found.data, "big")
    finally:
        await node.stop()


@pytest.mark.parametrize("alternative", [CLIENT, None], ids=["subjectAltName", "Common Name alone"])
async def test_who_shows_its_own_certificate_is_served(
    server: LiveServer, ours: Authority, alternative: str | None
) -> None:
    shown = ours.issue(CLIENT, alternative)
    assert await answer_to_a_request(server, client_side(ours, shown)) == MISSING_AVP


async def test_who_shows_the_certificate_of_another_is_refused(
    server: LiveServer, ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    """The Origin-Host of the CER must stand in the certificate, or any customer of an issuer could be any client."""
    with pytest.raises(ConnectError):
        await answer_to_a_request(server, client_side(ours, ours.issue(CLIENT, "other.example.net")))
    assert f"its certificate names other.example.net and not {CLIENT}" in caplog.text


async def test_who_shows_a_certificate_of_another_issuer_is_refused(
    server: LiveServer, ours: Authority, theirs: Authority
) -> None:
    with pytest.raises(ConnectError):
        await answer_to_a_request(server, client_side(ours, theirs.issue(CLIENT, CLIENT)))


async def test_who_shows_no_certificate_is_refused(server: LiveServer, ours: Authority) -> None:
    with pytest.raises(ConnectError):
        await answer_to_a_request(server, client_side(ours, None))


async def test_older_tls_is_not_spoken(server: LiveServer, ours: Authority) -> None:
    context = client_side(ours, ours.issue(CLIENT, CLIENT))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ConnectError):
        await answer_to_a_request(server, context)


def test_a_peer_that_is_to_use_tls_does_not_get_in_without(ours: Authority, tmp_path: Path) -> None:
    """Strict mode with `tls: yes`: the same identity, from its own address, on the port without TLS."""
    certificate, key = ours.issue(SERVER, SERVER)
    config = tmp_path / "occ.yaml"
    config.write_text(
        f"""diameter:
  tls: {{port: 0, certificate: {certificate}, key: {key}, trusted: {ours.path}}}
  peers:
    mode: strict
    allowed:
      - {{identity: {CLIENT}, networks: [127.0.0.1/32], tls: yes}}
catalogue: {SHIPPED / "catalogue.yaml"}
""",
        encoding="utf-8",
    )
    with LiveServer(tmp_path, config=config) as server:

        async def without() -> None:
            node = Node(THEIRS, ignore)
            try:
                await node.connect(LOOPBACK, server.port)
            finally:
                await node.stop()

        with pytest.raises(ConnectError):
            asyncio.run(without())
        assert asyncio.run(answer_to_a_request(server, client_side(ours, ours.issue(CLIENT, CLIENT)))) == MISSING_AVP


async def test_a_peer_that_is_dialed_must_be_who_it_is_said_to_be(ours: Authority) -> None:
    """The certificate of who is dialed must name the identity that was configured, whatever the address."""
    for named, opens in ((SERVER, True), ("other.example.net", False)):
        listening = tls_contexts(_tls(ours, *ours.issue(SERVER, named))).listening
        dialing = tls_contexts(_tls(ours, *ours.issue(CLIENT, CLIENT))).dialing
        accepting, dialer = Node(replace(THEIRS, origin_host=SERVER), ignore), Node(THEIRS, ignore)
        try:
            port = await accepting.start(LOOPBACK, 0, listening)
            work = dialer.connect(LOOPBACK, port, identity=SERVER, tls=dialing, server_hostname=SERVER)
            if opens:
                assert (await work).is_open
            else:
                with pytest.raises(ConnectError):
                    await work
        finally:
            await dialer.stop()
            await accepting.stop()


def _tls(authority: Authority, certificate: Path, key: Path, **more: str) -> TlsSettings:
    overrides = settings(authority, certificate, key) | {f"diameter.tls.{name}": value for name, value in more.items()}
    return load(None, overrides, environ={}).diameter.tls


def test_a_locked_key_is_opened_by_the_password_in_a_file(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue(SERVER, SERVER, password="a secret")
    password = tmp_path / "password"
    password.write_text("a secret\n", encoding="utf-8")
    tls_contexts(_tls(ours, certificate, key, key_password_file=str(password)))
    password.write_text("another\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no certificate with the key") as caught:
        tls_contexts(_tls(ours, certificate, key, key_password_file=str(password)))
    assert "another" not in str(caught.value)


def test_files_that_cannot_be_used_are_named(ours: Authority, tmp_path: Path) -> None:
    certificate, key = ours.issue(SERVER, SERVER)
    empty = tmp_path / "empty.pem"
    empty.touch()
    for files, said in (
        ((tmp_path / "none.pem", key), "none.pem: cannot be read for diameter.tls.certificate"),
        ((certificate, empty), "is no certificate with the key"),
        ((certificate, ours.issue(CLIENT)[1]), "is no certificate with the key"),
    ):
        with pytest.raises(ConfigError, match=said):
            tls_contexts(_tls(ours, *files))
    with pytest.raises(ConfigError, match="holds no certificates"):
        tls_contexts(_tls(ours, certificate, key, trusted=str(empty)))
    with pytest.raises(ConfigError, match="TLS needs certificate, key and trusted; key and trusted is missing"):
        load(None, {"diameter.tls.certificate": str(certificate)}, environ={})


def test_the_port_stays_closed_to_who_speaks_no_tls(server: LiveServer) -> None:
    with socket.create_connection((LOOPBACK, server.server.diameter_tls_port), timeout=10) as plain:
        plain.sendall(b"\x01\x00\x00\x14\x80\x00\x01\x01" + bytes(12))
        plain.settimeout(10)
        received = b""
        while piece := plain.recv(4096):
            received += piece
        assert not received.startswith(b"\x01")  # a TLS alert at most, no Diameter
