"""What pushes touch: read before they are decided, only where their changes ask for it, and
written after.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple
from uuid import UUID

from app.access import Visit
from storage import decisions, documents, journal, quarantine, records, replicas, spaces
from storage.spaces import Space
from storage.sql import Cursor
from sync.changes import Change, Edit, Key
from sync.clock import DeviceId, Epoch, EpochStart, History, Replica, VectorClock
from sync.documents import NOTHING
from sync.editing import FieldKey, Held
from sync.plan import Decided, Plan, State
from sync.records import Record
from sync.requests import SpaceRequest
from sync.stored import StoredRecord, pack, unpack


class Meeting(NamedTuple):
    """A push, and the space that it meets, locked."""

    space: Space
    replica: Replica
    visit: Visit
    part: SpaceRequest


Records = Mapping[UUID, Mapping[Key, Record]]
"""By space."""


def keys_of(part: SpaceRequest) -> set[Key]:
    """The records that its operations name."""
    return {(op.collection, op.id) for change in _changes(part) for op in change.ops}


def records_of(cur: Cursor, one: Meeting) -> Records:
    """The records that the push's operations name, those that there are."""
    wanted = [(one.space.id, key) for key in keys_of(one.part)]
    return unpacked(records.read(cur, wanted) if wanted else {})


def unpacked(rows: Mapping[records.Where, StoredRecord]) -> Records:
    """The records as merging knows them."""
    found: dict[UUID, dict[Key, Record]] = defaultdict(dict)
    for (space, key), row in rows.items():
        found[space][key] = unpack(row)
    return found


def state_of(cur: Cursor, one: Meeting, before: Records) -> State:
    """What the push meets."""
    space, replica, part = one.space, one.replica, one.part
    contexts = journal.Contexts(cur, space.id)
    numbers, clock = _named(cur, space, part)
    return State(
        replica=replica,
        counter=space.counter,
        history=History(space.epoch, space.head, clock, _epochs(cur, space, part), contexts),
        decided=_decided(cur, space, replica, part),
        records=before.get(space.id, {}),
        replicas=numbers,
        tails_of=journal.Tails(cur, space.id, contexts),
        frozen=space.device_frozen,
        documents=_documents(cur, space, part),
        load=lambda key: _whole(cur, space, key),
    )


Moved = list[tuple[Meeting, Plan]]


def write(cur: Cursor, moved: Moved, before: Records, stands: list[replicas.Moved]) -> None:
    """Writes what the plans say, and where the replicas and their spaces stand now.

    Many new records are packed while PostgreSQL takes them in: they name no devices, which would
    have to be read, for each has one author and so no siblings.
    """
    made, changed = (_packed(cur, moved, before, new=new) for new in (True, False))
    count = sum(len(plan.entries) + len(plan.records) for _, plan in moved)
    decisions.write(cur, _logged(moved), made, changed, stands, count)
    for one, plan in moved:
        space, replica = one.space.id, one.replica
        if plan.documents:
            documents.write(cur, space, plan.documents)
        quarantine.keep(cur, space, replica, plan.head, one.visit.received_at, plan.refusals)
        quarantine.discard(cur, space, replica, plan.discarded)


def _logged(moved: Moved) -> Iterator[journal.Decision]:
    for one, plan in moved:
        at = str(one.space.id), one.replica, one.visit.received_at
        yield from (journal.Decision(*at, entry) for entry in plan.entries)


def _packed(
    cur: Cursor, moved: Moved, before: Records, *, new: bool
) -> Iterator[decisions.OfSpace]:
    """The records that there were none of, or those that there were."""
    for one, plan in moved:
        space, there = one.space.id, before.get(one.space.id, {})
        id_, names = str(space), replicas.Names(cur, space)
        for key, row in plan.records.items():
            if (key in there) != new:
                same_data = not new and key in plan.same_data
                yield id_, pack(*key, row, names, same_data=same_data)


# What a push reads besides ---------------------------------------------------------------------


def _changes(part: SpaceRequest) -> list[Change]:
    return [change for change in part.changes if isinstance(change, Change)]


def _documents(cur: Cursor, space: Space, part: SpaceRequest) -> dict[FieldKey, Held]:
    keys = {
        (op.collection, op.id, op.field)
        for change in _changes(part)
        for op in change.ops
        if isinstance(op, Edit)
    }
    return documents.held(cur, space.id, keys) if keys else {}


def _whole(cur: Cursor, space: Space, key: FieldKey) -> bytes:
    found = documents.whole(cur, space.id, *key)
    return found.update if found else NOTHING


def _decided(
    cur: Cursor, space: Space, replica: Replica, part: SpaceRequest
) -> Mapping[int, Decided]:
    """What stands on the counters that the request uses again."""
    used = [change.counter for change in part.changes if change.counter <= space.counter]
    return journal.decided(cur, space.id, replica, min(used), max(used)) if used else {}


def _named(
    cur: Cursor, space: Space, part: SpaceRequest
) -> tuple[Mapping[DeviceId, Replica], VectorClock]:
    """The replicas that contexts name beyond their cursors, and their counters."""
    devices = {device for change in _changes(part) for device in change.context.clock}
    return replicas.by_device(cur, space.id, devices) if devices else ({}, VectorClock())


def _epochs(cur: Cursor, space: Space, part: SpaceRequest) -> Mapping[Epoch, EpochStart]:
    """How the epochs began that have come since the oldest context."""
    epochs = [change.context.epoch or space.epoch for change in _changes(part)]
    oldest = min(epochs, default=space.epoch)
    return spaces.epochs_after(cur, space.id, oldest) if oldest < space.epoch else {}
