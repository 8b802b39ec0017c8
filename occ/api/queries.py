"""Lists as TM Forum's design guidelines (TMF630) have them: paging, chosen fields, filters by attribute."""

import re
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from occ.api.errors import bad_request
from occ.api.exact_json import ExactResponse

LARGEST_PAGE: Final = 1000
LARGEST_OFFSET: Final = 1_000_000

Fields = Annotated[
    str | None, Query(max_length=1000, description="Attributes to show, separated by commas; left out: all.")
]
Offset = Annotated[int, Query(ge=0, le=LARGEST_OFFSET, description="So many are left out at the beginning.")]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="So many at most.")]

_KNOWN: Final = ("fields", "offset", "limit")
_COMPARISONS: Final = ("gt", "gte", "lt", "lte", "ne")
_ALWAYS_SHOWN: Final = ("id", "href", "@type")

Document = dict[str, Any]


class Filters:
    """The attribute filters of a request, such as ``usageType=data`` or ``remainingValue.amount.lt=5``."""

    def __init__(self, request: Request, attributes: Collection[str]) -> None:
        """``attributes``: those of the resource. Raises ApiError for a filter by anything else."""
        self._filters: list[tuple[tuple[str, ...], str, tuple[str, ...]]] = []
        for name, value in request.query_params.multi_items():
            if name in _KNOWN:
                continue
            path = name.split(".")
            comparison = path.pop() if len(path) > 1 and path[-1] in _COMPARISONS else "eq"
            if path[0] not in attributes or not all(path):
                known = ", ".join(sorted(attributes))
                raise bad_request(f"there is no attribute {name[:60]!r} to filter by; known: {known}")
            wanted = tuple(value.split(",")) if comparison == "eq" else (value,)
            self._filters.append((tuple(path), comparison, wanted))

    def take(self, *path: str) -> str | None:
        """The one value that an attribute is to have, which is then no filter any more; None: any."""
        for index, (where, comparison, values) in enumerate(self._filters):
            if where == path and comparison == "eq" and len(values) == 1:
                del self._filters[index]
                return values[0]
        return None

    def match(self, document: Document) -> bool:
        return all(
            any(_compares(found, comparison, values) for found in _values(document, path))
            for path, comparison, values in self._filters
        )


def _values(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """All that stands at a path; a list on the way stands for each of its members."""
    if isinstance(value, list):
        for each in value:
            yield from _values(each, path)
    elif not path:
        yield value
    elif isinstance(value, dict) and path[0] in value:
        yield from _values(value[path[0]], path[1:])


def _compares(found: Any, comparison: str, values: tuple[str, ...]) -> bool:
    if comparison == "eq":
        return any(_order(found, value) == 0 for value in values)
    order = _order(found, values[0])
    if order is None:
        return comparison == "ne"
    return {"gt": order > 0, "gte": order >= 0, "lt": order < 0, "lte": order <= 0, "ne": order != 0}[comparison]


def _order(found: Any, written: str) -> int | None:
    """Below, at or above zero as ``found`` is before, the same as, or after what is written; None: not comparable."""
    try:
        if isinstance(found, bool):
            left: Any = str(found).lower()
            right: Any = written
        elif isinstance(found, int | Decimal):
            left, right = Decimal(found), Decimal(written)
            if right.is_nan():
                return None
        elif isinstance(found, str) and re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T", found):
            left, right = datetime.fromisoformat(found), datetime.fromisoformat(written)
        else:
            left, right = str(found), written
        return int(left > right) - int(left < right)
    except (InvalidOperation, ValueError, TypeError):
        return None


def selected(document: Document, fields: str | None) -> Document:
    """The document with the chosen attributes, and those by which it is known."""
    if fields is None:
        return document
    chosen = {*fields.split(","), *_ALWAYS_SHOWN}
    return {name: value for name, value in document.items() if name in chosen}


def page(documents: list[Document], offset: int, limit: int, fields: str | None, total: int | None = None) -> Response:
    """One page of a list; its headers say how long the whole list is. ``total``: None, as there are documents."""
    shown = [selected(each, fields) for each in documents[offset : offset + limit]]
    headers = {
        "X-Total-Count": str(len(documents) if total is None else total),
        "X-Result-Count": str(len(shown)),
    }
    return ExactResponse(shown, headers=headers)


def moment_ms(written: str | None, what: str, default: Callable[[], int] = lambda: 0) -> int:
    """Milliseconds since the Unix epoch of an ISO 8601 time with its zone. Raises ApiError."""
    if written is None:
        return default()
    try:
        moment = datetime.fromisoformat(written)
        if moment.tzinfo is None or not 1971 <= moment.year <= 9998:
            raise ValueError
        return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise bad_request(f"{what} must be a time such as 2027-01-31T12:00:00Z, not {written[:40]!r}") from None
