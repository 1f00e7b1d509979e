"""An engine waits for nothing without a bound and hands out no dead connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from types import SimpleNamespace

import pytest
from psycopg import errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage import engine as module
from storage.engine import (
    UnusableDatabase,
    make_engine,
    no_disk,
    one_moment,
    one_push,
    one_statement,
    psycopg_url,
)
from storage.sql import cursor


@pytest.fixture
def one(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine of one connection, of little patience."""
    monkeypatch.setattr(module, "POOL_TIMEOUT_SECONDS", 0.05)
    made = make_engine(postgres_url, 1, statement_timeout_ms=50)
    yield made
    made.dispose()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_an_address_as_any_platform_writes_it_is_taken(scheme: str) -> None:
    url = psycopg_url(f"{scheme}://me:pw@db:5433/rejoin?sslmode=require")
    assert url.render_as_string(hide_password=False) == (
        "postgresql+psycopg://me:pw@db:5433/rejoin?sslmode=require"
    )


@pytest.mark.parametrize("url", ["sqlite://", "mysql://db/x", "postgresql+asyncpg://db/x"])
def test_an_address_of_another_database_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="write postgresql://user:password@host/name"):
        psycopg_url(url)


def test_a_statement_that_takes_too_long_is_ended(one: Engine) -> None:
    with one.connect() as connection, pytest.raises(OperationalError, match="statement timeout"):
        connection.execute(text("SELECT pg_sleep(30)"))


def test_a_connection_that_is_not_to_be_had_is_an_error_soon(one: Engine) -> None:
    with one.connect(), pytest.raises(PoolTimeout):
        one.connect()


def test_an_idle_transaction_ends_by_itself_and_times_are_utc(one: Engine) -> None:
    with one.connect() as connection:
        shown = [
            connection.execute(text(f"SHOW {name}")).scalar_one()
            for name in ("idle_in_transaction_session_timeout", "timezone", "application_name")
        ]
    assert shown == ["1min", "UTC", "rejoin"]


def test_a_connection_that_died_in_the_pool_is_never_handed_out(
    one: Engine, postgres_url: str
) -> None:
    with one.connect() as connection:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    other = make_engine(postgres_url, 1)
    with other.connect() as connection:
        # Waits, up to 5 s, until the process is gone.
        ended = connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        assert ended.scalar_one() is True
    other.dispose()
    with one.connect() as connection:
        assert connection.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


Transaction = Callable[[Engine], AbstractContextManager[Connection]]
READ_ONLY, ISOLATION, DISK = (
    "transaction_read_only",
    "transaction_isolation",
    "synchronous_commit",
)
PLANNING = ("plan_cache_mode", "enable_bitmapscan")


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (Engine.begin, {READ_ONLY: "off", ISOLATION: "read committed", DISK: "on"}),
        (one_push, {READ_ONLY: "off", ISOLATION: "read committed", DISK: "on"}),
        (one_moment, {READ_ONLY: "on", ISOLATION: "repeatable read", DISK: "on"}),
        (no_disk, {READ_ONLY: "off", ISOLATION: "read committed", DISK: "off"}),
    ],
)
def test_a_transaction_is_as_it_was_begun_and_leaves_nothing_behind(
    one: Engine, begin: Transaction, said: dict[str, str]
) -> None:
    with one_statement(one) as connection:
        cursor(connection).execute("SET synchronous_commit = on")
    with begin(one) as connection:
        cur = cursor(connection)
        assert {name: cur.execute(f"SHOW {name}".encode()).fetchone() for name in said} == {
            name: (value,) for name, value in said.items()
        }
        assert connection.connection.driver_connection.info.transaction_status.name == "INTRANS"
    with one_statement(one) as connection:
        cur = cursor(connection)
        kept = [cur.execute(f"SHOW {name}".encode()).fetchone() for name in (DISK, *PLANNING)]
        assert kept == [("on",), ("auto",), ("on",)]
        assert connection.connection.driver_connection.info.transaction_status.name == "IDLE"


@pytest.mark.parametrize("begin", [Engine.begin, one_push, no_disk])
def test_what_a_transaction_wrote_is_gone_where_it_failed(one: Engine, begin: Transaction) -> None:
    with one.begin() as connection:
        connection.execute(text("CREATE TABLE kept (n int)"))
    for statement in ("INSERT INTO kept VALUES (1)", "not SQL"):
        with suppress(ZeroDivisionError, errors.SyntaxError), begin(one) as connection:
            cursor(connection).execute("INSERT INTO kept VALUES (2)")
            cursor(connection).execute(statement.encode())
            raise ZeroDivisionError
    with one.begin() as connection:
        left = connection.execute(text("SELECT count(*) FROM kept")).scalar_one()
        connection.execute(text("DROP TABLE kept"))
    assert left == 0


def test_one_moment_does_not_see_what_is_committed_after_its_first_look(postgres_url: str) -> None:
    engine = make_engine(postgres_url, 2)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE seen (n int)"))
    with one_moment(engine) as connection:
        looks = [connection.execute(text("SELECT count(*) FROM seen")).scalar_one()]
        with engine.begin() as other:
            other.execute(text("INSERT INTO seen VALUES (1)"))
        looks.append(connection.execute(text("SELECT count(*) FROM seen")).scalar_one())
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE seen"))
    engine.dispose()
    assert looks == [0, 0]


def test_an_old_postgres_is_refused_with_a_sentence() -> None:
    old = SimpleNamespace(info=SimpleNamespace(server_version=130_012))
    with pytest.raises(UnusableDatabase, match=r"PostgreSQL 13; Rejoin needs 14 or newer"):
        module._refuse_unusable(old, None)


def test_a_database_in_another_encoding_is_refused_with_a_sentence(postgres_server: str) -> None:
    setup = make_engine(postgres_server, 1, statement_timeout_ms=0)
    name = f"test_{os.getpid()}_latin"
    encoding = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    with one_statement(setup) as link:
        cursor(link).execute(f"CREATE DATABASE {name} TEMPLATE template0 {encoding}".encode())
    latin = make_engine(setup.url.set(database=name).render_as_string(hide_password=False), 1)
    with pytest.raises(UnusableDatabase, match="ENCODING 'UTF8'"):
        latin.connect()
    latin.dispose()
    with one_statement(setup) as link:
        cursor(link).execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
    setup.dispose()


def test_a_connection_that_is_cut_within_a_transaction_is_said_to_be(
    one: Engine, engine: Engine
) -> None:
    def cut(connection: Connection) -> None:
        pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        with engine.begin() as other:
            other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        connection.execute(text("SELECT 1"))

    with pytest.raises(OperationalError), one.begin() as connection:
        cut(connection)


def test_texts_are_utf_8_whatever_the_environment_says(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    made = make_engine(postgres_url, 1)
    with one_statement(made) as connection:
        shown = cursor(connection).execute("SHOW client_encoding").fetchone()
    made.dispose()
    assert shown == ("UTF8",)
