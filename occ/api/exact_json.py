"""JSON whose numbers stay what they are: read as Decimal, written from Decimal or int, never through binary floats."""

import json
from decimal import Decimal
from typing import Any, Final, NoReturn

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE: Final = "application/json"


def read(text: bytes | str) -> Any:
    """What a JSON text says. Raises ValueError for one that is none, or that cannot be written again."""
    try:
        found = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
        write(found).encode()  # strings can hold half a character by escapes
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return found


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not a number of JSON")


def write(value: Any) -> str:
    """A JSON text. Takes what ``read`` gives; numbers are written with all their digits."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{write(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, Decimal):
        # Without an exponent where that is short: most readers expect 10.5.
        return format(value, "f") if -20 < value.adjusted() < 20 else str(value)
    return json.dumps(value, ensure_ascii=False)


class ExactRequest(Request):
    """A request whose JSON body keeps its numbers."""

    async def json(self) -> Any:
        if not hasattr(self, "_exact"):
            self._exact = read(await self.body())
        return self._exact


class ExactResponse(Response):
    """A response with a JSON body."""

    media_type = MEDIA_TYPE

    def render(self, content: Any) -> bytes:
        return write(content).encode()
