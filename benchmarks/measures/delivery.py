"""From one device's push to its arrival at another's websocket, through two workers.

Counted: milliseconds from the first byte of the push, over HTTP or a websocket, to the last of the
delta. Pusher and receiver are at different workers: the system's table of connections says which
process has which. One push at a time; the next waits for the delta and for the push's answer.

The baseline is what must happen at least, by psycopg alone, on two connections to the same
PostgreSQL: INSERT and COMMIT of a row as large as the change, NOTIFY in a transaction of its own,
which wakes the other connection, and SELECT of the row there.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import msgspec

from benchmarks.bench import Bench, figure, on_each_worker
from benchmarks.calm import calm
from benchmarks.devices import Device, encoded, envelope, new_rows, part
from benchmarks.figures import Figure, Row
from benchmarks.websocket import Websocket, masked
from benchmarks.wire import Line, request

GOALS: Final = {"p50": (0.5, 5.0), "p99": (0.99, 10.0)}
WAYS: Final = ("HTTP", "socket")
DELIVERIES: Final = 200
WARM_UP: Final = 20
_INSERT: Final = "INSERT INTO bare_rows (id, owner, body) VALUES (%s, %s, %s)"
_SELECT: Final = "SELECT body FROM bare_rows WHERE id = %s"
_NOTIFY: Final = "SELECT pg_notify('bare', %s)"


def run(bench: Bench) -> list[Row]:
    """Milliseconds: the medians, and what 99 of 100 keep."""
    count = bench.sized(DELIVERIES)
    told: dict[str, list[list[float]]] = {way: [] for way in (*WAYS, "bare")}
    with _pair(bench) as pair, _bare(bench) as bare:
        once: dict[str, Callable[[], float]] = {
            "HTTP": pair.over_http, "socket": pair.over_socket, "bare": bare
        }  # fmt: skip
        for deliver in once.values():
            _times(deliver, min(count, WARM_UP))
        for _ in range(bench.runs):
            for way, deliver in once.items():
                told[way].append(_times(deliver, count))
        pair.verify(bench)
    facts = {"deliveries": count, "worker_of_pusher": pair.here, "worker_of_receiver": pair.there}
    return [
        Row(f"delivery, {way}, {name} ÷ INSERT to SELECT", _figure(told[way], share),
            _figure(told["bare"], share), goal, note=f"{count} deliveries a run; pusher at worker"
            f" {pair.here}, receiver at {pair.there}", facts=facts, at_most=True)
        for way in WAYS for name, (share, goal) in GOALS.items()
    ]  # fmt: skip


def _figure(runs: list[list[float]], share: float) -> Figure:
    return figure([sorted(one)[min(len(one) - 1, int(share * len(one)))] for one in runs], "ms")


def _times(deliver: Callable[[], float], count: int) -> list[float]:
    with calm():
        return [1000 * deliver() for _ in range(count)]


class _Pair:
    """A device that pushes at one worker, and one of the same user that receives at another."""

    def __init__(self, bench: Bench, ending: ExitStack) -> None:
        writer, reader = bench.devices(1, each=2)
        self._writer, self._dice, self._counter = writer, bench.dice, 0
        server = bench.server

        def http() -> Line:
            line = Line(server.address)
            line.good(request("GET", "/healthz", writer.token))
            return line

        def websocket(device: Device) -> Websocket:
            made = Websocket(server.address, "/v1/live", device.token)
            made.send(masked(encoded({"type": "hello", "spaces": {"me": {"cursor": 0}}})))
            made.until(b'"ready"')
            return made

        lines = on_each_worker(server, http, lambda line: line.socket)
        writers = on_each_worker(server, lambda: websocket(writer), lambda one: one.socket)
        readers = on_each_worker(server, lambda: websocket(reader), lambda one: one.socket)
        self.here, self.there = (*lines, *lines)[:2]
        for made in (*lines.values(), *writers.values(), *readers.values()):
            ending.callback(made.close)
        self._line, self._socket = lines.pop(self.here), writers.pop(self.here)
        self._receiver = readers.pop(self.there)
        for left in (*lines.values(), *writers.values(), *readers.values()):
            left.close()

    def over_http(self) -> float:
        body = encoded(envelope(part(self._counter, self._counter + 1, self._change())))
        data = request("POST", "/v1/sync", self._writer.token, body)
        start = time.perf_counter()
        self._line.socket.sendall(data)
        spent = self._arrival() - start
        if b'"rejected":[]' not in self._line.answer().body:
            raise RuntimeError("a push was refused")
        self._socket.until(b'"delta"')
        return spent

    def over_socket(self) -> float:
        message = {"type": "push", "ref": 1, "space": "me", "changes": self._change()}
        frame = masked(encoded(message))
        start = time.perf_counter()
        self._socket.send(frame)
        spent = self._arrival() - start
        answers = self._socket.receive() + self._socket.receive()
        if b'"rejected":[]' not in answers or b'"delta"' not in answers:
            raise RuntimeError(f"no push and its delta: {answers!r}")
        return spent

    def _change(self) -> list[dict[str, Any]]:
        made = new_rows(self._counter + 1, 1, self._counter, self._dice)
        self._counter += 1
        return made

    def _arrival(self) -> float:
        """When the receiver has the change that was just made."""
        message = self._receiver.receive()
        at = time.perf_counter()
        delta = msgspec.json.decode(message)
        if delta["type"] != "delta" or delta["cursor"] != self._counter:
            raise RuntimeError(f"not the delta of {self._counter}: {message!r}")
        return at

    def verify(self, bench: Bench) -> None:
        """All of it is in the log."""
        with bench.stage.connect(bench.database) as connection:
            row = connection.execute(
                "SELECT count(*) FROM changes WHERE space_id = %s", [self._writer.space]
            ).fetchone()
        if row != (self._counter,):
            raise RuntimeError(f"{self._counter} changes were pushed, and the log has {row}")


@contextmanager
def _pair(bench: Bench) -> Iterator[_Pair]:
    with ExitStack() as ending:
        yield _Pair(bench, ending)


@contextmanager
def _bare(bench: Bench) -> Iterator[Callable[[], float]]:
    """INSERT, COMMIT, NOTIFY, and SELECT where it is heard; the body is as large as a change."""
    url, owner = bench.bare_database, uuid.uuid4()
    numbers = itertools.count()
    body = encoded(new_rows(1, 1, 0, bench.dice)).decode()
    with (
        bench.stage.connect(url, autocommit=True) as writer,
        bench.stage.connect(url, autocommit=True) as reader,
    ):
        reader.execute("LISTEN bare")

        def deliver() -> float:
            id_, text = uuid.uuid4(), f"{next(numbers)} {body}"
            start = time.perf_counter()
            with writer.transaction():
                writer.execute(_INSERT, (id_, owner, text), prepare=True)
            writer.execute(_NOTIFY, (str(id_),), prepare=True)
            (heard,) = reader.notifies(timeout=10, stop_after=1)
            found = reader.execute(_SELECT, (uuid.UUID(heard.payload),), prepare=True).fetchone()
            spent = time.perf_counter() - start
            if found != (text,):
                raise RuntimeError("the row is not the one that was told of")
            return spent

        yield deliver
