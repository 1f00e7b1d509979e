"""Websockets that cost little while nothing happens: no thread, no greenlet, no Flask context.

flask-sock shakes hands. Then the connection leaves gunicorn's handler, which ends as after any
request, and the event loop watches it; a greenlet lives only while messages are worked on.
All of a worker runs in one thread: what doesn't block isn't interrupted, so there are no locks.

Promises: whoever may not come in gets an HTTP problem before the handshake; a message is refused
once it is larger than allowed, before it is whole; while a message is worked on, or answers wait
to be read, nothing more is read; what waits for a reader is bounded, for each socket and for all;
frames go out whole and in order; a peer that is silent, dead or takes nothing is given up; a stop
sends 1001 to all, after the message that is being worked on.

To mount a websocket::

    def open_room(space: SpaceRef, field: str) -> Peer:   # in the request, before the handshake
        principal = auth.token_principal()                # a SyncError becomes an HTTP problem
        return Room(principal, space, field)

    mount(blueprint, "/spaces/<space:space>/documents/<field>", open_room, Rules(...))

    class Room(Peer):                                     # one for each socket
        def opened(self, socket): ...                     # see Peer for what may be overridden
        def received(self, socket, data): socket.send(...)

What a Peer sends with `send` is queued where the reader is slow; past `Rules.outbox_bytes` the
socket is closed with 1013. One that looks at `idle` first, and goes on in `drained`, never is.
"""

from __future__ import annotations

import logging
import socket as sockets_of_the_system
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Final

import flask_sock
import gevent
import gevent.monkey
import simple_websocket
from flask import Blueprint, Flask, Response, current_app, g, request
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.frame_protocol import FrameProtocol
from wsproto.utilities import ProtocolError

from app.errors import close_code, sync_error
from sync.errors import BadRequest, SyncError, TooLarge, TooMany, Unavailable

log = logging.getLogger(__name__)

EXTENSION: Final = "rejoin-sockets"
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
TICK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5
REASON_BYTES_MAX: Final = 123  # RFC 6455 §5.5
READ, WRITE = 1, 2  # of libev

_SystemSocket: Any = gevent.monkey.get_original("socket", "socket")
_framing = FrameProtocol(client=False, extensions=[])


@dataclass(frozen=True, slots=True)
class Rules:
    """How much a kind of sockets may send and owe. `messages_per_second` is an average: `burst`
    may come at once.
    """

    message_bytes: int
    outbox_bytes: int
    messages_per_second: int = 1_000
    burst: int = 10_000
    ping_seconds: int = 25
    dead_seconds: int = 60


class Peer:
    """What a socket's messages mean. Nothing is called twice at once, but `drained`, `ticked` and
    `refused`, which must not block, may come while `received` waits for something.
    """

    __slots__ = ()

    def opened(self, socket: Socket) -> None:
        """Before the first message, in a greenlet: it may block."""

    def received(self, socket: Socket, data: str | bytes) -> None:
        """A whole message, text or binary, in a greenlet: it may block. What it raises goes to
        `refused`.
        """

    def drained(self, socket: Socket) -> None:
        """All that waited for the reader is sent; in the event loop."""

    def ticked(self, socket: Socket, now: float) -> None:
        """Every second; `now` by time.monotonic. In the loop's greenlet."""

    def refused(self, socket: Socket, error: SyncError) -> None:
        """Something was wrong with a message, or with this server."""
        socket.close(close_code(error) or 4400, error.code)

    def closed(self, socket: Socket) -> None:
        """Last of all, once, however it ended; in a greenlet: it may block."""


class State(Enum):
    OPEN = 1
    CLOSING = 2
    ENDED = 3


def frame(data: str | bytes) -> bytes:
    """A message as it travels to any number of sockets: text or binary, in one frame."""
    return bytes(_framing.send_data(data, fin=True))


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


