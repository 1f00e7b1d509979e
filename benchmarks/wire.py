"""HTTP/1.1 with as little work as can be: requests are bytes made beforehand, answers are cut out.

`Line` is one keep-alive connection that blocks. `flood` drives several of them from one thread:
each device has a queue of requests, and its next one waits for the answer to its last; whichever
line is free takes the request of the device that has waited longest, as a proxy before the server
would. (With a line for each device, the luck of which worker accepted how many of them would be
measured.) It keeps count of its own processor time, so that every result says whether the
generator was the bottleneck.
"""

from __future__ import annotations

import selectors
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Self

from benchmarks.calm import calm

Address = tuple[str, int]
RECEIVE_BYTES: Final = 256 * 1024
TIMEOUT_SECONDS: Final = 120.0
_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"


def request(
    method: str,
    path: str,
    token: str,
    body: bytes = b"",
    *,
    content: str = "application/json",
    accept: str = "application/json",
    coding: str | None = None,
    accept_coding: str | None = None,
) -> bytes:
    """A whole request as bytes. `coding` names what the body is compressed with already."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}"]
    lines += [f"Accept: {accept}", f"Content-Type: {content}", f"Content-Length: {len(body)}"]
    lines += [f"Content-Encoding: {coding}"] if coding else []
    lines += [f"Accept-Encoding: {accept_coding}"] if accept_coding else []
    return "\r\n".join(lines).encode() + _END + body


class Answer(NamedTuple):
    """`head` are the bytes of status line and headers."""

    status: int
    head: int
    body: bytes


def _cut(data: bytes | bytearray) -> tuple[int, int] | None:
    """(bytes of the head, bytes of the body) of an answer whose head is there; else None."""
    head = data.find(_END)
    if head < 0:
        return None
    headers = bytes(data[:head]).lower()
    at = headers.find(_LENGTH)
    if at < 0:
        raise RuntimeError(f"an answer without a length: {bytes(data[:200])!r}")
    end = headers.find(b"\r\n", at + 2)
    return head + 4, int(headers[at + len(_LENGTH) : end if end > 0 else None])


class Line:
    """One connection, one request at a time."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, TIMEOUT_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, data: bytes) -> Answer:
        """Send a request; wait for its answer."""
        self.socket.sendall(data)
        return self.answer()

    def answer(self) -> Answer:
        """The answer to a request that was sent on `socket`."""
        got = bytearray()
        cut = None
        while cut is None or len(got) < sum(cut):
            chunk = self.socket.recv(RECEIVE_BYTES)
            if not chunk:
                raise ConnectionError(f"the server hung up after {bytes(got[:300])!r}")
            got += chunk
            cut = cut or _cut(got)
        head, length = cut
        return Answer(int(got[9:12]), head, bytes(got[head : head + length]))

    def good(self, data: bytes) -> bytes:
        """The body of an answer that must be a 200."""
        answer = self.ask(data)
        if answer.status != 200:
            raise RuntimeError(f"answered {answer.status}: {answer.body[:500]!r}")
        return answer.body

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Flood:
    """What a flood came to. `cpu_seconds` are the generator's own."""

    seconds: float
    cpu_seconds: float
    latencies: list[float] = field(default_factory=list)
    bytes_down: int = 0

    @property
    def requests(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    def percentile(self, part: float) -> float:
        """A latency in milliseconds: `part` of the requests took no longer."""
        ordered = sorted(self.latencies)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class _Busy:
    """A line, and the device whose request is on it."""

    __slots__ = ("device", "got", "need", "sent_at", "socket")

    def __init__(self, line: Line) -> None:
        self.socket = line.socket
        self.device: deque[bytes] = deque()
        self.got, self.need, self.sent_at = b"", 0, 0.0

    def send(self, device: deque[bytes]) -> None:
        self.got, self.need, self.device = b"", 0, device
        data = device.popleft()
        self.sent_at = time.perf_counter()
        self.socket.sendall(data)

    def receive(self) -> bool:
        """Take what has come; whether the answer is whole."""
        chunk = self.socket.recv(RECEIVE_BYTES)
        if not chunk:
            raise ConnectionError("the server hung up")
        self.got = self.got + chunk if self.got else chunk
        if not self.need:
            cut = _cut(self.got)
            self.need = sum(cut) if cut else 0
        return 0 < self.need <= len(self.got)


def flood(lines: Sequence[Line], queues: Sequence[Sequence[bytes]]) -> Flood:
    """Send every device's queue, in order, as many at a time as there are lines.

    Raises RuntimeError at an answer that is no 200.
    """
    waiting = deque(deque(queue) for queue in queues if queue)
    latencies: list[float] = []
    down = busy = 0
    with selectors.DefaultSelector() as selector:
        free = [_Busy(line) for line in lines]
        for line in free:
            selector.register(line.socket, selectors.EVENT_READ, line)
        cpu, start = time.process_time(), time.perf_counter()
        while free and waiting:
            free.pop().send(waiting.popleft())
            busy += 1
        while busy:
            for key, _ in selector.select(TIMEOUT_SECONDS):
                line = key.data
                if not line.receive():
                    continue
                latencies.append(time.perf_counter() - line.sent_at)
                down += len(line.got)
                if line.got[9:12] != b"200":
                    raise RuntimeError(f"answered {line.got[:600]!r}")
                if line.device:
                    waiting.append(line.device)
                if waiting:
                    line.send(waiting.popleft())
                    continue
                free.append(line)
                busy -= 1
        end, cpu_end = time.perf_counter(), time.process_time()
    return Flood(end - start, cpu_end - cpu, latencies, down)


def flooded(
    address: Address, hello: bytes, queues: Sequence[Sequence[bytes]], in_flight: int
) -> Flood:
    """A flood on new lines, each of which a worker has accepted: it has had a first answer."""
    lines: list[Line] = []
    try:
        for _ in range(in_flight):
            lines.append(Line(address))
            lines[-1].ask(hello)
        with calm():
            return flood(lines, queues)
    finally:
        for line in lines:
            line.close()
