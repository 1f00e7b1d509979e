"""The frames that Yjs editors speak: sync, awareness, and Hocuspocus' envelope around both.

A frame is one binary message, `type · body`; Hocuspocus puts the document's name before it.
Numbers are lib0's varints, texts and bytes carry their length. What stands in an update or a state
vector is not looked at here (sync/documents.py does).

Promises: reading is bounded and never guesses: a number has 8 bytes at most, a length never
exceeds what is there, nothing may be left over, and whatever else comes is `malformed_frame`.
What is written is byte for byte what y-protocols 1.0 and Hocuspocus 4 write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, NoReturn

from sync.errors import BadRequest

# 2^53 - 1, which JavaScript counts up to exactly.
INTEGER_MAX: Final = 2**53 - 1
VARINT_BYTES_MAX: Final = 8
# Of one frame: a browser that has just come tells back all that it was told.
STATES_MAX: Final = 2_000
# Of one editor: a name, a colour, a cursor.
STATE_BYTES_MAX: Final = 4 * 2**10
# Deeper, an editor that compares two states would run out of stack.
STATE_DEPTH_MAX: Final = 16
# Three names of 128 characters, of 4 bytes each, and a space's id.
NAME_BYTES_MAX: Final = 2 * 2**10
TOKEN_BYTES_MAX: Final = 4 * 2**10
# A stateless message means nothing to this server; it is read to be passed over.
STATELESS_BYTES_MAX: Final = 64 * 2**10

SYNC, AWARENESS, AUTH, QUERY_AWARENESS, SYNC_REPLY = 0, 1, 2, 3, 4
STATELESS, CLOSE, SYNC_STATUS, PING, PONG = 5, 7, 8, 9, 10
STEP_1, STEP_2, UPDATE = 0, 1, 2
# y-protocols knows a denial only, and numbers it otherwise than Hocuspocus.
DENIED: Final = 0
TOKEN, HOCUSPOCUS_DENIED, AUTHENTICATED = 0, 1, 2
SESSION: Final = "\0"
"""Stands between a document's name and the number of one of several providers on it."""


class Step1(NamedTuple):
    """What the sender has; `asks` False: it answers a step 1, and wants none in return."""

    vector: bytes
    asks: bool = True


class Step2(NamedTuple):
    """What was missing."""

    update: bytes


class Update(NamedTuple):
    """What was typed."""

    update: bytes


class Presence(NamedTuple):
    """What one editor says of itself, as JSON text; None: it is gone."""

    client: int
    clock: int
    state: bytes | None


class Awareness(NamedTuple):
    presences: list[Presence]


class QueryAwareness(NamedTuple):
    pass


class Token(NamedTuple):
    token: str


class Detach(NamedTuple):
    """A Hocuspocus provider leaves its document; the socket stays."""


class Ignored(NamedTuple):
    """Well formed, and nothing to this server."""


Message = Step1 | Step2 | Update | Awareness | QueryAwareness | Token | Detach | Ignored


class Addressed(NamedTuple):
    """A message for one document of a Hocuspocus socket. `address` is what answers go to."""

    address: str
    message: Message

    @property
    def document(self) -> str:
        """The name without the number of the provider."""
        return self.address.partition(SESSION)[0]


# Reading --------------------------------------------------------------------------------------


