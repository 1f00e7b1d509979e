"""A day in small: 200 devices of 50 users connect, push, are cut off and come back.

For a minute, or as many seconds as `--size` says (180 for the full three minutes). Each device is
online for some seconds and then away; online it makes a change every few seconds and sends it on
its websocket; it leaves by a close frame, by the end of the connection, or by its reset, as a phone
in a tunnel. What was not acknowledged it sends again when it is back. One that is told to come
later, by a server that is too busy, does. In the end all are back, and must have all that the
others of their user made; the log must have every change once.

Told: resident memory and descriptors of each worker at the end, when all have left, beside those
after all the devices were there a few times: connections and code are loaded by then, and Python's
collector, which comes after so many containers that some thousand connections make them
(gunicorn.conf.py), has come once.
"""

from __future__ import annotations

import heapq
import itertools
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import psutil  # type: ignore[import-untyped]

from benchmarks.bench import Bench, figure
from benchmarks.crowd import Crowd, Member
from benchmarks.devices import Device, change, encoded, fields, put, record_id
from benchmarks.figures import Row
from benchmarks.stage import Gunicorn
from benchmarks.websocket import CLOSE, masked

DEVICES, EACH_USER, SECONDS = 200, 4, 60
# Seconds online, away, and between two changes: from, to.
ONLINE, AWAY, CHANGES = (3.0, 15.0), (1.0, 6.0), (2.0, 8.0)
MEMORY_GOAL, FILES_GOAL = 1.1, 1.0
SAMPLES: Final = 10
WARM_UPS: Final = 8
LEAVE_SECONDS, POLL_SECONDS = 30.0, 0.1
# Until all that are here have everything: a busy machine may turn some away for a while.
SETTLE_SECONDS: Final = 180.0
LATER: Final = b'"code":"unavailable"'
_RESET: Final = struct.pack("ii", 1, 0)


def run(bench: Bench) -> list[Row]:
    """Megabytes and descriptors of each worker."""
    seconds = bench.sized(SECONDS)
    bench.stage.end(bench.server)
    server = bench.server
    day = _Day(bench, server)
    for _ in range(min(WARM_UPS, seconds)):
        day.everyone_here()
        day.everyone_away()
    begin, samples = _state(server), []
    end = time.perf_counter() + seconds
    for _ in range(SAMPLES):
        day.pass_time(seconds / SAMPLES)
        samples.append([round(memory, 1) for memory, _ in _state(server)])
    late = time.perf_counter() - end
    day.everyone_here()
    day.verify(bench)
    day.everyone_away()
    done = _state(server)
    note = f"{day.changes:,} changes, {day.visits:,} connections, {day.cuts:,} cut off"
    facts = {
        "seconds": seconds, "changes": day.changes, "connections": day.visits, "cut_off": day.cuts,
        "turned_away": day.turned_away,
        "again": day.again, "late_seconds": round(late, 1), "memory_mb": samples,
    }  # fmt: skip
    memory, files = zip(*done, strict=True)
    memory_before, files_before = zip(*begin, strict=True)
    return [
        Row("day, memory of a worker, end ÷ beginning", figure(memory, "MB"),
            figure(memory_before, "MB"), MEMORY_GOAL, note, facts, at_most=True),
        Row("day, descriptors of a worker, end ÷ beginning", figure(files, "files"),
            figure(files_before, "files"), FILES_GOAL, at_most=True),
    ]  # fmt: skip


def _state(server: Gunicorn) -> list[tuple[float, int]]:
    """(resident megabytes, descriptors) of each worker."""
    return [(one.memory_info().rss / 2**20, one.num_fds()) for one in server.workers()]


class _Phone:
    """A device, online or not: what it has, and what it has yet to hear of."""

    def __init__(self, device: Device, dice: random.Random) -> None:
        self.device, self.dice = device, dice
        self.socket: _Socket | None = None
        self.cursor = self.counter = self.accepted = self.head = 0
        self.waiting: list[dict[str, Any]] = []
        self.rows: list[str] = []

    def edit(self) -> None:
        """Make a change, a new row or an edit of an own one; sent at once where there is a way."""
        self.counter += 1
        new = not self.rows or self.dice.random() < 0.5
        if new:
            self.rows.append(record_id(self.counter, self.dice))
        row = self.rows[-1] if new else self.dice.choice(self.rows)
        values = fields(self.dice)
        op = put(row, values if new else {"done": values["done"]}, new=new)
        self.waiting.append(change(self.counter, self.cursor, op))
        if self.socket is not None and self.socket.is_ready:
            self.send(self.waiting[-1:])

    def send(self, changes: list[dict[str, Any]]) -> None:
        assert self.socket is not None
        message = {"type": "push", "ref": self.counter, "space": "me", "changes": changes}
        self.socket.send(masked(encoded(message)))

    def hear(self, message: bytes) -> None:
        """A delta, a push's answer."""
        told = msgspec.json.decode(message)
        if told["type"] == "delta":
            if told["from"] != self.cursor:
                raise RuntimeError(f"a gap or a repeat: at {self.cursor} came {message!r}")
            self.cursor = told["cursor"]
        elif told["type"] == "pushed" and not told["rejected"]:
            self.accepted = told["accepted"]
            self.waiting = [one for one in self.waiting if one["counter"] > self.accepted]
        else:
            raise RuntimeError(f"not expected: {message!r}")

    def settled(self, head: int) -> bool:
        """Everything has come, and nothing is on its way."""
        here = self.socket is not None and self.socket.is_ready
        return here and not self.waiting and self.cursor == head


