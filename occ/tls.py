"""TLS of the Diameter listeners: TLS 1.3, certificates on both sides (RFC 6733 section 13.1)."""

import ssl
from dataclasses import dataclass
from pathlib import Path

from occ.diameter_settings import TlsSettings
from occ.yamlmap import ConfigError, shown


@dataclass(frozen=True, slots=True)
class TlsContexts:
    listening: ssl.SSLContext
    """Asks every peer for a certificate that one of the trusted issued; its name is compared when the CER comes."""
    dialing: ssl.SSLContext
    """Wants a certificate that names the peer it dials."""


def tls_contexts(settings: TlsSettings) -> TlsContexts:
    """What TLS is done with. Raises ConfigError naming the file that cannot be used."""
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.verify_mode = ssl.CERT_REQUIRED
    dialing = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for context in (listening, dialing):
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(context, settings)
    return TlsContexts(listening, dialing)


def _load(context: ssl.SSLContext, settings: TlsSettings) -> None:
    certificate, key, trusted = settings.certificate, settings.key, settings.trusted
    assert certificate is not None
    assert key is not None
    assert trusted is not None
    for name, file in (("certificate", certificate), ("key", key), ("trusted", trusted)):
        _check_readable(f"diameter.tls.{name}", file)
    password = _password(settings.key_password_file)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, lambda: password or "")
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            shown(certificate), None, f"is no certificate with the key in {shown(key)} ({_reason(error)})"
        ) from None
    try:
        context.load_verify_locations(trusted)
    except ssl.SSLError as error:
        raise ConfigError(shown(trusted), None, f"holds no certificates in PEM form ({_reason(error)})") from None


def _check_readable(name: str, file: Path) -> None:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(shown(file), None, f"cannot be read for {name}: {error.strerror}") from None


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    _check_readable("diameter.tls.key_password_file", file)
    return file.read_text(encoding="utf-8").partition("\n")[0]


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or str(error)
