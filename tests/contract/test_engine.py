"""An engine waits for nothing without a bound and hands out no dead connection."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from storage import engine as module
from storage.engine import UnusableDatabase, make_engine, psycopg_url


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


def test_an_old_postgres_is_refused_with_a_sentence() -> None:
    old = SimpleNamespace(info=SimpleNamespace(server_version=130_012))
    with pytest.raises(UnusableDatabase, match=r"PostgreSQL 13; Rejoin needs 14 or newer"):
        module._refuse_unusable(old, None)


def test_a_database_in_another_encoding_is_refused_with_a_sentence(postgres_server: str) -> None:
    setup = make_engine(postgres_server, 1, statement_timeout_ms=0)
    setup = setup.execution_options(isolation_level="AUTOCOMMIT")
    name = f"test_{os.getpid()}_latin"
    encoding = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"
    with setup.connect() as link:
        link.execute(text(f"CREATE DATABASE {name} TEMPLATE template0 {encoding}"))
    latin = make_engine(setup.url.set(database=name).render_as_string(hide_password=False), 1)
    with pytest.raises(UnusableDatabase, match="ENCODING 'UTF8'"):
        latin.connect()
    latin.dispose()
    with setup.connect() as link:
        link.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    setup.dispose()
