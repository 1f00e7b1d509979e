"""The schema that the migrations make is the one that storage/tables.py says, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, inspect, text

from storage.engine import make_engine
from storage.migrate import FOLDER, current_revision, migrate, newest_revision
from storage.tables import metadata

CONSTRAINTS = """
SELECT conrelid::regclass::text AS owner, conname, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
  AND conrelid <> 0 AND conrelid <> 'alembic_version'::regclass ORDER BY 1, 2
"""
COLUMNS = """
SELECT table_name, column_name, data_type, is_nullable, column_default, collation_name
FROM information_schema.columns
WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2
"""
INDEXES = """
SELECT indexname, indexdef FROM pg_indexes
WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1
"""


@pytest.fixture
def empty(empty_database: Callable[[], str]) -> Iterator[Engine]:
    engine = make_engine(empty_database(), 2, statement_timeout_ms=0)
    yield engine
    engine.dispose()


def differences(connection: Connection, wanted: MetaData) -> list[object]:
    options = {"compare_type": True, "compare_server_default": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), wanted)


def schema(engine: Engine) -> list[list[tuple[object, ...]]]:
    """Everything that PostgreSQL itself says of the tables: Alembic compares no checks."""
    with engine.connect() as connection:
        connection.execute(text("CREATE TABLE IF NOT EXISTS alembic_version ()"))
        answers = [connection.execute(text(q)).all() for q in (COLUMNS, CONSTRAINTS, INDEXES)]
        connection.rollback()
    return [[tuple(row) for row in rows] for rows in answers]


def test_migrations_from_empty_make_the_tables_of_tables_py(
    empty: Engine, empty_database: Callable[[], str]
) -> None:
    migrate(empty)
    with empty.connect() as connection:
        assert differences(connection, metadata) == []
    declared = make_engine(empty_database(), 1)
    metadata.create_all(declared)
    assert schema(empty) == schema(declared)
    declared.dispose()


def test_a_column_without_a_migration_is_noticed(empty: Engine) -> None:
    migrate(empty)
    wanted = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(wanted)
    wanted.tables["spaces"].append_column(Column("forgotten", Integer))
    with empty.connect() as connection:
        assert len(differences(connection, wanted)) == 1


def test_every_migration_goes_back_and_forth_again(empty: Engine) -> None:
    revisions = [step.revision for step in ScriptDirectory(str(FOLDER)).walk_revisions()][::-1]
    before: list[list[list[tuple[object, ...]]]] = []
    for revision in revisions:
        before.append(schema(empty))
        migrate(empty, revision)
    whole = schema(empty)
    for revision in revisions[::-1]:
        migrate(empty, "-1")
        assert schema(empty) == before[revisions.index(revision)]
    assert inspect(empty).get_table_names() == ["alembic_version"]
    migrate(empty)
    assert schema(empty) == whole


def test_migrating_to_an_older_revision_by_its_name_goes_back(empty: Engine) -> None:
    migrate(empty)
    migrate(empty, "base")
    with empty.connect() as connection:
        assert current_revision(connection) is None


def test_migrating_twice_changes_nothing_and_the_head_is_known(empty: Engine) -> None:
    migrate(empty)
    once = schema(empty)
    migrate(empty)
    assert schema(empty) == once
    with empty.connect() as connection:
        assert current_revision(connection) == newest_revision() is not None


def test_ids_are_compared_code_point_by_code_point_whatever_the_databases_language(
    connection: Connection,
) -> None:
    collation = connection.execute(
        text(
            "SELECT collation_name FROM information_schema.columns"
            " WHERE table_name = 'records' AND column_name = 'id'"
        )
    ).scalar_one()
    assert collation == "C"