class Sockets:
    """All websockets of this worker. `most`: past it, new ones are asked to come later."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.open: set[Socket] = set()
        self.held = 0
        self.waiting = 0
        self.draining = False
        self._ticker: gevent.Greenlet | None = None

    def require_room(self) -> None:
        """Raises Unavailable (`too_many_sockets`)."""
        if self.draining or len(self.open) >= self.most:
            raise Unavailable("too_many_sockets", retry_after=RETRY_SECONDS)

    def take(self, handshaken: simple_websocket.Server, peer: Peer, rules: Rules) -> None:
        """Serve this connection from now on; gunicorn's own end of it may be closed."""
        handshaken.connected = False  # flask-sock has nothing to close
        system = _SystemSocket(fileno=sockets_of_the_system.dup(handshaken.sock.fileno()))
        system.setblocking(False)
        system.setsockopt(sockets_of_the_system.IPPROTO_TCP, sockets_of_the_system.TCP_NODELAY, 1)
        made = Socket(self, system, peer, rules)
        self.open.add(made)
        if self._ticker is None:
            self._ticker = gevent.spawn(self._tick)
        made.start()

    def _tick(self) -> None:
        while True:
            gevent.sleep(TICK_SECONDS)
            for number, socket in enumerate(tuple(self.open), 1):
                try:
                    socket.tick(time.monotonic())
                except Exception as error:  # noqa: BLE001 - the others' clock must go on
                    sync_error(error)
                if number % (MESSAGES_PER_TURN * 8) == 0:
                    gevent.sleep(0)

    def drain(self, seconds: float) -> None:
        """Say 1001 to all and wait for them, so many seconds at most. No new ones come."""
        self.draining = True
        for number, socket in enumerate(tuple(self.open), 1):
            socket.go_away()
            if number % MESSAGES_PER_TURN == 0:
                gevent.sleep(0)
        deadline = time.monotonic() + seconds
        while self.open and time.monotonic() < deadline:
            gevent.sleep(0.02)


# Mounting -----------------------------------------------------------------------------------


class _NoThread:
    """simple-websocket starts a receiver for each socket; ours are watched by the event loop."""

    def __init__(self, target: object) -> None:  # noqa: ARG002 - a thread's signature
        self.name = ""

    def start(self) -> None:
        """Not at all."""


class _Door:
    """What flask-sock takes for a blueprint: it shakes hands before it calls its handler, so our
    door stands in front of its view.
    """

    def __init__(self, blueprint: Blueprint, admit: Callable[..., Peer]) -> None:
        self._blueprint = blueprint
        self._admit = admit

    def route(self, rule: str, **options: Any) -> Callable[[Callable[..., Response]], None]:
        """flask-sock calls this with its own view."""

        def register(shake_hands: Callable[..., Response]) -> None:
            @wraps(self._admit)
            def view(**path: Any) -> Response:
                sockets().require_room()
                _require_handshake()
                g.peer = self._admit(**path)
                try:
                    return shake_hands(**path)
                except (ProtocolError, simple_websocket.ConnectionError) as error:
                    raise BadRequest("malformed_request", "This is no websocket.") from error

            self._blueprint.route(rule, **options)(view)

        return register


def install(app: Flask, most: int) -> None:
    """Give the app its sockets."""
    app.extensions[EXTENSION] = Sockets(most)
    app.config["SOCK_SERVER_OPTIONS"] = {"thread_class": _NoThread}


def sockets(app: Flask | None = None) -> Sockets:
    """The sockets of the app; of the one that answers now, where none is given."""
    found: Sockets = (app or current_app).extensions[EXTENSION]
    return found


def mount(
    blueprint: Blueprint, rule: str, admit: Callable[..., Peer], rules: Callable[[], Rules]
) -> None:
    """A websocket at the rule. `admit` gets the path's variables, in the request, and raises
    SyncError for who may not come in; `rules` is asked for each socket.
    """

    def take(handshaken: simple_websocket.Server, **_path: Any) -> None:
        sockets().take(handshaken, g.pop("peer"), rules())

    flask_sock.Sock().route(rule, bp=_Door(blueprint, admit))(take)


def _require_handshake() -> None:
    """RFC 6455 §4.2.1, as far as Flask has not looked at it."""
    environ = request.environ
    if "gunicorn.socket" not in environ:
        raise Unavailable("unavailable", "Websockets need gunicorn's gevent worker.")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13" or request.method != "GET":
        raise BadRequest("malformed_request", "The websocket version must be 13 (RFC 6455).")
    # Compression would hold some 300 KB for each socket, most of which are idle.
    environ.pop("HTTP_SEC_WEBSOCKET_EXTENSIONS", None)
