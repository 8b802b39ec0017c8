"""A mail server, aiosmtpd, that keeps what it is sent."""

import asyncio
import email
import email.policy
import ssl
import subprocess
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

USER, PASSWORD = "notices", "secret"


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """(key, certificate) for localhost, signed by itself."""
    key, cert = directory / "key.pem", directory / "cert.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
    )
    return key, cert


class SmtpPeer:
    """An async context: the server runs within. With a certificate it wants STARTTLS and a login first."""

    def __init__(self, certificate: tuple[Path, Path] | None = None, refusal: str | None = None) -> None:
        self.mails: list[tuple[str, list[str], EmailMessage]] = []
        self._refusal = refusal
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate[1], certificate[0])

    async def handle_RCPT(  # noqa: N802 - aiosmtpd looks for this name
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if self._refusal is not None and not address.startswith("good"):
            return self._refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - as above
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, mail))
        return "250 OK"

    def _authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
        return AuthResult(success=right, handled=False)  # aiosmtpd answers itself

    def _protocol(self) -> SMTP:
        if self._tls is None:
            return SMTP(self)
        return SMTP(
            self, tls_context=self._tls, require_starttls=True, auth_required=True, authenticator=self._authenticate
        )

    async def __aenter__(self) -> "SmtpPeer":
        self._server = await asyncio.get_running_loop().create_server(self._protocol, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._server.close()
        await self._server.wait_closed()
