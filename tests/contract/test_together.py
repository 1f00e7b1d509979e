"""Statements that travel together are as those that go one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from psycopg import DataError, errors
from sqlalchemy import Engine

from storage.engine import make_engine, one_push, one_statement
from storage.sql import cursor
from storage.together import Prepared, together
from tests.contract.test_sql import TEXTS

ECHO = Prepared("echo", "SELECT $1::text")
SERIES = Prepared("series", "SELECT * FROM generate_series(1, $1::int)")
PREPARED = "SELECT name FROM pg_prepared_statements WHERE from_sql"


@pytest.fixture
def pool(postgres_url: str) -> Iterator[Engine]:
    made = make_engine(postgres_url, 2)
    yield made
    made.dispose()


def test_each_gives_its_own_rows(engine: Engine) -> None:
    with one_statement(engine) as connection:
        found = together(
            cursor(connection), "SELECT 1", SERIES("3"), "SET TIME ZONE UTC", ECHO("x")
        )
    assert found == [[(1,)], [(1,), (2,), (3,)], [], [("x",)]]


@given(TEXTS)
def test_texts_arrive_as_they_are(engine: Engine, texts: list[str]) -> None:
    with one_statement(engine) as connection:
        found = together(cursor(connection), "SELECT 0", *map(ECHO, texts))
    assert found == [[(0,)], *([(text,)] for text in texts)]


def test_a_text_with_a_nul_is_refused_before_it_is_cut(engine: Engine) -> None:
    with one_statement(engine) as connection, pytest.raises(DataError):
        together(cursor(connection), ECHO("a\0b"))


def test_each_connection_knows_its_own_statements_and_each_once(pool: Engine) -> None:
    with one_statement(pool) as first, one_statement(pool) as second:
        for _ in range(2):
            together(cursor(first), ECHO("a"), ECHO("b"))
        together(cursor(second), SERIES("1"), ECHO("c"))
        known = [together(cursor(one), PREPARED)[0] for one in (first, second)]
    assert [sorted(names) for names in known] == [[("echo",)], [("echo",), ("series",)]]


@pytest.mark.parametrize("often", [0, 10], ids=["psycopg has prepared nothing", "or something"])
def test_a_rollback_does_not_leave_statements_that_are_gone(pool: Engine, often: int) -> None:
    for _ in range(3):
        with pool.connect() as connection:
            transaction, cur = connection.begin(), cursor(connection)
            for _ in range(often):
                cur.execute("SELECT %s::int", (1,))
            assert together(cur, ECHO("x"), PREPARED) == [[("x",)], [("echo",)]]
            transaction.rollback()


def test_statements_that_are_gone_are_prepared_for_the_next(pool: Engine) -> None:
    with one_statement(pool) as connection:
        cur = cursor(connection)
        together(cur, ECHO("x"))
        cur.execute("DEALLOCATE ALL")
        with pytest.raises(errors.InvalidSqlStatementName):
            together(cur, ECHO("x"))
        assert together(cur, ECHO("x")) == [[("x",)]]


def test_what_fails_leaves_nothing_and_the_connection_good(engine: Engine) -> None:
    failing = Prepared("failing", "SELECT 1 / $1::int")
    parts = "BEGIN", "CREATE TABLE half_done (number int)", failing("0"), "COMMIT"
    with pytest.raises(errors.DivisionByZero), one_push(engine, begun=False) as connection:
        together(cursor(connection), *parts)
    with one_statement(engine) as connection:
        found = together(cursor(connection), failing("1"), "SELECT to_regclass('half_done')")
    assert found == [[(1,)], [(None,)]]


def test_a_transaction_that_begins_with_its_first_message_is_one(engine: Engine) -> None:
    with one_push(engine, begun=False) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        before = driver.info.transaction_status.name
        together(cursor(connection), "BEGIN", ECHO("x"))
        within = driver.info.transaction_status.name
    assert (before, within, driver.info.transaction_status.name) == ("IDLE", "INTRANS", "IDLE")
