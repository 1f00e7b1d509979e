"""A real editing trace, typed by one stock y-websocket provider and received by another.

Counted: updates a second, an update for each of the trace's patches, from the first typed to the
last at the receiver, whose text is the typist's. They are two Node processes; the receiver is at
another worker than the typist. Rejoin commits each update before anyone is told of it.

The baseline is npm's y-websocket server 1.5, one Node process that keeps documents in memory, with
the same two editors. The trace is typed in as many parts as there are runs, each part at one and
then at the other, so that the document grows as it did. Then a fresh editor opens the whole of it,
and what PostgreSQL holds is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from benchmarks.bench import Bench, figure
from benchmarks.devices import make_devices
from benchmarks.editors import Editor, Missing, installed, y_websocket
from benchmarks.figures import Row
from benchmarks.stage import Gunicorn
from storage.engine import make_engine

GOAL, LOAD_GOAL_MS = 0.5, 100
TRIES: Final = 20
TABLES: Final = {
    "documents": "what a bootstrap takes",
    "changes": "every edit, for history and support",
    "records": "the text as SQL reads it",
}
_STORED: Final = """
    SELECT pg_total_relation_size('documents'), pg_total_relation_size('changes'),
           pg_total_relation_size('records')
"""


def run(bench: Bench) -> list[Row]:
    """Updates a second; milliseconds; bytes a character."""
    try:
        if bench.trace is None:
            raise Missing("no trace is given: --trace FILE, or the variable EDITING_TRACE")
        folder = installed()
    except Missing as missing:
        bench.say(f"editing is left out: {missing}.")
        return []
    with (
        _rejoin(bench, folder, bench.trace) as (ours, url),
        _baseline(folder, bench.trace) as bare,
    ):
        count = bench.sized(ours.count())
        parts = [count * n // bench.runs for n in range(bench.runs + 1)]
        rates = [(ours.type(a, b), bare.type(a, b)) for a, b in pairwise(parts) if a < b]
        loads = [(ours.load(), bare.load()) for _ in range(bench.runs)]
        return [*_speed(ours, count, rates), _load(ours, loads), *_stored(bench, url, ours)]


def _speed(ours: _Desk, count: int, rates: list[tuple[float, float]]) -> list[Row]:
    mine, bare = (figure(column, "updates/s") for column in zip(*rates, strict=True))
    return [
        Row("editing, typed and received ÷ y-websocket", mine, bare, GOAL,
            f"{count:,} updates; typist at worker {ours.workers[0]}, receiver at {ours.workers[1]}")
    ]  # fmt: skip


def _load(ours: _Desk, loads: list[tuple[float, float]]) -> Row:
    mine, bare = (figure(column, "ms") for column in zip(*loads, strict=True))
    return Row("editing, a fresh editor has the whole text", mine, None, LOAD_GOAL_MS,
               f"{ours.typed['length']:,} characters; from y-websocket's server {bare}",
               at_most=True)  # fmt: skip


def _stored(bench: Bench, url: str, ours: _Desk) -> list[Row]:
    """As autovacuum leaves the tables, and rewritten without their gaps."""
    characters = ours.typed["length"]
    with bench.stage.connect(url, autocommit=True) as connection:
        sizes = []
        for vacuum in ("VACUUM", "VACUUM FULL"):
            connection.execute(f"{vacuum} {', '.join(TABLES)}".encode())
            sizes.append(connection.execute(_STORED).fetchone() or ())
    return [
        Row(f"editing, stored in {table}", figure([size / characters], "B a character"),
            note=f"{TABLES[table]}; {dense / characters:.1f} without gaps")
        for table, size, dense in zip(TABLES, *sizes, strict=True)
    ]  # fmt: skip


class _Desk:
    """A server, an editor that types and one that receives."""

    def __init__(self, folder: Path, trace: Path, where: dict[str, str], ending: ExitStack) -> None:
        self._where = where
        self._typist, self._receiver = Editor(folder, trace), Editor(folder, trace)
        for editor in (self._typist, self._receiver):
            ending.callback(editor.close)
        self.typed: dict[str, Any] = {}
        self.workers = (0, 0)

    def sit_down(self, server: Gunicorn | None) -> None:
        """Both open the document, at different workers where there are any."""
        here = self._joined(self._typist, server)
        for _ in range(TRIES):
            self.workers = here, self._joined(self._receiver, server)
            if server is None or len(server.workers()) == 1 or len(set(self.workers)) == 2:
                return
        raise RuntimeError("one worker takes every connection")

    def _joined(self, editor: Editor, server: Gunicorn | None) -> int:
        port = editor.ask("join", **self._where)["port"]
        return server.worker_at(("127.0.0.1", port)) if server else 0

    def count(self) -> int:
        """The patches of the trace."""
        found: int = self._typist.ask("count")["patches"]
        return found

    def type(self, start: int, end: int) -> float:
        """Updates a second for this part of the trace."""
        self.typed = self._typist.ask("type", **{"from": start, "to": end})
        had = self._receiver.ask("receive", **self.typed)
        spent: float = had["at"] - self.typed["at"]
        return 1000 * (end - start) / spent

    def load(self) -> float:
        """Milliseconds until a fresh editor has all."""
        spent: float = self._typist.ask("load", wanted=self.typed, **self._where)["milliseconds"]
        return spent


@contextmanager
def _rejoin(bench: Bench, folder: Path, trace: Path) -> Iterator[tuple[_Desk, str]]:
    """A database and a server of its own."""
    url = bench.stage.database()
    engine = make_engine(url, 1)
    (device,) = make_devices(engine, bench.stage.settings(url), 1)
    engine.dispose()
    server = bench.stage.serve(url)
    where = {
        "url": f"ws://127.0.0.1:{server.port}/v1/spaces",
        "room": f"{device.space}/documents/notes/paper/body", "token": device.token,
    }  # fmt: skip
    with ExitStack() as ending:
        desk = _Desk(folder, trace, where, ending)
        desk.sit_down(server)
        yield desk, url
    bench.stage.end(server)


@contextmanager
def _baseline(folder: Path, trace: Path) -> Iterator[_Desk]:
    with ExitStack() as ending:
        url = ending.enter_context(y_websocket(folder))
        desk = _Desk(folder, trace, {"url": url, "room": "paper", "token": ""}, ending)
        desk.sit_down(None)
        yield desk
