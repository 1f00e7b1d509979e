"""`/v1/admin`: questions about logs, records, conflicts and what was put aside."""

from __future__ import annotations

from uuid import UUID

from flask import Response
from sqlalchemy import Connection

from app.admin import conflicts, quarantine, records, spaces
from app.admin.log_answers import (
    ConflictsFound,
    QuarantineFound,
    QuarantineItem,
    RecordHistory,
    RecordShown,
    SettledFound,
    SpaceLog,
    SpaceShown,
)
from app.admin.routes import asked, blueprint
from app.admin.shapes import (
    ConflictsQuery,
    LogQuery,
    Opened,
    OpenedQuery,
    Opening,
    QuarantineQuery,
    RecordQuery,
)
from app.admin.sight import Sight, Subject, sight
from app.auth import Principal
from app.openapi import describe
from app.runtime import runtime
from app.wire import answer, read_query
from sync.errors import Forbidden


def _sight(
    connection: Connection, who: Principal, wanted: Opening | Opened, subject: Subject
) -> Sight:
    return sight(
        connection,
        who,
        runtime().settings,
        runtime().now_ms(),
        subject,
        values=wanted.values,
        reason=wanted.reason,
    )


@blueprint.get("/spaces/<uuid:space>")
@describe("Show a space", answer=SpaceShown, errors=[Forbidden])
def show_space(space: UUID) -> Response:
    """Its members, and its vector clock with each device's cursor."""
    with asked() as (connection, _):
        found = spaces.space(connection, space)
    return answer(found)


@blueprint.get("/spaces/<uuid:space>/log")
@describe("Read a space's log", query=LogQuery, answer=SpaceLog, errors=[Forbidden, "bad_page"])
def read_log(space: UUID) -> Response:
    """The newest first: each change with its dot, context, times and outcome."""
    wanted = read_query(LogQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(device=wanted.device, space=space))
        found = spaces.log(
            connection,
            space,
            wanted.page,
            wanted.limit,
            seen,
            before=wanted.before,
            device=wanted.device,
        )
    return answer(found)


@blueprint.get("/spaces/<uuid:space>/record")
@describe("Show a record", query=RecordQuery, answer=RecordShown, errors=[Forbidden])
def show_record(space: UUID) -> Response:
    """With its siblings; as it is, or with `at` as it was, rebuilt from the log."""
    wanted = read_query(RecordQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(space=space))
        key = (wanted.collection, wanted.id)
        found = records.record(connection, space, key, wanted.at, seen)
    return answer(found)


@blueprint.get("/spaces/<uuid:space>/record/history")
@describe(
    "Show who wrote a record, having seen what",
    query=RecordQuery,
    answer=RecordHistory,
    errors=[Forbidden, "bad_page"],
)
def read_history(space: UUID) -> Response:
    """The changes that touched the record, the newest first."""
    wanted = read_query(RecordQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(space=space))
        key = (wanted.collection, wanted.id)
        found = records.history(connection, space, key, wanted.page, wanted.limit, seen)
    return answer(found)


@blueprint.get("/conflicts")
@describe(
    "List open conflicts",
    query=ConflictsQuery,
    answer=ConflictsFound,
    errors=[Forbidden, "bad_page"],
)
def list_conflicts() -> Response:
    """Records in conflict with both sides of each field, in all spaces or in one."""
    wanted = read_query(ConflictsQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(space=wanted.space))
        found = conflicts.open_ones(connection, wanted.space, wanted.page, wanted.limit, seen)
    return answer(found)


@blueprint.get("/conflicts/settled")
@describe(
    "List settled conflicts",
    query=ConflictsQuery,
    answer=SettledFound,
    errors=[Forbidden, "bad_page"],
)
def list_settled() -> Response:
    """With the sides that met, and what the field is now."""
    wanted = read_query(ConflictsQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(space=wanted.space))
        found = conflicts.settled_ones(connection, wanted.space, wanted.page, wanted.limit, seen)
    return answer(found)


@blueprint.get("/quarantine")
@describe(
    "List changes that were put aside",
    query=QuarantineQuery,
    answer=QuarantineFound,
    errors=[Forbidden, "bad_page"],
)
def list_quarantine() -> Response:
    """The open ones, unless `state` says otherwise."""
    wanted = read_query(QuarantineQuery())
    with asked() as (connection, _):
        found = quarantine.quarantine(
            connection,
            wanted.page,
            wanted.limit,
            state=wanted.state,
            space=wanted.space,
            device=wanted.device,
            code=wanted.code,
        )
    return answer(found)


@blueprint.get("/quarantine/<uuid:space>/<uuid:device>/<int:counter>")
@describe(
    "Show a change that was put aside", query=OpenedQuery, answer=QuarantineItem, errors=[Forbidden]
)
def show_quarantined(space: UUID, device: UUID, counter: int) -> Response:
    """Whole, as it was sent, as far as the agent may see it."""
    wanted = read_query(OpenedQuery())
    with asked() as (connection, who):
        seen = _sight(connection, who, wanted, Subject(device=device, space=space))
        found = quarantine.item(connection, space, device, counter, seen)
    return answer(found)
