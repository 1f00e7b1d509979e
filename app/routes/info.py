"""What the server is, how it is, and how to use it."""

from __future__ import annotations

import dataclasses
from typing import Final

from flask import Blueprint, Response, current_app, request

from app import docs
from app.openapi import VERSION, describe
from app.runtime import runtime
from app.schemas import Health, Info
from app.wire import JSON, answer, compressed
from storage.migrate import current_revision, newest_revision
from sync.errors import Unavailable

blueprint = Blueprint("info", __name__)

HTML: Final = "text/html"


@blueprint.get("/v1")
@describe("The server's version, time and limits", answer=Info, auth=False)
def info() -> Response:
    """`server_time` is in milliseconds since 1970."""
    limits = dataclasses.asdict(runtime().limits)
    return answer(Info("Rejoin", VERSION, runtime().now_ms(), limits))


@blueprint.get("/healthz")
@describe("Whether the process is alive", answer=Health, auth=False)
def healthz() -> Response:
    """Touches no database: a process is not restarted because its database is away."""
    return answer(Health("ok"))


@blueprint.get("/readyz")
@describe("Whether the server can serve", answer=Health, auth=False)
def readyz() -> Response:
    """The database answers, and its schema is this program's; else 503."""
    with runtime().begin() as connection:
        if current_revision(connection) != newest_revision():
            raise Unavailable("unavailable", "The database's schema is not this program's.")
    return answer(Health("ok"))


@blueprint.get("/v1/openapi.json")
@describe("This API's description, OpenAPI 3.1", auth=False, media=(JSON,))
def openapi() -> Response:
    """Made from the schemas that read and write the bodies."""
    return compressed(Response(docs.document_json(current_app), content_type=JSON))


@blueprint.get("/docs")
@describe("This API's description, to be read", auth=False, media=(HTML,))
def docs_page() -> Response:
    """A page of the server's own, which needs nothing from another host."""
    page = docs.page(current_app, request.host_url)
    return docs.secured(compressed(Response(page, content_type=f"{HTML}; charset=utf-8")))
