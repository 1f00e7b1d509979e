"""The driver's own cursor inside SQLAlchemy's transaction: COPY and arrays want psycopg itself.

A large push hands PostgreSQL thousands of short texts. psycopg looks at each by itself; what is
written here takes a third of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final, LiteralString, cast

import psycopg
from sqlalchemy import Connection

Cursor = psycopg.Cursor[tuple[Any, ...]]


def cursor(connection: Connection) -> Cursor:
    """A cursor of the connection's running transaction; rows come as tuples."""
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    return driver.cursor()


NULL: Final = "\\N"
LINES_AT_ONCE: Final = 128


def copy_lines(cur: Cursor, statement: LiteralString, lines: Iterator[str]) -> None:
    """COPY … FROM STDIN of lines in its text format: columns by tabs, a newline at the end.

    PostgreSQL takes in what there is while more is made.
    """
    with cur.copy(statement) as copy:
        while block := "".join(islice(lines, LINES_AT_ONCE)):
            copy.write(block)


def in_line(text: str) -> str:
    """A text as a column of COPY's text format."""
    text = text.replace("\\", "\\\\").replace("\t", "\\t")
    return text.replace("\n", "\\n").replace("\r", "\\r")


def text_array(texts: Sequence[str]) -> str:
    """A `text[]` as PostgreSQL reads it. Raises psycopg's DataError for a NUL, as psycopg does."""
    joined = "\0".join(texts).replace("\\", "\\\\").replace('"', '\\"')
    if joined.count("\0") > len(texts) - 1 >= 0:
        raise psycopg.DataError("a text holds NUL")
    return '{"' + joined.replace("\0", '","') + '"}' if texts else "{}"


BATCH_ROWS = 500


def server_cursor(connection: Connection, name: str) -> psycopg.ServerCursor[tuple[Any, ...]]:
    """As `cursor`, but the rows stay with PostgreSQL and come `BATCH_ROWS` at a time."""
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    made = driver.cursor(name)
    made.itersize = BATCH_ROWS
    return made
