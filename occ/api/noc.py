"""The NOC page, for those who reach the management API and no worker: as the worker of the settings shows it.

The page and what it asks for come from the worker's own listener, so it shows what is there: that worker. A browser
asks for a token in its own way (``access.looks_at_a_page``).
"""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from occ.api.access import looks_at_a_page
from occ.api.context import context_of
from occ.api.errors import ApiError
from occ.reaching import NotReachedError, fetch_page, metrics_url

_PATHS: Final = ("/noc", "/noc/noc.js", "/noc/noc.css", "/noc/data")
_PASSED_ON: Final = (
    "Content-Type",
    "Cache-Control",
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "Referrer-Policy",
)


async def _from_the_worker(request: Request) -> Response:
    context = context_of(request)
    await looks_at_a_page(context, request)
    metrics = context.settings.metrics
    url = f"{metrics_url(metrics.host, metrics.port)}{request.url.path}"
    try:
        content, headers = await asyncio.to_thread(fetch_page, url)
    except NotReachedError as error:
        raise ApiError(503, str(error)) from error
    return Response(content, headers={name: headers[name] for name in _PASSED_ON if name in headers})


NOC_ROUTES: Final = [Route(path, _from_the_worker) for path in _PATHS]
