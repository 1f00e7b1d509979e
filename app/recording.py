"""What support staff see of the devices, gathered in the worker and written beside the requests.

A request leaves a note in memory and goes on. A thread (under gevent a greenlet) adds the notes
up and writes them about once a second, on a connection of its own.

Promises: no request waits for its note, nor for a connection that a note needs; the notes in
memory are bounded, and a flood drops the oldest; a shutdown writes what is left. A kill, or a
database that is away, loses about the last second of the timeline, and nothing else: what was
acknowledged never stands on a note.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Final, TypeVar
from uuid import UUID

import psycopg
import sqlalchemy.exc
from flask import Flask, Response, g, request
from msgspec import UNSET
from sqlalchemy import Engine

from app.access import Visit
from app.notes import Batch, Contact, Note, count, reset_code, see
from storage import events, states
from storage.engine import UnusableDatabase, no_disk
from storage.events import Happened, Traffic
from storage.sql import Cursor, cursor
from sync.answers import SpaceAnswer
from sync.diagnosis import MINUTE
from sync.requests import Pull, Push, SyncRequest

log = logging.getLogger(__name__)
T = TypeVar("T")

# Some seconds of a worker that does nothing but small requests.
NOTES_MAX: Final = 20_000
FLUSH_SECONDS: Final = 1.0
BEAT_SECONDS: Final = 30
# Lists show a device's lag so old at most; a sweep that takes long has so many times its rest.
SWEEP_SECONDS: Final = 15
REST: Final = 20
# A timeline is pruned after so many more rows, not at each.
PRUNE_AFTER: Final = 50
# Devices whose rows are counted for that; beyond it the count starts anew.
COUNTED_MAX: Final = 50_000
FAILURES: Final = (sqlalchemy.exc.SQLAlchemyError, psycopg.Error, OSError, UnusableDatabase)


class Recorder:
    """One for each of so many workers. `now` gives ms since 1970."""

    def __init__(
        self, connect: Callable[[], Engine], now: Callable[[], int], workers: int = 1
    ) -> None:
        self.now = now
        self._workers = workers
        self.worker = f"{socket.gethostname()}:{os.getpid()}"
        self._connect = connect
        self._engine: Engine | None = None
        self._notes: deque[Note | Contact] = deque(maxlen=NOTES_MAX)
        self._sizes: deque[tuple[int, int, bool]] = deque(maxlen=NOTES_MAX)
        self._sockets: Counter[UUID] = Counter()
        self._moved: deque[tuple[UUID, bool]] = deque(maxlen=NOTES_MAX)
        self._since_pruned: Counter[UUID] = Counter()
        self._flushing = threading.Lock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False

    # What requests call: an append, and no more ----------------------------------------------

    def synced(self, visit: Visit, asked: SyncRequest, answers: Mapping[str, SpaceAnswer]) -> None:
        """A round trip, of all its spaces."""
        device, at = visit.who.device_id, visit.received_at
        pushed, good = False, True
        for name, answer in answers.items():
            part = asked.spaces[name]
            if answer.error is not UNSET and answer.accepted is UNSET:
                code = str(answer.error["code"])
                self._notes.append(Note(device, at, "refused", code, name))
                good = False
                continue
            if part.changes:
                pushed = True
                rejected = 0 if answer.rejected is UNSET else len(answer.rejected)
                self._pushed(device, at, name, len(part.changes), rejected)
            good = self._pulled(device, at, name, part, answer) and good
        self._came(Contact(device, at, visit.sent_at, asked.client, pushed, good and bool(answers)))

    def pushed(self, visit: Visit, name: str, part: Push, rejected: int) -> None:
        """A push alone."""
        device, at = visit.who.device_id, visit.received_at
        self._pushed(device, at, name, len(part.changes), rejected)
        self._came(Contact(device, at, visit.sent_at, None, bool(part.changes), False))

    def pulled(self, visit: Visit, name: str, part: Pull, answer: SpaceAnswer) -> None:
        """A pull alone, or what a live session was given: `part` says from where."""
        device, at = visit.who.device_id, visit.received_at
        good = self._pulled(device, at, name, part, answer)
        self._came(Contact(device, at, visit.sent_at, None, False, good))

    def happened(self, kind: str, device: UUID, at: int) -> None:
        """`login`, `token_renewed`, `logout` …: a device was here."""
        self._notes.append(Note(device, at, kind))
        self._came(Contact(device, at, None, None, False, False))

    def refused(
        self, code: str, device: UUID, at: int, space: str | None = None, email: str | None = None
    ) -> None:
        """A whole request was refused. `email`: the account that the device is said to be of."""
        self._notes.append(Note(device, at, "refused", code, space, email))
        if email is None:
            self._came(Contact(device, at, None, None, False, False))

    def moved(self, device: UUID, online: bool) -> None:
        """A device's first socket here was opened, or its last one closed."""
        (self.online if online else self.offline)(device, self.now())

    def online(self, device: UUID, at: int) -> None:
        """A socket of the device is open here."""
        self._sockets[device] += 1
        self._moved.append((device, True))
        self.happened("connected", device, at)

    def offline(self, device: UUID, at: int, code: str = "") -> None:
        """A socket of the device was closed; `code` says why where the server did it."""
        self._sockets[device] -= 1
        if self._sockets[device] <= 0:
            del self._sockets[device]
            self._moved.append((device, False))
        self._notes.append(Note(device, at, "disconnected", code))
        self._came(Contact(device, at, None, None, False, False))

    def measured(self, at: int, size: int, refused: bool) -> None:
        """A request of so many bytes went through."""
        self._sizes.append((at, size, refused))

    def _pushed(self, device: UUID, at: int, name: str, changes: int, rejected: int) -> None:
        note = Note(device, at, "pushed", "", name, None, 1, changes, rejected)
        self._notes.append(note)

    def _pulled(self, device: UUID, at: int, name: str, part: Pull, answer: SpaceAnswer) -> bool:
        """Whether the cursor was good. A page that goes on with a transfer is not one more pull."""
        records = 0 if answer.records is UNSET else len(answer.records)
        begins = part.page is None
        if answer.reset is True and begins:
            self._notes.append(Note(device, at, "reset", reset_code(part, answer), name))
        if records:
            note = Note(device, at, "pulled", "", name, None, int(begins), records=records)
            self._notes.append(note)
        return answer.reset is not True

    def _came(self, contact: Contact) -> None:
        self._notes.append(contact)
        if self._thread is None:
            self._start()

    # What writes ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Writes all notes that there are. What fails twice is dropped and logged."""
        with self._flushing:
            batch = self._batch()
            if batch == Batch():
                return
            for last in (False, True):
                try:
                    with no_disk(self._own_engine()) as connection:
                        self._write(cursor(connection), batch)
                    return
                except FAILURES as failure:
                    if last:
                        log.warning("the timeline lost a second: %s", type(failure).__name__)

    def sweep(self) -> None:
        """Brings the lists' lag and flags up to date."""
        try:
            with self._own_engine().begin() as connection:
                states.sweep(connection, self.now())
        except FAILURES as failure:
            log.warning("lag and flags stay as they were: %s", type(failure).__name__)

    def stop(self) -> None:
        """Writes what is left, and ends: the worker goes."""
        self._stopped = True
        self._wake.set()
        for device in list(self._sockets):
            self._moved.append((device, False))
        self._sockets.clear()
        if self._thread is not None:
            self.flush()
        if self._engine is not None:
            self._engine.dispose()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        beat_at = sweep_at = self.now()
        while not self._wake.wait(FLUSH_SECONDS):
            self.flush()
            now = self.now()
            if now >= beat_at and self._sockets:
                beat_at = now + BEAT_SECONDS * 1000
                self._beat(now)
            if now >= sweep_at:
                self.sweep()
                took = self.now() - now
                # The workers take turns by chance: all of them come to one sweep in that time.
                sweep_at = now + self._workers * max(SWEEP_SECONDS * 1000, REST * took)

    def _beat(self, now: int) -> None:
        try:
            with self._own_engine().begin() as connection:
                events.beat(cursor(connection), self.worker, now)
        except FAILURES as failure:
            log.warning("no sign of life: %s", type(failure).__name__)

    def _own_engine(self) -> Engine:
        if self._engine is None:
            self._engine = self._connect()
        return self._engine

    def _write(self, cur: Cursor, batch: Batch) -> None:
        rows = [
            Happened(device, minute, kind, code, space, email, *figures)
            for (device, minute, kind, code, space, email), figures in batch.events.items()
        ]
        events.see(cur, list(batch.seen.values()))
        events.leave(cur, self.worker, batch.gone)
        events.name_versions(cur, batch.versions)
        events.add(cur, rows)
        events.carry(cur, [Traffic(minute, *row) for minute, row in batch.traffic.items()])
        events.prune(cur, self._due(rows))

    def _due(self, rows: list[Happened]) -> list[UUID]:
        """The devices whose timelines have grown enough to be pruned."""
        if len(self._since_pruned) > COUNTED_MAX:
            self._since_pruned.clear()
        self._since_pruned.update(row.device for row in rows)
        due = [device for device, count in self._since_pruned.items() if count >= PRUNE_AFTER]
        for device in due:
            del self._since_pruned[device]
        return due

    def _batch(self) -> Batch:
        batch = Batch()
        for at, size, refused in _drained(self._sizes):
            row = batch.traffic.setdefault(at - at % MINUTE, [0, 0, 0, 0, 0])
            row[0], row[2], row[4] = row[0] + 1, row[2] + size, row[4] + refused
        for note in _drained(self._notes):
            if isinstance(note, Note):
                count(batch, note)
            else:
                see(batch, note)
        for device, on in _drained(self._moved):
            self._move(batch, device, on)
        return batch

    def _move(self, batch: Batch, device: UUID, on: bool) -> None:
        if not on and device not in self._sockets:
            batch.gone.add(device)
        elif on and device in self._sockets and device in batch.seen:
            batch.gone.discard(device)
            batch.seen[device] = batch.seen[device]._replace(worker=self.worker)


def _drained(notes: deque[T]) -> Iterator[T]:
    """All that stand there now: what comes meanwhile waits for the next time."""
    for _ in range(len(notes)):
        yield notes.popleft()


# In Flask ---------------------------------------------------------------------------------------


def install(
    app: Flask, recorder_of: Callable[[], Recorder], device_of: Callable[[], UUID | None]
) -> None:
    """Measure every request of a device's, and note those that were refused as a whole.

    `device_of` tells the device that this request's token was made for, an expired one too.
    """

    def after(response: Response) -> Response:
        if not request.path.startswith("/v1/") or request.path.startswith("/v1/admin/"):
            return response
        code: str | None = g.get("refused")
        recorder = recorder_of()
        at: int = g.get("received_at") or recorder.now()
        recorder.measured(at, request.content_length or 0, code is not None)
        if code is not None:
            device = g.get("device_named") or device_of()
            if device is not None:
                space = (request.view_args or {}).get("space")
                named = None if space is None else str(space)
                recorder.refused(code, device, at, named, g.get("account_named"))
        return response

    app.after_request(after)
