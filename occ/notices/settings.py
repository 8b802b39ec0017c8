"""The section ``notices`` of the settings."""

import re
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, TypeVar, cast, get_type_hints
from zoneinfo import ZoneInfo

from balance.contacts import Contact, parse_quiet
from balance.model import LedgerError
from occ.notices.secret import Secret
from occ.yamlmap import Node, choice, integer, optional, section, setting, text

T = TypeVar("T")

CHANNELS: Final = ("smpp", "sms_http", "email", "telegram", "webhook", "log")
"""In the order in which those of one medium are tried."""
MEDIUM: Final = {"smpp": "sms", "sms_http": "sms", "email": "email", "telegram": "telegram", "webhook": "webhook"}
"""The medium of an address that each channel delivers to; ``log`` takes what no other can."""

JSON_BODY: Final = '{"to": {{ to }}, "from": {{ sender }}, "text": {{ text }}}'

_LANGUAGE: Final = re.compile(r"[a-z]{2,3}(-[A-Z]{2})?")
_MAILBOX: Final = re.compile(r"[^\s@<>]{1,64}@[A-Za-z0-9.-]{1,255}")
_URL: Final = re.compile(r"https?://[^\s]+")


def _boolean(node: Node) -> bool:
    return node.boolean()


def _language(node: Node) -> str:
    written = node.text()
    if not _LANGUAGE.fullmatch(written):
        raise node.error(f"{node.path} must be a language such as en or de, not {written[:40]!r}")
    return written


def _time_zone(node: Node) -> str:
    written = node.text()
    try:
        ZoneInfo(written)
    except (KeyError, OSError, ValueError):
        raise node.error(f"{node.path} must be a time zone such as Europe/Berlin, not {written[:60]!r}") from None
    return written


def _quiet(node: Node) -> tuple[int, int]:
    try:
        return parse_quiet(node.text())
    except LedgerError as error:
        raise node.error(f"{node.path}: {error}") from None


def _directory(node: Node) -> Path:
    return node.file_path()


def _url(node: Node) -> str:
    written = node.text()
    if not _URL.fullmatch(written):
        raise node.error(f"{node.path} must be a URL that begins with https:// or http://, not {written[:80]!r}")
    return written.rstrip("/")


def _mailbox(node: Node) -> str:
    written = node.text()
    if not _MAILBOX.fullmatch(written):
        raise node.error(f"{node.path} must be an address such as notices@example.net, not {written[:80]!r}")
    return written


def _http_url(node: Node) -> str:
    written = node.text()
    try:
        _check_places(written, "form")
    except ValueError as error:
        raise node.error(f"{node.path}: {error}") from None
    return written


def _check_places(written: str, kind: str) -> None:
    """Raises ValueError."""
    from occ.notices.channels.http_text import HttpText  # noqa: PLC0415 - most settings have none, and it takes time

    HttpText(written, kind).check()


def _variable(node: Node) -> str:
    written = node.text()
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", written):
        raise node.error(
            f"{node.path} must be the name of an environment variable, not a secret itself; {len(written)} characters "
            "that are no such name stand there"
        )
    if written.startswith("OCC_"):
        raise node.error(f"{node.path} must not begin with OCC_: such variables are settings themselves")
    return written


@dataclass(frozen=True, slots=True)
class LogSettings:
    """The channel that only writes a line into the log, for whom no other channel is there."""

    enabled: bool = setting(_boolean, True)


@dataclass(frozen=True, slots=True)
class SmppSettings:
    """SMS by SMPP 3.4."""

    enabled: bool = setting(_boolean, False)
    host: str = setting(text(), "127.0.0.1")
    port: int = setting(integer(1, 65535), 2775)
    tls: bool = setting(_boolean, False)
    ca_file: Path | None = setting(optional(_directory), None)
    """Who may have signed the centre's certificate; None: whom the system trusts."""
    system_id: str = setting(text(), "occ")
    system_type: str | None = setting(optional(text()), None)
    password_file: Path | None = setting(optional(_directory), None)
    password_env: str | None = setting(optional(_variable), None)
    source: str = setting(text(), "OCC")
    """Sender: a name of 11 characters at most, a short code, or a number with "+"."""
    receipts: bool = setting(_boolean, True)
    receipt_ids: str = setting(choice("same", "decimal"), "same")
    """decimal: answers name a message in hexadecimal, receipts in decimal."""
    enquire_seconds: int = setting(integer(1, 3600), 30)
    timeout_seconds: int = setting(integer(1, 300), 20)
    in_flight: int = setting(integer(1, 1000), 10)
    per_second: int = setting(integer(1, 100_000), 50)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\+?[0-9]{1,15}|[\x20-\x7e]{1,11}", self.source):
            raise ValueError(
                f"notices.smpp.source must be a number, or a name of 1 to 11 characters, not {self.source[:40]!r}"
            )
        _one_secret(self, "notices.smpp", "password")

    @property
    def password(self) -> Secret:
        return Secret("notices.smpp.password", self.password_file, self.password_env)


