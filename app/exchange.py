"""Push, pull and sync: one transaction each. HTTP, websockets and adapters all come through here.

A push, from top to bottom: open the space and lock its head, read what the changes touch, let
`sync.plan` decide, write it down, commit. Only then is it acknowledged, and a hint given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Engine

from app.access import Visit, open_space, require_device
from app.hints import Hints
from app.pages import next_page, nothing_new, page_after
from app.recording import Recorder
from storage import documents, journal, quarantine, records, replicas, spaces
from storage.engine import one_moment, one_statement
from storage.spaces import Space
from storage.sql import Cursor, cursor, wait_for_no_disk
from sync.answers import PushAnswer, Rejection, SpaceAnswer, SyncAnswer
from sync.changes import Change, Edit, Key
from sync.clock import DeviceId, Epoch, EpochStart, History, Replica, VectorClock
from sync.documents import NOTHING
from sync.editing import FieldKey, Held
from sync.errors import BadRequest, Conflict, SyncError, Unauthenticated
from sync.limits import Limits
from sync.plan import Decided, Plan, State, plan_push
from sync.records import Record
from sync.requests import Pull, Push, SpaceRequest, SyncRequest
from sync.stored import pack, unpack


@dataclass(frozen=True, slots=True)
class Exchange:
    """The way to the log, for all that speak to devices."""

    engine: Engine
    limits: Limits
    hints: Hints
    recorder: Recorder | None = None

    def sync(self, visit: Visit, request: SyncRequest) -> SyncAnswer:
        """Everything in one round trip; an error of one space harms no other."""
        visit = replace(visit, sent_at=request.sent_at)
        answers: dict[str, SpaceAnswer] = {}
        for name, part in request.spaces.items():
            try:
                answers[name] = self._sync_space(visit, name, part)
            except Unauthenticated:
                raise
            except SyncError as error:
                answers[name] = SpaceAnswer(error=error.as_dict())
        if not answers:
            with self.engine.begin() as connection:
                require_device(cursor(connection), visit.who)
        if self.recorder:
            self.recorder.synced(visit, request, answers)
        return SyncAnswer(visit.received_at, answers)

    def _sync_space(self, visit: Visit, name: str, part: SpaceRequest) -> SpaceAnswer:
        if not part.changes and part.discarded is None:
            return self.pull(visit, name, part)
        with self.engine.begin() as connection:
            cur = cursor(connection)
            space = open_space(cur, visit.who, name, "write", lock=True)
            plan = push(cur, space, visit, part, self.limits)
            try:
                answer = page_after(cur, space, plan, visit, part, self.limits)
            except BadRequest as bad_page:
                answer = SpaceAnswer(epoch=space.epoch, error=bad_page.as_dict())
        self._tell(space, plan)
        return msgspec.structs.replace(answer, accepted=plan.accepted, rejected=_told(plan))

    def push(self, visit: Visit, name: str, part: Push) -> PushAnswer:
        """The changes alone. Raises `SyncError`, and then has changed nothing."""
        visit = replace(visit, sent_at=part.sent_at)
        with self.engine.begin() as connection:
            cur = cursor(connection)
            space = open_space(cur, visit.who, name, "write", lock=True)
            plan = push(cur, space, visit, part, self.limits)
        self._tell(space, plan)
        if self.recorder:
            self.recorder.pushed(visit, name, part, len(plan.rejected))
        return PushAnswer(space.epoch, plan.accepted, _told(plan), plan.head)

    def pull(self, visit: Visit, name: str, part: Pull, wait: float = 0) -> SpaceAnswer:
        """What the cursor has not seen; with nothing new, waits up to `wait` seconds for it."""
        answer, space = self._pull(visit, name, part)
        if wait <= 0 or _has_news(answer, part):
            return answer
        with self.hints.watch(space.id) as wait_for_hint:
            while True:
                answer, space = self._pull(visit, name, part)
                if wait <= 0 or _has_news(answer, part):
                    return answer
                wait -= wait_for_hint(wait, (space.epoch, space.head))

    def _pull(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space]:
        answer, space = self._glance(visit, name, part) or self._read(visit, name, part)
        self._acknowledge(visit, space, part)
        return msgspec.structs.replace(answer, accepted=space.counter, rejected=[]), space

    def _glance(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space] | None:
        """Most pulls find nothing new, and learn it from one statement."""
        if part.page is not None:
            return None
        with one_statement(self.engine) as connection:
            space = _opened(cursor(connection), visit, name, part)
        answer = nothing_new(space, part)
        return (answer, space) if answer else None

    def _read(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space]:
        with one_moment(self.engine) as connection:
            cur = cursor(connection)
            space = _opened(cur, visit, name, part)
            return next_page(cur, space, visit, part, self.limits), space

    def _acknowledge(self, visit: Visit, space: Space, part: Pull) -> None:
        """Remembers a cursor that moved, in a transaction that nobody waits for."""
        stands = _acknowledged(space, part)
        if stands == (space.cursor, space.cursor_epoch):
            return
        with self.engine.begin() as connection:
            cur = cursor(connection)
            wait_for_no_disk(cur)
            if space.replica is None:
                space = open_space(cur, visit.who, str(space.id), "read", lock=True)
            replica = space.replica or replicas.add(cur, space.id, visit.who.device_id)
            replicas.acknowledge(cur, space.id, replica, *stands)

    def _tell(self, space: Space, plan: Plan) -> None:
        if plan.entries:
            self.hints.tell(space.id, space.epoch, plan.head)


def _has_news(answer: SpaceAnswer, part: Pull) -> bool:
    return not part.cursor == answer.cursor == answer.head


def _opened(cur: Cursor, visit: Visit, name: str, part: Pull) -> Space:
    """The space to read, by a device that is not behind its own count."""
    space = open_space(cur, visit.who, name, "read")
    counter = part.counter if isinstance(part, SpaceRequest) else None
    if counter is not None and counter < space.counter:
        raise Conflict("device_fork", known=[])
    return space


def push(cur: Cursor, space: Space, visit: Visit, part: SpaceRequest, limits: Limits) -> Plan:
    """Decides the changes and writes them, under the space's lock, which `space` is the state of.

    Raises `SyncError` (`device_fork`, `counter_gap`, `bad_counter`) before anything is written.
    """
    replica = space.replica or replicas.add(cur, space.id, visit.who.device_id)
    before = _records(cur, space, part)
    contexts = journal.Contexts(cur, space.id)
    numbers, clock = _named(cur, space, part)
    state = State(
        replica=replica,
        counter=space.counter,
        history=History(space.epoch, space.head, clock, _epochs(cur, space, part), contexts),
        decided=_decided(cur, space, replica, part),
        records=before,
        replicas=numbers,
        tails_of=journal.Tails(cur, space.id, contexts),
        frozen=space.device_frozen,
        documents=_documents(cur, space, part),
        load=lambda key: _whole(cur, space, key),
    )
    plan = plan_push(state, part, visit.sent_at, visit.received_at, limits)
    if plan.accepted > space.counter:
        journal.append(cur, space.id, replica, visit.received_at, plan.entries)
        _write(cur, space, plan, before)
        if plan.documents:
            documents.write(cur, space.id, plan.documents)
        quarantine.keep(cur, space.id, replica, plan.head, visit.received_at, plan.refusals)
        quarantine.discard(cur, space.id, replica, plan.discarded)
        stands = _acknowledged(space, part)
        replicas.decide(cur, space.id, replica, plan.accepted, plan.head, *stands)
    return plan


def _acknowledged(space: Space, part: Pull) -> tuple[int, int]:
    """(cursor, epoch) as the device says that it stands. What it can't have got is not kept."""
    cursor, epoch = part.cursor, part.epoch or space.epoch
    believed = 0 < cursor <= space.head and epoch <= space.epoch
    return (cursor, epoch) if believed else (space.cursor, space.cursor_epoch)


def _told(plan: Plan) -> list[Rejection]:
    return [Rejection(*told) for told in plan.rejected]


# What a push reads, a statement each, and only where its changes ask for it -------------------


def _changes(part: SpaceRequest) -> list[Change]:
    return [change for change in part.changes if isinstance(change, Change)]


def _records(cur: Cursor, space: Space, part: SpaceRequest) -> dict[Key, Record]:
    keys = {(op.collection, op.id) for change in _changes(part) for op in change.ops}
    rows = records.read(cur, space.id, keys) if keys else []
    return {(row.collection, row.id): unpack(row) for row in rows}


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


# What a push writes ---------------------------------------------------------------------------


def _write(cur: Cursor, space: Space, plan: Plan, before: Mapping[Key, Record]) -> None:
    """What is new is packed while PostgreSQL takes it in: it has one author, and so no siblings
    that only the names of devices could rank.
    """
    names = replicas.Names(cur, space.id)
    rows = plan.records.items()
    changed = [pack(*key, row, names) for key, row in rows if key in before]
    records.update(cur, space.id, changed)
    if len(changed) < len(rows):
        new = (pack(*key, row, names) for key, row in rows if key not in before)
        records.insert(cur, space.id, new)
