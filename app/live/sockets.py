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

import socket as sockets_of_the_system
import time
from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import flask_sock
import gevent
import gevent.monkey
import simple_websocket
from flask import Blueprint, Flask, Response, current_app, g, request
from wsproto.utilities import ProtocolError

from app.errors import sync_error
from app.live.peer import Peer as Peer  # noqa: PLC0414 - for callers
from app.live.peer import Rules as Rules  # noqa: PLC0414 - for callers
from app.live.socket import MESSAGES_PER_TURN
from app.live.socket import Socket as Socket  # noqa: PLC0414 - for callers
from app.live.socket import frame as frame  # noqa: PLC0414 - for callers
from sync.errors import BadRequest, Unavailable

EXTENSION: Final = "rejoin-sockets"
TICK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 5

_SystemSocket: Any = gevent.monkey.get_original("socket", "socket")


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
                except (ProtocolError, simple_websocket.ConnectionError, ConnectionError) as error:
                    # Or it has hung up before the answer: then nobody reads this one either.
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
