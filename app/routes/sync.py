"""The log and its deltas: what devices come for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain

from flask import Blueprint, Response, g

from app import history, wire
from app.access import Visit
from app.auth import token_principal
from app.openapi import describe
from app.routes import SpaceRef
from app.runtime import runtime
from app.schemas import Shape, Text, Whole
from app.wire import JSON, answer, read_query
from sync.answers import (
    LogAnswer,
    OutcomesAnswer,
    PushAnswer,
    SnapshotHead,
    SpaceAnswer,
    SyncAnswer,
)
from sync.changes import JSON_SAFE_INT
from sync.errors import Forbidden
from sync.requests import Pull, PushBody, Source, SyncBody, read_push, read_sync

blueprint = Blueprint("sync", __name__, url_prefix="/v1")

NDJSON = "application/x-ndjson"
TOKEN_CHARS_MAX = 4_096


@dataclass(frozen=True, slots=True)
class PullParameters:
    """Where a device stands, and how many seconds it would wait for something new."""

    epoch: int | None = None
    cursor: int = 0
    page: str | None = None
    limit: int | None = None
    wait: int = 0

    def pull(self) -> Pull:
        return Pull(self.epoch, self.cursor, self.page, self.limit)


class PullQuery(Shape[PullParameters]):
    MADE = PullParameters

    epoch = Whole(least=1, most=JSON_SAFE_INT)
    cursor = Whole(least=0, most=JSON_SAFE_INT)
    page = Text(most=TOKEN_CHARS_MAX)
    limit = Whole(least=1, most=JSON_SAFE_INT)
    wait = Whole(least=0, most=JSON_SAFE_INT)


@dataclass(frozen=True, slots=True)
class Span:
    """After which position or counter, and how many at most."""

    after: int = 0
    limit: int | None = None


class SpanQuery(Shape[Span]):
    MADE = Span

    after = Whole(least=0, most=JSON_SAFE_INT)
    limit = Whole(least=1, most=JSON_SAFE_INT)


@blueprint.post("/sync")
@describe(
    "Push and pull, all spaces in one round trip",
    body=SyncBody,
    answer=SyncAnswer,
    errors=["too_many_changes", "too_many_spaces"],
    example={"spaces": {"me": {"cursor": 0}}},
)
def sync() -> Response:
    """Each change stands or falls alone, and so does each space: its error stands as `error`."""
    visit = _visit()
    request = read_sync(_source(), runtime().limits)
    return answer(runtime().exchange.sync(visit, request))


@blueprint.post("/spaces/<space:space>/push")
@describe(
    "Push changes to one space",
    body=PushBody,
    answer=PushAnswer,
    errors=[Forbidden, "counter_gap", "device_fork", "bad_counter", "too_many_changes"],
)
def push(space: SpaceRef) -> Response:
    """What is acknowledged has been committed and is on the disk."""
    visit = _visit()
    request = read_push(_source(), runtime().limits)
    return answer(runtime().exchange.push(visit, str(space), request))


@blueprint.get("/spaces/<space:space>/pull")
@describe(
    "Pull what a cursor has not seen",
    query=PullQuery,
    answer=SpaceAnswer,
    errors=[Forbidden, "bad_page", "device_fork"],
)
def pull(space: SpaceRef) -> Response:
    """With `wait`, a long poll: the answer comes when there is something new, or after so many
    seconds.
    """
    visit, query = _visit(), read_query(PullQuery())
    wait = min(query.wait, runtime().limits.wait_seconds)
    found = runtime().exchange.pull(visit, str(space), query.pull(), wait)
    runtime().recorder.pulled(visit, str(space), query.pull(), found)
    return answer(found)


@blueprint.get("/spaces/<space:space>/snapshot")
@describe(
    "Stream a whole space for a new device", answer=SnapshotHead, media=[NDJSON], errors=[Forbidden]
)
def snapshot(space: SpaceRef) -> Response:
    """Lines of JSON: epoch, cursor and totals, then a record a line, as in a pull from 0."""
    visit = _visit(raw=True)
    stream = runtime().streams.counted(history.snapshot(runtime().engine, visit, str(space)))
    return wire.streamed(chain([next(stream)], stream), NDJSON)


@blueprint.get("/spaces/<space:space>/log")
@describe("Read a space's operation log", query=SpanQuery, answer=LogAnswer, errors=[Forbidden])
def log(space: SpaceRef) -> Response:
    """The changes after a position, in order; `head` tells whether there are more."""
    visit, span = _visit(), read_query(SpanQuery())
    found = history.log(
        runtime().engine, runtime().limits, visit, str(space), span.after, span.limit
    )
    return answer(found)


@blueprint.get("/spaces/<space:space>/outcomes")
@describe(
    "Read what became of this device's changes",
    query=SpanQuery,
    answer=OutcomesAnswer,
    errors=[Forbidden],
)
def outcomes(space: SpaceRef) -> Response:
    """The outcomes after a counter, in order: applied, in conflict, rejected and why, discarded.
    They last, however long ago the answer was lost.
    """
    visit, span = _visit(), read_query(SpanQuery())
    found = history.outcomes(
        runtime().engine, runtime().limits, visit, str(space), span.after, span.limit
    )
    return answer(found)


def _visit(raw: bool | None = None) -> Visit:
    """Who asks, by the token alone: whether the device still may, the space's door asks."""
    in_json = wire.wanted_format() == JSON if raw is None else raw
    return Visit(token_principal(), g.received_at, raw=in_json)


def _source() -> Source:
    body = wire.read_body(runtime().limits)
    return Source(body.data, body.format, lambda: wire.parse_tree(body), wire.Doubled)
