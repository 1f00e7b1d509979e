"""A record as it was: its changes from the log, merged again by the engine.

Law: merged up to the head, a record is the one that is kept. But for one whose tombstone was
dropped: the log tells what it was before, and the kept one began from nothing. Of documents it
says that they were there; what was in them is in their updates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import NamedTuple

from msgspec.json import Decoder, decode

from sync.changes import Key, Operation, Put
from sync.clock import CausalContext, ContextsOf, Replica, Seen, Write, close
from sync.limits import Limits
from sync.records import Record, Row, apply
from sync.tails import LoggedOperation, standing

# What was taken once is taken again, though a limit be lower now.
UNBOUNDED = Limits(**{each.name: 2**40 for each in dataclasses.fields(Limits)})
_OPERATIONS = Decoder(list[Operation])


class PastChange(NamedTuple):
    """A change as the log holds it. `at`: corrected; `ops`: as JSON text."""

    position: int
    replica: Replica
    counter: int
    context: CausalContext
    at: int
    ops: str


def rebuilt(key: Key, changes: Iterable[PastChange], contexts_of: ContextsOf) -> Record | None:
    """The record after these changes: all that touched it, in order. None: it never was."""
    row: Row | None = None
    steps: list[LoggedOperation] = []
    for change in changes:
        closed = close(change.context, contexts_of)
        seen = Seen(change.replica, change.counter, closed.cursor, closed.clock)
        write = Write(change.replica, change.counter, change.position, change.at)
        row = _with_tails(key, row, change, seen.cursor, steps, contexts_of)
        for op in _of(key, change):
            row = apply(row, op, seen, write, UNBOUNDED).record
        steps += _steps(key, change)
    return row.record() if row else None


def _of(key: Key, change: PastChange) -> list[Operation]:
    return [op for op in _OPERATIONS.decode(change.ops) if (op.collection, op.id) == key]


def _with_tails(
    key: Key,
    row: Row | None,
    change: PastChange,
    cursor: int,
    steps: list[LoggedOperation],
    contexts_of: ContextsOf,
) -> Row | None:
    """With what a new row by this author clears of counters and sets, where it needs the log."""
    begins = any(isinstance(op, Put) and op.new for op in _of(key, change))
    if row is None or not begins or not row.record().needs_tail(cursor):
        return row
    tails = standing({key: cursor}, steps, contexts_of)
    return row.record().with_tails(tails[key], cursor)


def _steps(key: Key, change: PastChange) -> list[LoggedOperation]:
    """The operations that a later new row looks for."""
    return [
        LoggedOperation(change.position, change.replica, change.counter, change.context, op)
        for op in decode(change.ops)
        if (op["collection"], op["id"]) == key
        and (op["op"] in {"increment", "add", "remove"} or op.get("new"))
    ]
