"""`--profile`: where the time of a request goes, by layer, and by function.

One worker of the real gunicorn with a clock in each layer (layers.py), one request at a time over
one connection. What the client waits beyond the app's own time is gunicorn's, the sockets' and
the kernel's. A second round under cProfile tells the functions; its times are too long, by what
cProfile costs, and its order is right.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgspec

from benchmarks.bench import Bench, figure, hello
from benchmarks.devices import Device, encoded, envelope, new_rows, part
from benchmarks.figures import Row
from benchmarks.layers import ORDER
from benchmarks.measures import push
from benchmarks.wire import Line, request

LAYERED: Final = "benchmarks.layers:create_app()"
Kind = Callable[[Bench, Device, Device], list[bytes]]


def _bulk(bench: Bench, writer: Device, _reader: Device) -> list[bytes]:
    return push.requests(bench, writer, 10_000, "json", None)


def _small(bench: Bench, writer: Device, _reader: Device) -> list[bytes]:
    made = []
    for start in range(0, 6_000, 20):
        changes = new_rows(start + 1, 20, start, bench.dice)
        body = encoded(envelope(part(start, start + 20, changes)))
        made.append(request("POST", "/v1/sync", writer.token, body))
    return made


def _idle(_bench: Bench, writer: Device, _reader: Device) -> list[bytes]:
    return [request("POST", "/v1/sync", writer.token, encoded(envelope(part(0, 0, []))))] * 500


def _pages(bench: Bench, writer: Device, reader: Device) -> list[bytes]:
    with Line(bench.server.address) as line:
        for data in push.requests(bench, writer, 1_000, "json", None):
            line.good(data)
    body = encoded(envelope(part(0, 0, [])))
    return [request("POST", "/v1/sync", reader.token, body)] * 20


KINDS: Final[dict[str, tuple[str, Kind]]] = {
    "push": ("push of 1,000 changes", _bulk),
    "devices": ("push of 20 changes", _small),
    "idle": ("idle sync", _idle),
    "bootstrap": ("page of 1,000 records", _pages),
}


def run(bench: Bench, wanted: list[str]) -> tuple[list[Row], dict[str, str]]:
    """Milliseconds a request by layer, and the functions' own account by kind of request."""
    server = bench.stage.serve(bench.database, app=LAYERED, workers=1)
    rows: list[Row] = []
    functions: dict[str, str] = {}
    for key in [key for key in KINDS if key in wanted] or list(KINDS):
        name, kind = KINDS[key]
        for profiled in (False, True):
            writer, reader = bench.devices(1, each=2)
            requests = kind(bench, writer, reader)
            with Line(server.address) as line:
                _send(line, kind(bench, *bench.devices(1, each=2)))
                line.ask(_get("/bench/layers", writer))
                if profiled:
                    line.ask(_get("/bench/functions/start", writer))
                spent = _send(line, requests)
                told = line.ask(_get(f"/bench/{'functions' if profiled else 'layers'}", writer))
            if profiled:
                functions[name] = told.body.decode()
            else:
                rows += _rows(name, msgspec.json.decode(told.body), spent, len(requests))
    bench.stage.end(server)
    return rows, functions


def _send(line: Line, requests: list[bytes]) -> float:
    start = time.perf_counter()
    for data in requests:
        line.good(data)
    return time.perf_counter() - start


def _get(path: str, device: Device) -> bytes:
    return hello(device.token).replace(b"/healthz", path.encode(), 1)


def _rows(name: str, told: dict[str, dict[str, float]], spent: float, count: int) -> list[Row]:
    seconds = told["seconds"]
    within = sum(seconds.values())
    seconds = {ORDER[0]: max(0.0, spent - within), **seconds}
    note = f"not found: {', '.join(told['missing'])}" if told["missing"] else ""
    rows = [Row(f"{name}, all of it", figure([1000 * spent / count], "ms"), note=note)]
    for layer in ORDER:
        if layer in seconds:
            share = f"{100 * seconds[layer] / spent:.0f} %"
            rows.append(
                Row(f"  {layer}", figure([1000 * seconds[layer] / count], "ms"), note=share)
            )
    return rows
