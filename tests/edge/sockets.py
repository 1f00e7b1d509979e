"""A websocket client for tests: one that behaves, and one that sends any bytes."""

from __future__ import annotations

import json
import socket
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgpack
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.utilities import LocalProtocolError

PATIENCE_SECONDS = 20.0


class Refused(Exception):
    """The handshake was answered by HTTP."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(status, body)
        self.status, self.headers, self.body = status, headers, body

    @property
    def problem(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass
class Closed(Exception):
    """The server has closed the websocket; 1006: without a word."""

    code: int
    reason: str = ""


class Websocket:
    """Connected to `path` of the server at `url`. Messages are dicts, in JSON or MessagePack."""

    def __init__(
        self,
        url: str,
        path: str = "/v1/live",
        *,
        token: str | None = None,
        packed: bool = False,
        receive_buffer: int | None = None,
    ) -> None:
        at = urlsplit(url)
        self.packed = packed
        self.tcp = socket.socket()
        if receive_buffer is not None:
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.tcp.settimeout(PATIENCE_SECONDS)
        self.tcp.connect((at.hostname, at.port))
        self.wire = WSConnection(ConnectionType.CLIENT)
        self._messages: deque[Any] = deque()
        self._parts: list[Any] = []
        self._answer: tuple[int, dict[str, str], bytes] | None = None
        self._closed: Closed | None = None
        self.accepted = False
        headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
        request = Request(host=at.netloc, target=path, extra_headers=headers)
        try:
            self.tcp.sendall(self.wire.send(request))
            while not self.accepted:
                self._receive()
        except BaseException:
            self.tcp.close()
            raise

    # Out

    def send(self, message: dict[str, Any]) -> None:
        self.send_data(msgpack.packb(message) if self.packed else json.dumps(message))

    def send_data(self, data: str | bytes, *, finished: bool = True) -> None:
        event: Event
        if isinstance(data, str):
            event = TextMessage(data=data, message_finished=finished)
        else:
            event = BytesMessage(data=data, message_finished=finished)
        self.tcp.sendall(self.wire.send(event))

    def send_bytes(self, data: bytes) -> None:
        """Not in a frame: whatever the bytes mean."""
        self.tcp.sendall(data)

    def hello(self, *spaces: str, **asked: Any) -> dict[str, Any]:
        """Say hello to the spaces, from cursor 0 unless told, and return `ready`."""
        token = asked.pop("token", None)
        parts = {name: {"cursor": 0, **asked} for name in spaces}
        self.send({"type": "hello", "spaces": parts, **({"token": token} if token else {})})
        return self.until("ready")

    # In

    def receive(self, patience: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The next message. Raises Closed, TimeoutError."""
        deadline = time.monotonic() + patience
        while not self._messages:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            if self._closed is not None:
                raise self._closed
            self.tcp.settimeout(left)
            self._receive()
        found: dict[str, Any] = self._messages.popleft()
        return found

    def until(self, type_: str, patience: float = PATIENCE_SECONDS) -> dict[str, Any]:
        """The next message of the type; others are passed over."""
        deadline = time.monotonic() + patience
        while True:
            message = self.receive(deadline - time.monotonic())
            if message["type"] == type_:
                return message

    def closed(self, patience: float = PATIENCE_SECONDS) -> Closed:
        """How the server closes, after whatever it still sends."""
        try:
            while True:
                self.receive(patience)
        except Closed as closed:
            return closed

    def close(self) -> None:
        """Leave properly."""
        try:
            self.tcp.sendall(self.wire.send(CloseConnection(1000)))
        finally:
            self.tcp.close()

    def drop(self) -> None:
        """Vanish, as a phone in a tunnel does, but for the packet that says so."""
        self.tcp.close()

    def _end(self, how: Closed) -> None:
        self.tcp.close()
        self._closed = how
        if not self.accepted:
            raise how

    def _receive(self) -> None:
        try:
            data = self.tcp.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self._end(Closed(1006))
            return
        self.wire.receive_data(data)
        for event in self.wire.events():
            self._meet(event)

    def _meet(self, event: Event) -> None:
        match event:
            case AcceptConnection():
                self.accepted = True
            case TextMessage() | BytesMessage():
                self._parts.append(event.data)
                if event.message_finished:
                    whole = self._parts[0][:0].join(self._parts)
                    self._parts = []
                    unpack = json.loads if isinstance(event, TextMessage) else msgpack.unpackb
                    self._messages.append(unpack(whole))
            case Ping():
                self.tcp.sendall(self.wire.send(event.response()))
            case CloseConnection():
                with suppress(OSError, LocalProtocolError):
                    self.tcp.sendall(self.wire.send(event.response()))
                self._end(Closed(event.code, event.reason or ""))
            case RejectConnection():
                headers = {k.decode().lower(): v.decode() for k, v in event.headers}
                self._answer = (event.status_code, headers, b"")
                if not event.has_body:
                    raise Refused(*self._answer)
            case RejectData():
                assert self._answer is not None
                status, headers, body = self._answer
                self._answer = (status, headers, body + event.data)
                if event.body_finished:
                    raise Refused(*self._answer)
