"""Where the time goes at 1,000,000 records in one space, and at 10,000 spaces with 100 records.

Requests a second of pushes of 20 changes and of pulls that bring 20, 16 in flight, each from
another space of the 10,000; the baseline is the same in a database of as many spaces as are
asked, which hold nothing. Then what each statement of a push, of a pull and of a first page costs
in either database: PostgreSQL's own account of it (EXPLAIN ANALYZE), its indexes and the pages it
touched.
"""

from __future__ import annotations

from typing import Any, Final

from benchmarks import fill, statements
from benchmarks.bench import Bench, figure, hello
from benchmarks.devices import Device, decoded, encoded, envelope, make_devices, new_rows, part
from benchmarks.figures import Row
from benchmarks.measures import growth
from benchmarks.stage import Gunicorn
from benchmarks.wire import Flood, Line, flooded, request
from storage.engine import make_engine

SPACES, RECORDS, ASKED, CHANGES, IN_FLIGHT = 10_000, 100, 400, 20, 16
RECORDS_IN_ONE: Final = 1_000_000


def run(bench: Bench) -> list[Row]:
    """Rates in requests a second, then milliseconds by statement."""
    # More than are asked: those left over show their statements.
    least = (bench.runs + 1) * ASKED
    count = min(SPACES, max(least, bench.sized(SPACES * RECORDS) // RECORDS))
    many, devices = _many(bench, count)
    few = bench.database
    rates: dict[tuple[str, str], list[float]] = {}
    # Nobody is asked twice: the second time they would stand elsewhere.
    drawn = bench.dice.sample(devices, bench.runs * ASKED)
    asked = [drawn[start : start + ASKED] for start in range(0, len(drawn), ASKED)]
    for some in asked:
        fresh = bench.devices(ASKED)
        for name, url, chosen, head in (("many", many, some, RECORDS), ("few", few, fresh, 0)):
            push, pull = _asked(bench, bench.stage.serve(url), chosen, head)
            rates.setdefault(("push", name), []).append(push.rate)
            rates.setdefault(("pull", name), []).append(pull.rate)
    rows = [
        Row(f"{verb} of {CHANGES} in {count:,} spaces × {RECORDS} ÷ empty spaces",
            figure(rates[verb, "many"], "requests/s"), figure(rates[verb, "few"], "requests/s"))
        for verb in ("push", "pull")
    ]  # fmt: skip
    # Those asked are further on than the others: their statements are shown by one that was not.
    used = {device.id for some in asked for device in some}
    unused = next(device for device in devices if device.id not in used)
    where = f"{count:,} × {RECORDS}"
    rows += _explained(bench, many, unused, unused, RECORDS, where)
    big = growth.grown(bench, min(RECORDS_IN_ONE, bench.sized(RECORDS_IN_ONE)))
    where = f"1 × {big.records:,}"
    return rows + _explained(bench, big.url, big.writer, big.reader, big.head, where)


def _many(bench: Bench, count: int) -> tuple[str, list[Device]]:
    """The URL of a database with so many spaces, and a device of each."""
    bench.say(f"scale: filling {count:,} spaces with {RECORDS} records each")
    url = bench.stage.database()
    engine = make_engine(url, 1, statement_timeout_ms=0)
    settings = bench.stage.settings(url)
    first = make_devices(engine, settings, 1)[0]
    fill.rows(bench.dice, engine, first, RECORDS)
    others = make_devices(engine, settings, count - 1)
    with bench.stage.connect(url, autocommit=True) as connection:
        fill.copies(connection, first, others)
        fill.settle(connection)
    engine.dispose()
    return url, others


def _asked(bench: Bench, server: Gunicorn, devices: list[Device], head: int) -> tuple[Flood, Flood]:
    """A push by each of the devices, then a pull from before it."""
    pushes, pulls = [], []
    for device in devices:
        changes = new_rows(head + 1, CHANGES, head, bench.dice)
        push = encoded(envelope(part(head, head + CHANGES, changes)))
        pull = encoded(envelope({"epoch": 1, "cursor": head}))
        pushes.append([request("POST", "/v1/sync", device.token, push)])
        pulls.append([request("POST", "/v1/sync", device.token, pull)])
    first = hello(devices[0].token)
    made = (
        flooded(server.address, first, pushes, IN_FLIGHT),
        flooded(server.address, first, pulls, IN_FLIGHT),
    )
    # A space's own error comes with a 200: the last device's pull must bring its push.
    with Line(server.address) as line:
        space = decoded(line.good(pulls[-1][0]))["spaces"]["me"]
    if len(space.get("records", ())) != CHANGES:
        raise RuntimeError(f"the pull did not bring the push: {space}")
    return made


def _explained(
    bench: Bench, url: str, writer: Device, reader: Device, head: int, where: str
) -> list[Row]:
    """A row for each statement, the slowest of each kind of request first."""
    changes = new_rows(head + 1, CHANGES, head, bench.dice)
    bodies = {
        "push": (writer, envelope(part(head, head + CHANGES, changes))),
        "pull": (reader, envelope({"epoch": 1, "cursor": head})),
        "first page": (reader, envelope({"cursor": 0})),
    }
    rows = []
    for kind, (device, body) in bodies.items():
        told = statements.explained(bench.stage.settings(url), device.token, body)
        for one in sorted(told, key=lambda found: -found.milliseconds):
            facts: dict[str, Any] = {"statement": " ".join(one.statement.split())}
            note = f"{one.nodes}; {one.pages} pages"
            name = f"{where}, {kind}: {one.name}"
            rows.append(Row(name, figure([one.milliseconds], "ms"), note=note, facts=facts))
    return rows