@dataclass(frozen=True, slots=True)
class SmsHttpSettings:
    """SMS by the HTTP interface of a gateway."""

    enabled: bool = setting(_boolean, False)
    method: str = setting(choice("POST", "GET"), "POST")
    url: str = setting(_http_url, "http://127.0.0.1:8080/send")
    """With places such as {{ to }}, which are percent-encoded: to, text, sender, id."""
    body: str | None = setting(optional(text()), cast(str | None, JSON_BODY))
    """The same in JSON, where they stand as JSON strings, or in a form; GET sends none."""
    body_type: str = setting(choice("json", "form"), "json")
    sender: str = setting(text(), "OCC")
    authorization_file: Path | None = setting(optional(_directory), None)
    authorization_env: str | None = setting(optional(_variable), None)
    """The value of the header Authorization."""
    ca_file: Path | None = setting(optional(_directory), None)
    timeout_seconds: int = setting(integer(1, 300), 20)
    in_flight: int = setting(integer(1, 1000), 10)
    per_second: int = setting(integer(1, 100_000), 50)

    def __post_init__(self) -> None:
        if self.body is not None and (self.body, self.body_type) != (JSON_BODY, "json"):
            try:
                _check_places(self.body, self.body_type)
            except ValueError as error:
                raise ValueError(f"notices.sms_http.body: {error}") from None
        _one_secret(self, "notices.sms_http", "authorization")

    @property
    def authorization(self) -> Secret:
        return Secret("notices.sms_http.authorization", self.authorization_file, self.authorization_env)


@dataclass(frozen=True, slots=True)
class EmailSettings:
    """E-mail by SMTP."""

    enabled: bool = setting(_boolean, False)
    host: str = setting(text(), "127.0.0.1")
    port: int = setting(integer(1, 65535), 587)
    tls: str = setting(choice("starttls", "tls", "none"), "starttls")
    """tls: from the first octet, as on port 465."""
    ca_file: Path | None = setting(optional(_directory), None)
    username: str | None = setting(optional(text()), None)
    password_file: Path | None = setting(optional(_directory), None)
    password_env: str | None = setting(optional(_variable), None)
    sender: str = setting(_mailbox, "notices@ocs.example.net")
    sender_name: str | None = setting(optional(text()), None)
    timeout_seconds: int = setting(integer(1, 300), 30)
    in_flight: int = setting(integer(1, 100), 4)
    per_second: int = setting(integer(1, 10_000), 10)

    def __post_init__(self) -> None:
        _one_secret(self, "notices.email", "password")
        secret = self.password_file is not None or self.password_env is not None
        if secret != (self.username is not None):
            raise ValueError("notices.email needs username and password together, or neither")
        if self.username is not None and self.tls == "none":
            raise ValueError("notices.email.tls is none: a password is not sent in the clear; use starttls or tls")

    @property
    def password(self) -> Secret:
        return Secret("notices.email.password", self.password_file, self.password_env)


