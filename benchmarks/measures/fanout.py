"""One change to all the devices of a space: when has the last of 50, and of 1,000, got it?

Counted: milliseconds from the first byte of a push on one device's websocket to the last arrival
of its delta, that device's own among them. The devices are ten of each member. One change at a
time: the next waits until all have the last. Once on the workers of the run, once on one worker;
there also from the first arrival to the last, which is the sending alone.

The baseline is a loop over flask-sock's websockets (`/fan` in benchmarks/baseline.py) on one worker
of the same gunicorn.conf.py: one of as many clients sends it the very bytes of the delta, and it
sends them to all, without a database. The same process receives both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from benchmarks.bench import Bench, figure
from benchmarks.calm import calm
from benchmarks.crowd import Crowd, Member, room_for
from benchmarks.devices import encoded, new_rows, share
from benchmarks.figures import Row
from benchmarks.stage import BASELINE, Gunicorn
from benchmarks.websocket import Client, handshake, masked

GOAL: Final = 2.5
# Sockets, and changes in a run.
SIZES: Final = {50: 40, 1_000: 10}
EACH_USER: Final = 10
DELTA: Final = b'"type":"delta"'


def run(bench: Bench) -> list[Row]:
    """Milliseconds: the median change of each run."""
    # One alone has no first and last.
    sizes = {max(2, bench.size): 5} if bench.size else SIZES
    return [
        row for size, changes in sizes.items() for row in _sized(bench, room_for(size), changes)
    ]


def _sized(bench: Bench, size: int, changes: int) -> list[Row]:
    alone = bench.stage.serve(bench.database, workers=1)
    bare_server = bench.stage.serve(bench.bare_database, app=BASELINE, workers=1)
    told: dict[str, list[_Spread]] = {"all": [], "alone": [], "bare": []}
    with _devices(bench, bench.server, size) as all_workers, _devices(bench, alone, size) as one:
        delta = all_workers.change()
        one.change()
        with _bare(bare_server, size, delta) as bare:
            loops = {"all": all_workers, "alone": one, "bare": bare}
            for _ in range(bench.runs):
                for name, loop in loops.items():
                    told[name].append(_median(loop, changes))
    for server in (alone, bare_server):
        bench.stage.end(server)
    where = {"all": f"{bench.stage.workers} workers", "alone": "1 worker"}
    return [
        *(_last(f"{size:,} sockets, {where[name]}", told[name], told["bare"], goal, len(delta))
          for name, goal in (("all", GOAL), ("alone", None))),
        Row(f"first to last of {size:,} sockets, 1 worker ÷ flask-sock's loop",
            figure([one.last - one.first for one in told["alone"]], "ms"),
            figure([one.last - one.first for one in told["bare"]], "ms"), at_most=True),
    ]  # fmt: skip


def _last(
    name: str, mine: list[_Spread], bare: list[_Spread], goal: float | None, delta_bytes: int
) -> Row:
    first, first_bare = (figure([one.first for one in all_], "ms").median for all_ in (mine, bare))
    return Row(
        f"last of {name} ÷ flask-sock's loop", figure([one.last for one in mine], "ms"),
        figure([one.last for one in bare], "ms"), goal,
        f"the first had it after {first:.1f} ms (the loop: {first_bare:.1f})",
        {"delta_bytes": delta_bytes, "first_ms": first, "bare_first_ms": first_bare}, at_most=True,
    )  # fmt: skip


@dataclass
class _Spread:
    """Milliseconds until the first and until the last had it."""

    first: float
    last: float


def _median(loop: _Loop, changes: int) -> _Spread:
    with calm():
        spreads = [loop.spread() for _ in range(changes)]
    return sorted(spreads, key=lambda one: one.last)[len(spreads) // 2]


@dataclass
class _Arrivals:
    """What has come to all of them since `left` was set."""

    left: int = 0
    first: float | None = None
    last: float = 0.0
    message: bytes = b""
    answered: bool = True

    def came(self, message: bytes) -> None:
        self.last = time.perf_counter()
        if self.first is None:
            self.first = self.last
            self.message = message
        self.left -= 1


class _Loop:
    """As many sockets, and how to have one message sent to all of them."""

    def __init__(self, crowd: Crowd, arrivals: _Arrivals, send: Callable[[], None]) -> None:
        self._crowd, self._arrivals, self._send = crowd, arrivals, send

    def change(self) -> bytes:
        """One message to all; returns it."""
        self.spread()
        return self._arrivals.message

    def spread(self) -> _Spread:
        arrivals = self._arrivals
        arrivals.left, arrivals.first = len(self._crowd), None
        start = time.perf_counter()
        self._send()
        self._crowd.until(lambda: arrivals.left <= 0 and arrivals.answered)
        if arrivals.left or arrivals.first is None:
            raise RuntimeError("a socket got the change twice")
        return _Spread(1000 * (arrivals.first - start), 1000 * (arrivals.last - start))


class _Device(Member):
    """A device of the space."""

    def __init__(self, arrivals: _Arrivals, *about: Any) -> None:
        self._arrivals = arrivals
        super().__init__(*about)

    def told(self, message: bytes) -> None:
        if DELTA in message:
            self._arrivals.came(message)
        elif b'"rejected":[]' in message:
            self._arrivals.answered = True
        else:
            raise RuntimeError(f"neither a delta nor a push's answer: {message!r}")


@contextmanager
def _devices(bench: Bench, server: Gunicorn, size: int) -> Iterator[_Loop]:
    devices = bench.devices(-(-size // EACH_USER), each=EACH_USER)[:size]
    space = str(share(bench.engine, devices))
    arrivals = _Arrivals()
    asked = {space: {"cursor": 0}}
    counter = 0
    with Crowd() as crowd:
        makers = [partial(_Device, arrivals, server.address, device, asked) for device in devices]
        writer = crowd.join(makers)[0]

        def push() -> None:
            nonlocal counter
            counter += 1
            changes = new_rows(counter, 1, counter - 1, bench.dice)
            arrivals.answered = False
            message = {"type": "push", "ref": counter, "space": space, "changes": changes}
            writer.send(masked(encoded(message)))

        yield _Loop(crowd, arrivals, push)


class _Listener(Client):
    """A client of the bare loop."""

    def __init__(self, arrivals: _Arrivals, *about: Any) -> None:
        self._arrivals = arrivals
        super().__init__(*about)

    def told(self, message: bytes) -> None:
        self._arrivals.came(message)


@contextmanager
def _bare(server: Gunicorn, size: int, message: bytes) -> Iterator[_Loop]:
    arrivals = _Arrivals()
    frame, asked = masked(message), handshake("/fan", "")
    with Crowd() as crowd:
        makers = [partial(_Listener, arrivals, server.address, asked) for _ in range(size)]
        writer = crowd.join(makers)[0]
        yield _Loop(crowd, arrivals, lambda: writer.send(frame))
