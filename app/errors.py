"""One table: each class of error → its HTTP status, its title, its websocket close code.

Promises: whatever goes wrong is answered as `application/problem+json` (RFC 9457) with a stable
`code`; a class without a row can't go unnoticed (a test forbids it); an exception that nobody
foresaw is logged with its traceback, without what users wrote (app/faults.py), and says nothing
of the inside to the client.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Final, cast

import psycopg
import sqlalchemy.exc
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException

from app import faults
from storage.engine import UnusableDatabase
from sync.errors import (
    BadRequest,
    Conflict,
    Forbidden,
    Internal,
    NotAcceptable,
    NotAllowed,
    NotFound,
    Refused,
    SyncError,
    TooLarge,
    TooMany,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)

log = logging.getLogger(__name__)

PROBLEM: Final = "application/problem+json"
# A pool that is full or a database that fails over is back within seconds.
RETRY_SECONDS: Final = 2


@dataclass(frozen=True, slots=True)
class Row:
    """`close` None: on a websocket this is an `error` message, and the connection goes on."""

    status: int
    title: str
    close: int | None


TABLE: Final[dict[type[SyncError], Row]] = {
    BadRequest: Row(400, "Bad request", 4400),
    Unauthenticated: Row(401, "Not authenticated", 4401),
    Forbidden: Row(403, "Forbidden", None),
    NotFound: Row(404, "Not found", None),
    NotAllowed: Row(405, "Method not allowed", 4400),
    NotAcceptable: Row(406, "Not acceptable", 4400),
    Conflict: Row(409, "Conflict", None),
    TooLarge: Row(413, "Too large", 4400),
    UnsupportedMedia: Row(415, "Unsupported media type", 4400),
    Refused: Row(422, "Change refused", None),
    TooMany: Row(429, "Too many requests", 1013),
    Internal: Row(500, "Internal error", 1011),
    Unavailable: Row(503, "Unavailable", 1013),
}

# Where the remedy for a socket is another than for the class.
CLOSE_BY_CODE: Final[dict[str, int]] = {"device_revoked": 4403, "device_fork": 4409}


def row_of(error: SyncError | type[SyncError]) -> Row:
    """The row of an error or of its class; a class made from another has that one's row."""
    class_ = error if isinstance(error, type) else type(error)
    return next(TABLE[base] for base in class_.__mro__ if base in TABLE)


def close_code(error: SyncError) -> int | None:
    """The code to close a websocket with; None: tell it and go on."""
    return CLOSE_BY_CODE.get(error.code, row_of(error).close)


def problem(error: SyncError) -> Response:
    """The error as a response: {"type", "title", "status", "detail", "code", …extra}."""
    row = row_of(error)
    body = {
        "type": f"/docs#{error.code}",
        "title": row.title,
        "status": row.status,
        **error.as_dict(),
    }
    # ASCII only: an extra member may quote what a client sent, lone surrogates included.
    data = json.dumps(body, default=str, separators=(",", ":")) + "\n"
    response = Response(data, row.status, content_type=PROBLEM)
    _add_headers(response, error)
    return response


def _add_headers(response: Response, error: SyncError) -> None:
    if isinstance(error, Unauthenticated):
        # RFC 6750 §3: no error code where the request had no token at all.
        hint = "" if error.code == "token_missing" else ', error="invalid_token"'
        response.headers["WWW-Authenticate"] = f'Bearer realm="rejoin"{hint}'
    if "retry_after" in error.extra:
        response.headers["Retry-After"] = str(error.extra["retry_after"])
    if error.code == "unsupported_encoding":
        response.headers["Accept-Encoding"] = "gzip, zstd"


# What others raise --------------------------------------------------------------------------

_BY_STATUS: Final[dict[int, tuple[type[SyncError], str]]] = {
    404: (NotFound, "not_found"),
    405: (NotAllowed, "method_not_allowed"),
    406: (NotAcceptable, "not_acceptable"),
    413: (TooLarge, "body_too_large"),
    415: (UnsupportedMedia, "unsupported_media_type"),
    503: (Unavailable, "unavailable"),
}

UNREACHABLE: Final = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.TimeoutError,  # the pool had no connection to give
    psycopg.OperationalError,
    psycopg.InterfaceError,
    UnusableDatabase,
)


def sync_error(error: BaseException) -> SyncError:
    """The error that a client is told for any exception; logs those that nobody foresaw.

    For callers outside of Flask's handlers, such as a websocket session.
    """
    if isinstance(error, SyncError):
        return error
    if isinstance(error, UNREACHABLE):
        log.warning("%s", faults.unavailable(error))
        return Unavailable("unavailable", retry_after=RETRY_SECONDS)
    if isinstance(error, HTTPException) and error.code is not None and error.code != 500:
        class_, code = _BY_STATUS.get(error.code, (BadRequest, "malformed_request"))
        return class_(code)
    # Not `exc_info`: it would print what users wrote.
    log.error("unforeseen error\n%s", faults.traced(error))
    return Internal("internal")


def install(app: Flask) -> None:
    """Answer every error as a problem."""
    app.register_error_handler(Exception, _handle)


def _handle(error: Exception) -> Response:
    if isinstance(error, HTTPException) and _is_answer(error):
        return cast("Response", error.get_response())
    told = sync_error(error)
    g.refused = told.code  # for the device's timeline
    response = problem(told)
    if isinstance(error, HTTPException):
        _keep_headers(response, error)
    return response


def _is_answer(error: HTTPException) -> bool:
    # A redirect, or an abort(response).
    return error.response is not None or (error.code or 500) < 400


def _keep_headers(response: Response, error: HTTPException) -> None:
    for name, value in error.get_headers(request.environ):
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
