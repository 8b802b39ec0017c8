"""Webhooks: a notice as JSON, posted to a URL of the customer's and signed.

The headers are those of the Standard Webhooks specification: ``webhook-id``, the same at every attempt,
``webhook-timestamp`` in seconds, and ``webhook-signature``, "v1," and the base64 of the HMAC-SHA256 over
"<id>.<timestamp>.<body>". A receiver refuses old timestamps and drops what it has seen.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable

from occ.clock import now_ms
from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError, document
from occ.notices.channels.http import client, raise_for_overload, sent
from occ.notices.settings import WebhookSettings

PREFIX = "whsec_"
"""Before a secret that is written in base64; any other is taken as it is."""


class WebhookChannel(Channel):
    def __init__(self, settings: WebhookSettings, clock: Callable[[], int] = now_ms) -> None:
        """Raises SecretError, OSError, ValueError."""
        self._key = key_of(settings.secret.read())
        self._allow_http = settings.allow_http
        self._clock = clock
        self._http = client(settings.timeout_seconds, settings.in_flight, settings.ca_file)

    async def send(self, message: Message) -> Taken:
        if not self._allow_http and not message.address.startswith("https://"):
            raise PermanentError("the URL does not begin with https://, and notices.webhook.allow_http is no")
        body = json.dumps(document(message), ensure_ascii=False).encode()
        # Headers are ASCII; a name that is not, or has a full stop, would be ambiguous in what is signed.
        name = hashlib.sha256(message.notice.notice_id).hexdigest()[:32]
        seconds = str(self._clock() // 1000)
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "webhook-id": name,
            "webhook-timestamp": seconds,
            "webhook-signature": signature(self._key, name, seconds, body),
        }
        try:
            request = self._http.build_request("POST", message.address, headers=headers, content=body)
        except ValueError:
            raise PermanentError("the URL cannot be used") from None
        response = await sent(self._http, request)
        raise_for_overload(response)
        if response.is_success:
            return Taken()
        if response.status_code in (408, 425):
            raise TemporaryError(f"answered {response.status_code}")
        raise PermanentError(f"answered {response.status_code}")

    async def close(self) -> None:
        await self._http.aclose()


def key_of(secret: str) -> bytes:
    """Raises ValueError for one that begins like base64 and is none."""
    if not secret.startswith(PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(PREFIX), validate=True)
    except ValueError:
        raise ValueError(f"notices.webhook.secret begins with {PREFIX}, but what follows is no base64") from None


def signature(key: bytes, name: str, seconds: str, body: bytes) -> str:
    """The header ``webhook-signature``."""
    digest = hmac.new(key, f"{name}.{seconds}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
