"""Documents for Hocuspocus providers: one socket, many documents, each with a token of its own.

A document is called `<space>/<collection>/<id>/<field>`. What is wrong with one document closes
that one, with a message; what passes closes the socket with 1013, and the provider comes back.
"""

from __future__ import annotations

import time
from typing import Final

import gevent
from flask import Blueprint
from typing_extensions import override

from app.auth import Principal, admitted
from app.live.documents import SILENCE_SECONDS, code_of, rules
from app.live.editor import Editor, door
from app.live.room import Told
from app.live.rooms import Rooms, rooms
from app.live.routes import RETRY_SECONDS, STRANGERS_MAX
from app.live.sockets import Peer, Socket, mount
from app.live.typed import DocumentKey
from app.openapi import describe
from sync.errors import BadRequest, NotFound, SyncError, TooMany, Unavailable
from sync.yprotocol import (
    Addressed,
    Detach,
    Ignored,
    Message,
    Step1,
    Token,
    addressed,
    read_addressed,
    write_authenticated,
    write_awareness,
    write_close,
    write_refused,
    write_sync_status,
    write_token_wanted,
)

blueprint = Blueprint("hocuspocus", __name__, url_prefix="/v1")

# Each is a member of a room, and is looked after every second.
DOCUMENTS_MAX: Final = 100
# A client that guesses, or does not hear.
REFUSALS_MAX: Final = 20
# The first frame is a token.
TOKEN_SECONDS: Final = 10.0
# Until then no frame is larger than a name and a token.
STRANGERS_BYTES: Final = 8 * 2**10
# The remedy is time: the provider comes back by itself, with all its documents.
PASSING: Final = 1013


class HocuspocusEditor(Editor):
    """One provider on a socket."""

    def __init__(
        self,
        session: Hocuspocus,
        address: str,
        key: DocumentKey,
        who: Principal,
        until: int,
        *,
        may_write: bool,
    ) -> None:
        super().__init__(session.rooms, key, who, until, may_write=may_write)
        self._session, self._address = session, address

    def send(self, message: bytes) -> None:
        self._session.send(self._address, message)

    @override
    def tell(self, told: Told) -> None:
        self.send(told.message)

    @override
    def saved(self, count: int) -> None:
        # One for each: the provider counts what it has sent.
        for _ in range(count):
            self.send(write_sync_status(saved=True))

    def refuse(self, error: SyncError) -> None:
        self._session.refuse(self._address, error)

    @override
    def may_not(self) -> None:
        self.send(write_sync_status(saved=False))

    @override
    def expires_soon(self) -> None:
        self.send(write_token_wanted())

    @override
    def hear(self, message: Message) -> None:
        super().hear(message)
        # A y-websocket provider is asked once; this one says by its question that it has come.
        if isinstance(message, Step1) and message.asks:
            self.ask()


class Hocuspocus(Peer):
    """One socket, with as many providers as it has documents."""

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._socket: Socket | None = None
        self._editors: dict[str, HocuspocusEditor] = {}
        self._refusals = 0
        self._stranger = True
        self._began = self._told_at = time.monotonic()

    @override
    def opened(self, socket: Socket) -> None:
        self._socket = socket
        socket.message_bytes = STRANGERS_BYTES
        self.rooms.hub.strangers += 1

    @override
    def received(self, socket: Socket, data: str | bytes) -> None:
        if isinstance(data, str):
            raise BadRequest("malformed_frame", "The frames are binary.")
        found = read_addressed(data)
        if found is not None:
            try:
                self._hear(found)
            except SyncError as error:
                self.refuse(found.address, error)

    @override
    def ticked(self, socket: Socket, now: float) -> None:
        if self._stranger and now - self._began > TOKEN_SECONDS:
            socket.close(4401, "token_missing")
        for editor in tuple(self._editors.values()):
            editor.look_at_the_time()
        if self._editors and now - self._told_at > SILENCE_SECONDS:
            # Not the protocol's ping: providers before 3.4 take it for a broken message.
            self.send(next(iter(self._editors)), write_awareness(()))

    @override
    def closed(self, socket: Socket) -> None:
        if self._stranger:
            self.rooms.hub.strangers -= 1
        for editor in tuple(self._editors.values()):
            editor.leave()

    @override
    def refused(self, socket: Socket, error: SyncError) -> None:
        socket.close(code_of(error), error.code)

    def send(self, address: str, message: bytes) -> None:
        """To one of the providers."""
        if self._socket is not None:
            self._told_at = time.monotonic()
            self._socket.send(addressed(address, message))

    def refuse(self, address: str, error: SyncError) -> None:
        """Ends this document, or where time mends it, the socket. Doesn't block."""
        if code_of(error) == PASSING and self._socket is not None:
            self.refused(self._socket, error)
            return
        self.send(address, write_refused(error.code))
        self._end(address, error.code)
        self._refusals += 1
        if self._refusals > REFUSALS_MAX and self._socket is not None:
            self.refused(self._socket, TooMany("too_fast"))

    def _hear(self, found: Addressed) -> None:
        editor = self._editors.get(found.address)
        if isinstance(found.message, Token):
            self._admit(found, found.message.token, editor)
        elif isinstance(found.message, Detach):
            self._end(found.address, "provider_initiated")
        elif editor is not None and not isinstance(found.message, Ignored):
            editor.hear(found.message)

    def _admit(self, found: Addressed, token: str, known: HocuspocusEditor | None) -> None:
        with self.rooms.hub.app.app_context():
            who, until = admitted(token)
        if known is not None:
            known.renew(who, until)
            return
        if len(self._editors) >= DOCUMENTS_MAX:
            raise BadRequest("too_many_documents", f"{DOCUMENTS_MAX} documents on a socket at most")
        key, may_write = door(self.rooms, who, *_names(found.document))
        made = HocuspocusEditor(self, found.address, key, who, until, may_write=may_write)
        self._editors[found.address] = made
        self._welcome()
        made.send(write_authenticated(may_write=may_write))
        made.enter()

    def _welcome(self) -> None:
        if self._stranger and self._socket is not None:
            self._stranger = False
            self._socket.message_bytes = self._socket.rules.message_bytes
            self.rooms.hub.strangers -= 1

    def _end(self, address: str, reason: str) -> None:
        editor = self._editors.pop(address, None)
        if editor is not None:
            self.send(address, write_close(reason))
            gevent.spawn(editor.leave)


def _names(document: str) -> tuple[str, str, str, str]:
    """Space, collection, id, field; an id may hold slashes. Raises NotFound."""
    space, _, rest = document.partition("/")
    collection, _, rest = rest.partition("/")
    id_, _, field = rest.rpartition("/")
    if not field:
        raise NotFound("not_found", "A document is called <space>/<collection>/<id>/<field>.")
    return space, collection, id_, field


@describe(
    "Documents for Hocuspocus providers, on a websocket",
    status=101,
    errors=["too_many_sockets"],
    media=(),
)
def _open() -> Hocuspocus:
    """What `@hocuspocus/provider` speaks; see docs/EDITORS.md. The first frame brings a token."""
    if rooms().hub.strangers >= STRANGERS_MAX:
        raise Unavailable("too_many_sockets", retry_after=RETRY_SECONDS)
    return Hocuspocus(rooms())


mount(blueprint, "/hocuspocus", _open, rules)
