"""What the log says of an exception: enough to find the fault, and nothing that users wrote.

PostgreSQL's errors quote the rows they are about (DETAIL, CONTEXT: a whole line of a COPY), and
SQLAlchemy's the parameters. Promise: of an error of the database's only the class, the SQLSTATE
and the primary message are told; of any other the class and the start of what it says.
"""

from __future__ import annotations

import traceback
from typing import Final

import psycopg
import sqlalchemy.exc

CHARS_MAX: Final = 200
CANCELLED: Final = "57014"
# Connection exceptions, a server that shuts down or starts, and one that takes no more clients.
_UNREACHABLE: Final = ("08", "57P", "53300")


def said(error: BaseException) -> str:
    """The exception in one line: class, SQLSTATE and primary message."""
    root = _root(error)
    state = _sqlstate(root)
    primary = root.diag.message_primary if isinstance(root, psycopg.Error) else None
    # Where psycopg has no diagnosis, its further lines may be the server's DETAIL and CONTEXT.
    lines = (primary or str(root)).splitlines() or [""]
    # SQLAlchemy's own may end with the statement and its parameters, on lines of their own.
    return f"{type(root).__name__}{f' {state}' if state else ''}: {lines[0][:CHARS_MAX]}"


def unavailable(error: BaseException) -> str:
    """Why the database did not serve: the remedies differ."""
    if isinstance(error, sqlalchemy.exc.TimeoutError):
        return f"no connection to the database was free in time: {said(error)}"
    state = _sqlstate(_root(error))
    if state == CANCELLED:
        return f"a statement took too long: {said(error)}"
    if state is None or state.startswith(_UNREACHABLE):
        return f"the database can't be reached: {said(error)}"
    return f"the database gave up a statement: {said(error)}"


def traced(error: BaseException) -> str:
    """The exception's traceback with all that led to it, the oldest first."""
    chain: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in chain:
        chain.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    parts = ("".join(traceback.format_tb(one.__traceback__)) + said(one) for one in reversed(chain))
    return "\nand then:\n".join(parts)


def _root(error: BaseException) -> BaseException:
    """What the driver raised, where SQLAlchemy wrapped it."""
    orig = error.orig if isinstance(error, sqlalchemy.exc.StatementError) else None
    return orig or error


def _sqlstate(error: BaseException) -> str | None:
    if not isinstance(error, psycopg.Error):
        return None
    return error.diag.sqlstate or error.sqlstate
