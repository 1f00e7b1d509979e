"""Text of large documents, brought up to date in their records a moment after the edits.

A record shows its document to SQL. For a small one that is done with the edit; for a large one it
would cost more than the edit, so it is done at most once in a while (`sync.editing.is_due`), and
for the last edits here.

Promises: an edit never waits for it; what waits is bounded; a worker that is killed leaves an old
text behind, never a wrong document, until the next edit.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Final
from uuid import UUID

from sqlalchemy import Engine

from app.errors import sync_error
from storage import documents, records, replicas, spaces
from storage.sql import Cursor, cursor
from sync import editing
from sync.documents import NOTHING
from sync.editing import FieldKey
from sync.fields import Document
from sync.limits import Limits
from sync.records import with_document
from sync.stored import pack, unpack

log = logging.getLogger(__name__)

# Longer than the pause between two letters.
WAIT_SECONDS: Final = 2.0
# Documents that wait in one worker; one beyond them waits for its next edit.
WAITING_MAX: Final = 1_000
FINISH_SECONDS: Final = 3.0


class Unshown:
    """Those of a worker. `now` gives ms since 1970."""

    def __init__(
        self, connect: Callable[[], Engine], limits: Limits, now: Callable[[], int]
    ) -> None:
        self._connect, self._limits, self._now = connect, limits, now
        self._lock = threading.Lock()
        self._waiting: set[tuple[UUID, FieldKey]] = set()
        self._running = False

    def show_later(self, space: UUID, keys: Iterable[FieldKey]) -> None:
        """Call it when the edits are committed."""
        with self._lock:
            self._waiting |= {(space, key) for key in keys if len(self._waiting) < WAITING_MAX}
            if self._waiting and not self._running:
                self._running = True
                self._start()

    def finish(self) -> None:
        """For a worker that stops: what it can in a moment."""
        self.show_now(FINISH_SECONDS)

    def show_now(self, seconds: float = inf) -> None:
        """What waits, one transaction each, for so long."""
        until = time.monotonic() + seconds
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        for space, key in waiting:
            if time.monotonic() > until:
                break
            try:
                with self._connect().begin() as connection:
                    show(cursor(connection), space, key, self._limits, self._now())
            except Exception as error:  # noqa: BLE001 - logged; the others have their turn
                sync_error(error)
        with self._lock:
            self._running = bool(self._waiting)
            if self._running:
                self._start()

    def _start(self) -> None:
        timer = threading.Timer(WAIT_SECONDS, self.show_now)
        timer.daemon = True
        timer.start()


def show(cur: Cursor, space: UUID, key: FieldKey, limits: Limits, now: int) -> None:
    """Brings one record's text up to date, under the space's lock."""
    spaces.lock_head(cur, space)
    row = records.read(cur, [(space, key[:2])]).get((space, key[:2]))
    held = documents.held(cur, space, [key]).get(key)
    if row is None or held is None:
        return
    record, found = unpack(row), documents.whole(cur, space, *key)
    document = record.fields.get(key[2])
    if not isinstance(document, Document) or document.shown_to == document.position:
        return
    text = editing.shown(held, lambda: found.update if found else NOTHING, limits)
    fresh = Document(document.position, text, document.position, now)
    row = pack(*key[:2], with_document(record, key[2], fresh), replicas.Names(cur, space))
    records.update(cur, [records.row(str(space), row)])
