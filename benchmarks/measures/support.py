"""What support staff ask of a service with many devices, and what the timeline costs a push.

A list's figure is its p95 above that of an endpoint that only asks who is there: the agent's own
spaces. The database holds 100,000 devices and 2,000,000 changes, unless `--size` says how many
devices. A push is made in this process, with a recorder and without, in turns.
"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from sqlalchemy import Engine, text

from app.access import Visit
from app.auth import Principal
from app.exchange import Exchange
from app.hints import Hints
from app.recording import Recorder
from app.turns import Turns
from benchmarks import customers
from benchmarks.bench import Bench, figure
from benchmarks.devices import Device, make_devices, new_rows
from benchmarks.figures import Row
from benchmarks.wire import Line, request
from storage.engine import make_engine
from sync.changes import Change
from sync.limits import Limits
from sync.requests import SpaceRequest, SyncRequest

GOAL_MS: Final = 50.0
GOAL_PUSH: Final = 1.05
DEVICES, CHANGES_EACH = 100_000, 20
ASKED, PUSHES = 40, 400
LISTS: Final = {
    "users by email": "/users?email=customer-1",
    "devices": "/devices",
    "devices by email": "/devices?email=customer-77",
    "devices by name": "/devices?name=ada%27s+phone+77",
    "devices by platform": "/devices?platform=android+15",
    "devices by version": "/devices?app_version=4.3.2",
    "devices by anything": "/devices?q=eve",
    **{
        f"devices {state}": f"/devices?state={state}"
        for state in ("online", "ok", "lagging", "stuck", "silent", "quarantined", "clock_off",
                      "conflicts", "revoked")
    },
    "devices behind": "/devices?behind=10",
    "devices behind for long": "/devices?behind_seconds=3600",
    "conflicts": "/conflicts",
    "conflicts settled": "/conflicts/settled",
    "quarantine": "/quarantine",
}  # fmt: skip


def run(bench: Bench) -> list[Row]:
    """Milliseconds for the lists, a ratio of times for the push."""
    url = bench.stage.database()
    size = bench.sized(DEVICES)
    bench.say(f"filling {size:,} devices")
    with bench.stage.connect(url) as connection:
        customers.fill(connection, size, size * CHANGES_EACH)
    engine = make_engine(url, 2, statement_timeout_ms=0)
    agent, *writers = make_devices(engine, bench.stage.settings(url), 3)
    _promote(engine, agent)
    swept = _sweep(engine)
    server = bench.stage.serve(url)
    with Line(server.address) as line:
        rows = [_asked(bench, line, agent, name, path) for name, path in _paths(engine).items()]
    note = f"{size:,} devices; a sweep of all of them takes {swept:.1f} s"
    rows.append(_pushes(bench, engine, writers, note))
    engine.dispose()
    return rows


def _promote(engine: Engine, agent: Device) -> None:
    with engine.begin() as connection:
        sql = "UPDATE users SET role = 'admin' WHERE id = :id"
        connection.execute(text(sql), {"id": agent.user})


def _sweep(engine: Engine) -> float:
    recorder = Recorder(lambda: engine, lambda: customers.NOW)
    began = time.perf_counter()
    recorder.sweep()
    return time.perf_counter() - began


def _paths(engine: Engine) -> dict[str, str]:
    """The lists, and what is asked of one device and one space, that of a device behind."""
    with engine.begin() as connection:
        device, space = connection.execute(text(
            "SELECT r.device_id, r.space_id FROM device_flags f JOIN replicas r USING (device_id)"
            " WHERE f.flag = 'lagging' LIMIT 1"
        )).one()  # fmt: skip
    key = "collection=tasks&id=t1"
    return LISTS | {
        "a device": f"/devices/{device}",
        "diagnosis": f"/devices/{device}/diagnosis",
        "timeline": f"/devices/{device}/events",
        "a space": f"/spaces/{space}",
        "log": f"/spaces/{space}/log",
        "record": f"/spaces/{space}/record?{key}",
        "record as it was": f"/spaces/{space}/record?{key}&at=3",
        "history": f"/spaces/{space}/record/history?{key}",
        "audit": "/audit",
        "overview": "/overview",
    }


def _asked(bench: Bench, line: Line, agent: Device, name: str, path: str) -> Row:
    empty = request("GET", "/v1/spaces", agent.token)
    asked = request("GET", f"/v1/admin{path}", agent.token)
    line.good(asked)
    above: list[float] = []
    for _ in range(bench.runs):
        times = [(_seconds(line, empty), _seconds(line, asked)) for _ in range(ASKED)]
        bare, full = (sorted(column)[int(ASKED * 0.95)] for column in zip(*times, strict=True))
        above.append((full - bare) * 1000)
    goal = None if name == "overview" else GOAL_MS
    return Row(f"{name}: p95 above an empty endpoint", figure(above, "ms"), goal=goal, at_most=True)


def _seconds(line: Line, asked: bytes) -> float:
    began = time.perf_counter()
    line.good(asked)
    return time.perf_counter() - began


def _pushes(bench: Bench, engine: Engine, writers: list[Device], note: str) -> Row:
    """What the recorder has left to write when a turn ends counts too."""
    url = engine.url.render_as_string(hide_password=False)
    recorder = _Recorder(lambda: make_engine(url, 1), lambda: int(time.time() * 1000))
    counters = dict.fromkeys((device.id for device in writers), 0)
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(-2, 2 * bench.runs):
        recorded = turn % 4 in (0, 3)
        device = writers[turn % len(writers)]
        exchange = Exchange(engine, Limits(), Hints(), Turns(), recorder if recorded else None)
        began = time.perf_counter()
        for _ in range(PUSHES):
            counters[device.id] += 1
            _push(exchange, device, counters[device.id], bench)
        recorder.flush()
        if turn >= 0:  # the first two are a warm-up
            spent[recorded].append((time.perf_counter() - began) / PUSHES * 1000)
    recorder.stop()
    mine, bare = (figure(spent[kind], "ms") for kind in (True, False))
    return Row("a push with its timeline", mine, bare, GOAL_PUSH, note, at_most=True)


class _Recorder(Recorder):
    """Without sweeps: they go by the clock, not by pushes, and their time is in the note."""

    def sweep(self) -> None:
        """Nothing."""


def _push(exchange: Exchange, device: Device, counter: int, bench: Bench) -> Any:
    changes = [
        msgspec.convert(change, Change) for change in new_rows(counter, 1, counter - 1, bench.dice)
    ]
    visit = Visit(Principal(device.user, device.id, "user"), int(time.time() * 1000), raw=True)
    part = SpaceRequest(cursor=counter - 1, counter=counter, changes=[*changes])
    return exchange.sync(visit, SyncRequest({"me": part}))
