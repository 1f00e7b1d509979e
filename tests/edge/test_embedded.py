"""The embedded PostgreSQL: whoever starts it, wherever, and whatever was killed."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from storage import embedded
from storage.cluster import SOCKET_CHARS_MAX, EmbeddedError
from storage.embedded import Server
from storage.engine import make_engine, psycopg_url

ROOT = Path(__file__).resolve().parent.parent.parent
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
# A start in a process of its own; it says when it has begun and ends when its input closes.
CHILD = """
import sys
from pathlib import Path
from storage import embedded
binaries = Path(sys.argv[2]) if sys.argv[2] else None
with embedded.start(Path(sys.argv[1]), binaries) as server:
    print(server.pid, server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def made(
    postgres_binaries: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder in /tmp, that everybody may enter, with a cluster made and stopped."""
    data = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    data.chmod(0o755)
    embedded.start(data, postgres_binaries).stop()
    yield data
    shutil.rmtree(data)


@pytest.fixture
def data(made: Path) -> Iterator[Path]:
    """A copy of it: initdb is slow and is tested once."""
    copy = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    copy.chmod(0o755)
    subprocess.run(["cp", "-a", f"{made}/postgres", copy], check=True)
    yield copy
    shutil.rmtree(copy)


@pytest.fixture
def server(data: Path, postgres_binaries: Path | None) -> Iterator[Server]:
    with embedded.start(data, postgres_binaries) as started:
        yield started


def ask(server_url: str, statement: str) -> str:
    url = psycopg_url(server_url)
    with psycopg.connect(
        host=str(url.query["host"]), user=url.username, dbname=url.database
    ) as connection:
        cursor = connection.execute(statement)
        return "" if cursor.description is None else str(cursor.fetchall()[0][0])


def child(data: Path, binaries: Path | None, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(data), str(binaries or "")],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,  # type: ignore[call-overload]
    )


def answer(process: subprocess.Popen[str]) -> tuple[int, str]:
    """(pid, url) of the server that the child started or joined."""
    assert process.stdout is not None
    pid, url = process.stdout.readline().split()
    return int(pid), url


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def descendants(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in children]


def test_it_is_durable_in_utf_8_and_compares_by_code_point(server: Server) -> None:
    for name in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
        assert ask(server.url, f"SHOW {name}") == "on"
    assert ask(server.url, "SHOW server_encoding") == "UTF8"
    assert ask(server.url, "SELECT 'B' < 'a'") == "True"


def test_it_listens_on_no_address_and_its_socket_is_its_owners_alone(
    server: Server, data: Path
) -> None:
    assert ask(server.url, "SHOW listen_addresses") == ""
    assert (data / "run").stat().st_mode & 0o777 == 0o700
    assert (data / "run" / ".s.PGSQL.5432").stat().st_mode & 0o777 == 0o700
    rules = "SELECT string_agg(DISTINCT type || ' ' || auth_method, ', ') FROM pg_hba_file_rules"
    assert ask(server.url, rules) == "host reject, local trust"


@as_root
def test_root_starts_it_as_an_account_without_rights(server: Server) -> None:
    status = Path(f"/proc/{server.pid}/status").read_text()
    user = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    assert pwd.getpwuid(int(user)).pw_name in {"postgres", "nobody"}


@as_root
def test_root_starts_it_in_a_folder_that_only_root_may_enter(
    postgres_binaries: Path | None, data: Path
) -> None:
    data.chmod(0o700)
    (data / "deeper").mkdir()
    with embedded.start(data / "deeper", postgres_binaries) as server:
        assert ask(server.url, "SELECT current_user") == "rejoin"
    assert data.stat().st_mode & 0o777 == 0o700


@as_root
def test_an_ordinary_user_starts_it_and_root_may_use_it_after(
    made: Path, postgres_binaries: Path | None
) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    reachable = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    os.chown(reachable, nobody, -1)
    try:
        # This interpreter may lie where nobody may go, so only the start itself is nobody's.
        process = os.fork()
        if process == 0:
            os.setgroups([])
            os.setuid(nobody)
            with embedded.start(reachable, postgres_binaries) as server:
                ask(server.url, "CREATE TABLE kept AS SELECT 'by nobody' AS value")
            os._exit(0)
        assert os.waitpid(process, 0)[1] == 0
        with embedded.start(reachable, postgres_binaries) as server:
            assert ask(server.url, "SELECT value FROM kept") == "by nobody"
        assert (reachable / "postgres").stat().st_uid == nobody
    finally:
        shutil.rmtree(reachable)


def test_nothing_committed_is_lost_when_everything_is_killed(
    data: Path, postgres_binaries: Path | None
) -> None:
    starter = child(data, postgres_binaries)
    pid, url = answer(starter)
    ask(url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    kill(starter)
    for process in [pid, *descendants(pid)]:
        os.kill(process, signal.SIGKILL)
    assert (data / "postgres" / "postmaster.pid").exists()
    with embedded.start(data, postgres_binaries) as server:
        assert server.pid != pid
        assert ask(server.url, "SELECT count(*) FROM kept") == "1000"


def test_a_server_that_outlived_its_starter_is_joined_and_stopped_by_the_next(
    data: Path, postgres_binaries: Path | None
) -> None:
    starter = child(data, postgres_binaries)
    pid, _ = answer(starter)
    kill(starter)
    with embedded.start(data, postgres_binaries) as server:
        assert server.pid == pid
        assert server.alive()
    assert not server.alive()


def test_two_starts_at_once_share_one_server_that_stops_with_the_last(
    data: Path, postgres_binaries: Path | None
) -> None:
    first, second = (child(data, postgres_binaries) for _ in range(2))
    pid, url = answer(first)
    assert answer(second) == (pid, url)
    end(first)
    assert ask(url, "SELECT 1") == "1"
    end(second)
    assert not (data / "postgres" / "postmaster.pid").exists()


def test_servers_with_folders_of_their_own_run_side_by_side(
    server: Server, postgres_binaries: Path | None, made: Path
) -> None:
    with embedded.start(made, postgres_binaries) as other:
        ask(server.url, "CREATE TABLE mine ()")
        assert ask(other.url, "SELECT to_regclass('mine') IS NULL") == "True"


def test_a_stranger_with_the_killed_servers_process_id_is_no_server(
    data: Path, postgres_binaries: Path | None
) -> None:
    stale = (
        f"{os.getppid()}\n{data}/postgres\n1700000000\n5432\n{data}/run\n\n  5432001 65536\nready\n"
    )
    (data / "postgres" / "postmaster.pid").write_text(stale)
    (data / "run").mkdir()
    (data / "run" / ".s.PGSQL.5432.lock").write_text(stale)
    with embedded.start(data, postgres_binaries) as server:
        assert server.pid != os.getppid()
        assert ask(server.url, "SELECT 1") == "1"


def test_files_half_made_by_a_killed_start_are_made_anew(postgres_binaries: Path | None) -> None:
    data = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    data.chmod(0o755)
    half = data / "postgres.new.half"
    half.mkdir()
    (half / "PG_VERSION").write_text("18")
    try:
        with embedded.start(data, postgres_binaries) as server:
            assert ask(server.url, "SELECT 1") == "1"
        assert not half.exists()
    finally:
        shutil.rmtree(data)


def test_a_deep_folder_with_an_odd_name_gets_a_short_socket_that_goes_with_the_server(
    data: Path, postgres_binaries: Path | None
) -> None:
    deep = data / "with space, comma and 'quote'" / ("d" * SOCKET_CHARS_MAX)
    deep.mkdir(parents=True)
    (data / "postgres").rename(deep / "postgres")
    with embedded.start(deep, postgres_binaries) as server:
        socket = Path(str(psycopg_url(server.url).query["host"]))
        assert len(str(socket)) <= SOCKET_CHARS_MAX
        assert socket.stat().st_mode & 0o777 == 0o700
        engine = make_engine(server.url, 1)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        engine.dispose()
    assert not socket.exists()


def test_an_engine_goes_on_at_the_same_address_after_the_server_was_killed(
    data: Path, postgres_binaries: Path | None
) -> None:
    deep = data / ("d" * SOCKET_CHARS_MAX)
    deep.mkdir()
    (data / "postgres").rename(deep / "postgres")
    with embedded.start(deep, postgres_binaries) as server:
        engine = make_engine(server.url, 3)
        held = [engine.connect() for _ in range(3)]
        for connection in held:
            connection.close()
        os.kill(server.pid, signal.SIGKILL)
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
        assert not server.alive()
        server.revive()
        for _ in range(3):
            with engine.connect() as connection:
                assert connection.exec_driver_sql("SELECT 1").scalar_one() == 1
        engine.dispose()


def test_files_of_another_version_are_refused_with_what_to_do(
    data: Path, postgres_binaries: Path | None
) -> None:
    (data / "postgres" / "PG_VERSION").write_text("13\n")
    with pytest.raises(EmbeddedError, match=r"made by PostgreSQL 13 .* set REJOIN_POSTGRES_BIN"):
        embedded.start(data, postgres_binaries)


def test_a_server_that_can_not_start_says_what_its_log_says(
    data: Path, postgres_binaries: Path | None
) -> None:
    (data / "postgres" / "postgresql.conf").write_text("shared_buffers = nonsense\n")
    with pytest.raises(EmbeddedError, match="shared_buffers"):
        embedded.start(data, postgres_binaries)
