"""What every measure stands on: a durable PostgreSQL, gunicorns, databases.

Promises: PostgreSQL is the embedded one, in a folder of this run's own on the project's disk (a
temporary folder may be in memory, where fsync costs nothing), with fsync and synchronous_commit
on; gunicorn is started as the Procfile starts it; all of it is ended by pid when the run ends,
also by Ctrl-C, and the folder is removed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil  # type: ignore[import-untyped]
import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url

from app.settings import ROOT, Settings
from storage import embedded
from storage.engine import make_engine
from storage.migrate import migrate

SECRET: Final = "a secret for benchmarks only, of more than 32 characters"
APP: Final = "app:create_app()"
BASELINE: Final = "benchmarks.baseline:create_app()"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
# In .gitignore, and `make clean` removes it.
FOLDER: Final = ROOT / ".rejoin-test"


@dataclass
class Gunicorn:
    """One gunicorn with its workers."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def workers(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children()
        return found

    def worker_of(self, connected: socket.socket) -> int:
        """The process that has taken this connection of ours; it has answered on it already."""
        return self.worker_at(tuple(connected.getsockname()))

    def worker_at(self, client: tuple[str, int]) -> int:
        """As `worker_of`, of another process' connection, by its own end's address."""
        for worker in self.workers():
            if any(tuple(one.raddr) == client for one in worker.net_connections("tcp")):
                pid: int = worker.pid
                return pid
        raise RuntimeError("no worker has this connection")

    def stop(self) -> None:
        """End it with all its workers, gently first."""
        children = self.workers() if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for one in (*children, self.process):
                with suppress(psutil.NoSuchProcess):
                    one.kill()
            self.process.wait()


class Stage:
    """PostgreSQL for the run; databases and servers as the measures ask for them."""

    def __init__(self, workers: int, environment: dict[str, str]) -> None:
        self.workers = workers
        self._extra = environment
        self._ending = ExitStack()
        self._servers: dict[str, Gunicorn] = {}
        self._databases = 0

    def __enter__(self) -> Self:
        FOLDER.mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(prefix="bench-", dir=FOLDER))
        # PostgreSQL runs as another user where the run is root's.
        self.folder.chmod(0o755)
        self._ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.postgres = self._ending.enter_context(embedded.start(self.folder))
        self._log = self._ending.enter_context((self.folder / "gunicorn.log").open("wb"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.close()

    # Databases --------------------------------------------------------------------------------

    def database(self) -> str:
        """The URL of a new database with Rejoin's schema."""
        self._databases += 1
        name = f"bench_{self._databases}"
        with self.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        url = make_url(self.postgres.url).set(database=name).render_as_string(hide_password=False)
        engine = make_engine(url, 1, statement_timeout_ms=0)
        migrate(engine)
        engine.dispose()
        return url

    @staticmethod
    def connect(url: str, *, autocommit: bool = False) -> psycopg.Connection:
        """The bare driver, on the database of this URL."""
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        return psycopg.connect(plain, autocommit=autocommit)

    def postgres_processes(self) -> list[psutil.Process]:
        master = psutil.Process(self.postgres.pid)
        return [master, *master.children(recursive=True)]

    # Servers ----------------------------------------------------------------------------------

    def settings(self, database_url: str) -> Settings:
        """The settings of a server on that database, for tokens that it accepts."""
        return Settings.from_environ(self._environment(database_url, 1, self.workers))

    def serve(self, database_url: str, *, app: str = APP, workers: int | None = None) -> Gunicorn:
        """A gunicorn that lives until the run ends or `stop`s it; the same one when asked again."""
        key = f"{app} {database_url} {workers or self.workers}"
        if key not in self._servers:
            self._servers[key] = self.start(database_url, workers, {}, app=app)
        return self._servers[key]

    def end(self, server: Gunicorn) -> None:
        """End a server before the run ends; the next `serve` starts another."""
        self._servers = {key: one for key, one in self._servers.items() if one is not server}
        server.stop()

    def start(
        self,
        database_url: str,
        workers: int | None,
        environment: dict[str, str],
        *,
        app: str = APP,
    ) -> Gunicorn:
        """A gunicorn of its own with these settings, until it is stopped or the run ends."""
        workers = workers or self.workers
        port = _free_port()
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", app],
            cwd=ROOT,
            env=os.environ | self._environment(database_url, port, workers) | environment,
            stdout=self._log,
            stderr=self._log,
            # Ctrl-C in a terminal is for us.
            start_new_session=True,
        )
        server = Gunicorn(port, process)
        self._ending.callback(self._stop, server)
        _wait(server, workers)
        return server

    @staticmethod
    def _stop(server: Gunicorn) -> None:
        if server.process.poll() is None:
            server.stop()

    def _environment(self, database_url: str, port: int, workers: int) -> dict[str, str]:
        return {
            "PORT": str(port),
            "DATABASE_URL": database_url,
            "WEB_CONCURRENCY": str(workers),
            "REJOIN_ENV": "development",
            "REJOIN_HOST": "127.0.0.1",
            "REJOIN_DATA": str(self.folder / "server"),
            "REJOIN_SECRET": SECRET,
            "REJOIN_RATE_LIMITS": "off",
            # The run is longer than a token's usual life.
            "REJOIN_ACCESS_TOKEN_SECONDS": "86400",
            # A benchmark that is killed outright takes its servers along.
            "REJOIN_PARENT": str(os.getpid()),
            **self._extra,
        }


def _wait(server: Gunicorn, workers: int) -> None:
    """Until it answers and all its workers are there."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError):
            answer = urllib.request.urlopen(  # noqa: S310 - our own server
                f"{server.url}/healthz", timeout=START_SECONDS
            )
            answer.close()
            if len(server.workers()) == workers:
                return
        time.sleep(POLL_SECONDS)
    raise RuntimeError("gunicorn did not start; its log is in the run's folder")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