@dataclass(frozen=True, slots=True)
class TelegramSettings:
    """Telegram, by a bot."""

    enabled: bool = setting(_boolean, False)
    base_url: str = setting(_url, "https://api.telegram.org")
    token_file: Path | None = setting(optional(_directory), None)
    token_env: str | None = setting(optional(_variable), None)
    ca_file: Path | None = setting(optional(_directory), None)
    timeout_seconds: int = setting(integer(1, 300), 20)
    in_flight: int = setting(integer(1, 100), 4)
    per_second: int = setting(integer(1, 1000), 25)

    def __post_init__(self) -> None:
        _one_secret(self, "notices.telegram", "token")

    @property
    def token(self) -> Secret:
        return Secret("notices.telegram.token", self.token_file, self.token_env)


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """JSON posted to a URL of the customer's, signed."""

    enabled: bool = setting(_boolean, False)
    secret_file: Path | None = setting(optional(_directory), None)
    secret_env: str | None = setting(optional(_variable), None)
    allow_http: bool = setting(_boolean, False)
    """Also to URLs that begin with http://."""
    ca_file: Path | None = setting(optional(_directory), None)
    timeout_seconds: int = setting(integer(1, 300), 10)
    in_flight: int = setting(integer(1, 1000), 10)
    per_second: int = setting(integer(1, 100_000), 50)

    def __post_init__(self) -> None:
        _one_secret(self, "notices.webhook", "secret")

    @property
    def secret(self) -> Secret:
        return Secret("notices.webhook.secret", self.secret_file, self.secret_env)


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Between two attempts of one channel: twice as long each time, up to a bound, and by chance up to half shorter."""

    attempts: int = setting(integer(1, 100), 8)
    """Then the channel has failed, and the next one is tried."""
    first_seconds: int = setting(integer(1, 3600), 2)
    longest_seconds: int = setting(integer(1, 86_400), 600)

    def __post_init__(self) -> None:
        if self.longest_seconds < self.first_seconds:
            raise ValueError("notices.retry.longest_seconds is less than first_seconds")


@dataclass(frozen=True, slots=True)
class NoticesSettings:
    """Notices to customers."""

    enabled: bool = setting(_boolean, True)
    """No: this server hands in none and delivers none."""
    templates: Path | None = setting(optional(_directory), None)
    """Directory of the texts; None: as the project ships them."""
    language: str = setting(_language, "en")
    """Of customers who have not chosen one, and of texts that are not there in theirs."""
    operator: str = setting(text(), "OCC")
    """The operator's name, as texts may give it."""
    time_zone: str = setting(_time_zone, "Europe/Berlin")
    quiet_hours: tuple[int, int] = setting(_quiet, (21 * 60, 8 * 60))
    """Minutes of the local day; marketing waits meanwhile."""
    expire_hours: int = setting(integer(1, 24 * 30), 48)
    """A notice that could not be delivered for so long is given up."""
    history_entries: int = setting(integer(1, 10_000_000), 100_000)
    """Finished notices that stay known, and as many dead ones."""
    history_days: int = setting(integer(1, 3660), 30)
    """For how long they do, and how long a notice is not taken up again."""
    retry: RetrySettings = section(RetrySettings)
    log: LogSettings = section(LogSettings)
    smpp: SmppSettings = section(SmppSettings)
    sms_http: SmsHttpSettings = section(SmsHttpSettings)
    email: EmailSettings = section(EmailSettings)
    telegram: TelegramSettings = section(TelegramSettings)
    webhook: WebhookSettings = section(WebhookSettings)

    @property
    def channels(self) -> tuple[str, ...]:
        """Those that are enabled."""
        return tuple(name for name in CHANNELS if getattr(self, name).enabled)

    @property
    def defaults(self) -> Contact:
        """What contacts have that leave it out."""
        return Contact(language=self.language, quiet=self.quiet_hours, time_zone=self.time_zone)


def _one_secret(settings: Any, path: str, name: str) -> None:
    if getattr(settings, f"{name}_file") is not None and getattr(settings, f"{name}_env") is not None:
        raise ValueError(f"{path}: give {name}_file or {name}_env, not both")
    if settings.enabled and path.rpartition(".")[2] in ("smpp", "telegram", "webhook"):
        Secret(f"{path}.{name}", getattr(settings, f"{name}_file"), getattr(settings, f"{name}_env")).check()


# -- from the server to the process that delivers ----------------------------------------------------------------------


def as_job(settings: Any) -> dict[str, Any]:
    """Settings as JSON can carry them. They hold no secret, only where secrets are."""
    return {each.name: _as_json(getattr(settings, each.name)) for each in fields(settings)}


def _as_json(value: Any) -> Any:
    if is_dataclass(value):
        return as_job(value)
    return str(value) if isinstance(value, Path) else value


def from_job(cls: type[T], job: dict[str, Any]) -> T:
    """What ``as_job`` was given."""
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in job.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            values[name] = from_job(hint, value)
        elif hint in (Path, Path | None) and value is not None:
            values[name] = Path(value)
        else:
            values[name] = tuple(value) if isinstance(value, list) else value
    return cls(**values)
