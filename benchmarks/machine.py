"""The machine, and what its PostgreSQL and its disk can do: what every figure stands on."""

from __future__ import annotations

import platform
import threading
import time
from typing import Any, Final

import psutil  # type: ignore[import-untyped]

from benchmarks.bench import Bench, figure
from benchmarks.figures import Row

SETTINGS: Final = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers",
    "max_wal_size", "wal_sync_method", "data_checksums",
)  # fmt: skip
SECONDS: Final = 1.0
CONNECTIONS: Final = (1, 16)


def described(bench: Bench) -> dict[str, Any]:
    """Cores, memory, versions and PostgreSQL's settings."""
    with bench.stage.connect(bench.bare_database) as connection:
        shown = {name: connection.execute(f"SHOW {name}").fetchone() for name in SETTINGS}
    memory = psutil.virtual_memory().total / 2**30
    load = psutil.getloadavg()[0]
    return {
        "cores": psutil.cpu_count(),
        "memory_gib": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "workers": bench.stage.workers,
        "load_average_before": round(load, 2),
        "postgresql": {name: row[0] if row else "" for name, row in shown.items()},
    }


def run(bench: Bench) -> list[Row]:
    """Durable commits a second: one row, inserted and committed, by psycopg alone."""
    return [
        Row(f"durable commits, {count} connection{'s' if count > 1 else ''}",
            figure([_commits(bench, count) for _ in range(bench.runs)], "commits/s"))
        for count in CONNECTIONS
    ]  # fmt: skip


def _commits(bench: Bench, connections: int) -> float:
    with bench.stage.connect(bench.bare_database, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS commits (id bigserial PRIMARY KEY)")
    told: list[int] = []
    end = time.perf_counter() + SECONDS
    threads = [
        threading.Thread(target=_commit, args=(bench, end, told)) for _ in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(told) / SECONDS


def _commit(bench: Bench, end: float, told: list[int]) -> None:
    done = 0
    with bench.stage.connect(bench.bare_database, autocommit=True) as connection:
        while time.perf_counter() < end:
            connection.execute("INSERT INTO commits DEFAULT VALUES")
            done += 1
    told.append(done)
