"""5,000 devices that are online and silent, on the workers of the run: what each costs.

Told: resident kilobytes of the workers for each socket (what the kernel keeps for a connection is
not among them), each of a user of its own, so that nothing is shared but code: every one follows
a space that no other follows. And HTTP beside them: milliseconds of a sync with nothing new, one
at a time over one connection to each worker, before they came and after they have left (their mean
is the baseline), and while they are there. A server of its own, freshly started and warmed up.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from benchmarks.bench import Bench, figure, on_each_worker
from benchmarks.calm import calm
from benchmarks.crowd import Crowd, Member, room_for
from benchmarks.devices import Device, encoded, envelope, part
from benchmarks.figures import Row
from benchmarks.stage import Gunicorn
from benchmarks.wire import Line, request

SOCKETS: Final = 5_000
GOAL_KIB, GOAL_RATIO = 36.0, 2.0
WARM_UP: Final = 100
REQUESTS: Final = 200
SETTLE_SECONDS: Final = 2.0
LEAVE_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1


def run(bench: Bench) -> list[Row]:
    """KiB a socket; milliseconds of an idle sync."""
    asked = bench.sized(SOCKETS)
    count = room_for(asked)
    bench.stage.end(bench.server)
    server = bench.server
    devices = bench.devices(count)
    with _come(server, bench.devices(min(count, WARM_UP))):
        pass
    idle = _Idle(bench, server)
    idle.gone()
    idle.runs(1)
    before, empty = idle.runs(bench.runs), _resident(server)
    start = time.perf_counter()
    with _come(server, devices) as crowd:
        spent = time.perf_counter() - start
        crowd.rest(SETTLE_SECONDS)
        full = _resident(server)
        beside = idle.runs(bench.runs, lambda: crowd.rest(0))
        held = idle.others()
        if sum(held) < count:
            raise RuntimeError(f"{count} came, and {sum(held)} are there")
    idle.gone()
    after, left = idle.runs(bench.runs), _resident(server)
    each = (sum(full) - sum(empty)) / 1024 / count
    facts = {
        "sockets": count, "of_each_worker": held, "per_second": round(count / spent),
        "kib_each_after_they_left": round((sum(left) - sum(empty)) / 1024 / count, 1),
    }  # fmt: skip
    few = "" if count == asked else f"; no more descriptors than for {count:,}"
    return [
        Row(f"{count:,} idle sockets, each", figure([each], "KiB"), None, GOAL_KIB,
            f"{held} at the workers, {facts['per_second']} came in a second;"
            f" {facts['kib_each_after_they_left']} KiB each are kept when they have left{few}",
            facts, at_most=True),
        Row(f"idle sync, p50 beside {count:,} sockets ÷ without", figure(beside, "ms"),
            figure([(a + b) / 2 for a, b in zip(before, after, strict=True)], "ms"), GOAL_RATIO,
            at_most=True),
    ]  # fmt: skip


def _come(server: Gunicorn, devices: list[Device]) -> Crowd:
    crowd = Crowd()
    asked = {"me": {"cursor": 0}}
    crowd.join(partial(Member, server.address, device, asked) for device in devices)
    return crowd


def _resident(server: Gunicorn) -> list[int]:
    return [worker.memory_info().rss for worker in server.workers()]


class _Idle:
    """A device with nothing new, which asks one worker and the other."""

    def __init__(self, bench: Bench, server: Gunicorn) -> None:
        (device,) = bench.devices(1)
        self._data = request("POST", "/v1/sync", device.token, encoded(envelope(part(0, 0, []))))
        self._server = server

    def runs(self, count: int, between: Callable[[], object] = int) -> list[float]:
        """Medians in milliseconds."""
        lines = list(on_each_worker(self._server, self._line, lambda line: line.socket).values())
        told = []
        for _ in range(count):
            between()
            with calm():
                spent = [self._once(lines[number % len(lines)]) for number in range(REQUESTS)]
            told.append(1000 * statistics.median(spent))
        for line in lines:
            line.close()
        return told

    def _line(self) -> Line:
        made = Line(self._server.address)
        made.good(self._data)
        return made

    def _once(self, line: Line) -> float:
        start = time.perf_counter()
        line.good(self._data)
        return time.perf_counter() - start

    def others(self) -> list[int]:
        """The connections of each worker, while this has none."""
        return [
            sum(1 for one in worker.net_connections("tcp") if one.laddr.port == self._server.port
                and one.status == "ESTABLISHED")
            for worker in self._server.workers()
        ]  # fmt: skip

    def gone(self) -> None:
        """Wait until the workers have no others. Raises TimeoutError."""
        end = time.monotonic() + LEAVE_SECONDS
        while sum(self.others()) > 0:
            if time.monotonic() > end:
                raise TimeoutError("the workers keep websockets whose clients have left")
            time.sleep(POLL_SECONDS)
