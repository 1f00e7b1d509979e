"""One websocket, on the server's side: frames in and out, and who is gone. See sockets.py.

Longer than most modules: it is one state machine, whose parts read each other's state.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import gevent
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import FrameProtocol

from app.errors import sync_error
from app.live.peer import Peer, Rules
from sync.errors import BadRequest, TooLarge, TooMany, Unavailable

if TYPE_CHECKING:
    from app.live.sockets import Sockets

GOING_AWAY: Final = 1001
TOO_MUCH: Final = 1013
# Of one reading from the kernel: a large message comes in few of them.
RECEIVE_BYTES: Final = 64 * 2**10
# So many messages of one socket, and then the others have their turn.
MESSAGES_PER_TURN: Final = 32
# A frame for each kilobyte of the largest message is more than any client makes.
FRAGMENTS_MAX: Final = 16_384
# Messages that have begun to arrive, of all sockets together: their senders may never end them.
HELD_BYTES_MAX: Final = 128 * 2**20
# What waits for slow readers, of all sockets together. Frames are shared: it is mostly far less.
WAITING_BYTES_MAX: Final = 256 * 2**20
# A peer that is there answers a closing frame within a round trip.
CLOSE_SECONDS: Final = 3
# A reader that takes nothing of what it asked for, for so long, is gone.
STALLED_SECONDS: Final = 60
REASON_BYTES_MAX: Final = 123  # RFC 6455 §5.5
READ, WRITE = 1, 2  # of libev

_framing = FrameProtocol(client=False, extensions=[])


class State(Enum):
    OPEN = 1
    CLOSING = 2
    ENDED = 3


def frame(data: str | bytes) -> bytes:
    """A message as it travels to any number of sockets: text or binary, in one frame."""
    return bytes(_framing.send_data(data, fin=True))


NOBODY: Final = Peer()


class Socket:
    """One websocket, on the server's side. Made by `mount`."""

    __slots__ = (
        "_busy",
        "_closes_at",
        "_fragments",
        "_heard_at",
        "_held",
        "_messages",
        "_moved_at",
        "_outbox",
        "_pinged",
        "_reader",
        "_sockets",
        "_state",
        "_system",
        "_text",
        "_waiting",
        "_wire",
        "_writer",
        "message_bytes",
        "peer",
        "rules",
    )

    def __init__(self, sockets: Sockets, system: Any, peer: Peer, rules: Rules) -> None:
        self.peer = peer
        self.rules = rules
        self.message_bytes = rules.message_bytes
        self._sockets = sockets
        self._system = system
        self._wire = Connection(ConnectionType.SERVER)
        self._reader = gevent.get_hub().loop.io(system.fileno(), READ)
        self._writer: Any = None
        self._state = State.OPEN
        self._busy = True
        self._outbox: deque[memoryview] | None = None
        self._waiting = 0
        self._held = bytearray()
        self._text = False
        self._fragments = 0
        self._messages = 0
        self._pinged = False
        self._heard_at = self._moved_at = self._closes_at = time.monotonic()

    @property
    def open(self) -> bool:
        """Whether what is sent now goes out."""
        return self._state is State.OPEN

    @property
    def idle(self) -> bool:
        """Whether the reader has kept up: nothing waits for it."""
        return not self._waiting

    # Out

    def send(self, data: str | bytes) -> None:
        """Text or a binary message. Never blocks; nothing happens where the socket has closed."""
        self.send_frame(frame(data))

    def send_frame(self, framed: bytes) -> None:
        """As `send`, of what `frame` made: once for many sockets."""
        if self._state is State.OPEN:
            if self._waiting and self._waiting + len(framed) > self.rules.outbox_bytes:
                self._overflow("the messages sent are not read")
            elif self._waiting and self._sockets.waiting + len(framed) > WAITING_BYTES_MAX:
                self._overflow("the server waits for too many readers")
            else:
                self._put(framed)

    def close(self, code: int, reason: str = "") -> None:
        """Say goodbye, after what was sent before. What still arrives is dropped."""
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._closes_at = time.monotonic() + CLOSE_SECONDS
            short = reason.encode()[:REASON_BYTES_MAX].decode(errors="ignore")
            self._put(self._wire.send(CloseConnection(code, short)))
            self._listen()

    def _overflow(self, why: str) -> None:
        # Of a frame that is half sent the rest must follow, or the close frame is no frame.
        waiting = self._outbox or deque()
        while len(waiting) > 1:
            self._owe(-len(waiting.pop()))
        self.close(TOO_MUCH, why)

    def _put(self, framed: bytes) -> None:
        rest = memoryview(framed)
        if not self._waiting:
            rest = rest[self._write(rest) :]
        if rest and self._state is not State.ENDED:
            if self._outbox is None:
                self._outbox = deque()
            if not self._waiting:
                self._await_writing()
            self._outbox.append(rest)
            self._owe(len(rest))

    def _write(self, data: memoryview) -> int:
        try:
            sent: int = self._system.send(data)
            return sent
        except BlockingIOError:
            return 0
        except OSError:
            self._end()
            return 0

    def _owe(self, count: int) -> None:
        self._waiting += count
        self._sockets.waiting += count

    def _await_writing(self) -> None:
        self._moved_at = time.monotonic()
        if self._writer is None:
            self._writer = gevent.get_hub().loop.io(self._system.fileno(), WRITE)
        self._writer.start(self._writable)

    def _writable(self) -> None:
        while self._outbox:
            sent = self._write(self._outbox[0])
            if not sent:
                return
            self._moved_at = time.monotonic()
            self._owe(-sent)
            self._outbox[0] = self._outbox[0][sent:]
            if self._outbox[0]:
                return
            self._outbox.popleft()
        if self._writer is not None:
            self._writer.stop()
        if self._state is State.OPEN:
            self.peer.drained(self)
            self._listen()

    # In

    def start(self) -> None:
        """Let the peer begin, then read."""
        gevent.spawn(self._work, lambda: self.peer.opened(self))

    def _listen(self) -> None:
        """Wait for what comes next, unless there is something to be done first."""
        read = self._state is State.CLOSING or (self._state is State.OPEN and not self._waiting)
        if read and not self._busy and not self._reader.active:
            self._reader.start(self._readable)

    def _readable(self) -> None:
        self._reader.stop()
        self._busy = True
        gevent.spawn(self._work, self._receive)

    def _work(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this socket's alone
            if self._state is State.OPEN:
                self.peer.refused(self, sync_error(error))
            else:
                sync_error(error)
        finally:
            self._busy = False
            if self._state is State.ENDED:
                self._leave()
            elif self._state is State.OPEN and self._sockets.draining:
                self.close(GOING_AWAY)
            else:
                self._listen()

    def _receive(self) -> None:
        try:
            data = self._system.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        self._heard_at, self._pinged = time.monotonic(), False
        self._wire.receive_data(data)
        for number, event in enumerate(self._wire.events(), 1):
            self._meet(event)
            if self._state is State.ENDED or (self._sockets.draining and not self._held):
                return
            if number % MESSAGES_PER_TURN == 0:
                gevent.sleep(0)

    def _meet(self, event: Event) -> None:
        if isinstance(event, CloseConnection):
            self._answer_close(event)
        elif self._state is not State.OPEN:
            return
        elif isinstance(event, Message):
            whole = self._gather(event)
            if whole is not None:
                self._count()
                self.peer.received(self, whole)
        elif isinstance(event, Ping):
            self._count()
            self.send_frame(self._wire.send(event.response()))

    def _answer_close(self, event: CloseConnection) -> None:
        """Theirs, or what wsproto makes of bytes that are no frames."""
        if self._state is State.OPEN and self._wire.state.name == "OPEN":
            self.close(int(event.code), event.reason or "")
            return
        if self._state is State.OPEN:
            self._state = State.CLOSING
            self._put(self._wire.send(event.response()))
        self._end()

    def _gather(self, event: Message[Any]) -> str | bytes | None:
        """The message that the event completes, if it does, within what may be held."""
        data = event.data
        if event.message_finished and not self._held and not self._fragments:
            self._require_size(len(data))
            return bytes(data) if isinstance(event, BytesMessage) else data
        self._text = isinstance(event, TextMessage)
        piece = data.encode() if isinstance(data, str) else data
        self._require_size(len(self._held) + len(piece))
        self._held += piece
        self._sockets.held += len(piece)
        self._fragments += 1
        if not event.message_finished:
            self._require_patience(event)
            return None
        whole = bytes(self._held)
        self._let_go()
        return whole.decode() if self._text else whole

    def _require_size(self, size: int) -> None:
        if size > self.message_bytes:
            raise TooLarge("message_too_large", limit=self.message_bytes)

    def _require_patience(self, event: Message[Any]) -> None:
        if self._sockets.held > HELD_BYTES_MAX:
            raise Unavailable("too_busy", "Too many messages have begun and do not end.")
        if not event.frame_finished:
            self._fragments -= 1  # a part of a frame, as the network cut it
        elif self._fragments > FRAGMENTS_MAX:
            raise BadRequest("malformed_body", "The message comes in too many fragments.")

    def _let_go(self) -> None:
        self._sockets.held -= len(self._held)
        self._held = bytearray()
        self._fragments = 0

    def _count(self) -> None:
        self._messages += 1
        if self._messages > self.rules.burst:
            raise TooMany("too_fast")

    # Time, and the end

    def tick(self, now: float) -> None:
        """Every second: find out who is gone."""
        self._messages = max(0, self._messages - self.rules.messages_per_second)
        silent = now - self._heard_at
        if self._state is State.CLOSING:
            if now > self._closes_at:
                self._end()
        elif self._waiting:
            if now - self._moved_at > STALLED_SECONDS:
                self._end()
        elif not self._busy:
            if silent > self.rules.dead_seconds:
                self._end()
            elif silent > self.rules.ping_seconds and not self._pinged:
                self._pinged = True
                self.send_frame(self._wire.send(Ping()))
        if self._state is State.OPEN:
            self.peer.ticked(self, now)

    def go_away(self) -> None:
        """1001, at once or after the message that is being worked on."""
        if not self._busy:
            self.close(GOING_AWAY)

    def _end(self) -> None:
        if self._state is State.ENDED:
            return
        self._state = State.ENDED
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._system.close()
        self._owe(-self._waiting)
        self._outbox = None
        self._let_go()
        if not self._busy:
            gevent.spawn(self._leave)

    def _leave(self) -> None:
        try:
            self.peer.closed(self)
        except Exception as error:  # noqa: BLE001 - logged; there is nobody left to tell
            sync_error(error)
        finally:
            self._sockets.open.discard(self)
            # Peer and socket hold each other: without this only the collector would free them.
            self.peer = NOBODY
