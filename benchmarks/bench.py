"""What a measure is given: the stage, the sizes, and the two servers it compares."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil  # type: ignore[import-untyped]
from sqlalchemy import Engine

from benchmarks import baseline, fill
from benchmarks.devices import Device, make_devices
from benchmarks.figures import Figure
from benchmarks.stage import BASELINE, Gunicorn, Stage
from benchmarks.wire import Flood, request
from storage.engine import make_engine

SEED: Final = 20_251_122
# Users whose data is there before, and records of each.
OTHERS, OTHERS_RECORDS = 20, 500
# Until each worker has taken one.
CONNECTIONS_TRIED: Final = 200
GROUPS: Final = ("client", "workers", "postgres")


@dataclass
class Bench:
    """One run of the command. `size` scales a measure's own count; None: as the issue has it."""

    stage: Stage
    runs: int
    size: int | None = None
    say: Callable[[str], None] = print
    # A trace of someone's editing, for `editing`.
    trace: Path | None = None
    dice: random.Random = field(default_factory=lambda: random.Random(SEED))
    # What one measure leaves for another: spaces by the number of their records.
    kept: dict[int, Any] = field(default_factory=dict)

    @cached_property
    def database(self) -> str:
        """Rejoin's database, shared by the measures that don't need one of their own."""
        return self._used()

    @cached_property
    def engine(self) -> Engine:
        return make_engine(self.database, 2, statement_timeout_ms=0)

    @property
    def server(self) -> Gunicorn:
        """Rejoin."""
        return self.stage.serve(self.database)

    @cached_property
    def bare_database(self) -> str:
        """The baseline's database, on the same PostgreSQL: the same schema and a table of rows."""
        url = self._used()
        with self.stage.connect(url) as connection:
            connection.execute(baseline.TABLE)
        return url

    def _used(self) -> str:
        """A new database that holds others' data, and knows how much: PostgreSQL plans by that."""
        url = self.stage.database()
        engine = make_engine(url, 1, statement_timeout_ms=0)
        others = make_devices(engine, self.stage.settings(url), OTHERS)
        for other in others:
            fill.rows(self.dice, engine, other, OTHERS_RECORDS)
        engine.dispose()
        with self.stage.connect(url, autocommit=True) as connection:
            fill.settle(connection)
        return url

    @property
    def bare_server(self) -> Gunicorn:
        """The bare Flask endpoints."""
        return self.stage.serve(self.bare_database, app=BASELINE)

    def settle(self) -> None:
        """Leave autovacuum nothing to do: it would write, and take the processor, meanwhile."""
        for url in (self.database, self.bare_database):
            with self.stage.connect(url, autocommit=True) as connection:
                fill.settle(connection)

    def devices(self, users: int, each: int = 1) -> list[Device]:
        """New users of Rejoin's shared database with their devices."""
        return make_devices(self.engine, self.stage.settings(self.database), users, each)

    def sized(self, usual: int) -> int:
        """The measure's count: its own, or what `--size` says."""
        return self.size or usual

    @contextmanager
    def shares(self, server: Gunicorn | None) -> Iterator[dict[str, float]]:
        """Whose processor time it was meanwhile, in cores: filled in at the end."""
        told: dict[str, float] = {}
        # Processes that end meanwhile are not counted: each group is read by process.
        groups = {
            "client": [psutil.Process()],
            "workers": server.workers() if server else [],
            "postgres": self.stage.postgres_processes(),
        }
        before = {name: _times(group) for name, group in groups.items()}
        start = time.perf_counter()
        yield told
        seconds = time.perf_counter() - start
        groups["postgres"] = self.stage.postgres_processes()
        for name, group in groups.items():
            known = before[name]
            spent = sum(now - known.get(pid, 0.0) for pid, now in _times(group).items())
            told[name] = round(spent / seconds, 3)


def _times(processes: Sequence[psutil.Process]) -> dict[int, float]:
    """Processor seconds by pid, the kernel's and its own."""
    found = {}
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            found[one.pid] = times.user + times.system
    return found


def hello(token: str) -> bytes:
    """A request that costs nothing, to have a connection accepted."""
    return request("GET", "/healthz", token)


def together(shares: Sequence[dict[str, float]]) -> dict[str, Any]:
    """The mean of the runs' shares, in words that JSON keeps."""
    return {
        f"cores_{name}": round(sum(one[name] for one in shares) / len(shares), 3)
        for name in GROUPS
        if shares
    }


T = TypeVar("T")


def on_each_worker(
    server: Gunicorn, connect: Callable[[], T], socket_of: Callable[[T], socket.socket]
) -> dict[int, T]:
    """A connection to each worker, by the worker's pid, as the system knows them.

    Which worker accepts is chance: what is not wanted is closed.
    """
    found: dict[int, T] = {}
    for _ in range(CONNECTIONS_TRIED):
        made = connect()
        if found.setdefault(server.worker_of(socket_of(made)), made) is not made:
            socket_of(made).close()
        if len(found) == len(server.workers()):
            return found
    raise RuntimeError("one worker takes every connection")


def figure(values: Sequence[float], unit: str) -> Figure:
    return Figure(tuple(values), unit)


def generator(floods: Sequence[Flood]) -> str:
    """How busy the load generator was: far from a core, it was not the bottleneck."""
    share = max(flood.cpu_seconds / flood.seconds for flood in floods)
    return f"generator {100 * share:.0f} % of a core"
