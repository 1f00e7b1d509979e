"""What a websocket's messages mean, and how much of them may come and wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.errors import close_code
from sync.errors import SyncError

if TYPE_CHECKING:
    from app.live.socket import Socket


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
