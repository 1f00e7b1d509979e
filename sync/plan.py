"""What a push does to a space: what to write, what was a repeat, what is refused.

Laws:
* each change is decided once, applied or refused, and using up its counter; a repeat of it gets
  the first verdict again and changes nothing;
* counters are decided in order, without gaps; a counter used twice for two things is a fork, and
  then nothing of the request is applied;
* a change stands or falls alone, with all its operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from msgspec import Struct
from msgspec.structs import replace

from sync import editing
from sync.changes import BadChange, Change, Edit, Key, Put
from sync.clock import (
    CausalContext,
    DeviceId,
    Epoch,
    History,
    Replica,
    Seen,
    VectorClock,
    Write,
    close,
    corrected,
)
from sync.documents import NOTHING
from sync.editing import FieldKey, Held
from sync.errors import BadRequest, Conflict, Refused
from sync.fields import Document, Register, Tail
from sync.limits import Limits
from sync.records import Record, Row, apply, with_document
from sync.requests import SpaceRequest
from sync.work import work_of, work_of_closing

Error = dict[str, object]


@dataclass(frozen=True, slots=True)
class Decided:
    """The verdict that stands on a counter. A `digest` of None matches nothing: the counter was
    discarded, and whatever turns up under it is a fork.
    """

    digest: bytes | None
    error: Error | None = None


TailsOf = Callable[[Mapping[Key, int]], Mapping[Key, Mapping[str, Tail]]]
"""{record: cursor} → for each, by field, the counter and set steps after it that still stand."""


@dataclass(frozen=True, slots=True)
class State:
    """What a push meets. `counter` is the highest that was decided for this replica; `decided`
    and `records` hold what the request's changes name; `replicas` the devices that their
    contexts name.
    """

    replica: Replica
    counter: int
    history: History
    decided: Mapping[int, Decided]
    records: Mapping[Key, Record]
    replicas: Mapping[DeviceId, Replica]
    tails_of: TailsOf
    frozen: bool = False
    documents: Mapping[FieldKey, Held] = field(default_factory=dict)
    load: Callable[[FieldKey], bytes] = lambda _key: NOTHING


class Entry(Struct, frozen=True):
    """A change in the log."""

    position: int
    counter: int
    context: CausalContext
    at: int
    at_corrected: int
    ops: bytes
    digest: bytes
    conflicts: tuple[tuple[str, str, str], ...]


class Refusal(Struct, frozen=True):
    """A change that was refused, whole."""

    counter: int
    body: str
    digest: bytes
    error: Error


@dataclass(slots=True)
class Plan:
    """What to write. `accepted` is the counter up to which everything is decided; `rejected` is
    what the device is told, repeats among it; `quiet` means that the device's own copy is what
    the merge came to; `discarded` is the range of counters given up; `unshown` are documents that
    their records show as they were: too large to be shown anew at each edit; `same_data` are the
    records in which nothing but these was touched.
    """

    accepted: int
    head: int
    entries: list[Entry] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    records: dict[Key, Row] = field(default_factory=dict)
    documents: dict[FieldKey, Held] = field(default_factory=dict)
    unshown: set[FieldKey] = field(default_factory=set)
    same_data: set[Key] = field(default_factory=set)
    rejected: list[tuple[int, Error]] = field(default_factory=list)
    discarded: tuple[int, int] | None = None
    quiet: bool = True


def plan_push(
    state: State, request: SpaceRequest, sent_at: int | None, received_at: int, limits: Limits
) -> Plan:
    """`sent_at` and `received_at` in ms since 1970, by the device's and the server's clock.

    Raises `Conflict` (`device_fork`, `counter_gap`) and `BadRequest` (`bad_counter`); then
    nothing is to be written.
    """
    _check_counters(request)
    _check_fork(state, request)
    plan = Plan(state.counter, state.history.head)
    _discard(plan, request)
    repeats = [change for change in request.changes if change.counter <= state.counter]
    fresh = request.changes[len(repeats) :]
    for change in repeats:
        error = state.decided[change.counter].error
        if error is not None:
            plan.rejected.append((change.counter, error))
    if fresh and fresh[0].counter > plan.accepted + 1:
        raise Conflict("counter_gap", expected=plan.accepted + 1)
    _Push(state, plan, received_at, sent_at, limits).decide(fresh)
    return plan


def _check_counters(request: SpaceRequest) -> None:
    counters = [change.counter for change in request.changes]
    if counters and counters != list(range(counters[0], counters[0] + len(counters))):
        raise BadRequest("bad_counter", "the counters of the changes are not consecutive")
    used = request.counter
    if used is not None and max([*counters[-1:], request.discarded or 0]) > used:
        raise BadRequest("bad_counter", "`counter` is below what the request itself uses")
    if counters and request.discarded is not None and request.discarded >= counters[0]:
        raise BadRequest("bad_counter", "`discarded` names a change that the request holds")


def _check_fork(state: State, request: SpaceRequest) -> None:
    repeats = [c for c in request.changes if c.counter <= state.counter]
    known = [c.counter for c in repeats if _is_repeat(c, state.decided.get(c.counter))]
    reused = request.counter is not None and request.counter < state.counter
    if state.frozen or reused or len(known) < len(repeats):
        raise Conflict("device_fork", known=known)


def _is_repeat(change: Change | BadChange, decided: Decided | None) -> bool:
    if decided is None or decided.digest is None:
        return False
    digest = change.digest if isinstance(change, BadChange) else change.form()[1]
    return digest == decided.digest


def _discard(plan: Plan, request: SpaceRequest) -> None:
    if request.discarded is not None and request.discarded > plan.accepted:
        plan.discarded = (plan.accepted + 1, request.discarded)
        plan.accepted = request.discarded


class _Push:
    """Decides the fresh changes of one push, in order."""

    def __init__(
        self, state: State, plan: Plan, received_at: int, sent_at: int | None, limits: Limits
    ) -> None:
        self.state, self.plan, self.limits = state, plan, limits
        self.received_at, self.sent_at = received_at, sent_at
        self.records: dict[Key, Row] = dict(state.records)
        self.documents: dict[FieldKey, Held] = dict(state.documents)
        self.loaded: dict[FieldKey, bytes] = {}
        self.work = 0
        self.contexts: dict[object, tuple[CausalContext, CausalContext] | Refused] = {}

    def decide(self, changes: Iterable[Change | BadChange]) -> None:
        changes = list(changes)
        self._load_tails(changes)
        for change in changes:
            # The rest is not decided, and `accepted` says so: the device sends it again.
            if self.work > self.limits.work_per_request:
                break
            if isinstance(change, BadChange):
                self._refuse(change.counter, change.body, change.digest, change.error)
            else:
                self._decide(change)
            self.plan.accepted = change.counter
        for key, held in self.plan.documents.items():
            self._show(key, held)
        if self.plan.unshown:
            self.plan.same_data = self._with_same_data(changes)

    def _decide(self, change: Change) -> None:
        ops, digest = change.form()
        try:
            self._apply(change, ops, digest)
        except Refused as error:
            self._refuse(change.counter, change.body(), digest, error)

    def _apply(self, change: Change, ops: bytes, digest: bytes) -> None:
        """All operations, or none: the records change only once every one has been taken."""
        given, closed = self._contexts(change)
        position = self.plan.head + 1
        at = corrected(change.at, self.sent_at, self.received_at)
        seen = Seen(self.state.replica, change.counter, closed.cursor, closed.clock)
        write = Write(self.state.replica, change.counter, position, at)
        touched: dict[Key, Row] = {}
        edited: dict[FieldKey, Held] = {}
        met = False
        for index, op in enumerate(change.ops):
            key = (op.collection, op.id)
            before = touched.get(key) or self.records.get(key)
            self.work += work_of(op, before.record()) if before else 1
            try:
                touched[key], op_met = apply(before, op, seen, write, self.limits)
                if isinstance(op, Edit):
                    touched[key], freed = self._edit(touched[key].record(), op, position, edited)
                    op_met = op_met or freed
            except Refused as error:
                raise Refused(error.code, error.detail, op=index, **error.extra) from None
            met = met or op_met
        self.documents.update(edited)
        self.plan.documents.update(edited)
        touched = {key: self._bounded(r, self.records.get(key), ops) for key, r in touched.items()}
        self.records.update(touched)
        self.plan.records.update(touched)
        self.plan.head = position
        self.plan.quiet = self.plan.quiet and not met
        self.plan.entries.append(
            Entry(
                position,
                change.counter,
                given,
                change.at,
                at,
                ops,
                digest,
                _conflicts(change, touched) if met else (),
            )
        )

    def _edit(
        self, record: Record, op: Edit, position: int, edited: dict[FieldKey, Held]
    ) -> tuple[Record, bool]:
        """The record after the edit of its document, and whether that freed others' updates."""
        key = (op.collection, op.id, op.field)
        held = edited.get(key) or self.documents.get(key) or Held()
        after, work, freed = editing.edit(held, op.update, position, self._load(key), self.limits)
        self.work += work
        edited[key] = after
        before = cast("Document", record.fields[op.field])
        return with_document(record, op.field, replace(before, position=after.position)), freed

    def _show(self, key: FieldKey, held: Held) -> None:
        """Shows the document as it is after the push: once, however many edits there were."""
        collection, id_, name = key
        row = self.plan.records[collection, id_].record()
        document = cast("Document", row.fields[name])
        if not editing.is_due(held, self.received_at - document.shown_at):
            self.plan.unshown.add(key)
            return
        shown = editing.shown(held, self._load(key), self.limits)
        at = self.received_at
        row = with_document(row, name, Document(held.position, shown, held.position, at))
        self.plan.records[collection, id_] = row

    def _with_same_data(self, changes: Iterable[Change | BadChange]) -> set[Key]:
        applied = {entry.counter for entry in self.plan.entries}
        others = {
            (op.collection, op.id)
            for change in changes
            if isinstance(change, Change) and change.counter in applied
            for op in change.ops
            if not isinstance(op, Edit)
        }
        shown = self.plan.documents.keys() - self.plan.unshown
        return {key[:2] for key in self.plan.unshown} - {key[:2] for key in shown} - others

    def _load(self, key: FieldKey) -> Callable[[], bytes]:
        def load() -> bytes:
            if key not in self.loaded:
                self.loaded[key] = self.state.load(key)
            return self.loaded[key]

        return load

    def _bounded(self, record: Row, before: Row | None, ops: bytes) -> Row:
        """Measured only where it may have grown too large: no operation adds more than its text."""
        bound = (before.bytes_bound if before else 2) + len(ops)
        if bound > self.limits.record_bytes:
            bound = record.record().measure()
            if bound > self.limits.record_bytes:
                most = self.limits.record_bytes
                raise Refused("record_too_large", f"the record would take {bound} of {most} bytes")
        return record.bounded(bound)

    def _refuse(self, counter: int, body: str, digest: bytes, error: Refused) -> None:
        self.plan.refusals.append(Refusal(counter, body, digest, error.as_dict()))
        self.plan.rejected.append((counter, error.as_dict()))

    def _contexts(self, change: Change) -> tuple[CausalContext, CausalContext]:
        """(the context as far as it survived, the same closed). Many changes share one."""
        given = change.context
        key: object = self._resolve(change) if given.clock else (given.epoch, given.cursor)
        found = self.contexts.get(key)
        if found is None:
            self.work += work_of_closing(given)
            found = self.contexts[key] = self._closed(self._resolve(change))
        if isinstance(found, Refused):
            raise found
        return found

    def _closed(self, context: CausalContext) -> tuple[CausalContext, CausalContext] | Refused:
        history = self.state.history
        try:
            survived = history.survived(context)
        except Refused as error:
            return error
        return survived, close(survived, history.contexts_of)

    def _resolve(self, change: Change) -> CausalContext:
        """The clock by replica. A device unknown here is fine only in a lost history's context."""
        history, context = self.state.history, change.context
        epoch = Epoch(context.epoch or history.epoch)
        clock: dict[Replica, int] = {}
        for device, counter in context.clock.items():
            replica = self.state.replicas.get(DeviceId(device))
            if replica is not None:
                clock[replica] = counter
            elif counter and epoch >= history.epoch:
                raise Refused("bad_context", f"the clock names {device[:40]!a}, unknown here")
        if clock.pop(self.state.replica, 0) >= change.counter:
            raise Refused("bad_context", "a change can't have seen itself or what follows it")
        return CausalContext(epoch, context.cursor, VectorClock(clock))

    def _load_tails(self, changes: list[Change | BadChange]) -> None:
        """Reads the log for the records that a new row can't be merged into without it."""
        wanted: dict[Key, int] = {}
        records = self.state.records
        for change in (change for change in changes if records and isinstance(change, Change)):
            for key in _begun(change) & records.keys():
                cursor = self._cursor(change)
                if records[key].needs_tail(cursor):
                    wanted[key] = min(cursor, wanted.get(key, cursor))
        if wanted:
            tails = self.state.tails_of(wanted)
            for key, cursor in wanted.items():
                self.records[key] = records[key].with_tails(tails.get(key, {}), cursor)

    def _cursor(self, change: Change) -> int:
        """That of its closed context; a change that will be refused needs no log."""
        try:
            return self._contexts(change)[1].cursor
        except Refused:
            return self.state.history.head


def _begun(change: Change) -> set[Key]:
    """The records of which the change begins a new row."""
    return {(op.collection, op.id) for op in change.ops if isinstance(op, Put) and op.new}


def _conflicts(change: Change, touched: Mapping[Key, Row]) -> tuple[tuple[str, str, str], ...]:
    """The fields that this change wrote and that are in conflict now."""
    written: dict[Key, set[str]] = {}
    for op in change.ops:
        if isinstance(op, Put):
            written.setdefault((op.collection, op.id), set()).update(op.fields)
    return tuple(
        (*key, name)
        for key, names in written.items()
        for name, value in touched[key].record().fields.items()
        if name in names and isinstance(value, Register) and value.in_conflict
    )
