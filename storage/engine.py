"""The way to PostgreSQL: one engine for each process.

Promises: a connection handed out was alive a moment ago, so the first request after PostgreSQL
came back works; nothing waits without a bound, neither for a connection nor for a statement;
a server that can't serve is refused with a sentence when the first connection is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from psycopg import OperationalError
from psycopg.pq import ConnStatus
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError

from storage.together import forget

POSTGRES_MAJOR_MIN: Final = 14

# A request that has waited so long for a connection is answered "busy" and comes back.
POOL_TIMEOUT_SECONDS: Final = 10
# Shorter than a worker's own patience, longer than a failover takes to refuse a connection.
CONNECT_TIMEOUT_SECONDS: Final = 5
# Longer than the slowest honest statement, a first page of a very large space, by far.
STATEMENT_TIMEOUT_MS: Final = 30_000
# A worker that died without closing its connection must not hold a space's row lock.
IDLE_TRANSACTION_TIMEOUT_MS: Final = 60_000
# Proxies drop connections that are silent for long; so old ones are replaced first.
RECYCLE_SECONDS: Final = 1_800


class UnusableDatabase(RuntimeError):
    """PostgreSQL answers but can't hold Rejoin's data; the text says what it needs."""


def make_engine(
    url: str, pool_size: int, *, statement_timeout_ms: int = STATEMENT_TIMEOUT_MS
) -> Engine:
    """An engine of at most `pool_size` connections; 0 ms means no timeout (migrations).

    Makes no connection yet. The first one raises UnusableDatabase where PostgreSQL is too old
    or its database is not in UTF-8.
    """
    engine = create_engine(
        psycopg_url(url),
        isolation_level="AUTOCOMMIT",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_SECONDS,
        pool_recycle=RECYCLE_SECONDS,
        pool_use_lifo=True,
        # An error that is printed somewhere must not print what users wrote.
        hide_parameters=True,
        connect_args=_connect_args(statement_timeout_ms),
    )
    event.listen(engine, "begin", _begin)
    event.listen(engine, "rollback", _forget)
    event.listen(engine, "connect", _refuse_unusable)
    event.listen(engine, "checkout", _refuse_dead)
    return engine


# How transactions begin. Connections are in autocommit else, so that a look that is one statement
# is one round trip; and what a transaction is to be like travels with its first word.
_BEGIN: Final = "BEGIN"
# In the order of the index: PostgreSQL takes a space for small, and would gather all of it and sort
# it for each page.
_PAGES: Final = "SET LOCAL enable_bitmapscan = off"
_READ: Final = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {_PAGES}"
# The plans of a push are the same for all: else PostgreSQL makes that of one record's look anew.
# And each row is looked up by its key: PostgreSQL takes some rows of JSON for a hundred, and would
# read all of the smaller tables for them.
_BY_KEY: Final = "; ".join(
    f"SET LOCAL enable_{way} = off" for way in ("hashjoin", "mergejoin", "seqscan")
)
BEGIN_PUSH: Final = f"BEGIN; SET LOCAL plan_cache_mode = force_generic_plan; {_PAGES}; {_BY_KEY}"
_NO_DISK: Final = "BEGIN; SET LOCAL synchronous_commit = off"


def one_moment(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction that only reads and sees one moment: a head and the records up to it."""
    return _transaction(engine, _READ)


def one_push(engine: Engine, *, begun: bool = True) -> AbstractContextManager[Connection]:
    """A transaction that decides changes, and reads pages. If not `begun`, it is the caller's first
    message that begins it, by BEGIN_PUSH.
    """
    return _transaction(engine, BEGIN_PUSH if begun else "")


def no_disk(engine: Engine) -> AbstractContextManager[Connection]:
    """A transaction whose commit does not wait for the disk: only for what may be lost, such as a
    cursor that its device will tell again.
    """
    return _transaction(engine, _NO_DISK)


@contextmanager
def one_statement(engine: Engine) -> Iterator[Connection]:
    """A connection without a transaction around its statements: for a look that is one of them.
    Its statements are psycopg's (`storage.sql.cursor`): SQLAlchemy begins a transaction by itself.
    """
    with engine.connect() as connection:
        yield connection


@contextmanager
def _transaction(engine: Engine, begin: str) -> Iterator[Connection]:
    with engine.connect() as connection, connection.execution_options(begin=begin).begin():
        yield connection


def _begin(connection: Connection) -> None:
    driver: Any = connection.connection.driver_connection
    begin = connection.get_execution_options().get("begin", _BEGIN)
    if begin:
        # Unprepared: what is prepared is one command.
        driver.execute(begin, prepare=False)


def _forget(connection: Connection) -> None:
    if not connection.invalidated:
        forget(connection.connection.driver_connection)


def _refuse_dead(connection: Any, _record: object, _proxy: object) -> None:
    """The pool makes a new connection where the server has closed this one.

    A look at what has arrived, not a round trip: an idle connection hears nothing but its end,
    a last word and then the closing. What only a timeout would tell, a ping could not either.
    """
    try:
        connection.pgconn.consume_input()
        connection.pgconn.consume_input()
    except OperationalError as closed:
        raise DisconnectionError from closed
    if connection.pgconn.status != ConnStatus.OK:
        raise DisconnectionError


def psycopg_url(url: str) -> URL:
    """The URL as SQLAlchemy wants it: platforms write postgres:// or postgresql://."""
    parsed = make_url(url)
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        raise ValueError("not a PostgreSQL address: write postgresql://user:password@host/name")
    return parsed.set(drivername="postgresql+psycopg")


def _connect_args(statement_timeout_ms: int) -> dict[str, str | int]:
    options = {
        "statement_timeout": str(statement_timeout_ms),
        "idle_in_transaction_session_timeout": str(IDLE_TRANSACTION_TIMEOUT_MS),
        "timezone": "UTC",
        # Statements here take milliseconds; compiling one takes a hundred.
        "jit": "off",
    }
    return {
        "connect_timeout": CONNECT_TIMEOUT_SECONDS,
        "application_name": "rejoin",
        "client_encoding": "utf8",
        # A server that went without a word is noticed: else a statement would wait for hours.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 20_000,
        "options": " ".join(f"-c {name}={value}" for name, value in options.items()),
    }


def _refuse_unusable(connection: Any, _record: object) -> None:
    version: int = connection.info.server_version
    if version < POSTGRES_MAJOR_MIN * 10_000:
        raise UnusableDatabase(
            f"This is PostgreSQL {version // 10_000}; Rejoin needs {POSTGRES_MAJOR_MIN} or newer."
        )
    encoding: str = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise UnusableDatabase(
            f"The database is encoded in {encoding}; make one with ENCODING 'UTF8'."
        )
