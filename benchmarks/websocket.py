"""Websockets with as little work as can be, on the client's side.

`Client` is told what comes and blocks for nothing but the connection; crowd.py watches thousands
of them. `Websocket` is one alone, which waits. Frames are cut here; what a message says is read by
those who need it. Pings are answered.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import Final, Self

from benchmarks.wire import Address

RECEIVE_BYTES: Final = 64 * 1024
TIMEOUT_SECONDS: Final = 60.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_END: Final = b"\r\n\r\n"
_LAST: Final = 0x80
_MASKED: Final = 0x80


def handshake(path: str, token: str) -> bytes:
    """The request for a websocket; the key is always the same, and the answer to it not checked."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"]
    return "\r\n".join([*lines, f"Authorization: Bearer {token}"]).encode() + _END


def masked(data: bytes, opcode: int = TEXT) -> bytes:
    """A client's frame (RFC 6455 §5.2), with a random mask."""
    size = len(data)
    if size < 126:
        head = bytes([_LAST | opcode, _MASKED | size])
    elif size < 2**16:
        head = bytes([_LAST | opcode, _MASKED | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([_LAST | opcode, _MASKED | 127]) + size.to_bytes(8, "big")
    mask = os.urandom(4)
    pad = (mask * (size // 4 + 1))[:size]
    mixed = int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")
    return head + mask + mixed.to_bytes(size, "big")


def _cut(got: bytes, at: int) -> tuple[int, int, int] | None:
    """(opcode, begin, end) of the server's frame at `at`; None: it is not whole yet."""
    if len(got) < at + 2:
        return None
    size, begin = got[at + 1], at + 2
    if size >= 126:
        wide = 2 if size == 126 else 8
        if len(got) < begin + wide:
            return None
        size, begin = int.from_bytes(got[begin : begin + wide], "big"), begin + wide
    if not got[at] & _LAST or got[at + 1] & _MASKED:
        raise RuntimeError(f"no whole frame of a server: {got[at : at + 40]!r}")
    return (got[at] & 15, begin, begin + size) if len(got) >= begin + size else None


class Client:
    """One websocket. A subclass overrides what it wants to know of."""

    def __init__(self, address: Address, request: bytes, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(address, TIMEOUT_SECONDS, (source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.is_open = False
        self._got = b""
        self.socket.sendall(request)

    @property
    def is_ready(self) -> bool:
        """Whether it has come so far that nothing more is to be waited for."""
        return self.is_open

    def opened(self) -> None:
        """The handshake was accepted."""

    def refused(self, answer: bytes) -> None:
        """The handshake was answered otherwise: its head, and perhaps more."""
        raise RuntimeError(f"no websocket: {answer[:600]!r}")

    def told(self, message: bytes) -> None:
        """A message came."""

    def ended(self) -> None:
        """The server has closed it."""
        raise ConnectionError("the server closed a websocket")

    def send(self, frame: bytes) -> None:
        """A frame that `masked` made."""
        self.socket.sendall(frame)

    def take(self) -> None:
        """Take what has come, and tell it."""
        try:
            chunk = self.socket.recv(RECEIVE_BYTES)
        except ConnectionResetError:
            chunk = b""
        if not chunk:
            self.ended()
            return
        got = self._got + chunk if self._got else chunk
        at = 0
        if not self.is_open:
            at = got.find(_END) + len(_END)
            if at < len(_END):
                self._got = got
                return
            if not got.startswith(b"HTTP/1.1 101 "):
                self.refused(got)
                return
            self.is_open = True
            self.opened()
        while (cut := _cut(got, at)) is not None:
            opcode, begin, at = cut
            self._meet(opcode, got[begin:at])
        self._got = got[at:]

    def _meet(self, opcode: int, payload: bytes) -> None:
        if opcode in {TEXT, BINARY}:
            self.told(payload)
        elif opcode == PING:
            self.send(masked(payload, PONG))
        elif opcode == CLOSE:
            self.ended()

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Websocket(Client):
    """One that blocks until what it waits for has come; accepted when it is made."""

    def __init__(self, address: Address, path: str, token: str) -> None:
        self._messages: deque[bytes] = deque()
        super().__init__(address, handshake(path, token))
        while not self.is_open:
            self.take()

    def told(self, message: bytes) -> None:
        self._messages.append(message)

    def receive(self) -> bytes:
        """The next message. Raises TimeoutError, ConnectionError."""
        while not self._messages:
            self.take()
        return self._messages.popleft()

    def until(self, mark: bytes) -> bytes:
        """The next message that holds these bytes; others are passed over."""
        while mark not in (message := self.receive()):
            pass
        return message
