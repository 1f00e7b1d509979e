"""Statements that go to PostgreSQL together: one message, one round trip.

psycopg sends one statement at a time, and its pipelines cost as much as they save. In PostgreSQL's
simple query protocol (its manual, "Message Flow") a message is the text of many statements. One
that was prepared under a name is an EXECUTE in it: parsed and planned once for each connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

import psycopg
from psycopg.errors import InvalidSqlStatementName
from psycopg.pq import Escaping

from storage.sql import Cursor


class Prepared:
    """A statement with `$1`, `$2` … for its values, each of which it casts."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text

    def __call__(self, *values: str) -> Call:
        """With these values, as PostgreSQL reads their types."""
        return Call(self, values)


class Call(NamedTuple):
    statement: Prepared
    values: tuple[str, ...]


_known: Final[WeakKeyDictionary[Any, dict[Prepared, str]]] = WeakKeyDictionary()
"""What each connection has prepared, and under which name there. No name comes twice: after a
rollback psycopg may have had PostgreSQL forget them all, or may not.
"""
_names = count(1)


def forget(connection: Any) -> None:
    """After a rollback: prepare anew what this connection had."""
    _known.pop(connection, None)


def together(cur: Cursor, *parts: str | Call) -> list[list[tuple[Any, ...]]]:
    """Runs them in order, and returns the rows of each. After one that fails none is run.

    For names, not for what users wrote: PostgreSQL writes the message into its log when it fails.
    """
    known = _known.setdefault(cur.connection, {})
    for statement in {part.statement for part in parts if isinstance(part, Call)} - known.keys():
        name = f"{statement.name}_{next(_names)}"
        cur.execute(f"PREPARE {name} AS {statement.text}", prepare=False)
        known[statement] = name
    escaping = Escaping(cur.connection.pgconn)
    message = [p if isinstance(p, str) else _execute(p, known, escaping) for p in parts]
    try:
        cur.execute("; ".join(message).encode(), prepare=False)
    except InvalidSqlStatementName:
        forget(cur.connection)
        raise
    results = [_rows(cur)]
    while cur.nextset():
        results.append(_rows(cur))
    return results


def _execute(call: Call, known: Mapping[Prepared, str], escaping: Any) -> str:
    literals = [_literal(value, escaping) for value in call.values]
    return f"EXECUTE {known[call.statement]} ({', '.join(literals)})"


def _literal(value: str, escaping: Any) -> str:
    if "\0" in value:
        raise psycopg.DataError("a text holds NUL")
    return bytes(escaping.escape_literal(value.encode())).decode()


def _rows(cur: Cursor) -> list[tuple[Any, ...]]:
    return cur.fetchall() if cur.description else []
