"""The driver's own cursor inside SQLAlchemy's transaction, and how many rows are handed to it.

A large push hands PostgreSQL thousands of short texts. psycopg looks at each by itself; what is
written here takes a third of that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final, cast

import msgspec
import psycopg
from sqlalchemy import Connection

Cursor = psycopg.Cursor[tuple[Any, ...]]


def cursor(connection: Connection) -> Cursor:
    """A cursor of the connection's running transaction; rows come as tuples."""
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    return driver.cursor()


Row = Sequence[str | None]
"""A row's columns, each as PostgreSQL reads its type; None stands for NULL."""


def from_rows(columns: Mapping[str, str], parameter: str) -> str:
    """A SELECT of rows that come as this parameter: their columns' names, in order, and types.

    For a few rows it takes half the time of COPY, which is two round trips, or of an array for each
    column.
    """
    read = (f"(r->>{at})::{type_} AS {name}" for at, (name, type_) in enumerate(columns.items()))
    return f"SELECT {', '.join(read)} FROM jsonb_array_elements(%({parameter})s::jsonb) AS r"  # noqa: S608


def as_rows(rows: Iterable[Row]) -> str:
    """The rows as `from_rows` takes them. PostgreSQL refuses a NUL in them."""
    return msgspec.json.encode(list(rows)).decode()


# PostgreSQL's jsonb takes 256 MiB at most.
PART_BYTES: Final = 32 * 2**20


def in_parts(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows, so many at a time as one parameter may well hold; at least one part."""
    part: list[Row] = []
    size = 0
    for row in rows:
        more = sum(len(text or "") for text in row)
        if part and size + more > PART_BYTES:
            yield part
            part, size = [], 0
        part.append(row)
        size += more
    yield part


LINES_AT_ONCE: Final = 128


def copy_rows(cur: Cursor, table: str, columns: Mapping[str, str], rows: Iterator[Row]) -> None:
    """Many rows into a table, none of whose texts is empty. PostgreSQL takes in what there is while
    more is made.
    """
    statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN (NULL '')"
    with cur.copy(statement) as copy:
        while block := "".join(map(_line, islice(rows, LINES_AT_ONCE))):
            copy.write(block)


def _line(row: Row) -> str:
    # No text holds a NUL: it keeps the columns apart while what means something is escaped.
    line = "\0".join([text or "" for text in row]).replace("\\", "\\\\").replace("\t", "\\t")
    return line.replace("\n", "\\n").replace("\r", "\\r").replace("\0", "\t") + "\n"


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
