"""A new device reads a space of 10,000 records, page by page, and decodes them.

Counted: records. The clock runs from the first request to the last decoded page; a page is asked
for when the one before it is decoded. The baseline SELECTs collection, id and values of the same
rows over one psycopg connection, fetches all and decodes the values.
"""

from __future__ import annotations

import time
import urllib.request
from typing import Any, Final

import msgspec
from backports import zstd

from benchmarks.bench import Bench, figure, together
from benchmarks.calm import calm
from benchmarks.devices import FORMATS, Device, decoded, encoded, envelope, part
from benchmarks.figures import Row, number
from benchmarks.measures import push
from benchmarks.wire import Line, request

GOAL: Final = 0.3
VARIANTS: Final[tuple[tuple[str, str | None], ...]] = (
    ("json", None), ("json", "gzip"), ("json", "zstd"), ("msgpack", None), ("msgpack", "zstd"),
)  # fmt: skip
_SELECT: Final = "SELECT collection, id, data::text FROM records WHERE space_id = %s"


def run(bench: Bench) -> list[Row]:
    """Rates in records a second."""
    count = bench.sized(10_000)
    writer, reader = bench.devices(1, each=2)
    with Line(bench.server.address) as line:
        for data in push.requests(bench, writer, count, "msgpack", None):
            line.good(data)
    rates: dict[tuple[str, str | None], list[float]] = {variant: [] for variant in VARIANTS}
    sizes: dict[tuple[str, str | None], int] = {}
    streamed: list[float] = []
    bare: list[float] = []
    shares: list[dict[str, float]] = []
    for _ in range(bench.runs):
        for variant in VARIANTS:
            with bench.shares(bench.server) as share:
                seconds, sizes[variant] = pull(bench, reader, count, *variant)
            rates[variant].append(count / seconds)
            if variant == VARIANTS[0]:
                shares.append(share)
                bare.append(count / _select(bench, reader, count))
        streamed.append(count / _snapshot(bench, reader, count))
    push.forget(bench, writer)
    unit, base = "records/s", figure(bare, "records/s")
    rows = []
    for variant, values in rates.items():
        format_, coding = variant
        name = f"bootstrap, {format_}{f' in {coding}' if coding else ''} ÷ SELECT"
        note = f"{number(sizes[variant] / count)} B a record on the wire"
        facts = {"bytes": sizes[variant], "records": count}
        facts |= together(shares) if variant == VARIANTS[0] else {}
        rows.append(
            Row(
                name,
                figure(values, unit),
                base,
                GOAL if variant == VARIANTS[0] else None,
                note,
                facts,
            )
        )
    rows.append(Row("bootstrap, snapshot in zstd ÷ SELECT", figure(streamed, unit), base))
    return rows


def pull(
    bench: Bench, reader: Device, count: int, format_: str, coding: str | None
) -> tuple[float, int]:
    """(seconds, bytes of the answers' bodies) for the whole space."""
    type_, page, got, size = FORMATS[format_], None, 0, 0
    with calm(), Line(bench.server.address) as line:
        start = time.perf_counter()
        while got < count:
            more: dict[str, Any] = {"page": page} if page else {}
            body = encoded(envelope(part(0, 0, [], **more)), format_)
            data = line.good(
                request("POST", "/v1/sync", reader.token, body, content=type_, accept=type_,
                        accept_coding=coding)
            )  # fmt: skip
            size += len(data)
            answer = decoded(data, format_, coding)["spaces"]["me"]
            got += len(answer["records"])
            page = answer["page"]
            if page is None:
                break
        seconds = time.perf_counter() - start
    if got != count:
        raise RuntimeError(f"{got} of {count} records came")
    return seconds, size


def _select(bench: Bench, reader: Device, count: int) -> float:
    with calm(), bench.stage.connect(bench.database) as connection:
        connection.execute("SELECT 1")
        start = time.perf_counter()
        rows = connection.execute(_SELECT, [reader.space]).fetchall()
        decode = msgspec.json.decode
        found = [(collection, id_, decode(data)) for collection, id_, data in rows]
        seconds = time.perf_counter() - start
    assert len(found) == count
    return seconds


def _snapshot(bench: Bench, reader: Device, count: int) -> float:
    """The NDJSON stream, whole, then decoded. It is chunked, so it is read by urllib."""
    asked = urllib.request.Request(  # noqa: S310 - our own server
        f"{bench.server.url}/v1/spaces/me/snapshot",
        headers={"Authorization": f"Bearer {reader.token}", "Accept-Encoding": "zstd"},
    )
    with calm():
        start = time.perf_counter()
        with urllib.request.urlopen(asked) as answer:  # noqa: S310
            lines = zstd.decompress(answer.read()).splitlines()
        found = [msgspec.json.decode(line) for line in lines[1:]]
        seconds = time.perf_counter() - start
    assert len(found) == count
    return seconds
