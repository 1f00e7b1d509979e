"""A proxy on a port of this machine that does to connections what proxies do."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"
PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.test/\r\nContent-Length: 0\r\n\r\n"
TIMEOUT = b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@dataclass
class Proxy:
    """What it does; it may be changed while it runs.

    strip_upgrade: as one that knows no websockets. hold: what the server says on one never comes.
    idle_s: cuts what is idle so long. answer_s: gives an answer up that takes longer. portal: sends
    everybody to a login page.
    """

    upstream: str
    strip_upgrade: bool = False
    hold: bool = False
    idle_s: float | None = None
    answer_s: float | None = None
    portal: bool = False
    port: int = 0
    _open: set[socket.socket] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve_one(self, client: socket.socket) -> None:
        """One connection, one request."""
        with client, suppress(OSError):
            self._open.add(client)
            self._relay(client)
        self._open.discard(client)

    def _relay(self, client: socket.socket) -> None:
        head, rest = _head(client)
        websocket = b"upgrade: websocket" in head.lower()
        if self.portal:
            client.sendall(PORTAL)
            return
        lines = [
            line
            for line in head.split(b"\r\n")
            if not (self.strip_upgrade and line.lower().startswith((b"upgrade:", b"connection:")))
            and not (not websocket and line.lower().startswith(b"connection:"))
        ]
        if not websocket or self.strip_upgrade:
            lines.append(b"Connection: close")
        parts = urlsplit(self.upstream)
        with socket.create_connection((parts.hostname or "", parts.port or 80)) as server:
            server.sendall(b"\r\n".join(lines) + HEAD_END + rest)
            if websocket and not self.strip_upgrade:
                answer, more = _head(server)
                client.sendall(answer + HEAD_END + (b"" if self.hold else more))
                self._pump(client, server, self.idle_s, b"")
            else:
                self._pump(client, server, self.answer_s, TIMEOUT)

    def _pump(
        self, client: socket.socket, server: socket.socket, patience_s: float | None, last: bytes
    ) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [], patience_s)
            if not ready:
                client.sendall(last)
                return
            for one in ready:
                data = one.recv(1 << 16)
                if not data:
                    return
                if one is client:
                    server.sendall(data)
                elif not self.hold:
                    client.sendall(data)

    def cut(self) -> None:
        """All connections, without a goodbye."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def _head(source: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while HEAD_END not in data:
        more = source.recv(1 << 16)
        if not more:
            raise ConnectionResetError
        data += more
    head, _, rest = data.partition(HEAD_END)
    return head, rest


@contextmanager
def proxying(upstream: str, **does: object) -> Iterator[Proxy]:
    """A proxy in front of `upstream`, an http:// address, until the end of the block."""
    made = Proxy(upstream, **does)  # type: ignore[arg-type]  # its own fields
    listener = socket.create_server(("127.0.0.1", 0))
    made.port = listener.getsockname()[1]

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=made.serve_one, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        made.cut()
        thread.join()
