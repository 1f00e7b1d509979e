"""The schema's way forward and back: Alembic, run from the program itself.

Promises: two processes that migrate at once take turns (a platform may release twice); a
migration is applied whole or not at all.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine

FOLDER: Final = Path(__file__).resolve().parent.parent / "migrations"
# Any number will do that nobody else locks: the letters "rejoin" as an integer.
LOCK: Final = int.from_bytes(b"rejoin")


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the schema to a revision: "head", "base" (empty), "-1" (one back) or an id."""
    with engine.connect() as connection:
        config = _config(connection)
        back = revision == "base" or revision.startswith("-") or _is_behind(connection, revision)
        (command.downgrade if back else command.upgrade)(config, revision)


def current_revision(connection: Connection) -> str | None:
    """The revision that the schema is at; None where there is none yet."""
    return MigrationContext.configure(connection).get_current_revision()


@functools.cache
def newest_revision() -> str | None:
    """The revision that this program was written for, read once: every probe asks."""
    return ScriptDirectory(str(FOLDER)).get_current_head()


def _is_behind(connection: Connection, revision: str) -> bool:
    """Whether the revision lies before the one that the schema is at."""
    at = current_revision(connection)
    connection.rollback()
    if at is None or revision in {"head", "heads", at}:
        return False
    script = ScriptDirectory(str(FOLDER))
    return any(step.revision == revision for step in script.iterate_revisions(at, "base"))


def _config(connection: Connection) -> Config:
    config = Config(FOLDER / "alembic.ini")
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
