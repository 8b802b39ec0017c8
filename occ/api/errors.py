"""What goes wrong, as the API tells it: one body for all errors, TM Forum's, with a sentence that says what to do."""

import logging
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from balance.model import LedgerError
from balance.resp import StoreError, StoreUnavailableError
from occ.api.exact_json import ExactResponse
from occ.payments import TooManyTriesError
from occ.yamlmap import ConfigError

log = logging.getLogger("occ.api")

RETRY_S: Final = 1

_REASONS: Final = {
    400: ("invalidRequest", "The request cannot be understood"),
    401: ("unauthenticated", "No valid token"),
    403: ("forbidden", "The role of the token does not allow this"),
    404: ("notFound", "There is no such resource"),
    405: ("methodNotAllowed", "The resource does not take this method"),
    406: ("notAcceptable", "This cannot be given"),
    409: ("conflict", "The request cannot be done as things are"),
    413: ("tooLarge", "The request is too large"),
    415: ("unsupportedMediaType", "The body must be JSON"),
    429: ("tooManyTries", "Too many tries"),
    500: ("internalError", "The server failed"),
    502: ("badGateway", "Another server failed"),
    503: ("unavailable", "A part of the server cannot be reached"),
}


class ApiError(Exception):
    """A request that cannot be answered as asked; ``message`` is one sentence."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def bad_request(message: str) -> ApiError:
    return ApiError(400, message)


def not_found(message: str) -> ApiError:
    return ApiError(404, message)


def conflict(message: str) -> ApiError:
    return ApiError(409, message)


def error_body(status: int, message: str) -> dict[str, Any]:
    """The body of an error: code and reason say of which kind, the message what to do."""
    code, reason = _REASONS.get(status, ("error", "The request failed"))
    return {"code": code, "reason": reason, "message": message, "status": str(status), "@type": "Error"}


def translated(error: Exception) -> ApiError | None:
    """What an exception means to a client; None for one that no request should cause."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, TooManyTriesError):
        return ApiError(429, str(error), {"Retry-After": str(error.wait_s)})
    if isinstance(error, LedgerError):
        return conflict(str(error))
    if isinstance(error, StoreUnavailableError):
        sentence = f"{error}; the same request, with the same Idempotency-Key, finds out whether it was done"
        return ApiError(503, sentence, {"Retry-After": str(RETRY_S)})
    if isinstance(error, StoreError):
        return ApiError(503, str(error))
    if isinstance(error, ConfigError):
        return conflict(str(error))
    if isinstance(error, RequestValidationError):
        return bad_request(_validation_message(error))
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, str(error.detail), dict(error.headers or {}))
    return None


def _validation_message(error: RequestValidationError) -> str:
    parts = []
    for each in error.errors()[:3]:
        where = ".".join(str(part) for part in each.get("loc", ())) or "request"
        parts.append(f"{where}: {str(each.get('msg', 'is wrong'))[:200]}")
    return "; ".join(parts).encode("utf-8", "replace").decode()


def respond(error: ApiError) -> Response:
    return ExactResponse(error_body(error.status, error.message), error.status, error.headers)


def install(app: FastAPI) -> None:
    """Have the application answer all errors so."""

    async def known(_: Request, error: Exception) -> Response:
        found = translated(error)
        assert found is not None
        return respond(found)

    async def unknown(request: Request, error: Exception) -> Response:
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return respond(ApiError(500, "internal error; the log of the API tells more"))

    kinds = (ApiError, LedgerError, StoreError, ConfigError, RequestValidationError, HTTPException)
    for kind in kinds:
        app.add_exception_handler(kind, known)
    app.add_exception_handler(Exception, unknown)
