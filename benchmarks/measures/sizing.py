"""What the settings of production are worth: the floods of `devices` and `idle`, one setting at a
time, each beside the same flood as everything stands by default.

Not part of `make bench` alone: it is asked for by name, and its figures stand in
docs/OPERATIONS.md. PostgreSQL's own settings hold for the database, while the server of their
variation runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from psycopg import sql

from benchmarks.bench import Bench, figure
from benchmarks.figures import Row
from benchmarks.measures import devices, idle
from benchmarks.stage import Gunicorn

USERS: Final = 50


@dataclass(frozen=True)
class Variation:
    """What is unlike the default, and what is flooded to see it."""

    name: str
    workers: int | None = None
    environment: dict[str, str] = field(default_factory=dict)
    postgres: dict[str, str] = field(default_factory=dict)


VARIATIONS: Final = (
    Variation("1 worker", workers=1),
    Variation("4 workers", workers=4),
    Variation("pool of 2", environment={"REJOIN_POOL_SIZE": "2"}),
    Variation("pool of 4", environment={"REJOIN_POOL_SIZE": "4"}),
    Variation("commit_delay 500 µs", postgres={"commit_delay": "500", "commit_siblings": "3"}),
    Variation("wal_compression on", postgres={"wal_compression": "on"}),
    Variation("synchronous_commit off (unsafe)", postgres={"synchronous_commit": "off"}),
)


def run(bench: Bench) -> list[Row]:
    """Rates in requests a second; the baseline is the default, measured right after."""
    rows = []
    for variation in VARIATIONS:
        pushed: dict[str, list[float]] = {"it": [], "default": []}
        idled: dict[str, list[float]] = {"it": [], "default": []}
        for _ in range(bench.runs):
            with _varied(bench, variation) as server:
                pushed["it"].append(_push(bench, server))
                idled["it"].append(_idle(bench, server))
            pushed["default"].append(_push(bench, bench.server))
            idled["default"].append(_idle(bench, bench.server))
        for what, told in (("push of 20", pushed), ("idle sync", idled)):
            measured, base = (figure(told[kind], "requests/s") for kind in ("it", "default"))
            rows.append(Row(f"{variation.name}: {what} ÷ default", measured, base))
    return rows


@contextmanager
def _varied(bench: Bench, variation: Variation) -> Iterator[Gunicorn]:
    """A server of its own with the variation in force, and PostgreSQL's settings for so long."""
    with bench.stage.connect(bench.database, autocommit=True) as connection:
        database = sql.Identifier(connection.info.dbname)
        for name, value in variation.postgres.items():
            change = sql.SQL("ALTER DATABASE {} SET {} = {}")
            connection.execute(change.format(database, sql.Identifier(name), sql.Literal(value)))
        server = bench.stage.start(bench.database, variation.workers, variation.environment)
        try:
            yield server
        finally:
            server.stop()
            connection.execute(sql.SQL("ALTER DATABASE {} RESET ALL").format(database))


def _push(bench: Bench, server: Gunicorn) -> float:
    each = max(1, bench.sized(USERS * 10) // USERS)
    return devices.flood(bench, server, bench.devices(USERS), each, "json").rate


def _idle(bench: Bench, server: Gunicorn) -> float:
    each = max(1, bench.sized(2_000) // USERS)
    return idle.flood(bench, server, bench.devices(USERS), each).rate
