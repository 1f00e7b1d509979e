"""kill −9 at any moment: nothing is lost, nothing counts twice, nothing is left half done."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread

import pytest

import rejoin
from rejoin_testing.fake_server import FakeServer

KILLS = int(os.environ.get("REJOIN_TEST_KILLS", "6"))
PACKAGE = Path(__file__).resolve().parents[1]

# The victim counts what it has committed in a table that does not travel, in one transaction.
VICTIM = """
import sys, rejoin
db = rejoin.open(sys.argv[1], sys.argv[2])
print("up", flush=True)
while True:
    for _ in range(3):
        with db.transaction():
            db.execute("UPDATE tasks SET votes = votes + 1 WHERE id = 'all'")
            n = db.execute("UPDATE done SET n = n + 1 RETURNING n").fetchone()[0]
            db.execute("INSERT INTO tasks (id, title) VALUES (?, 'x')", (f"t{n}",))
    db.execute("DELETE FROM tasks WHERE id LIKE 't%5'")
    db.sync()
    print("round", flush=True)
"""


@pytest.fixture
def address(server: FakeServer) -> Iterator[str]:
    """The fake server on a port of this machine, so that it outlives its devices."""
    server.page_records = 3
    lock = Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            with lock:
                answer = server.request("POST", self.path, dict(self.headers), body, 1)
            self.send_response(answer.status)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A killed device breaks its connection; that is the point."""

    made = Quiet(("127.0.0.1", 0), Handler)
    thread = Thread(target=made.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    thread.join()
    made.server_close()


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_device_killed_at_random_moments_loses_and_doubles_nothing(
    tmp_path: Path, server: FakeServer, address: str, journal: str
) -> None:
    path = tmp_path / "victim.sqlite"
    with rejoin.open(path, address) as db:
        db.login("ada@example.org", "secret")
        db.connection.executescript(
            f"PRAGMA journal_mode = {journal}; CREATE TABLE done (n INTEGER);"
            " INSERT INTO done VALUES (0);"
            " CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, votes INTEGER DEFAULT 0)"
        )
        db.track("tasks", votes="counter")
        db.execute("INSERT INTO tasks (id) VALUES ('all')")
    chance = random.Random(7)  # noqa: S311  # not for secrets
    for _ in range(KILLS):
        _run_and_kill(path, address, chance)
        plain = sqlite3.connect(path)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert plain.execute("SELECT applying, grp FROM rejoin_state").fetchone() == (0, 0)
        plain.close()
    with rejoin.open(path, address) as db:
        db.sync()
        (done,) = db.execute("SELECT n FROM done").fetchone()
        assert done >= KILLS
        assert db.execute("SELECT votes FROM tasks WHERE id = 'all'").fetchone() == (done,)
        assert server.rows["tasks", "all"]["fields"]["votes"] == done
        here = {row[0] for row in db.execute("SELECT id FROM tasks")}
        assert here == {i for (t, i), r in server.rows.items() if t == "tasks" and not r["deleted"]}
        assert db.status().pending == 0
        assert db.status().aside == []


def _run_and_kill(path: Path, address: str, chance: random.Random) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(path), address],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PACKAGE)},
    ) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"up\n"
        for _ in range(chance.randrange(3)):
            assert victim.stdout.readline() == b"round\n"
        try:
            victim.wait(timeout=chance.uniform(0, 0.05))  # any statement may be the last
        except subprocess.TimeoutExpired:
            victim.send_signal(signal.SIGKILL)
        assert victim.wait() == -signal.SIGKILL
