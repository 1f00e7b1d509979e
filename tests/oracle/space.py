"""A space without a database: the engine, and the little that storage does for it.

The log, the stored rows (packed and unpacked at every step, as in the database), the epochs and
the horizon. What it does beyond calling `sync` follows `app.exchange`, in memory.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from sync import deltas, plan, stored
from sync.answers import RecordDelta
from sync.changes import Add, Change, Edit, Increment, Key, Put, Remove
from sync.clock import (
    CausalContext,
    DeviceId,
    Epoch,
    EpochStart,
    History,
    Replica,
    Seen,
    VectorClock,
    Write,
    close,
)
from sync.deltas import PageToken, Place
from sync.documents import merge
from sync.editing import FieldKey, Held, Piece, Stored, about_all
from sync.errors import BadRequest, SyncError
from sync.fields import Step, Tail
from sync.limits import Limits
from sync.plan import Decided, Entry, Plan, State
from sync.requests import Push, Source, read_push
from sync.stored import StoredRecord

SPACE = "the-space"


class Doubled(dict[str, Any]):
    """An object that names a key twice; these histories have none."""


@dataclass
class Space:
    limits: Limits = field(default_factory=Limits)
    parse: Callable[[bytes], object] = msgspec.json.decode
    epoch: int = 1
    horizon: int = 0
    log: list[tuple[Replica, Entry, Change]] = field(default_factory=list)
    rows: dict[Key, StoredRecord] = field(default_factory=dict)
    names: list[DeviceId] = field(default_factory=list)
    counters: dict[Replica, int] = field(default_factory=dict)
    decided: dict[tuple[Replica, int], Decided] = field(default_factory=dict)
    epochs: dict[Epoch, EpochStart] = field(default_factory=dict)
    documents: dict[FieldKey, list[Piece]] = field(default_factory=dict)
    purged: dict[Key, int] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.log)

    # One round trip ----------------------------------------------------------------------------

    def sync(self, device: str, body: bytes, received_at: int) -> dict[str, Any]:
        """The answer to a request's bytes, as JSON gives it back."""
        source = Source(body, "json", lambda: self.parse(body), Doubled)
        request = read_push(source, self.limits)
        try:
            answer = self._sync(DeviceId(device), request, received_at)
        except SyncError as error:
            answer = {"error": error.as_dict()}
        return dict(msgspec.json.decode(msgspec.json.encode(answer)))

    def _sync(self, device: DeviceId, request: Push, received_at: int) -> dict[str, Any]:
        before = self.head
        made = self.push(device, request, received_at)
        answer: dict[str, Any] = {
            "epoch": self.epoch,
            "accepted": made.accepted,
            "rejected": [{"counter": n, "error": error} for n, error in made.rejected],
        }
        quiet = made.quiet and request.page is None and request.cursor == before
        if quiet and request.epoch in (None, self.epoch) and not self._needs_reset(request):
            return answer | self._page([], self.head)
        try:
            return answer | self._pull(request)
        except BadRequest as bad_page:
            return answer | {"error": bad_page.as_dict()}

    # The push ----------------------------------------------------------------------------------

    def push(self, device: DeviceId, request: Push, received_at: int) -> Plan:
        replica = self._replica(device)
        made = plan.plan_push(
            self._state(replica, device, request),
            request,
            request.sent_at,
            received_at,
            self.limits,
        )
        changes = {c.counter: c for c in request.changes if isinstance(c, Change)}
        for counter in range(self.counters[replica] + 1, made.accepted + 1):
            self.decided[replica, counter] = Decided(None)
        for entry in made.entries:
            assert entry.position == self.head + 1, "positions have no gaps"
            self.log.append((replica, entry, changes[entry.counter]))
            self.decided[replica, entry.counter] = Decided(entry.digest)
        for refusal in made.refusals:
            self.decided[replica, refusal.counter] = Decided(refusal.digest, refusal.error)
        for key, record in made.records.items():
            self.rows[key] = stored.pack(*key, record, self.name)
        for place, held in made.documents.items():
            there = [] if held.folded else self.documents.get(place, [])
            there = [p for p in there if not (p.waits and p.position in held.taken)]
            self.documents[place] = [*there, *held.pieces]
        self.counters[replica] = made.accepted
        assert made.head == self.head
        return made

    def _state(self, replica: Replica, device: DeviceId, request: Push) -> State:
        keys = {
            (op.collection, op.id)
            for change in request.changes
            if isinstance(change, Change)
            for op in change.ops
        }
        return State(
            replica=replica,
            counter=self.counters[replica],
            history=History(
                Epoch(self.epoch),
                self.head,
                VectorClock(self.counters),
                self.epochs,
                self.contexts_of,
            ),
            decided={n: d for (r, n), d in self.decided.items() if r == replica},
            records={key: stored.unpack(self.rows[key]) for key in keys if key in self.rows},
            replicas={name: Replica(n) for n, name in enumerate(self.names)},
            tails_of=self.tails_of,
            frozen=device in self.frozen,
            documents={
                (op.collection, op.id, op.field): self._held((op.collection, op.id, op.field))
                for change in request.changes
                if isinstance(change, Change)
                for op in change.ops
                if isinstance(op, Edit)
            },
            load=lambda place: merge(self._updates(place, 0)),
        )

    def _held(self, place: FieldKey) -> Held:
        pieces = self.documents.get(place, [])
        there = [piece for piece in pieces if not piece.waits]
        return Held(
            about=about_all(piece.about for piece in there),
            position=max((piece.position for piece in there), default=0),
            size=sum(len(piece.update) for piece in pieces),
            waiting=tuple(Stored(p.update, p.position) for p in pieces if p.waits),
        )

    def _updates(self, place: FieldKey, cursor: int) -> list[bytes]:
        pieces = self.documents.get(place, [])
        return [p.update for p in pieces if not p.waits and p.position > cursor]

    def _replica(self, device: DeviceId) -> Replica:
        if device not in self.names:
            self.names.append(device)
            self.counters[Replica(len(self.names) - 1)] = 0
        return Replica(self.names.index(device))

    def name(self, replica: Replica) -> DeviceId:
        return self.names[replica]

    def contexts_of(self, clock: VectorClock, after: int) -> Iterable[CausalContext]:
        return [
            entry.context
            for replica, entry, _ in self.log[after:]
            if entry.counter <= clock[replica]
        ]

    def tails_of(self, wanted: Mapping[Key, int]) -> Mapping[Key, Mapping[str, Tail]]:
        return {key: self._tails(key, cursor) for key, cursor in wanted.items()}

    def _tails(self, key: Key, cursor: int) -> dict[str, Tail]:
        steps: dict[str, tuple[Step, ...]] = {}
        start = max(cursor, self.purged.get(key, 0))
        for replica, entry, change in self.log[start:]:
            closed = close(entry.context, self.contexts_of)
            seen = Seen(replica, entry.counter, closed.cursor, closed.clock)
            for op in change.ops:
                if (op.collection, op.id) != key:
                    continue
                if isinstance(op, Put) and op.new:
                    steps = {
                        name: tuple(s for s in left if not seen.covers(s.write))
                        for name, left in steps.items()
                    }
                elif isinstance(op, Increment | Add | Remove):
                    write = Write(replica, entry.counter, entry.position, entry.at_corrected)
                    by = op.by if isinstance(op, Increment) else 0
                    steps[op.field] = (*steps.get(op.field, ()), Step(write, by))
        return {name: Tail(cursor, left) for name, left in steps.items()}

    # The pull ----------------------------------------------------------------------------------

    def _needs_reset(self, request: Push) -> bool:
        starts = [
            start.head
            for epoch, start in self.epochs.items()
            if request.epoch is not None and epoch > request.epoch
        ]
        survived = min([self.head, *starts])
        return deltas.needs_reset(request.cursor, request.epoch, self.epoch, survived, self.horizon)

    def _pull(self, request: Push) -> dict[str, Any]:
        reset = self._needs_reset(request)
        if request.page is None:
            start = Place(1 if reset else request.cursor + 1, "", "")
            token = PageToken(SPACE, self.epoch, request.cursor, self.head, reset, start)
        else:
            token = deltas.read_token(request.page, SPACE, self.epoch, request.cursor, self.horizon)
            if reset and not token.reset:
                raise BadRequest("bad_page")
        base = 0 if token.reset else request.cursor
        rows = self._rows_after(token.after, token.head if base == 0 else 0)
        limit = request.limit or self.limits.page_records
        found = [self._delta(row, base) for row in rows[:limit]]
        if len(rows) <= limit:
            return self._page(found, self.head, reset=token.reset)
        last = rows[limit - 1]
        after = Place(last.position, last.collection, last.id)
        page = deltas.write_token(msgspec.structs.replace(token, after=after))
        return self._page(found, request.cursor, page, reset=token.reset)

    def _delta(self, row: StoredRecord, cursor: int) -> RecordDelta:
        wanted = deltas.documents_wanted(row, cursor)
        documents = {one.field: merge(self._updates(one[:3], one.cursor)) for one in wanted}
        told = deltas.delta(row, cursor, self.name, raw=False)
        return msgspec.structs.replace(told, documents=documents)

    def _rows_after(self, after: Place, skip_deleted: int) -> list[StoredRecord]:
        def place(row: StoredRecord) -> tuple[int, str, str]:
            return row.position, row.collection, row.id

        rows = sorted(self.rows.values(), key=place)
        start = (after.position, after.collection, after.id)
        return [
            row
            for row in rows
            if place(row) > start and not (row.deleted and row.position <= skip_deleted)
        ]

    def _page(
        self,
        records: list[RecordDelta],
        cursor: int,
        page: str | None = None,
        *,
        reset: bool = False,
    ) -> dict[str, Any]:
        return {
            "reset": reset,
            "records": records,
            "page": page,
            "cursor": cursor,
            "head": self.head,
        }

    # Disasters and upkeep ----------------------------------------------------------------------

    def backup(self) -> Space:
        return copy.deepcopy(self)

    def restored(self, epoch: int, frozen: set[str]) -> Space:
        """The backup put in place as the start of an epoch."""
        space = copy.deepcopy(self)
        space.epoch, space.frozen = epoch, set(frozen)
        start = EpochStart(space.head, VectorClock(space.counters))
        space.epochs[Epoch(epoch)] = start
        return space

    def purge(self, horizon: int) -> set[Key]:
        """Drops the tombstones up to the horizon."""
        self.horizon = max(horizon, self.horizon)
        gone = {
            key for key, row in self.rows.items() if row.deleted and row.position <= self.horizon
        }
        for key in gone:
            del self.rows[key]
            self.documents = {p: d for p, d in self.documents.items() if p[:2] != key}
            self.purged[key] = self.head
        return gone

    def fingerprint(self) -> tuple[object, ...]:
        """Everything that a repeated request must leave as it was."""
        log = tuple((r, e.counter, e.position, e.at_corrected, e.digest) for r, e, _ in self.log)
        counted = {r: n for r, n in self.counters.items() if n}
        documents = tuple((place, *map(tuple, d)) for place, d in sorted(self.documents.items()))
        return log, tuple(sorted(self.rows.items())), tuple(sorted(counted.items())), documents
