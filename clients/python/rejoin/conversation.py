"""One conversation on the live socket: hello, changes out as they are made, deltas in.

It decides nothing that a plain sync decides: whatever is more than a delta or an acknowledgement
(a gap, a fork, a withdrawn space, a reset, a viewer's edits) is left to `Loop`, which may run at
any time beside the open socket. Deltas that the file has already are passed over.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from rejoin import limits, request, settle, spaces
from rejoin.answers import as_int, as_object, as_text, read_problem, read_space
from rejoin.errors import RejoinError
from rejoin.line import Line
from rejoin.pieces import Delta, Stream, space_of
from rejoin.request import Part
from rejoin.rowwatch import RowChange
from rejoin.schema import get_meta
from rejoin.spaces import Space
from rejoin.values import Json, JsonObject, compact

READY_TIMEOUT_S = 15.0
"""From hello to ready. A proxy that shakes hands and holds the rest back is found by this."""
PUSH_TIMEOUT_S = 30.0
"""From a push to its answer; then the connection counts as dead."""
LOOK_EVERY_S = 1.0
"""How late an edit is noticed that another process or a connection of the app's own made. Edits by
`execute()` and `transaction()` ring at once."""
AGAIN_EVERY_S = 60.0
"""How often spaces that can't be live (failing, or too many for one hello) are synced plainly."""
SYNCS_MAX = 5
"""Plain syncs that one conversation may ask for in so many seconds before it ends, to back off."""
SYNCS_WITHIN_S = 10.0

log = logging.getLogger("rejoin")


class Desk(Protocol):
    """What a conversation needs of the device: its file, its plain sync, its ear."""

    db: sqlite3.Connection

    def now_ms(self) -> int: ...
    def changed(self, rows: list[RowChange]) -> None: ...
    def sync(self) -> None: ...
    def renew(self) -> None: ...
    def online(self) -> None: ...
    def look(self) -> None: ...
    def applied(self) -> None: ...
    def present(self, message: JsonObject) -> None: ...
    def presences(self) -> dict[str, Json]: ...


@dataclass(frozen=True)
class Sent:
    """A push whose answer is due by `due` (monotonic)."""

    part: Part
    due: float


