"""The push's baseline: the same rows by COPY, as fast as one connection can.

The rows are read back from what a push left, before the clock starts, in the order of the log.
`blocks` are the text that PostgreSQL writes of them, handed on whole, so that Python does nothing
for a row. `rows` are Python values, jsonb as text, which psycopg writes down one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import sql

from benchmarks.calm import calm

TABLES: Final = ("changes", "records")


def seconds(
    source: psycopg.Connection, target: psycopg.Connection, space: UUID, kind: str, batch: int
) -> float:
    """For all rows of both tables, a commit after `batch` of each. `target` is in autocommit."""
    read, write = KINDS[kind]
    found = source.execute("SELECT head FROM spaces WHERE id = %s", [space]).fetchone()
    starts = range(0, found[0] if found else 0, batch)
    batches = [
        [(table, read(source, table, space, start, start + batch)) for table in TABLES]
        for start in starts
    ]
    with calm():
        begin = time.perf_counter()
        for both in batches:
            with target.transaction():
                for table, data in both:
                    write(target, table, data)
        spent = time.perf_counter() - begin
    clear(target, space)
    return spent


def clear(connection: psycopg.Connection, space: UUID) -> None:
    """Delete the space's rows and give their room back; the connection is in autocommit."""
    for table in TABLES:
        name = sql.Identifier(table)
        connection.execute(sql.SQL("DELETE FROM {} WHERE space_id = %s").format(name), [space])
        connection.execute(sql.SQL("VACUUM {}").format(name))


def _blocks(source: psycopg.Connection, table: str, space: UUID, after: int, last: int) -> bytes:
    query = sql.SQL("COPY ({}) TO STDOUT").format(
        sql.SQL(
            "SELECT * FROM {table} WHERE space_id = {space}"
            " AND position > {after} AND position <= {last} ORDER BY position"
        ).format(
            table=sql.Identifier(table),
            space=sql.Literal(str(space)),
            after=sql.Literal(after),
            last=sql.Literal(last),
        )
    )
    with source.cursor().copy(query) as copy:
        return b"".join(bytes(block) for block in copy)


def _write_block(target: psycopg.Connection, table: str, data: bytes) -> None:
    with target.cursor().copy(_copy(table)) as copy:
        copy.write(data)


def _rows(
    source: psycopg.Connection, table: str, space: UUID, after: int, last: int
) -> list[tuple[Any, ...]]:
    query = sql.SQL(
        "SELECT {} FROM {} WHERE space_id = %s AND position > %s AND position <= %s"
        " ORDER BY position"
    ).format(_columns(source, table), sql.Identifier(table))
    return source.execute(query, [space, after, last]).fetchall()


def _write_rows(target: psycopg.Connection, table: str, rows: list[tuple[Any, ...]]) -> None:
    with target.cursor().copy(_copy(table)) as copy:
        for row in rows:
            copy.write_row(row)


def _copy(table: str) -> sql.Composed:
    return sql.SQL("COPY {} FROM STDIN").format(sql.Identifier(table))


def _columns(source: psycopg.Connection, table: str) -> sql.Composable:
    """All of them; jsonb as its text, which is what a program has to store."""
    found = source.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
        [table],
    )
    names = [
        sql.SQL("{}::text" if type_ == "jsonb" else "{}").format(sql.Identifier(name))
        for name, type_ in found
    ]
    return sql.SQL(", ").join(names)


KINDS: Final[dict[str, tuple[Callable[..., Any], Callable[..., None]]]] = {
    "blocks": (_blocks, _write_block),
    "rows": (_rows, _write_rows),
}
