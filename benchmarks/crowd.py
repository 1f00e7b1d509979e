"""Thousands of websockets in one thread: one epoll, and no work but to cut frames.

A crowd connects a few at a time, as a server's backlog takes them. Its sockets have several
addresses of this machine, for each has no more than some 28,000 ports.
"""

from __future__ import annotations

import resource
import select
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Self

from benchmarks.devices import Device, encoded
from benchmarks.websocket import TIMEOUT_SECONDS, Client, handshake, masked
from benchmarks.wire import Address

# Connections of one source address.
PORTS: Final = 10_000
# Descriptors for this process' own files.
FILES_TO_SPARE: Final = 500
# Handshakes that wait for their answers.
AT_ONCE: Final = 64


class Member(Client):
    """A device that says hello to its spaces. `told` is called with what comes after `ready`."""

    def __init__(
        self, address: Address, device: Device, spaces: dict[str, Any], source: str = "127.0.0.1"
    ) -> None:
        self._hello = masked(encoded({"type": "hello", "spaces": spaces}))
        self._greeted = False
        super().__init__(address, handshake("/v1/live", device.token), source)

    @property
    def is_ready(self) -> bool:
        return self._greeted

    def opened(self) -> None:
        self.send(self._hello)

    def _meet(self, opcode: int, payload: bytes) -> None:
        if not self._greeted and b'"ready"' in payload:
            self._greeted = True
            self.greeted(payload)
        else:
            super()._meet(opcode, payload)

    def greeted(self, ready: bytes) -> None:
        """The server has said hello."""


class Crowd:
    """Websockets that one epoll watches."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._members: dict[int, Client] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Client) -> None:
        """Watch it; nothing of it may block any more."""
        number = member.socket.fileno()
        self._members[number] = member
        self._epoll.register(number, select.EPOLLIN)

    def drop(self, member: Client) -> None:
        """Close it, and watch it no more."""
        if self._members.pop(member.socket.fileno(), None) is not None:
            self._epoll.unregister(member.socket.fileno())
        member.close()

    def poll(self, seconds: float) -> None:
        """Take what has come, or comes within so many seconds."""
        for number, _ in self._epoll.poll(max(0.0, seconds)):
            member = self._members.get(number)
            if member is not None:
                member.take()

    def until(self, reached: Callable[[], bool], seconds: float = TIMEOUT_SECONDS) -> None:
        """Take what comes until this is so. Raises TimeoutError."""
        end = time.perf_counter() + seconds
        while not reached():
            left = end - time.perf_counter()
            if left < 0:
                raise TimeoutError("what the websockets wait for does not come")
            self.poll(left)

    def rest(self, seconds: float) -> None:
        """Take what comes for so long, and answer pings."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self.poll(left)
        self.poll(0)

    def join(self, makers: Iterable[Callable[[str], Client]]) -> list[Client]:
        """Make them, each with its source address, AT_ONCE at a time; all are ready."""
        made: list[Client] = []
        waiting: set[Client] = set()
        for number, make in enumerate(makers):
            made.append(make(f"127.0.0.{1 + number // PORTS}"))
            waiting.add(made[-1])
            self.add(made[-1])
            while len(waiting) >= AT_ONCE:
                self.poll(TIMEOUT_SECONDS)
                waiting = {one for one in waiting if not one.is_ready}
        self.until(lambda: all(one.is_ready for one in waiting))
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for member in tuple(self._members.values()):
            self.drop(member)
        self._epoll.close()


def room_for(count: int) -> int:
    """As many of so many sockets as this process may hold; it is allowed as many as may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + FILES_TO_SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return max(1, most - FILES_TO_SPARE)
    return count
