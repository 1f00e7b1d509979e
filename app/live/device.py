"""A device on its live websocket: does what `sync.session` says, and tells it what came of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace
from typing_extensions import override

from app.access import Visit, open_space, require_device
from app.auth import Principal, admitted
from app.errors import close_code
from app.live.feed import Format, Wanted, encoded
from app.live.hub import Hub
from app.live.presence import Shown
from app.live.sockets import Peer, Socket, frame
from app.trees import Body, Doubled, parse_tree
from storage import notify
from storage.engine import one_statement
from storage.sql import Cursor, cursor
from sync import events as live
from sync.errors import BadRequest, Conflict, SyncError, Unauthenticated
from sync.events import Session
from sync.messages import (
    SMALL_BYTES,
    Asked,
    Present,
    Pushed,
    about,
    error_message,
    read_message,
)
from sync.requests import PushMessage, Source
from sync.session import step

# Before the token is known, a message is no larger than a hello.
STRANGERS_BYTES: Final = SMALL_BYTES


class Device(Peer):
    """One socket of a device. `who` is None until its token was checked."""

    __slots__ = ("_format", "_hub", "_session", "_socket", "_spaces", "key", "who")

    def __init__(self, hub: Hub, who: Principal | None, until: int | None) -> None:
        self.who = who
        self._hub = hub
        self.key = hub.new_key()
        self._session = Session(began=hub.runtime.now_ms(), until=until)
        self._format: Format | None = None
        self._socket: Socket | None = None
        self._spaces: dict[str, UUID] = {}

    # As a peer

    @override
    def opened(self, socket: Socket) -> None:
        self._socket = socket
        self._hub.rights.add(self._hub.runtime.engine, self)
        if self.who is None:
            self._hub.strangers += 1
            socket.message_bytes = STRANGERS_BYTES

    @override
    def received(self, socket: Socket, data: str | bytes) -> None:
        format_: Format = "json" if isinstance(data, str) else "msgpack"
        if self._format is None:
            self._format = format_
        if format_ != self._format:
            raise BadRequest("malformed_body", "Text and binary frames must not be mixed.")
        body = Body(data.encode() if isinstance(data, str) else data, format_)
        source = Source(body.data, format_, lambda: parse_tree(body), Doubled)
        try:
            message = read_message(source, self._hub.runtime.limits)
        except SyncError as error:
            named = about(source)
            self._refuse(error, named.ref, named.space)
        else:
            self._happen(message)

    @override
    def drained(self, socket: Socket) -> None:
        self._settle()

    @override
    def ticked(self, socket: Socket, now: float) -> None:
        self._happen(live.Tick(self._hub.runtime.now_ms()))

    @override
    def refused(self, socket: Socket, error: SyncError) -> None:
        self._refuse(error)

    @override
    def closed(self, socket: Socket) -> None:
        self._hub.rights.remove(self)
        for name in tuple(self._spaces):
            self._leave(name)
        if self.who is None:
            self._hub.strangers -= 1
        else:
            self._hub.departed(self.who.device_id, self)

    # As a member, and as a holder of rights

    def told(self, name: str) -> None:
        self._do(live.Told(name))

    def sees(self, name: str, shown: Shown, written: dict[tuple[str, str], bytes]) -> None:
        format_ = self._format or "json"
        message = written.get((name, format_))
        if message is None:
            seen = Present(name, shown.device, shown.state)
            message = written[name, format_] = frame(encoded(seen, format_))
        self._do(live.Seen(name, message, shown.state is None))

    def held_spaces(self) -> Collection[UUID]:
        return self._spaces.values()

    def fallen(self, error: SyncError) -> None:
        self._refuse(error)

    def withdrawn_from(self, space: UUID, error: SyncError) -> None:
        for name, held in tuple(self._spaces.items()):
            if held == space:
                self._happen(live.Lost(name, error))

    # The conversation

    def _happen(self, event: Any) -> None:
        """An event, and what follows from it. Only what the device itself asks for blocks."""
        self._do(event)
        self._settle()

    def _settle(self) -> None:
        socket = self._socket
        if socket is not None and socket.open and socket.idle:
            self._do(live.Drained())

    def _do(self, event: Any) -> None:
        socket = self._socket
        if socket is None or not socket.open:
            return
        self._session, effects = step(self._session, event, ready=socket.idle)
        for effect in effects:
            if socket.open:
                _PERFORM[type(effect)](self, effect)

    def _send(self, message: Any) -> None:
        assert self._socket is not None  # noqa: S101 - for mypy
        if isinstance(message, bytes):
            self._socket.send_frame(message)
        else:
            self._socket.send(encoded(message, self._format or "json"))

    def _refuse(
        self, error: SyncError, ref: int | str | None = None, space: str | None = None
    ) -> None:
        if self.who is not None:
            runtime = self._hub.runtime
            runtime.recorder.refused(error.code, self.who.device_id, runtime.now_ms(), space)
        if self._socket is not None:
            self._send(error_message(error, ref, space))
            code = close_code(error)
            if code is not None:
                self._socket.close(code, error.code)

    def _read(self, read: live.Read) -> None:
        wanted = Wanted(
            read.space,
            self._hub.news(self._spaces[read.name]),
            read.name,
            read.epoch,
            read.cursor,
            read.page,
            read.floor,
            self._format or "json",
        )
        self._hub.feed.want(wanted, self._principal(), partial(self._found, read.number))

    def _found(self, number: int, found: live.Found | live.Missed) -> None:
        if isinstance(found, live.Found) and found.resets:
            floor = found.resets.get(str(self._principal().device_id), 0)
            self._do(live.ResetBelow(found.name, floor))
        self._happen(replace(found, number=number))

    def _push(self, push: PushMessage) -> None:
        runtime = self._hub.runtime
        visit = Visit(self._principal(), runtime.now_ms())
        try:
            made = runtime.exchange.push(visit, push.space, push)
        except SyncError as error:
            self._refuse(error, push.ref, push.space)
            return
        self._send(
            Pushed(push.ref, push.space, made.epoch, made.accepted, made.rejected, made.head)
        )

    def _check(self, token: str) -> None:
        with self._hub.app.app_context():
            who, until = admitted(token)
        known = self.who
        if known and (known.user_id, known.device_id) != (who.user_id, who.device_id):
            raise Unauthenticated("token_invalid", "The token is another device's.")
        if known is None:
            self._hub.strangers -= 1
        self.who = who
        if self._socket is not None:
            self._socket.message_bytes = self._socket.rules.message_bytes
        self._do(live.Admitted(until))

    def _principal(self) -> Principal:
        if self.who is None:
            raise Unauthenticated("token_missing")
        return self.who

    # Spaces

    def _open(self, asked: Mapping[str, Asked]) -> None:
        runtime, who = self._hub.runtime, self._principal()
        found: dict[str, live.Place | SyncError] = {}
        with one_statement(runtime.engine) as connection:
            cur = cursor(connection)
            if not asked:
                require_device(cur, who)
            for name, part in asked.items():
                found[name] = _place(cur, who, name, part)
        self._follow(found)
        self._hub.arrived(who.device_id, self)
        limits = dataclasses.asdict(runtime.limits)
        self._do(live.Opened(runtime.now_ms(), limits, asked, found))

    def _follow(self, found: dict[str, live.Place | SyncError]) -> None:
        """Hints first, and then a look at what has happened before they came."""
        places = {name: place for name, place in found.items() if isinstance(place, live.Place)}
        for name, place in places.items():
            self._spaces[name] = UUID(place.space)
            self._hub.follow(self._spaces[name], self, name, (place.epoch, place.head))
        if places:
            with one_statement(self._hub.runtime.engine) as connection:
                stands = notify.stands(cursor(connection), [self._spaces[name] for name in places])
            for name, place in places.items():
                newest = stands.get(self._spaces[name], place.newest)
                found[name] = live.Place(place.space, place.epoch, place.head, newest)

    def _remember(self, told: live.Remember) -> None:
        self._hub.acks.remember(self._principal(), UUID(told.space), told.epoch, told.cursor)

    def _show_others(self, name: str) -> None:
        for shown in self._hub.presences.others(self._spaces[name], self.key):
            self.sees(name, shown, {})

    def _show(self, name: str, state: dict[str, Any] | None) -> None:
        who = self._principal()
        self._hub.presences.show(self._spaces[name], self.key, str(who.device_id), state)

    def _leave(self, name: str) -> None:
        space = self._spaces.get(name)
        if space is not None:
            self._show(name, None)
            del self._spaces[name]
            self._hub.leave(space, self, name)


def _place(cur: Cursor, who: Principal, name: str, asked: Asked) -> live.Place | SyncError:
    """The space, or why not. Raises what is said of the device, not of the space."""
    try:
        space = open_space(cur, who, name, "read")
        if asked.counter is not None and asked.counter < space.counter:
            raise Conflict("device_fork", known=[])
    except Unauthenticated:
        raise
    except SyncError as error:
        if error.code == "device_fork":
            raise
        return error
    return live.Place(str(space.id), space.epoch, space.head, (space.epoch, space.head))


_PERFORM: Final[dict[type, Callable[[Device, Any], None]]] = {
    live.Send: lambda device, send: device._send(send.message),
    live.Read: Device._read,
    live.Apply: lambda device, apply: device._push(apply.push),
    live.Check: lambda device, check: device._check(check.token),
    live.Open: lambda device, open_: device._open(open_.asked),
    live.Leave: lambda device, leave: device._leave(leave.name),
    live.Refuse: lambda device, refuse: device._refuse(refuse.error),
    live.Remember: Device._remember,
    live.Show: lambda device, show: device._show(show.name, show.state),
    live.ShowOthers: lambda device, show: device._show_others(show.name),
}
