"""Statements that go to PostgreSQL together: one message, one round trip.

psycopg sends one statement at a time, and its pipelines cost as much as they save. In PostgreSQL's
simple query protocol (its manual, "Message Flow") a message is the text of many statements. One
that was prepared under a name is an EXECUTE in it: parsed and planned once for each connection.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.errors import InvalidSqlStatementName
from psycopg.pq import Escaping

from storage.sql import Cursor


class Prepared:
    """A statement with `$1`, `$2` … for its values, each of which it casts. Its name is its own."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text

    def __call__(self, *values: str) -> Call:
        """With these values, as PostgreSQL reads their types."""
        return Call(self, values)


class Call(NamedTuple):
    statement: Prepared
    values: tuple[str, ...]


_known: Final[WeakKeyDictionary[Any, set[str]]] = WeakKeyDictionary()
"""What each connection has prepared, as far as is known."""
_PREPARED: Final = "SELECT name FROM pg_prepared_statements WHERE from_sql"


def forget(connection: Any) -> None:
    """After a rollback it must be asked what it has: psycopg may have had PostgreSQL forget it."""
    _known.pop(connection, None)


def together(cur: Cursor, *parts: str | Call) -> list[list[tuple[Any, ...]]]:
    """Runs them in order, and returns the rows of each. After one that fails none is run.

    For keys, not for values: when a message fails, PostgreSQL writes all of it into its log.
    """
    _prepare(cur, {part.statement for part in parts if isinstance(part, Call)})
    escaping = Escaping(cur.connection.pgconn)
    message = [part if isinstance(part, str) else _execute(part, escaping) for part in parts]
    try:
        cur.execute("; ".join(message).encode(), prepare=False)
    except InvalidSqlStatementName:
        forget(cur.connection)
        raise
    results = [_rows(cur)]
    while cur.nextset():
        results.append(_rows(cur))
    return results


def _prepare(cur: Cursor, statements: set[Prepared]) -> None:
    known = _known.get(cur.connection)
    if known is None:
        cur.execute(_PREPARED, prepare=False)
        known = _known[cur.connection] = {name for (name,) in cur}
    for statement in statements:
        if statement.name not in known:
            cur.execute(f"PREPARE {statement.name} AS {statement.text}", prepare=False)
            known.add(statement.name)


def _execute(call: Call, escaping: Any) -> str:
    literals = [_literal(value, escaping) for value in call.values]
    return f"EXECUTE {call.statement.name} ({', '.join(literals)})"


def _literal(value: str, escaping: Any) -> str:
    if "\0" in value:
        raise psycopg.DataError("a text holds NUL")
    return bytes(escaping.escape_literal(value.encode())).decode()


def _rows(cur: Cursor) -> list[tuple[Any, ...]]:
    return cur.fetchall() if cur.description else []
