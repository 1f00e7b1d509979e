"""Documents for y-websocket providers: one socket, the document of one field.

The Yjs sync and awareness protocols, as the stock providers 1.5 and 3.1 speak them. A provider
comes back for ever, but after the close codes 4400 to 4499: those are for what coming back can't
mend, and are 4000 and the HTTP status of the error.
"""

from __future__ import annotations

import time
from typing import Final

from flask import Blueprint
from typing_extensions import override

from app.auth import admitted, handshake_token
from app.errors import close_code, row_of
from app.live.editor import Editor, door
from app.live.room import Told
from app.live.rooms import rooms
from app.live.sockets import Peer, Rules, Socket, mount
from app.openapi import describe
from app.routes import SpaceRef
from app.runtime import runtime
from sync.errors import BadRequest, SyncError, Unauthenticated
from sync.yprotocol import read, write_awareness, write_denied

blueprint = Blueprint("documents", __name__, url_prefix="/v1")

# Beside the update: its type, its step and its length; or a document's name.
ENVELOPE_BYTES: Final = 4 * 2**10
# One whole document, and what is typed while it is read.
OUTBOX_DOCUMENTS: Final = 2
# Nothing is read while a message is worked on, so that who pours letters out waits for the others;
# what costs more than a letter has an allowance of its own. More than this is no editor.
MESSAGES_PER_SECOND: Final = 100_000
MESSAGES_AT_ONCE: Final = 1_000_000


# A provider that hears nothing for 30 s takes the connection for dead. Most hear their own state.
SILENCE_SECONDS: Final = 20


def rules() -> Rules:
    """For editors, whichever provider they use."""
    most = runtime().limits.document_bytes
    return Rules(
        message_bytes=most + ENVELOPE_BYTES,
        outbox_bytes=OUTBOX_DOCUMENTS * most,
        messages_per_second=MESSAGES_PER_SECOND,
        burst=MESSAGES_AT_ONCE,
    )


def code_of(error: SyncError) -> int:
    """The code to close an editor's socket with."""
    return close_code(error) or 4000 + row_of(error).status


class YWebsocket(Editor, Peer):
    """One y-websocket provider."""

    _socket: Socket
    _told_at = 0.0
    _told_denied = False

    @override
    def opened(self, socket: Socket) -> None:
        self._socket = socket
        self.enter()
        self.ask()

    @override
    def received(self, socket: Socket, data: str | bytes) -> None:
        if isinstance(data, str):
            raise BadRequest("malformed_frame", "The frames are binary.")
        self.hear(read(data))

    @override
    def ticked(self, socket: Socket, now: float) -> None:
        self.look_at_the_time()
        if now - self._told_at > SILENCE_SECONDS:
            self.send(write_awareness(()))

    @override
    def closed(self, socket: Socket) -> None:
        self.leave()

    @override
    def refused(self, socket: Socket, error: SyncError) -> None:
        socket.close(code_of(error), error.code)

    @override
    def send(self, message: bytes) -> None:
        self._told_at = time.monotonic()
        self._socket.send(message)

    @override
    def tell(self, told: Told) -> None:
        self._told_at = time.monotonic()
        self._socket.send_frame(told.framed)

    @override
    def refuse(self, error: SyncError) -> None:
        self.refused(self._socket, error)

    @override
    def may_not(self) -> None:
        if not self._told_denied:
            self._told_denied = True
            self.send(write_denied("Your role in this space is viewer."))


@describe(
    "A document for y-websocket providers, on a websocket",
    status=101,
    errors=[
        "token_missing",
        "token_expired",
        "token_invalid",
        "device_revoked",
        "device_fork",
        "not_found",
        "forbidden",
        "invalid_id",
        "invalid_text",
        "too_many_sockets",
    ],
    media=(),
)
def _admit(space: SpaceRef, collection: str, id: str, field: str) -> YWebsocket:  # noqa: A002
    """What `y-websocket` speaks; see docs/EDITORS.md. The token is in the parameter `token`."""
    token = handshake_token()
    if token is None:
        raise Unauthenticated("token_missing")
    who, until = admitted(token)
    key, may_write = door(rooms(), who, str(space), collection, id, field)
    return YWebsocket(rooms(), key, who, until, may_write=may_write)


# A record's id may hold slashes; a provider doesn't encode its room's name.
mount(
    blueprint,
    "/spaces/<space:space>/documents/<collection>/<path:id>/<field>",
    _admit,
    rules,
)
