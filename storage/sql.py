"""The driver's own cursor inside SQLAlchemy's transaction: COPY and arrays want psycopg itself."""

from __future__ import annotations

from typing import Any, cast

import psycopg
from sqlalchemy import Connection

Cursor = psycopg.Cursor[tuple[Any, ...]]


def cursor(connection: Connection) -> Cursor:
    """A cursor of the connection's running transaction; rows come as tuples."""
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    return driver.cursor()


BATCH_ROWS = 500


def server_cursor(connection: Connection, name: str) -> psycopg.ServerCursor[tuple[Any, ...]]:
    """As `cursor`, but the rows stay with PostgreSQL and come `BATCH_ROWS` at a time."""
    driver = cast("psycopg.Connection[tuple[Any, ...]]", connection.connection.driver_connection)
    made = driver.cursor(name)
    made.itersize = BATCH_ROWS
    return made
