"""`python -m app serve`: whatever is killed, it serves again, and nothing acknowledged is lost."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 60
WORKERS = 2
# Far less than gunicorn's graceful timeout of 20 s, which idle connections would use up.
STOP_SECONDS_MAX = 12
PASSWORD = "correct horse battery"


class Serving:
    """One `serve` and its log."""

    def __init__(self, data: Path, port: int, binaries: Path | None) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("REJOIN_")}
        inherited.pop("DATABASE_URL", None)
        environment = inherited | {
            "PORT": str(port),
            "WEB_CONCURRENCY": str(WORKERS),
            "REJOIN_DATA": str(data),
            "REJOIN_POSTGRES_BIN": str(binaries or ""),
            "REJOIN_RATE_LIMITS": "off",
        }
        self.port = port
        self.data = data
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.seen: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait_for(self, text: str) -> str:
        """The next line that holds the text; "" waits for the end of all that write there."""
        while True:
            line = self._lines.get(timeout=PATIENCE_SECONDS)
            self.seen.append(line)
            if (text and text in line) or (not text and not line):
                return line
            assert line, "it ended:\n" + "".join(self.seen)

    def ask(self, path: str, body: object = None) -> tuple[int, dict[str, object]]:
        """(status, answer); waits until a worker answers."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            method = "GET" if body is None else "POST"
            sent = None if body is None else json.dumps(body)
            link.request(method, path, sent, {"Content-Type": "application/json"})
            answer = link.getresponse()
            return answer.status, json.loads(answer.read() or b"{}")
        finally:
            link.close()

    def login(self, email: str, password: str = PASSWORD) -> int:
        device = {"name": "test", "platform": "test", "app_version": "1"}
        body = {"email": email, "password": password, "device": device}
        return self.ask("/v1/auth/login", body)[0]

    def signup(self, email: str) -> int:
        return self.ask("/v1/auth/signup", {"email": email, "password": PASSWORD})[0]

    def master(self) -> int:
        return next(p for p in children(self.process.pid) if "gunicorn" in arguments(p))

    def postgres(self) -> int:
        return int((self.data / "postgres" / "postmaster.pid").read_text().split()[0])

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Place:
    """One data folder and one port, where one `serve` after the other runs."""

    def __init__(self, data: Path, binaries: Path | None) -> None:
        self._data = data
        self._binaries = binaries
        self._port = free_port()
        self._started: list[Serving] = []

    def start(self) -> Serving:
        self._started.append(Serving(self._data, self._port, self._binaries))
        return self._started[-1]

    def stop(self) -> None:
        for serving in self._started:
            serving.stop()


@pytest.fixture(scope="module")
def place(postgres_binaries: Path | None) -> Iterator[Place]:
    data = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    data.chmod(0o755)
    made = Place(data, postgres_binaries)
    yield made
    made.stop()
    shutil.rmtree(data)


@pytest.fixture
def serving(place: Place) -> Iterator[Serving]:
    begun = place.start()
    for _ in range(WORKERS):
        begun.wait_for("Booting worker")
    yield begun
    begun.stop()


def test_the_support_login_that_it_prints_works(serving: Serving) -> None:
    printed = re.search(r"Support login: (\S+) / (\S+)", "".join(serving.seen))
    assert printed is not None
    assert serving.login(printed[1], printed[2]) == 200


def test_a_killed_worker_is_replaced(serving: Serving) -> None:
    before = children(serving.master())
    os.kill(before[0], signal.SIGKILL)
    serving.wait_for("Booting worker")
    assert serving.ask("/healthz")[0] == 200


def test_a_killed_gunicorn_is_started_again(serving: Serving) -> None:
    killed = serving.master()
    os.kill(killed, signal.SIGKILL)
    serving.wait_for("gunicorn has ended")
    serving.wait_for("Listening at")
    assert serving.ask("/readyz")[0] == 200
    assert serving.master() != killed


def test_a_killed_postgres_is_started_again_with_every_acknowledged_account(
    serving: Serving,
) -> None:
    assert serving.signup("kept@example.org") < 300
    os.kill(serving.postgres(), signal.SIGKILL)
    serving.wait_for("PostgreSQL serves again")
    assert serving.ask("/readyz")[0] == 200
    assert serving.login("kept@example.org") == 200


def test_when_it_is_killed_itself_the_next_start_serves_on_the_same_port(
    serving: Serving, place: Place
) -> None:
    assert serving.signup("kept2@example.org") < 300
    serving.process.kill()
    # gunicorn and its workers write to the same pipe: its end is theirs.
    serving.wait_for("")
    again = place.start()
    again.wait_for("Listening at")
    assert again.login("kept2@example.org") == 200
    again.stop()


def test_a_taken_port_is_one_sentence(serving: Serving, place: Place) -> None:
    refused = place.start()
    assert "set PORT to another" in refused.wait_for("can't be used")
    refused.wait_for("")
    assert refused.stop() == 1
    assert serving.ask("/healthz")[0] == 200


def test_told_to_go_it_goes_soon_and_leaves_nothing_running(serving: Serving) -> None:
    postgres = serving.postgres()
    with socket.create_connection(("127.0.0.1", serving.port), PATIENCE_SECONDS) as idle:
        idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert idle.recv(1024).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert serving.stop() == 0
        assert time.monotonic() - began < STOP_SECONDS_MAX
    assert not Path(f"/proc/{postgres}").exists()