class _Reader:
    """A frame, read from its start to its end."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def number(self) -> int:
        value = shift = 0
        for byte in self._data[self._at : self._at + VARINT_BYTES_MAX]:
            self._at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
        else:
            raise _malformed("a number is cut or too long")
        if value > INTEGER_MAX:
            raise _malformed("a number is too large")
        return value

    def bytes(self, most: int | None = None) -> bytes:
        size = self.number()
        if most is not None and size > most:
            raise _malformed(f"{size} bytes where {most} may be")
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise _malformed("the frame is cut")
        self._at += size
        return found

    def text(self, most: int) -> str:
        try:
            return self.bytes(most).decode()
        except UnicodeDecodeError:
            raise _malformed("a text is not UTF-8") from None

    @property
    def at_end(self) -> bool:
        return self._at >= len(self._data)

    def end(self) -> None:
        if not self.at_end:
            raise _malformed("something follows the message")


def _malformed(detail: str) -> BadRequest:
    return BadRequest("malformed_frame", f"The frame is not one of Yjs' protocols: {detail}.")


def read(frame: bytes) -> Message:
    """A frame of y-websocket. Raises `BadRequest` (`malformed_frame`)."""
    reader = _Reader(frame)
    message = _message(reader, reader.number())
    reader.end()
    return message


def read_addressed(frame: bytes) -> Addressed | None:
    """A frame of Hocuspocus; None: the answer to a ping, which is for no document.

    Raises `BadRequest` (`malformed_frame`).
    """
    if frame == bytes([PONG]):
        return None
    reader = _Reader(frame)
    address = reader.text(NAME_BYTES_MAX)
    kind = reader.number()
    message = _hocuspocus(reader, kind) if kind in HOCUSPOCUS else _message(reader, kind)
    reader.end()
    return Addressed(address, message)


def _message(reader: _Reader, kind: int) -> Message:
    if kind == SYNC:
        return _sync(reader)
    if kind == AWARENESS:
        return Awareness(read_presences(reader.bytes()))
    if kind == QUERY_AWARENESS:
        return QueryAwareness()
    raise _malformed(f"there is no type {kind}")


def _sync(reader: _Reader, *, asks: bool = True) -> Message:
    step = reader.number()
    if step == STEP_1:
        return Step1(reader.bytes(), asks)
    if step == STEP_2:
        return Step2(reader.bytes())
    if step == UPDATE:
        return Update(reader.bytes())
    raise _malformed(f"there is no sync message {step}")


HOCUSPOCUS: Final = {SYNC_REPLY, AUTH, STATELESS, CLOSE}


def _hocuspocus(reader: _Reader, kind: int) -> Message:
    """What only Hocuspocus has."""
    if kind == SYNC_REPLY:
        return _sync(reader, asks=False)
    if kind == AUTH:
        return _token(reader)
    if kind == STATELESS:
        reader.bytes(STATELESS_BYTES_MAX)
        return Ignored()
    return Detach()


def _token(reader: _Reader) -> Token:
    if reader.number() != TOKEN:
        raise _malformed("a client says of its authentication the token only")
    token = reader.text(TOKEN_BYTES_MAX)
    if not reader.at_end:  # the provider's version, since Hocuspocus 3
        reader.text(NAME_BYTES_MAX)
    return Token(token)


def read_presences(update: bytes) -> list[Presence]:
    """The states of an awareness update; whether they are JSON, `check_state` says.

    Raises `BadRequest` (`malformed_frame`).
    """
    reader = _Reader(update)
    count = reader.number()
    if count > STATES_MAX:
        raise _malformed(f"{count} states where {STATES_MAX} may be")
    found = []
    for _ in range(count):
        client, clock, state = reader.number(), reader.number(), reader.bytes(STATE_BYTES_MAX)
        found.append(Presence(client, clock, None if state == b"null" else state))
    reader.end()
    return found


def check_state(state: bytes) -> None:
    """Raises `BadRequest` (`malformed_frame`) where it is no object that every editor can read."""
    try:
        tree = json.loads(state.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise _malformed("a state is not JSON") from None
    if not isinstance(tree, dict) or _too_deep(tree, STATE_DEPTH_MAX):
        raise _malformed(f"a state is no object at most {STATE_DEPTH_MAX} deep")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"JSON has no {name}")


def _too_deep(tree: Any, levels: int) -> bool:
    if not isinstance(tree, dict | list):
        return False
    inner = tree.values() if isinstance(tree, dict) else tree
    return levels == 0 or any(_too_deep(each, levels - 1) for each in inner)


# Writing --------------------------------------------------------------------------------------


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def _bytes(data: bytes) -> bytes:
    return _number(len(data)) + data


def write_step_1(vector: bytes) -> bytes:
    """What the server has."""
    return bytes([SYNC, STEP_1]) + _bytes(vector)


def write_step_2(update: bytes) -> bytes:
    """What the client was missing."""
    return bytes([SYNC, STEP_2]) + _bytes(update)


def write_update(update: bytes) -> bytes:
    """What was typed elsewhere."""
    return bytes([SYNC, UPDATE]) + _bytes(update)


def write_awareness(presences: Iterable[Presence]) -> bytes:
    """What other editors say of themselves."""
    return bytes([AWARENESS]) + _bytes(write_presences(presences))


def write_presences(presences: Iterable[Presence]) -> bytes:
    """An awareness update on its own."""
    parts = [
        _number(each.client) + _number(each.clock) + _bytes(each.state or b"null")
        for each in presences
    ]
    return _number(len(parts)) + b"".join(parts)


def write_denied(reason: str) -> bytes:
    """To a y-websocket client, which shows it in its console."""
    return bytes([AUTH, DENIED]) + _bytes(reason.encode())


def addressed(address: str, message: bytes) -> bytes:
    """Any message, for one document of a Hocuspocus socket."""
    return _bytes(address.encode()) + message


def write_authenticated(*, may_write: bool) -> bytes:
    """Hocuspocus: the token was good."""
    scope = b"read-write" if may_write else b"readonly"
    return bytes([AUTH, AUTHENTICATED]) + _bytes(scope)


def write_refused(reason: str) -> bytes:
    """Hocuspocus: the token was not good, or not for this document."""
    return bytes([AUTH, HOCUSPOCUS_DENIED]) + _bytes(reason.encode())


def write_token_wanted() -> bytes:
    """Hocuspocus: the token expires soon; the provider sends the one it has now."""
    return bytes([AUTH, TOKEN])


def write_sync_status(*, saved: bool) -> bytes:
    """Hocuspocus: one update, or step 2, is committed, or never will be."""
    return bytes([SYNC_STATUS, saved])


def write_close(reason: str) -> bytes:
    """Hocuspocus: this document is closed; the others of the socket are not."""
    return bytes([CLOSE]) + _bytes(reason.encode())
