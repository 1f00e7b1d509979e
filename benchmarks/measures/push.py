"""One device pushes 10,000 new records of about 150 bytes, 1,000 changes to a request.

Counted: changes, each with the record that it begins. The clock runs from the first byte of the
first request to the last byte of the last answer; bodies are made before. The baseline COPYs, over
one psycopg connection, the rows that this very push left in `changes` and `records` into tables
of the same schema in another database of the same server, 1,000 of each and then a commit: a log
row and its record row count once, as a change does. `blocks` gives psycopg the text that
PostgreSQL itself wrote of them, so that Python does nothing; `rows` gives it rows of Python
values, as a program that stores them would.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from benchmarks import copying
from benchmarks.bench import Bench, figure, hello, together
from benchmarks.calm import calm
from benchmarks.devices import (
    FORMATS,
    Device,
    encoded,
    envelope,
    make_devices,
    new_rows,
    part,
)
from benchmarks.figures import Row
from benchmarks.wire import Line, request
from storage.engine import make_engine

GOAL: Final = 0.4
BATCH: Final = 1000
VARIANTS: Final = (("json", None), ("msgpack", None), ("json", "gzip"))


def run(bench: Bench) -> list[Row]:
    """Rates in changes a second."""
    count = bench.sized(10_000)
    pushed: dict[tuple[str, str | None], list[float]] = {variant: [] for variant in VARIANTS}
    shares: list[dict[str, float]] = []
    copied: dict[str, list[float]] = {"blocks": [], "rows": []}
    warm_up(bench)
    unseen = []
    for _ in range(bench.runs):
        unseen.append(count / _into_new_database(bench, count))
        for variant in VARIANTS:
            device = bench.devices(1)[0]
            bodies = requests(bench, device, count, *variant)
            with bench.shares(bench.server) as share, Line(bench.server.address) as line:
                line.ask(hello(device.token))
                pushed[variant].append(count / _seconds(line, bodies))
            shares.append(share)
            verify(bench, bench.database, device, count)
            if variant == VARIANTS[0]:
                for kind, told in copied.items():
                    told.append(count / _copy(bench, device, kind))
            forget(bench, device)
    unit = "changes/s"
    bare = {name: figure(values, "rows/s") for name, values in copied.items()}
    facts = together(shares) | {"changes": count, "batch": BATCH}
    json, msgpack, zipped = (figure(pushed[variant], unit) for variant in VARIANTS)
    return [
        Row("push, JSON ÷ COPY of blocks", json, bare["blocks"], GOAL, "text made before", facts),
        Row("push, JSON ÷ COPY of rows", json, bare["rows"], GOAL, "rows of Python values"),
        Row("push, MessagePack ÷ COPY of blocks", msgpack, bare["blocks"]),
        Row("push, JSON in gzip ÷ COPY of blocks", zipped, bare["blocks"]),
        Row(
            "push, JSON, into a new database ÷ COPY of blocks",
            figure(unseen, unit),
            bare["blocks"],
            note="PostgreSQL knows nothing of its tables yet",
        ),
    ]


def warm_up(bench: Bench) -> None:
    """Each worker has loaded everything, and has its connections."""
    for device in bench.devices(8):
        bodies = requests(bench, device, min(BATCH, bench.sized(BATCH)), "json", None)
        with Line(bench.server.address) as line:
            _seconds(line, bodies)
        forget(bench, device)


def requests(
    bench: Bench, device: Device, count: int, format_: str, coding: str | None
) -> list[bytes]:
    """Recorded offline, so every context has the cursor 0; the cursor moves with the answers."""
    type_, made = FORMATS[format_], []
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        changes = new_rows(start + 1, size, 0, bench.dice)
        # A first request knows no epoch yet, but a phone's library sends what it last heard.
        body = encoded(envelope(part(start, count, changes)), format_, coding)
        made.append(
            request("POST", "/v1/sync", device.token, body, content=type_, accept=type_,
                    coding=coding)
        )  # fmt: skip
    return made


def _seconds(line: Line, bodies: Sequence[bytes]) -> float:
    with calm():
        start = time.perf_counter()
        for body in bodies:
            line.good(body)
        return time.perf_counter() - start


def _into_new_database(bench: Bench, count: int) -> float:
    """Seconds for the first push ever: a server as it was just installed, but for its imports."""
    url = bench.stage.database()
    server = bench.stage.serve(url)
    engine = make_engine(url, 1)
    (device,) = make_devices(engine, bench.stage.settings(url), 1)
    engine.dispose()
    bodies = requests(bench, device, count, "json", None)
    with Line(server.address) as line:
        line.ask(hello(device.token))
        spent = _seconds(line, bodies)
    verify(bench, url, device, count)
    bench.stage.end(server)
    return spent


def _copy(bench: Bench, device: Device, kind: str) -> float:
    """Seconds that the baseline takes for what this device's push left."""
    with (
        bench.stage.connect(bench.database) as source,
        bench.stage.connect(bench.bare_database, autocommit=True) as target,
    ):
        return copying.seconds(source, target, device.space, kind, BATCH)


def verify(bench: Bench, url: str, device: Device, count: int) -> None:
    """All of it is there: a rate of refusals would be no rate."""
    with bench.stage.connect(url) as connection:
        counted = connection.execute(
            "SELECT s.head, (SELECT count(*) FROM records r WHERE r.space_id = s.id)"
            " FROM spaces s WHERE id = %s",
            [device.space],
        ).fetchone()
    if counted is None or counted[0] != count:
        raise RuntimeError(f"{count} changes were sent, and the space has {counted}")


def forget(bench: Bench, device: Device) -> None:
    """Empty the tables' share of this space, so that every run meets tables of the same size."""
    with bench.stage.connect(bench.database, autocommit=True) as connection:
        copying.clear(connection, device.space)
