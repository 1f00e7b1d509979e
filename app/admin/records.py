"""A record as it is, as it was, and who wrote what having seen what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import Connection

from app.admin.log_answers import (
    Author,
    ChangeShown,
    FieldShown,
    LifeShown,
    RecordHistory,
    RecordShown,
    Side,
)
from app.admin.paging import read_page, write_page
from app.admin.sight import Sight
from storage import records, trail
from storage.journal import Contexts
from storage.sql import cursor
from storage.trail import ChangeRow
from sync.answers import ContextShown, FieldNamed
from sync.changes import Key, Natural
from sync.clock import CausalContext, DeviceId, Epoch, Replica, Seen, VectorClock, Write, close
from sync.errors import NotFound
from sync.fields import TYPES, Counter, Field, Names, ObservedRemoveSet, Register
from sync.past import rebuilt
from sync.records import Record
from sync.stored import unpack

NO_RECORD: Final = "There is no such record."
# A history's answer shows so many positions that an author had not seen.
UNSEEN_MAX: Final = 200

Who = Callable[[Replica], Author]


def authors(connection: Connection, space: UUID, replicas: Iterable[int]) -> Who:
    """The authors of these replicas of a space."""
    wanted = {(space, int(replica)) for replica in replicas}
    known = trail.authors(connection, wanted) if wanted else {}
    return lambda replica: Author(*known[space, int(replica)])


def writers(made: Record) -> set[int]:
    """The replicas whose writes a record shows."""
    registers = [field for field in made.fields.values() if isinstance(field, Register)]
    return {
        *(int(life.write.replica) for life in made.life),
        *(int(one.write.replica) for register in registers for one in register.siblings),
    }


def named(rows: Iterable[ChangeRow]) -> set[int]:
    """The replicas that the contexts of these changes name."""
    return {int(replica) for row in rows for replica in row.clock or ()}


def record(
    connection: Connection, space: UUID, key: Key, at_position: int | None, sight: Sight
) -> RecordShown:
    """The record now, or as it was at a position, rebuilt from the log. Raises NotFound."""
    found = _space(connection, space)
    at = found.head if at_position is None else min(at_position, found.head)
    made = kept(connection, space, key) if at_position is None else was(connection, space, key, at)
    if made is None:
        raise NotFound("not_found", NO_RECORD)
    who = authors(connection, space, writers(made))
    return RecordShown(
        space,
        *key,
        at,
        made.position,
        made.deleted,
        made.whole,
        [LifeShown(life.deleted, *_dot(life.write, who)) for life in made.life],
        fields(made, who, sight),
    )


def kept(connection: Connection, space: UUID, key: Key) -> Record | None:
    """The record as it is merged; None: there is none."""
    row = records.read(cursor(connection), [(space, key)]).get((space, key))
    return unpack(row) if row else None


def was(connection: Connection, space: UUID, key: Key, position: int) -> Record | None:
    """The record as it was at the position; None: it was not there yet."""
    cur = cursor(connection)
    changes = trail.past(cur, space, key, position)
    return rebuilt(key, changes, Contexts(cur, space))


def fields(made: Record, who: Who, sight: Sight) -> list[FieldShown]:
    """The record's fields by name; what a new row cleared is absent."""
    shown = [field_shown(name, made.fields[name], who, sight) for name in sorted(made.fields)]
    return [one for one in shown if one.value is not None or one.type == "document"]


def field_shown(name: str, field: Field, who: Who, sight: Sight) -> FieldShown:
    """One field as merged, with the siblings of a register."""
    kind = TYPES[type(field)]
    if isinstance(field, Register):
        ranked = field.ranked(_names(who))
        sides = [Side(sight.value(s.value), *_dot(s.write, who)) for s in ranked]
        value = sides[0].value if sides else None
        return FieldShown(name, kind, field.position, field.in_conflict, value, sides)
    value = sight.value(_merged(field)) if _present(field) else None
    return FieldShown(name, kind, field.position, False, value, [])


def _names(who: Who) -> Names:
    return lambda replica: DeviceId(who(replica).device)


def _present(field: Field) -> bool:
    return isinstance(field, Counter | ObservedRemoveSet) and field.present


def _merged(field: Field) -> object:
    if isinstance(field, Counter):
        return field.total
    texts = field.texts if isinstance(field, ObservedRemoveSet) else []
    return [msgspec.json.decode(text) for text in texts]


def _dot(write: Write, who: Who) -> tuple[Author, int, int, int]:
    return who(write.replica), write.counter, write.position, write.at


def _space(connection: Connection, space: UUID) -> trail.SpaceRow:
    found = trail.space(connection, space)
    if found is None:
        raise NotFound("not_found", "There is no such space.")
    return found


# History ------------------------------------------------------------------------------------


def history(
    connection: Connection, space: UUID, key: Key, page: str | None, limit: int, sight: Sight
) -> RecordHistory:
    """The changes that touched the record, the newest first, and what each had not seen."""
    head = _space(connection, space).head
    token = read_page("history", page, tuple[Natural])
    high = token[0] - 1 if token else head
    low = max(high - trail.WINDOW + 1, 1)
    rows = trail.touching(connection, space, key, high, low, limit)
    following = rows[-1].position if len(rows) == limit else low
    contexts = Contexts(cursor(connection), space)
    seen = {row.position: _seen(row, contexts) for row in rows}
    who = authors(connection, space, named(rows))
    changes = [change_shown(row, who, sight, key, _unseen(row, rows, seen)) for row in rows]
    return RecordHistory(changes, write_page("history", [following]) if following > 1 else None)


def _seen(row: ChangeRow, contexts: Contexts) -> Seen:
    clock = {Replica(int(replica)): n for replica, n in (row.clock or {}).items()}
    closed = close(CausalContext(Epoch(row.epoch), row.cursor, VectorClock(clock)), contexts)
    return Seen(Replica(row.replica), row.counter, closed.cursor, closed.clock)


def _unseen(row: ChangeRow, rows: list[ChangeRow], seen: Mapping[int, Seen]) -> list[int]:
    mine = seen[row.position]
    earlier = (other for other in rows if other.position < row.position)
    found = [
        other.position
        for other in earlier
        if not mine.covers(Write(Replica(other.replica), other.counter, other.position, 0))
    ]
    return found[:UNSEEN_MAX]


def change_shown(
    row: ChangeRow, who: Who, sight: Sight, key: Key | None = None, unseen: list[int] | None = None
) -> ChangeShown:
    """A change as the log has it; with a key, only that record's operations."""
    ops = [op for op in msgspec.json.decode(row.ops) if key in (None, (op["collection"], op["id"]))]
    clock = {who(Replica(int(replica))).device: n for replica, n in (row.clock or {}).items()}
    return ChangeShown(
        row.position,
        Author(str(row.device), row.name, row.email),
        row.counter,
        ContextShown(row.epoch, row.cursor, clock),
        row.at,
        row.at_corrected,
        row.received_at,
        "conflict" if row.conflicts else "applied",
        [FieldNamed(*named) for named in row.conflicts or ()],
        [sight.operation(op) for op in ops],
        msgspec.UNSET if unseen is None else unseen,
    )
