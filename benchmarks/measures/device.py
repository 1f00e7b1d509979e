"""The device: rows a second that its triggers record, and that it applies.

Recorded: rows inserted (or updated) in a tracked table by plain SQL, 1,000 to a transaction, in a
file of its own; the baseline is the same SQL on the same table in a file without Rejoin. Applied:
`sync()` of a new device with the server's answers kept from a first one and played back, so
neither the server nor the network is in it; the baseline inserts the same rows into the same
table in one transaction.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from app.settings import ROOT
from benchmarks.bench import Bench, figure
from benchmarks.calm import calm
from benchmarks.devices import fields
from benchmarks.figures import Row

COUNT: Final = 10_000
# Fewer, and it is the disk that is measured.
IN_TRANSACTION: Final = 1_000
TABLE: Final = (
    "CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, done INT, priority INT, due TEXT)"
)
INSERT: Final = "INSERT INTO tasks VALUES (?, ?, ?, ?, ?)"
UPDATE: Final = "UPDATE tasks SET title = ?, priority = ? WHERE id = ?"
EMAIL, PASSWORD = "device@bench.example.org", "correct horse battery"
UNIT: Final = "rows/s"


def run(bench: Bench) -> list[Row]:
    """Rates in rows a second, on the project's disk with SQLite's own settings."""
    sys.path.insert(0, str(ROOT / "clients" / "python"))
    count = bench.sized(COUNT)
    data = [(f"task-{n:08}", *_values(bench)) for n in range(count)]
    edits = [(f"{title}!", priority + 1, id_) for id_, title, _, priority, _ in data]
    told: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir=bench.stage.folder) as folder:
        answers = _synced(bench, Path(folder), data)
        for number in range(bench.runs):
            where = Path(folder) / str(number)
            where.mkdir()
            for name, seconds in _once(where, data, edits, answers).items():
                told.setdefault(name, []).append(count / seconds)
    made = {name: figure(values, UNIT) for name, values in told.items()}
    return [
        Row("device, inserts recorded ÷ plain SQLite", made["insert"], made["bare insert"]),
        Row("device, updates recorded ÷ plain SQLite", made["update"], made["bare update"]),
        Row("device, made into changes to send (sealed)", made["seal"]),
        Row("device, rows applied ÷ plain SQLite", made["apply"], made["bare apply"],
            note="10,000 in one transaction"),
    ]  # fmt: skip


def _values(bench: Bench) -> tuple[str, int, int, str]:
    made: dict[str, Any] = fields(bench.dice)
    return made["title"], int(made["done"]), made["priority"], made["due"]


def _once(folder: Path, data: list[Any], edits: list[Any], answers: list[Any]) -> dict[str, float]:
    """Seconds by what was done, in a folder of its own."""
    import rejoin
    from rejoin.outbox import seal

    bare = sqlite3.connect(folder / "bare.sqlite", isolation_level=None)
    bare.execute(TABLE)
    spent = {
        "bare insert": _timed(lambda: _in_batches(bare, INSERT, data)),
        "bare update": _timed(lambda: _in_batches(bare, UPDATE, edits)),
    }
    bare.close()
    with rejoin.open(folder / "device.sqlite") as db:
        db.execute(TABLE)
        db.track("tasks")
        spent["insert"] = _timed(lambda: _in_batches(db.connection, INSERT, data))
        spent["update"] = _timed(lambda: _in_batches(db.connection, UPDATE, edits))
        with sqlite3.connect(folder / "device.sqlite", isolation_level=None) as sealing:
            # Each row was recorded twice by now.
            spent["seal"] = _timed(lambda: _sealed(sealing, seal)) / 2
    with rejoin.open(folder / "new.sqlite", "http://played.back", http=Played(answers)) as db:
        db.execute(TABLE)
        db.login(EMAIL, PASSWORD)
        db.track("tasks")
        spent["apply"] = _timed(db.sync)
        found = db.execute("SELECT count(*) FROM tasks").fetchone()[0]
        if found != len(data):
            raise RuntimeError(f"{found} of {len(data)} rows were applied")
    bare = sqlite3.connect(folder / "applied.sqlite", isolation_level=None)
    bare.execute(TABLE)
    spent["bare apply"] = _timed(lambda: _in_batches(bare, INSERT, data, len(data)))
    bare.close()
    return spent


def _sealed(db: sqlite3.Connection, seal: Callable[[sqlite3.Connection], object]) -> None:
    db.execute("BEGIN IMMEDIATE")
    seal(db)
    db.execute("COMMIT")


def _in_batches(
    db: sqlite3.Connection, statement: str, rows: list[Any], size: int = IN_TRANSACTION
) -> None:
    for start in range(0, len(rows), size):
        db.execute("BEGIN IMMEDIATE")
        db.executemany(statement, rows[start : start + size])
        db.execute("COMMIT")


def _timed(what: Callable[[], object]) -> float:
    with calm():
        start = time.perf_counter()
        what()
        return time.perf_counter() - start


# The server's answers, kept and played back ---------------------------------------------------


def _synced(bench: Bench, folder: Path, data: list[Any]) -> list[Any]:
    """One device pushes the rows to the real server, another pulls them: its answers."""
    import rejoin

    with rejoin.open(folder / "first.sqlite", bench.server.url) as db:
        db.execute(TABLE)
        db.signup(EMAIL, PASSWORD)
        db.track("tasks")
        _in_batches(db.connection, INSERT, data)
        db.sync()
    kept = Kept()
    with rejoin.open(folder / "second.sqlite", bench.server.url, http=kept) as db:
        db.execute(TABLE)
        db.login(EMAIL, PASSWORD)
        db.track("tasks")
        db.sync()
    return kept.answers


class Kept:
    """A device's HTTP that keeps what it was answered."""

    def __init__(self) -> None:
        from rejoin.transport import Urllib3

        self.answers: list[Any] = []
        self._http = Urllib3()

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> Any:
        answer = self._http.request(method, url, headers, body, timeout_s)
        self.answers.append(answer)
        return answer


class Played:
    """A device's HTTP that gives the answers again, in their order."""

    def __init__(self, answers: list[Any]) -> None:
        self._answers = iter(answers)

    def request(self, *_: object) -> Any:
        """The next answer; the request is not looked at."""
        return next(self._answers)