class _Socket(Member):
    """A phone's websocket."""

    def __init__(self, server: Gunicorn, phone: _Phone, turned_away: Callable[[], None]) -> None:
        self._phone, self._turned_away = phone, turned_away
        asked = {"me": {"cursor": phone.cursor, "counter": phone.counter, "epoch": 1}}
        super().__init__(server.address, phone.device, asked)

    def greeted(self, ready: bytes) -> None:
        phone = self._phone
        phone.head = msgspec.json.decode(ready)["spaces"]["me"]["head"]
        if phone.waiting:
            phone.send(phone.waiting)

    def told(self, message: bytes) -> None:
        if LATER in message:
            self._turned_away()
        else:
            self._phone.hear(message)

    def refused(self, answer: bytes) -> None:
        if not answer.startswith(b"HTTP/1.1 503 "):
            super().refused(answer)
        self._turned_away()


class _Day:
    """All of them, and what is to happen when."""

    def __init__(self, bench: Bench, server: Gunicorn) -> None:
        self._server, self._dice = server, bench.dice
        devices = bench.devices(DEVICES // EACH_USER, each=EACH_USER)
        self._phones = [_Phone(device, bench.dice) for device in devices]
        self._crowd = Crowd()
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.visits = self.cuts = self.again = self.turned_away = 0

    @property
    def changes(self) -> int:
        """Made until now."""
        return sum(phone.counter for phone in self._phones)

    def pass_time(self, seconds: float) -> None:
        """Do what is due, and take what comes, for so long."""
        end = time.perf_counter() + seconds
        while (now := time.perf_counter()) < end:
            while self._plan and self._plan[0][0] <= now:
                heapq.heappop(self._plan)[2]()
            due = self._plan[0][0] if self._plan else end
            self._crowd.poll(min(due, end) - now)

    def everyone_here(self) -> None:
        """All come at once, and each makes a change; until everyone has everything."""
        for phone in self._phones:
            phone.edit()
        heads = [sum(one.counter for one in self._of_user(n)) for n in range(len(self._phones))]
        end = time.perf_counter() + SETTLE_SECONDS
        while not all(p.settled(head) for p, head in zip(self._phones, heads, strict=True)):
            if time.perf_counter() > end:
                raise TimeoutError("the devices do not get what the others have made")
            self._plan.clear()
            for phone in self._phones:
                self._come(phone)
            self._plan.clear()
            self._crowd.poll(1.0)

    def _of_user(self, number: int) -> list[_Phone]:
        first = number - number % EACH_USER
        return self._phones[first : first + EACH_USER]

    def everyone_away(self) -> None:
        """All leave, and the server has noticed."""
        for phone in self._phones:
            self._leave(phone)
        self._plan.clear()
        end = time.monotonic() + LEAVE_SECONDS
        while any(_connections(one, self._server.port) for one in self._server.workers()):
            if time.monotonic() > end:
                raise TimeoutError("the workers keep websockets whose clients have left")
            time.sleep(POLL_SECONDS)
        for phone in self._phones:
            self._later(AWAY, lambda phone=phone: self._come(phone))

    def _later(self, between: tuple[float, float], what: Callable[[], None]) -> None:
        at = time.perf_counter() + self._dice.uniform(*between)
        heapq.heappush(self._plan, (at, next(self._numbers), what))

    def _come(self, phone: _Phone) -> None:
        if phone.socket is not None:
            return
        self.visits += 1
        self.again += len(phone.waiting)
        phone.socket = made = _Socket(self._server, phone, lambda: self._turn_away(phone))
        self._crowd.add(made)
        self._later(ONLINE, lambda: self._leave(phone, made))
        self._later(CHANGES, lambda: self._edit(phone, made))

    def _turn_away(self, phone: _Phone) -> None:
        self.turned_away += 1
        self._leave(phone)

    def _edit(self, phone: _Phone, on: _Socket) -> None:
        if phone.socket is on:
            phone.edit()
            self._later(CHANGES, lambda: self._edit(phone, on))

    def _leave(self, phone: _Phone, on: _Socket | None = None) -> None:
        left = phone.socket
        if left is None or (on is not None and left is not on):
            return
        phone.socket = None
        how = self._dice.randrange(3)
        if how == 0 and left.is_open:
            left.send(masked((1000).to_bytes(2, "big"), CLOSE))
        elif how == 1:
            self.cuts += 1
            left.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._crowd.drop(left)
        self._later(AWAY, lambda: self._come(phone))

    def verify(self, bench: Bench) -> None:
        """The log has every change once."""
        spaces = [phone.device.space for phone in self._phones]
        with bench.stage.connect(bench.database) as connection:
            row = connection.execute(
                "SELECT count(*), count(DISTINCT (space_id, replica, counter)) FROM changes"
                " WHERE space_id = ANY(%s)",
                [spaces],
            ).fetchone()
        if row != (self.changes, self.changes):
            raise RuntimeError(f"{self.changes} changes were made, and the log has {row}")


def _connections(worker: psutil.Process, port: int) -> int:
    return sum(1 for one in worker.net_connections("tcp") if one.laddr.port == port and one.raddr)
