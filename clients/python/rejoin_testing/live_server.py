"""The fake server on a port of this machine, with `/v1/live`: a real websocket, by the protocol.

Each socket is one thread and one cursor a space; all state is under one lock. What a network does
to a device is done by `cut`, `strip_upgrade`, `close_with`, `hold_pushed` and `partial_of`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, RLock, Thread
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from rejoin_testing.fake_server import SPACE, Answer, FakeServer

LIVE_PATH = "/v1/live"


class Live:
    """One socket. `told`: what the device said, in order."""

    def __init__(self, made: socket.socket, device: str, protocol: ServerProtocol) -> None:
        self.socket = made
        self.device = device
        self.protocol = protocol
        self.cursors: dict[str, int] = {}
        self.told: list[Answer] = []
        self.ready = False

    def send(self, message: Answer) -> None:
        self.protocol.send_text(json.dumps(message).encode())
        self.flush()

    def close(self, code: int) -> None:
        self.protocol.send_close(code)
        self.flush()

    def flush(self) -> None:
        try:
            for data in self.protocol.data_to_send():
                if data:
                    self.socket.sendall(data)
        except OSError:
            pass


class LiveServer:
    """`server`: the fake one behind it. Use `serve`."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.lock = RLock()
        self.changed = Condition(self.lock)
        self.sockets: list[Live] = []
        self.handshakes = 0
        self.polls = 0
        self.strip_upgrade = False
        self.hold_pushed = False
        self.held: list[tuple[Live, Answer]] = []
        self.partial_of = 1000
        self.port = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # ---- what tests do

    def write(self, *ops: Answer) -> None:
        """A change of some other device."""
        with self.lock:
            self.server.write(*ops)
            self.spread()
            self.changed.notify_all()

    def cut(self) -> None:
        """All connections, without a goodbye."""
        with self.lock:
            for one in self.sockets:
                one.socket.shutdown(socket.SHUT_RDWR)

    def close_with(self, code: int) -> None:
        with self.lock:
            for one in self.sockets:
                one.close(code)

    def tell(self, message: Answer) -> None:
        with self.lock:
            for one in self.sockets:
                one.send(message)

    def release(self) -> None:
        """The acknowledgements that were held back."""
        with self.lock:
            self.hold_pushed = False
            for one, message in self.held:
                one.send(message)
            self.held.clear()

    def wait_for(self, wanted: Any, timeout_s: float = 10.0) -> bool:
        """Until `wanted()` is true, looked at whenever something has arrived."""
        with self.changed:
            return bool(self.changed.wait_for(wanted, timeout_s))

    # ---- the socket

    def spread(self) -> None:
        """Every socket goes on from its own cursor."""
        for one in self.sockets:
            if one.ready:
                self._delta(one)

    def _delta(self, one: Live) -> None:
        start = one.cursors.get(SPACE)
        if start is None or start >= self.server.head:
            return
        found = self.server._pull({"cursor": start})
        records = found["records"]
        counter = self.server.counters.get(one.device, 0)
        for i in range(0, max(1, len(records)), self.partial_of):
            last = i + self.partial_of >= len(records)
            one.send(
                {
                    "type": "delta",
                    "space": SPACE,
                    "epoch": self.server.epoch,
                    "from": start,
                    "records": records[i : i + self.partial_of],
                    "cursor": self.server.head if last else start,
                    "partial": not last,
                    "reset": False,
                    "clock": {one.device: counter} if last else {},
                }
            )
        one.cursors[SPACE] = self.server.head

    def heard(self, one: Live, message: Answer) -> None:
        one.told.append(message)
        kind = message["type"]
        if kind == "hello":
            for space, part in message["spaces"].items():
                known = self.server.counters.get(one.device, 0)
                if part["counter"] < known:
                    one.close(4409)
                    return
                one.cursors.setdefault(space, part["cursor"])
            shown = {s: {"epoch": self.server.epoch, "head": self.server.head} for s in one.cursors}
            one.send({"type": "ready", "server_time": 0, "limits": {}, "spaces": shown})
            one.ready = True
            self._delta(one)
        elif kind == "push":
            self._push(one, message)
        elif kind == "presence":
            for other in self.sockets:
                if other is not one:
                    other.send({**message, "device": one.device})

    def _push(self, one: Live, message: Answer) -> None:
        part = {"counter": message["counter"], "changes": message.get("changes", [])}
        answer = self.server._answer(one.device, {**part, "cursor": self.server.head})
        if "error" in answer:
            one.send({"type": "error", "ref": message["ref"], **answer["error"]})
            return
        said = {
            "type": "pushed",
            "ref": message["ref"],
            "space": message["space"],
            "accepted": answer["accepted"],
            "rejected": answer["rejected"],
            "epoch": self.server.epoch,
            "head": self.server.head,
        }
        if self.hold_pushed:
            self.held.append((one, said))
        else:
            one.send(said)
        self.spread()

    def talk(self, made: socket.socket, path: str, headers: Any) -> None:
        """One socket, from the handshake to its end."""
        protocol = ServerProtocol()
        lines = [f"GET {path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        protocol.receive_data("\r\n".join(lines).encode())
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        one = Live(made, self.server.access.get(token, ""), protocol)
        with self.lock:
            self.handshakes += 1
            one.flush()
            self.sockets.append(one)
            self.changed.notify_all()
        try:
            while data := made.recv(1 << 16):
                with self.lock:
                    protocol.receive_data(data)
                    for event in protocol.events_received():
                        if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                            self.heard(one, json.loads(bytes(event.data)))
                    one.flush()
                    self.changed.notify_all()
                    if protocol.close_expected() or protocol.state.name == "CLOSED":
                        break
        except OSError:
            pass
        finally:
            with self.lock:
                self.sockets.remove(one)
                self.changed.notify_all()


class Handler(BaseHTTPRequestHandler):
    """One connection of the server's."""

    protocol_version = "HTTP/1.1"
    live: LiveServer

    def do_GET(self) -> None:
        if not (self.path.startswith(LIVE_PATH) and self.headers.get("Upgrade")):
            self.forward()
            return
        self.close_connection = True
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.live.strip_upgrade:
            self.answer(400, b"{}")
        elif token in self.live.server.expired:
            self.answer(401, b'{"code": "token_expired"}')
        else:
            self.live.talk(self.connection, self.path, self.headers)

    def do_POST(self) -> None:
        self.forward()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/pull?" in self.path:
            self.answer(200, self.poll())
            return
        with self.live.lock:
            answer = self.live.server.request(self.command, self.path, dict(self.headers), body, 1)
            self.live.spread()
            self.live.changed.notify_all()
        self.answer(answer.status, answer.body)

    def poll(self) -> bytes:
        """The long poll of a pull."""
        asked = dict(pair.split("=") for pair in self.path.split("?")[1].split("&"))
        cursor = int(asked["cursor"])
        server = self.live.server
        with self.live.changed:
            self.live.polls += 1
            self.live.changed.notify_all()
            self.live.changed.wait_for(lambda: server.head > cursor, 20)
            return json.dumps(server._pull({"cursor": cursor})).encode()

    def answer(self, status: int, body: bytes) -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Not into the tests' output."""


class Quiet(ThreadingHTTPServer):
    """As it is, without a word on connections that break: that is the point."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None: ...


@contextmanager
def serve(server: FakeServer) -> Iterator[LiveServer]:
    """The server on a free port, until the end of the block."""
    live = LiveServer(server)
    made = Quiet(("127.0.0.1", 0), type("Bound", (Handler,), {"live": live}))
    live.port = made.server_port
    thread = Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield live
    finally:
        live.cut()
        with live.lock:
            server.head += 1  # whoever polls goes home
            live.changed.notify_all()
        made.shutdown()
        thread.join()
        made.server_close()
