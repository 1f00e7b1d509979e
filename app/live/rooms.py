"""The rooms of this worker, and what they share: kept states, writers, the other workers."""

from __future__ import annotations

import base64
import secrets
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import Any, Final, NamedTuple
from uuid import UUID

from flask import Flask, current_app
from sqlalchemy import Engine

from app import writers
from app.access import open_space
from app.auth import Principal
from app.live.hub import Hub
from app.live.news import Newsroom
from app.live.room import Member, Room
from app.live.routes import EXTENSION as HUB
from app.live.typed import DocumentKey, Stand, written_after
from app.relay import Relay
from app.unshown import Unshown
from storage.engine import one_moment
from storage.sql import cursor
from sync import documents as yjs
from sync.awareness import Holder
from sync.limits import Limits
from sync.yprotocol import Presence

EXTENSION: Final = "rejoin-rooms"
# Of all documents together, as they were read last.
KEPT_BYTES_MAX: Final = 64 * 2**20
# Users whose replica is known to be there.
WRITERS_MAX: Final = 100_000
PRESENCE: Final = "presence in a document"
PRESENCES_WANTED: Final = "presences wanted"


class State(NamedTuple):
    """A whole document as of a position of the log, and its state vector."""

    stand: Stand
    update: bytes
    vector: bytes


class Rooms:
    """One for each worker."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._runtime = hub.runtime
        self._relay: Relay | None = None
        # Who was offline for long brings a whole document in one update.
        limits = hub.runtime.limits
        self.limits: Limits = replace(limits, document_update_bytes=limits.document_bytes)
        self._open: dict[DocumentKey, Room] = {}
        self._kept: OrderedDict[DocumentKey, State] = OrderedDict()
        self._kept_bytes = 0
        self._by_digest: dict[str, Room] = {}
        self._writers: set[UUID] = set()
        self._worker = secrets.token_hex(4)
        self._names = count(1)
        self.news = Newsroom(hub.runtime.hints, lambda: self.engine)
        # What waits for its commit, in all rooms.
        self.typed_bytes = 0

    @property
    def engine(self) -> Engine:
        return self._runtime.engine

    @property
    def unshown(self) -> Unshown:
        return self._runtime.unshown

    def now_ms(self) -> int:
        return self._runtime.now_ms()

    def holder(self, who: Principal) -> Holder:
        """A name for a socket that has come, among those of all workers."""
        return Holder(f"{self._worker}:{next(self._names)}", str(who.user_id))

    # Coming and going

    def enter(self, key: DocumentKey, member: Member) -> Room:
        """The room, which the member is in. Doesn't block."""
        room = self._open.get(key)
        if room is None:
            room = self._open[key] = self._by_digest[_digest(key)] = Room(self, key)
            self.news.follow(key.space, key[1:3], room)
            self._post(PRESENCES_WANTED, _digest(key), None)
        room.enter(member)
        return room

    def forget_empty(self, room: Room) -> None:
        """Where nobody is in the room any more, nor anything to be done."""
        if room.empty and self._open.get(room.key) is room:
            del self._open[room.key], self._by_digest[_digest(room.key)]
            self.news.leave(room.key.space, room.key[1:3], room)

    # States

    def state(self, room: Room, who: Principal) -> State:
        """The document, with all that the room's members were told until now. Blocks.

        Raises `SyncError` for who may not read.
        """
        with room.reading:  # who asks at the same time reads once
            kept = self._kept.get(room.key)
            if kept is None or room.stand is None or kept.stand < room.stand:
                kept = self._read(room.key, who, kept)
                self._keep(room.key, kept)
            room.begin(kept.stand)
            return kept

    def _read(self, key: DocumentKey, who: Principal, kept: State | None) -> State:
        with one_moment(self.engine) as connection:
            cur = cursor(connection)
            space = open_space(cur, who, str(key.space), "read")
            stand = Stand(space.epoch, space.head)
            if kept is None or kept.stand.epoch != space.epoch or kept.stand > stand:
                update = written_after(cur, key, 0) or yjs.NOTHING
            else:
                more = written_after(cur, key, kept.stand.position)
                update = yjs.merge([kept.update, more]) if more else kept.update
        return State(stand, update, yjs.state_vector(update))

    def _keep(self, key: DocumentKey, state: State) -> None:
        old = self._kept.pop(key, None)
        self._kept[key] = state
        self._kept_bytes += len(state.update) - (len(old.update) if old else 0)
        while self._kept_bytes > KEPT_BYTES_MAX:
            self._kept_bytes -= len(self._kept.popitem(last=False)[1].update)

    # Writing

    def require_writers(self, users: Iterable[UUID]) -> None:
        """Each of them has a replica to write through. Blocks where one is new here."""
        new = set(users) - self._writers
        if not new:
            return
        with self.engine.begin() as connection:
            for user in sorted(new):
                writers.register(connection, user, self._runtime.now())
        if len(self._writers) > WRITERS_MAX:
            self._writers.clear()
        self._writers |= new

    def doubt(self, space: UUID) -> None:
        """The database failed; perhaps it is another, restored one."""
        self._writers.clear()
        self.news.doubt(space)

    # Other workers

    def relay_presences(self, room: Room, holder: Holder, presences: Iterable[Presence]) -> None:
        """To the same room of the other workers."""
        for client, clock, state in presences:
            text = None if state is None else base64.b64encode(state).decode()
            value = [*holder, clock, text]
            self._post(PRESENCE, f"{_digest(room.key)}/{client}", value)

    def _post(self, topic: str, key: str, value: object) -> None:
        relay = self._runtime.relay
        if relay is not None and self._relay is None:
            self._relay = relay
            relay.on(PRESENCE, self._heard)
            relay.on(PRESENCES_WANTED, self._asked)
        if relay is not None:
            relay.post(topic, key, value)

    def _heard(self, _worker: str, key: str, value: Any) -> None:
        digest, _, client = key.partition("/")
        room = self._by_digest.get(digest)
        if room is not None:
            socket, user, clock, text = value
            state = None if text is None else base64.b64decode(text)
            room.heard([Presence(int(client), int(clock), state)], Holder(socket, user))

    def _asked(self, _worker: str, digest: str, _value: Any) -> None:
        room = self._by_digest.get(digest)
        if room is None:
            return
        for member in room.members:
            self.relay_presences(room, member.holder, room.awareness.held_by(member.holder.socket))


def _digest(key: DocumentKey) -> str:
    """A short name for the room, which every worker makes of its key."""
    return blake2b("\0".join(map(str, key)).encode(), digest_size=16).hexdigest()


def install(app: Flask) -> None:
    """Give the app its rooms, and the two websockets that lead into them."""
    from app.live import documents, hocuspocus

    app.extensions[EXTENSION] = Rooms(app.extensions[HUB])
    for module in (documents, hocuspocus):
        app.register_blueprint(module.blueprint)


def rooms() -> Rooms:
    """The rooms of the app that answers now."""
    found: Rooms = current_app.extensions[EXTENSION]
    return found
