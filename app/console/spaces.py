"""A space, its log, and its records: as they are, as they were, and who had seen what."""

from __future__ import annotations

from uuid import UUID

from flask import Response
from sqlalchemy import Connection

from app.admin import records, spaces
from app.admin.log_answers import RecordShown
from app.admin.shapes import LogQuery, RecordQuery, RecordWanted
from app.admin.sight import Sight, Subject
from app.console.asking import may_open, seen
from app.console.door import asked_for, blueprint, page
from app.console.pictures import causality
from app.runtime import runtime
from sync.errors import NotFound


@blueprint.get("/spaces/<uuid:space>")
def show_space(space: UUID) -> Response:
    """Its members, and each device's cursor against the head."""
    with runtime().begin() as connection:
        found = spaces.space(connection, space)
    return page("space", space=found)


@blueprint.route("/spaces/<uuid:space>/log", methods=["GET", "POST"])
def read_log(space: UUID) -> Response:
    """The newest first; posted to, with the values."""
    wanted = asked_for(LogQuery())
    with runtime().begin() as connection:
        named = spaces.row_of(connection, space)
        sight = seen(connection, Subject(device=wanted.device, space=space))
        found = spaces.log(
            connection,
            space,
            wanted.page,
            wanted.limit,
            sight,
            before=wanted.before,
            device=wanted.device,
        )
    return page("log", space=named, log=found, wanted=wanted, sight=sight, may_open=may_open())


@blueprint.route("/spaces/<uuid:space>/record", methods=["GET", "POST"])
def show_record(space: UUID) -> Response:
    """A record with its siblings and its causal history; posted to, with the values."""
    wanted = asked_for(RecordQuery())
    key = (wanted.collection, wanted.id)
    with runtime().begin() as connection:
        named = spaces.row_of(connection, space)
        sight = seen(connection, Subject(space=space))
        shown = _record(connection, space, wanted, sight)
        past = records.history(connection, space, key, wanted.page, wanted.limit, sight)
    if shown is None and not past.changes and wanted.page is None:
        raise NotFound("not_found", records.NO_RECORD)
    return page(
        "record",
        space=named,
        key=key,
        record=shown,
        history=past,
        picture=causality(past.changes),
        wanted=wanted,
        sight=sight,
        may_open=may_open(),
    )


def _record(
    connection: Connection, space: UUID, wanted: RecordWanted, sight: Sight
) -> RecordShown | None:
    """None: it was not there at that position."""
    try:
        key = (wanted.collection, wanted.id)
        return records.record(connection, space, key, wanted.at, sight)
    except NotFound:
        return None
