"""SMS by the HTTP interface of a gateway: a URL and a body, as the gateway wants them (``http_text``)."""

from typing import Final

from balance.notices import Notice
from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError
from occ.notices.channels.http import client, raise_for_overload, sent
from occ.notices.channels.http_text import HttpText
from occ.notices.settings import SmsHttpSettings

_CONFIGURATION: Final = frozenset({401, 403, 404, 405, 407, 408, 425})
"""Statuses that say nothing of the message: credentials or URL are wrong, and somebody will mend that."""
_TYPES: Final = {"json": "application/json; charset=utf-8", "form": "application/x-www-form-urlencoded"}


class SmsHttpChannel(Channel):
    def __init__(self, settings: SmsHttpSettings) -> None:
        """Raises SecretError, OSError, ValueError."""
        self._settings = settings
        self._url = HttpText(settings.url, "form")
        self._body = None if settings.body is None else HttpText(settings.body, settings.body_type)
        self._headers = {"Authorization": settings.authorization.read()}
        if not self._headers["Authorization"]:
            self._headers.clear()
        self._http = client(settings.timeout_seconds, settings.in_flight, settings.ca_file)

    async def send(self, message: Message) -> Taken:
        settings = self._settings
        values = {
            "to": message.address,
            "text": message.text.body,
            "sender": settings.sender,
            "id": _name(message.notice),
        }
        headers, content = dict(self._headers), None
        if settings.method == "POST" and self._body is not None:
            headers["Content-Type"] = _TYPES[settings.body_type]
            content = self._body.fill(values).encode()
        request = self._http.build_request(settings.method, self._url.fill(values), headers=headers, content=content)
        response = await sent(self._http, request)
        raise_for_overload(response)
        if response.is_success:
            return Taken()
        if response.status_code in _CONFIGURATION or response.is_redirect:
            raise TemporaryError(f"answered {response.status_code}: are notices.sms_http.url and authorization right?")
        raise PermanentError(f"answered {response.status_code}")

    async def close(self) -> None:
        await self._http.aclose()


def _name(notice: Notice) -> str:
    return notice.notice_id.decode("utf-8", "backslashreplace")
