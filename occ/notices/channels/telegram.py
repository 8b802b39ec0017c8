"""Telegram: messages of a bot (Bot API, method sendMessage).

The bot's token is part of every URL, so no URL may come into a log: the process keeps httpx silent.
"""

import httpx

from occ.notices.channel import Channel, Message, PermanentError, Taken, TemporaryError
from occ.notices.channels.http import client, raise_for_overload, sent
from occ.notices.settings import TelegramSettings


class TelegramChannel(Channel):
    def __init__(self, settings: TelegramSettings) -> None:
        """Raises SecretError, OSError."""
        self._url = f"{settings.base_url}/bot{settings.token.read()}/sendMessage"
        self._http = client(settings.timeout_seconds, settings.in_flight, settings.ca_file)

    async def send(self, message: Message) -> Taken:
        document = {"chat_id": message.address, "text": message.text.body}
        response = await sent(self._http, self._http.build_request("POST", self._url, json=document))
        told = _told(response)
        parameters = told.get("parameters")
        wait = parameters.get("retry_after") if isinstance(parameters, dict) else None
        raise_for_overload(response, float(wait) if isinstance(wait, int) else None)
        if response.is_success and told.get("ok") is True:
            return Taken()
        # 400: there is no such chat; 403: the customer has blocked the bot. Others concern the token or the URL.
        reason = str(told.get("description", ""))[:200]
        if response.status_code in (400, 403):
            raise PermanentError(f"answered {response.status_code}: {reason}")
        raise TemporaryError(
            f"answered {response.status_code}: are notices.telegram.token and base_url right? {reason}"
        )

    async def close(self) -> None:
        await self._http.aclose()


def _told(response: httpx.Response) -> dict[str, object]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
