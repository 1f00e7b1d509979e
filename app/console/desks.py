"""The desks: what waits for an agent, and the audit trail of what agents did."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from flask import Response
from sqlalchemy import Connection

from app.admin import conflicts, overviews, quarantine, records
from app.admin.log_answers import RecordShown
from app.admin.shapes import AuditQuery, ConflictsQuery, QuarantineQuery
from app.admin.sight import Sight, Subject, ValueShown
from app.console.asking import may_open, seen
from app.console.door import agent, asked_for, blueprint, page
from app.runtime import runtime
from sync.errors import Forbidden, NotFound

# Of the records that a change put aside is about, so many are shown beside it.
BESIDE_MAX = 10


@blueprint.route("/conflicts", methods=["GET", "POST"])
def list_conflicts() -> Response:
    """Open conflicts with both sides; posted to, with the values."""
    wanted = asked_for(ConflictsQuery())
    with runtime().begin() as connection:
        sight = seen(connection, Subject(space=wanted.space))
        found = conflicts.open_ones(connection, wanted.space, wanted.page, wanted.limit, sight)
    return page(
        "conflicts",
        section="list_conflicts",
        found=found,
        wanted=wanted,
        sight=sight,
        may_open=may_open(),
    )


@blueprint.route("/conflicts/settled", methods=["GET", "POST"])
def list_settled() -> Response:
    """Conflicts that were; posted to, with the values."""
    wanted = asked_for(ConflictsQuery())
    with runtime().begin() as connection:
        sight = seen(connection, Subject(space=wanted.space))
        found = conflicts.settled_ones(connection, wanted.space, wanted.page, wanted.limit, sight)
    return page(
        "settled",
        section="list_conflicts",
        found=found,
        wanted=wanted,
        sight=sight,
        may_open=may_open(),
    )


@blueprint.get("/quarantine")
def list_quarantine() -> Response:
    """Changes that were put aside."""
    wanted = asked_for(QuarantineQuery())
    with runtime().begin() as connection:
        found = quarantine.quarantine(
            connection,
            wanted.page,
            wanted.limit,
            state=wanted.state,
            space=wanted.space,
            device=wanted.device,
            code=wanted.code,
        )
    return page(
        "quarantine",
        section="list_quarantine",
        found=found,
        wanted=wanted,
        states=quarantine.STATES,
    )


@blueprint.route("/quarantine/<uuid:space>/<uuid:device>/<int:counter>", methods=["GET", "POST"])
def show_quarantined(space: UUID, device: UUID, counter: int) -> Response:
    """What was sent beside what is there; posted to, with the values."""
    with runtime().begin() as connection:
        sight = seen(connection, Subject(device=device, space=space))
        found = quarantine.item(connection, space, device, counter, sight)
        ops = _operations(found.change)
        beside = [_beside(connection, space, key, sight) for key in _keys(ops)[:BESIDE_MAX]]
    return page(
        "quarantined",
        section="list_quarantine",
        item=found.item,
        change=found.change,
        ops=ops,
        written=as_written(ops) if sight.opened else None,
        beside=beside,
        sight=sight,
        may_open=may_open(),
    )


def _operations(change: Any) -> list[Any]:
    ops = change.get("ops") if isinstance(change, dict) else None
    return ops if isinstance(ops, list) else []


def as_written(part: Any) -> Any:
    """What was sent, out of its opened values: to be edited."""
    if isinstance(part, ValueShown):
        return part.value
    if isinstance(part, dict):
        return {name: as_written(inner) for name, inner in part.items()}
    return [as_written(inner) for inner in part] if isinstance(part, list) else part


def _keys(ops: list[Any]) -> list[tuple[str, str]]:
    """The records that the operations name, each once."""
    named = [(op.get("collection"), op.get("id")) for op in ops if isinstance(op, dict)]
    return list(
        dict.fromkeys((c, i) for c, i in named if isinstance(c, str) and isinstance(i, str))
    )


def _beside(
    connection: Connection, space: UUID, key: tuple[str, str], sight: Sight
) -> tuple[tuple[str, str], RecordShown | None]:
    try:
        return key, records.record(connection, space, key, None, sight)
    except NotFound:
        return key, None


@blueprint.get("/audit")
def read_audit() -> Response:
    """Who did what, the newest first. For admins."""
    if not agent().may("admin"):
        raise Forbidden("forbidden", "The audit trail is for the role admin.")
    wanted = asked_for(AuditQuery())
    with runtime().begin() as connection:
        found = overviews.audit_trail(
            connection,
            wanted.page,
            wanted.limit,
            actor=wanted.actor,
            action=wanted.action,
            subject=wanted.subject,
        )
    return page("audit", section="read_audit", found=found, wanted=wanted)