class Conversation:
    """See the module. Lives as long as its line; used by one thread."""

    def __init__(self, desk: Desk, line: Line) -> None:
        self._desk = desk
        self._db = desk.db
        self._line = line
        self._device = get_meta(desk.db, "device_id") or ""
        self._token = get_meta(desk.db, "access_token")
        self._ready = False
        self._ready_due = 0.0
        self._streams: dict[str, Stream] = {}
        self._sent: dict[int, Sent] = {}
        self._ref = 0
        self._must_sync = False
        self._syncs: list[float] = []
        self._version = self._schema = -1
        self._look_due = time.monotonic() + LOOK_EVERY_S
        self._again_due = time.monotonic() + AGAIN_EVERY_S
        self._shown_presence: dict[str, Json] = {}
        self._handlers: dict[str, Callable[[JsonObject], None]] = {
            "ready": self._on_ready,
            "delta": self._on_delta,
            "pushed": self._on_pushed,
            "presence": desk.present,
            "token_expiring": lambda _: desk.renew(),
            "error": self._on_error,
        }

    def run(self) -> None:
        """Until it ends: raises Ended, Stopping, RejoinError (all of which leave a sound file)."""
        self._schema = self._pragma("schema_version")
        self._hello()
        while True:
            message = self._line.take(self._patience())
            if message is not None and (
                handler := self._handlers.get(as_text(message.get("type")))
            ):
                handler(message)
            self._tend()

    # ---- what is due

    def _patience(self) -> float:
        due = [self._look_due, self._again_due, *(s.due for s in self._sent.values())]
        if not self._ready:
            due.append(self._ready_due)
        return max(0.0, min(due) - time.monotonic())

    def _tend(self) -> None:
        now = time.monotonic()
        if not self._ready:
            if now >= self._ready_due:
                raise RejoinError("No answer to hello on the websocket.")
            return
        if any(now >= sent.due for sent in self._sent.values()):
            raise RejoinError("No answer to a push on the websocket.")
        self._look()
        if self._must_sync or now >= self._again_due:
            self._sync()
        self._say_token()
        self._say_presence()
        self._push()

    def _look(self) -> None:
        """What others did to the file: new tables and spaces, edits, a cursor that moved on."""
        version = self._pragma("data_version")
        self._look_due = time.monotonic() + LOOK_EVERY_S
        if version == self._version:
            return
        self._version = version
        self._same_device()
        self._desk.look()
        if self._pragma("schema_version") != self._schema or set(self._live()) != {*self._streams}:
            self._must_sync = True  # a plain sync publishes tables, and pulls new spaces

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    def _live(self) -> dict[str, Space]:
        """Spaces that can be live: pulled once, open to us, and no more than a hello holds."""
        fine = [
            space
            for space in spaces.read_all(self._db)
            if space.pulled and not space.withdrawn and space.error is None
        ]
        return {space.id: space for space in fine[: limits.read(self._db).spaces]}

    def _sync(self) -> None:
        """A plain sync beside the socket; then hello again if other spaces are live now."""
        now = time.monotonic()
        must, self._must_sync = self._must_sync, False
        if must:
            self._syncs = [t for t in self._syncs if now - t < SYNCS_WITHIN_S]
            self._syncs.append(now)
            if len(self._syncs) > SYNCS_MAX:
                raise RejoinError("The live socket and plain sync don't agree; trying anew.")
        if must or self._unserved():
            self._desk.sync()
        self._same_device()
        self._again_due = time.monotonic() + AGAIN_EVERY_S
        self._schema = self._pragma("schema_version")
        if set(self._live()) != {*self._streams}:
            self._hello()
        for space in list(self._streams):
            self._apply(space)

    def _unserved(self) -> bool:
        """Spaces that no hello named, or whose edits a viewer's role kept back."""
        return any(
            s.id not in self._streams or (s.read_only and spaces.pending(self._db, s.no))
            for s in spaces.read_all(self._db)
        )

    # ---- out

    def _hello(self) -> None:
        live = self._live()
        # Who followed a space already goes on where its stream stands.
        self._streams = {name: self._streams.get(name) or Stream() for name in live}
        self._ready = False
        self._ready_due = time.monotonic() + READY_TIMEOUT_S
        parts: JsonObject = {
            name: {"epoch": space.epoch, "cursor": space.pull_cursor, "counter": space.counter}
            for name, space in live.items()
        }
        self._token = get_meta(self._db, "access_token")
        self._send(
            {
                "type": "hello",
                "token": self._token,
                "sent_at": self._desk.now_ms(),
                "spaces": parts,
            }
        )

    def _push(self) -> None:
        """What waits in each space, one request a space at a time: the rest gathers meanwhile."""
        self._desk.look()
        busy = {sent.part.space.no for sent in self._sent.values()}
        for name, space in self._live().items():
            if space.no in busy or space.read_only or name not in self._streams:
                continue
            (part,) = request.parts(self._db, [space], limits.read(self._db))
            if part.held:
                self._push_part(name, part)

    def _push_part(self, name: str, part: Part) -> None:
        self._ref += 1
        self._sent[self._ref] = Sent(part, time.monotonic() + PUSH_TIMEOUT_S)
        members: JsonObject = {
            "type": "push",
            "ref": self._ref,
            "space": name,
            "sent_at": self._desk.now_ms(),
            "counter": part.space.counter,
        }
        if part.space.discarded is not None:
            members["discarded"] = part.space.discarded
        self._line.send(request.with_changes(members, part.bodies))

    def _same_device(self) -> None:
        """After a fork, or a login under a new id, this socket speaks for nobody any more."""
        if (get_meta(self._db, "device_id") or "") != self._device:
            raise RejoinError("This device has got a new id; connecting anew.")

    def _say_token(self) -> None:
        """A plain sync, or another process on the file, may have renewed it."""
        token = get_meta(self._db, "access_token")
        if token != self._token:
            self._token = token
            self._send({"type": "token", "token": token})

    def _say_presence(self) -> None:
        for space, state in self._desk.presences().items():
            if space in self._streams and self._shown_presence.get(space) != state:
                self._shown_presence[space] = state
                self._send({"type": "presence", "space": space, "state": state})

    def _send(self, message: JsonObject) -> None:
        self._line.send(compact(message))

    # ---- in

    def _on_ready(self, message: JsonObject) -> None:
        self._ready = True
        told = as_object(message.get("spaces"))
        if any(as_object(one).get("error") for one in told.values()):
            self._must_sync = True  # it knows what to do about each
        self._shown_presence = {}
        self._desk.online()

    def _on_delta(self, message: JsonObject) -> None:
        name = space_of(message)
        stream = self._streams.get(name)
        if stream is None:
            return
        stream.add(message, self._device)
        if stream.too_much:
            stream.clear()
            self._must_sync = True
        self._apply(name)

    def _apply(self, name: str) -> None:
        stream = self._streams[name]
        while stream.ready and self._taken(stream.ready[0], name):
            stream.ready.popleft()

    def _taken(self, delta: Delta, name: str) -> bool:
        """Whether a delta is done with. False: it waits for the answer to a push of ours."""
        no = spaces.number_of(self._db, name)
        space, answer = spaces.read(self._db, no), delta.answer
        if answer.cursor is None or answer.epoch != space.epoch or answer.reset:
            return self._leave_to_sync()
        if answer.cursor <= space.pull_cursor:
            return True  # a plain sync was faster
        if delta.start > space.pull_cursor or space.page is not None or space.replacing:
            return self._leave_to_sync()
        if not space.read_only and settle.unasked(self._db, no, answer):
            return False
        settle.settle(
            self._db,
            space,
            answer,
            self._desk.now_ms(),
            muted=space.read_only,
            watch=self._desk.changed,
        )
        self._desk.applied()
        cursor = spaces.read(self._db, no).pull_cursor
        if cursor < answer.cursor:
            return self._leave_to_sync()
        self._send({"type": "ack", "space": name, "cursor": cursor})
        return True

    def _leave_to_sync(self) -> bool:
        self._must_sync = True
        return True

    def _on_pushed(self, message: JsonObject) -> None:
        sent = self._sent.pop(as_int(message.get("ref")) or 0, None)
        if sent is None:
            return
        part = sent.part
        answer = replace(read_space(message), page=None, cursor=None, covered=None)
        settle.settle(
            self._db,
            part.space,
            answer,
            self._desk.now_ms(),
            part.held,
            watch=self._desk.changed,
        )
        if (answer.accepted or 0) < part.held.start:
            self._must_sync = True
        for name in list(self._streams):
            self._apply(name)

    def _on_error(self, message: JsonObject) -> None:
        """Of a push, of a space, or of the whole: a plain sync finds out what is to be done."""
        problem = read_problem(message)
        self._sent.pop(as_int(message.get("ref")) or 0, None)
        log.info("live: the server says %s: %s", problem.code, problem.detail)
        self._must_sync = True
