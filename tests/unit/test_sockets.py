"""A websocket of the server's, on a pair of sockets, with a clock that the test moves."""

from __future__ import annotations

import gc
import socket as system
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.event
import pytest
from typing_extensions import override
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from app.live.peer import Peer, Rules
from app.live.socket import GOING_AWAY, TOO_MUCH, Socket
from app.live.sockets import Sockets
from sync.errors import SyncError, Unavailable

RULES = Rules(message_bytes=1_000, outbox_bytes=300_000, messages_per_second=1, burst=5)
PATIENCE_SECONDS = 10


class Watched(Peer):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.got: list[str | bytes] = []
        self.refusals: list[str] = []
        self.drains = 0
        self.ended = False
        self.working: Callable[[], object] = lambda: None

    @override
    def opened(self, socket: Socket) -> None:
        self.socket = socket

    @override
    def received(self, socket: Socket, data: str | bytes) -> None:
        self.working()
        self.got.append(data)

    @override
    def drained(self, socket: Socket) -> None:
        self.drains += 1

    def refused(self, socket: Socket, error: SyncError) -> None:
        self.refusals.append(error.code)
        super().refused(socket, error)

    @override
    def closed(self, socket: Socket) -> None:
        self.ended = True


class Line:
    """Both ends: the server's Socket, and what a client of it does."""

    def __init__(self, rules: Rules = RULES) -> None:
        with system.create_server(("127.0.0.1", 0)) as listener:
            self.theirs = system.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        self.theirs.setblocking(False)
        self.wire = Connection(ConnectionType.CLIENT)
        self.sockets = Sockets(10)
        self.peer = Watched()
        handshaken: Any = SimpleNamespace(sock=ours, connected=True)
        self.sockets.take(handshaken, self.peer, rules)
        ours.close()
        (self.socket,) = self.sockets.open

    def send(self, *events: Event) -> None:
        self.theirs.send(b"".join(self.wire.send(event) for event in events))

    def hold(self, *events: Event) -> gevent.event.Event:
        """Send, and return when the first message is worked on, until what is returned is set."""
        begun, gate = gevent.event.Event(), gevent.event.Event()
        self.peer.working = lambda: (begun.set(), gate.wait(PATIENCE_SECONDS))
        self.send(*events)
        assert begun.wait(PATIENCE_SECONDS)
        return gate

    def until(self, done: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not done():
            assert time.monotonic() < deadline, "it does not happen"
            gevent.sleep(0)

    def events(self, kind: type[Event]) -> Event:
        """The next event of the kind that the client sees."""
        found: list[Event] = []

        def came() -> bool:
            try:
                self.wire.receive_data(self.theirs.recv(2**20))
            except BlockingIOError:
                return False
            found.extend(event for event in self.wire.events() if isinstance(event, kind))
            return bool(found)

        self.until(came)
        return found[0]

    def drop(self) -> None:
        self.theirs.close()
        self.until(lambda: not self.sockets.open)


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.drop()


def test_messages_come_whole_and_in_order_in_one_frame_or_many(line: Line) -> None:
    line.send(TextMessage("é", message_finished=False), TextMessage("à"), BytesMessage(b"\x00"))
    line.until(lambda: len(line.peer.got) == 2)
    assert line.peer.got == ["éà", b"\x00"]


def test_while_a_message_is_worked_on_the_next_ones_wait(line: Line) -> None:
    gate = line.hold(TextMessage("1"), TextMessage("2"))
    assert line.peer.got == []
    gate.set()
    line.until(lambda: line.peer.got == ["1", "2"])


def test_a_message_too_large_is_refused_before_it_is_whole(line: Line) -> None:
    line.send(TextMessage("x" * 600, message_finished=False))
    line.send(TextMessage("x" * 600, message_finished=False))
    line.until(lambda: line.peer.refusals == ["message_too_large"])
    close = line.events(CloseConnection)
    assert isinstance(close, CloseConnection)
    assert (close.code, close.reason) == (4400, "message_too_large")


def test_too_many_messages_at_once_are_too_fast_and_time_makes_it_good(line: Line) -> None:
    line.send(*[TextMessage("x")] * 5)
    line.until(lambda: len(line.peer.got) == 5)
    line.socket.tick(time.monotonic())
    line.send(TextMessage("x"))
    line.until(lambda: len(line.peer.got) == 6)
    line.send(TextMessage("x"))
    line.until(lambda: line.peer.refusals == ["too_fast"])


def test_a_silent_peer_is_pinged_and_one_that_stays_silent_given_up() -> None:
    line, now = Line(), time.monotonic()
    line.until(lambda: not line.socket._busy)
    line.socket.tick(now + RULES.ping_seconds - 1)
    line.socket.tick(now + RULES.ping_seconds + 1)
    line.socket.tick(now + RULES.ping_seconds + 2)
    assert isinstance(line.events(Ping), Ping)
    line.socket.tick(now + RULES.dead_seconds + 1)
    line.until(lambda: line.peer.ended)
    assert not line.sockets.open
    line.theirs.close()


def test_a_peer_that_answers_pings_is_kept(line: Line) -> None:
    line.until(lambda: not line.socket._busy)
    line.socket.tick(time.monotonic() + RULES.ping_seconds + 1)
    before = line.socket._heard_at
    line.events(Ping)
    line.send(Pong())
    line.until(lambda: line.socket._heard_at > before)
    assert line.socket.open


def test_what_waits_for_a_reader_is_bounded_and_told_as_too_much() -> None:
    line = Line()
    line.until(lambda: not line.socket._busy)
    for _ in range(200):
        line.socket.send(b"x" * 100_000)
    assert not line.socket.open
    assert line.sockets.waiting < RULES.outbox_bytes
    close = line.events(CloseConnection)
    assert isinstance(close, CloseConnection)
    assert close.code == TOO_MUCH
    line.drop()
    assert line.sockets.waiting == 0


def test_who_looks_whether_the_reader_kept_up_goes_on_when_it_has(line: Line) -> None:
    line.until(lambda: not line.socket._busy)
    while line.socket.idle:
        line.socket.send(b"x" * 50_000)
    while not line.socket.idle:
        line.events(BytesMessage)
    line.until(lambda: line.peer.drains == 1)
    assert line.socket.open


def test_a_reader_that_takes_nothing_is_given_up() -> None:
    line, now = Line(), time.monotonic()
    line.until(lambda: not line.socket._busy)
    while line.socket.idle:
        line.socket.send(b"x" * 50_000)
    line.socket.tick(now + 59)
    assert line.sockets.open
    line.socket.tick(now + 62)
    line.until(lambda: line.peer.ended)
    line.theirs.close()


def test_a_peer_that_does_not_answer_a_close_is_not_waited_for() -> None:
    line, now = Line(), time.monotonic()
    line.until(lambda: not line.socket._busy)
    line.socket.close(4400, "é" * 200)
    close = line.events(CloseConnection)
    assert isinstance(close, CloseConnection)
    assert close.code == 4400
    line.socket.tick(now + 60)
    line.until(lambda: line.peer.ended)
    line.theirs.close()


def test_a_stop_says_1001_after_the_message_that_is_worked_on_and_takes_no_more() -> None:
    line = Line()
    gate = line.hold(TextMessage("1"), TextMessage("2"))
    draining = gevent.spawn(line.sockets.drain, PATIENCE_SECONDS)
    gevent.sleep(0)
    assert line.socket.open
    with pytest.raises(Unavailable):
        line.sockets.require_room()
    gate.set()
    close = line.events(CloseConnection)
    assert isinstance(close, CloseConnection)
    assert close.code == GOING_AWAY
    assert line.peer.got == ["1"]
    line.drop()
    draining.join(PATIENCE_SECONDS)
    assert draining.ready()


def test_all_is_accounted_for_when_a_peer_vanishes_in_the_middle() -> None:
    line = Line()
    line.send(TextMessage("x" * 500, message_finished=False))
    line.until(lambda: line.sockets.held == 500)
    line.drop()
    assert (line.sockets.held, line.sockets.waiting) == (0, 0)
    assert line.peer.ended


def test_a_socket_that_has_closed_is_freed_without_the_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            line = Line()
            line.send(TextMessage("x"))
            line.until(lambda line=line: line.peer.got)
            line.drop()
            del line
        gevent.sleep(0)
        assert [one for one in gc.get_objects() if isinstance(one, Watched | Connection)] == []
    finally:
        gc.enable()


def test_a_fault_while_a_message_is_worked_on_ends_this_socket_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line, other = Line(), Line()

    def fail() -> None:
        raise ZeroDivisionError

    line.peer.working = fail
    line.send(TextMessage("1"))
    line.until(lambda: line.peer.refusals == ["internal"])
    other.send(TextMessage("1"))
    other.until(lambda: other.peer.got == ["1"])
    line.drop()
    other.drop()
