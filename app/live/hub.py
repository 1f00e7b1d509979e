"""Who is online in this worker, and in which spaces: what happens there reaches them here.

Promise: whoever tells of news does not wait for those who hear of it.

For the support desk: `Hub.devices` holds every device that has said hello, with its sockets;
`Hub.on_change` is called with (device id, online) when a device's first socket comes and when
its last one goes, in a greenlet: it may block. The worker's name is `runtime.relay.worker`.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from secrets import token_hex
from typing import Final, Protocol
from uuid import UUID

import gevent
from flask import Flask

from app.hints import Stand, Watch
from app.live.acks import Acks
from app.live.feed import Feed
from app.live.presence import Presences, Viewer
from app.live.rights import Rights
from app.live.sockets import Sockets
from app.runtime import Runtime

TOLD_PER_TURN: Final = 256


class Member(Viewer, Protocol):
    """A socket that follows spaces."""

    def told(self, name: str) -> None:
        """The space that it calls so advanced. Must not block."""


class Room:
    """A space with members in this worker. `news` changes with each hint."""

    _news = count(1)

    def __init__(self, space: UUID) -> None:
        self.space = space
        self.members: dict[tuple[Member, str], None] = {}
        self.news = next(self._news)
        self.watch = Watch(space, self._wake)
        self._telling = False

    def _wake(self) -> None:
        self.news = next(self._news)
        if not self._telling:
            self._telling = True
            gevent.spawn(self._tell)

    def _tell(self) -> None:
        self._telling = False
        for number, (member, name) in enumerate(tuple(self.members), 1):
            member.told(name)
            if number % TOLD_PER_TURN == 0:
                gevent.sleep(0)


class Hub:
    """One for each worker."""

    def __init__(self, app: Flask, runtime: Runtime, sockets: Sockets) -> None:
        self._name, self._numbers = token_hex(4), count(1)
        self.app = app
        self.runtime = runtime
        self.sockets = sockets
        self.feed = Feed(runtime)
        self.rights = Rights()
        self.acks = Acks(runtime)
        self.presences = Presences(self)
        self.rooms: dict[UUID, Room] = {}
        self.devices: dict[UUID, set[Member]] = {}
        # Sockets that have not shown a token yet.
        self.strangers = 0
        self.on_change: Callable[[UUID, bool], None] | None = None

    def new_key(self) -> str:
        """A name for a socket, unlike any other of any worker."""
        return f"{self._name}.{next(self._numbers)}"

    def follow(self, space: UUID, member: Member, name: str, seen: Stand) -> None:
        """Tell the member of what happens in the space after `seen`, and perhaps before."""
        room = self.rooms.get(space)
        if room is None:
            room = self.rooms[space] = Room(space)
            room.watch.seen = seen
            self.runtime.hints.add(room.watch)
            self.presences.ask(space)
        room.members[member, name] = None

    def leave(self, space: UUID, member: Member, name: str) -> None:
        """No more."""
        room = self.rooms.get(space)
        if room is not None:
            room.members.pop((member, name), None)
            if not room.members:
                self.runtime.hints.remove(room.watch)
                del self.rooms[space]
                self.presences.forget(space)

    def viewers(self, space: UUID) -> list[tuple[Viewer, str]]:
        """See `presence.Audience`."""
        room = self.rooms.get(space)
        return list(room.members) if room else []

    def audiences(self) -> list[UUID]:
        """See `presence.Audience`."""
        return list(self.rooms)

    def news(self, space: UUID) -> int:
        """See `Wanted.news`."""
        room = self.rooms.get(space)
        return room.news if room else 0

    def arrived(self, device: UUID, member: Member) -> None:
        """The device has said hello on this socket."""
        here = self.devices.setdefault(device, set())
        before = len(here)
        here.add(member)
        if not before and self.on_change is not None:
            gevent.spawn(self.on_change, device, True)

    def departed(self, device: UUID, member: Member) -> None:
        """The socket has closed."""
        here = self.devices.get(device, set())
        here.discard(member)
        if not here and self.devices.pop(device, None) is not None and self.on_change is not None:
            gevent.spawn(self.on_change, device, False)
