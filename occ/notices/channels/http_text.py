"""The URL and the body that an HTTP gateway wants, with places for what is sent.

Whatever comes into a place is encoded for it: percent-encoded in a URL or form, a string with its quotation marks in
JSON. So no text of a notice can break out of its place.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from jinja2 import StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

PLACES: Final = ("to", "text", "sender", "id")

_SAMPLE: Final = {"to": "491700000001", "text": 'Say "hello" & more', "sender": "OCC", "id": "sample"}
_ENCODINGS: Final[dict[str, Callable[[Any], str]]] = {
    "form": lambda value: quote(str(value), safe=""),
    "json": lambda value: json.dumps(str(value), ensure_ascii=False),
}


class HttpText:
    """A text with places; ``kind`` is "form", which is for URLs as well, or "json"."""

    def __init__(self, written: str, kind: str) -> None:
        """Raises ValueError, one sentence."""
        self._kind = kind
        encode = _ENCODINGS[kind]
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, finalize=encode)
        try:
            unknown = meta.find_undeclared_variables(environment.parse(written)) - set(PLACES)
            self._template = environment.from_string(written)
        except TemplateError as error:
            raise ValueError(f"it cannot be read: {error.message or error}") from None
        if unknown:
            raise ValueError(f"there is no {', '.join(sorted(unknown))} to put in; there are {', '.join(PLACES)}")

    def check(self) -> None:
        """Raises ValueError if what comes out could not be sent."""
        try:
            sample = self.fill(_SAMPLE)
        except TemplateError as error:
            raise ValueError(f"it cannot be filled in: {error.message or error}") from None
        if self._kind == "json":
            try:
                json.loads(sample)
            except ValueError as error:
                raise ValueError(
                    f"what comes out is no JSON ({error}); places stand without quotation marks, as in "
                    '{"to": {{ to }}, "text": {{ text }}}'
                ) from None

    def fill(self, values: Mapping[str, str]) -> str:
        return self._template.render(values)
