"""E-mail by SMTP (RFC 5321), with STARTTLS (RFC 3207) or TLS, and authentication (RFC 4954).

Every message has a connection of its own: what one recipient's server thinks of a message holds up no other. Its
Message-ID is made of the notice's name, so that a mailbox shows a message that was sent twice once.
"""

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Final

import aiosmtplib

from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError
from occ.notices.settings import EmailSettings

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class EmailChannel(Channel):
    def __init__(self, settings: EmailSettings) -> None:
        """Raises SecretError, OSError."""
        self._settings = settings
        self._password = settings.password.read()
        self._tls = ssl.create_default_context(cafile=settings.ca_file)

    async def send(self, message: Message) -> Taken:
        settings = self._settings
        smtp = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            timeout=settings.timeout_seconds,
            use_tls=settings.tls == "tls",
            start_tls=settings.tls == "starttls",
            tls_context=None if settings.tls == "none" else self._tls,
            username=settings.username,
            password=self._password or None,
        )
        try:
            async with smtp:
                await smtp.send_message(self._mail(message))
        except aiosmtplib.SMTPRecipientsRefused as error:
            _refused(error.recipients[0].code, error.recipients[0].message)
        except aiosmtplib.SMTPDataError as error:
            _refused(error.code, error.message)
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            # Also refused credentials and senders: the operator's to mend, not a fault of this message.
            raise TemporaryError(_reason(error)) from None
        return Taken()

    def _mail(self, message: Message) -> EmailMessage:
        """Raises PermanentError for an address that cannot stand in a header."""
        settings = self._settings
        mail = EmailMessage()
        domain = settings.sender.rpartition("@")[2]
        try:
            mail["From"] = Address(settings.sender_name or "", addr_spec=settings.sender)
            mail["To"] = Address(addr_spec=message.address)
            mail["Subject"] = message.text.subject
        except ValueError:
            raise PermanentError("the address cannot be used") from None
        mail["Date"] = format_datetime(_EPOCH + timedelta(milliseconds=message.notice.at_ms))
        mail["Message-ID"] = f"<{hashlib.sha256(message.notice.notice_id).hexdigest()[:32]}@{domain}>"
        mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence is to be answered to us
        mail.set_content(message.text.body + "\n")
        mail["Content-Language"] = message.text.language
        return mail


def _refused(code: int, answer: str) -> None:
    """RFC 5321, 4.2.1: 5yz is for good, 4yz for now."""
    reason = f"answered {code} {_one_line(answer)}"
    if 500 <= code < 600:
        raise PermanentError(reason)
    raise TemporaryError(reason)


def _reason(error: Exception) -> str:
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"answered {error.code} {_one_line(error.message)}"
    return _one_line(str(error)) or type(error).__name__


def _one_line(answer: str) -> str:
    """What a server says, without addresses."""
    return " ".join(word for word in answer.split() if "@" not in word)[:200]
