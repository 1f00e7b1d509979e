"""What Alembic runs: in one transaction, under one lock, for the schema of storage/tables.py."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import Connection, text

from storage.engine import make_engine
from storage.migrate import LOCK
from storage.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        compare_type=True,
        compare_server_default=True,
        transactional_ddl=True,
    )
    with context.begin_transaction():
        # Held to the end of the transaction: who comes second finds the work done.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
        context.run_migrations()


def main() -> None:
    given = context.config.attributes.get("connection")
    if given is not None:
        run(given)
        return
    with make_engine(os.environ["DATABASE_URL"], 1, statement_timeout_ms=0).connect() as connection:
        run(connection)


main()
