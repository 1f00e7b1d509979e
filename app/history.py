"""Reading a space's past: its log, the outcomes of a device's own changes, a whole snapshot."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import Any, Final

import msgspec
from sqlalchemy import Engine

from app.access import Visit, open_space
from app.pages import with_documents
from storage import journal, records, replicas
from storage.engine import one_moment
from storage.replicas import Names
from storage.sql import cursor
from sync.answers import (
    ContextShown,
    FieldNamed,
    LogAnswer,
    LoggedChange,
    OutcomesAnswer,
    OutcomeShown,
    SnapshotHead,
)
from sync.clock import Replica
from sync.deltas import delta, documents_wanted
from sync.limits import Limits
from sync.stored import has_documents

# Of a snapshot, as it is read back from the disk and sent.
CHUNK_BYTES: Final = 64 * 2**10


def outcomes(
    engine: Engine, limits: Limits, visit: Visit, name: str, after: int, limit: int | None
) -> OutcomesAnswer:
    """What became of the device's own changes after the counter, in order."""
    limit = min(limit or limits.page_records, limits.page_records)
    with one_moment(engine) as connection:
        cur = cursor(connection)
        space = open_space(cur, visit.who, name, "read")
        if space.replica is None:
            return OutcomesAnswer(0, [])
        rows = journal.outcomes(cur, space.id, space.replica, after, limit)
        return OutcomesAnswer(space.counter, [_outcome(row) for row in rows])


def log(
    engine: Engine, limits: Limits, visit: Visit, name: str, after: int, limit: int | None
) -> LogAnswer:
    """The operation log after the position, in order."""
    limit = min(limit or limits.page_records, limits.page_records)
    with one_moment(engine) as connection:
        cur = cursor(connection)
        space = open_space(cur, visit.who, name, "read")
        rows = journal.log(cur, space.id, after, limit, limits.page_bytes)
        names = Names(cur, space.id)
        changes = [_logged(row, names, visit.raw) for row in rows]
        return LogAnswer(space.epoch, space.head, changes)


def snapshot(engine: Engine, visit: Visit, name: str) -> Iterator[bytes]:
    """The whole space as it is at one moment, as lines of JSON in chunks: totals first, at once,
    then the records that are alive.

    The records are set aside on the disk before they are sent: a reader who is slow, or doesn't
    read at all, holds no connection to PostgreSQL. What it raises, it raises at the first chunk.
    """
    with TemporaryFile() as spool:
        with one_moment(engine) as connection:
            cur = cursor(connection)
            space = open_space(cur, visit.who, name, "read")
            total = records.count(cur, space.id)
            clock = replicas.clock_after(cur, space.id, 0)
            yield _line(SnapshotHead(space.epoch, space.head, total, clock))
            names = Names(cur, space.id)
            for row in records.every(connection, space.id):
                found = [delta(row, 0, names, visit.raw)]
                if has_documents(row):
                    found = with_documents(cur, space, found, documents_wanted(row, 0))
                spool.write(_line(found[0]))
        spool.seek(0)
        while chunk := spool.read(CHUNK_BYTES):
            yield chunk


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"


def _outcome(row: journal.Outcome) -> OutcomeShown:
    if row.outcome == "discarded":
        return OutcomeShown(row.counter, row.outcome, last=row.last)
    if row.outcome == "replayed":
        return OutcomeShown(
            row.counter, row.outcome, position=row.position or 0, error=row.error or {}
        )
    if row.outcome == "rejected":
        return OutcomeShown(row.counter, row.outcome, error=row.error or {})
    named = _fields(row.conflicts)
    outcome = "conflict" if named else "applied"
    return OutcomeShown(row.counter, outcome, position=row.position or 0, conflicts=named)


def _logged(row: journal.Logged, names: Names, raw: bool) -> LoggedChange:
    clock: dict[str, int] = {
        names(Replica(int(replica))): n for replica, n in (row.clock or {}).items()
    }
    return LoggedChange(
        row.position,
        row.device,
        row.counter,
        ContextShown(row.epoch, row.cursor, clock),
        row.at,
        row.received_at,
        msgspec.Raw(row.ops.encode()) if raw else _operations(row.ops),
        _fields(row.conflicts),
    )


def _operations(ops: str) -> list[dict[str, Any]]:
    """For MessagePack, which has bytes."""
    found: list[dict[str, Any]] = msgspec.json.decode(ops)
    for op in found:
        if op["op"] == "edit":
            op["update"] = base64.b64decode(op["update"])
    return found


def _fields(conflicts: list[list[str]] | None) -> list[FieldNamed]:
    return [FieldNamed(*named) for named in conflicts or ()]
