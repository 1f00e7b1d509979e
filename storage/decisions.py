"""What pushes have decided goes into the log, the records and the heads: few rows by one statement,
many by COPY.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from storage import journal, records, replicas
from storage.journal import Decision
from storage.replicas import Moved
from storage.sql import Cursor, as_rows, copy_rows, from_rows, in_parts
from sync.stored import StoredRecord

# Of more, COPY takes in the first while the last are still made.
ROWS_AT_ONCE: Final = 200
_WRITE: Final = f"""
    WITH logged AS ({journal.APPEND}), made AS ({records.MAKE}), changed AS ({records.UPDATE}),
         moved AS ({from_rows(replicas.COLUMNS, "moved")}), advanced AS ({replicas.ADVANCE})
    {replicas.DECIDE}
"""

OfSpace = tuple[str, StoredRecord]
"""A record, and its space."""


def write(
    cur: Cursor,
    logged: Iterable[Decision],
    made: Iterable[OfSpace],
    changed: Iterable[OfSpace],
    moved: Iterable[Moved],
    count: int,
) -> None:
    """The changes, the records that there were none of and those that there were, and how far each
    replica and its space have come. `count`: of changes and records. Under the spaces' locks.

    `made` may be read while COPY runs: what makes them must not ask the database.
    """
    if count > ROWS_AT_ONCE:
        copy_rows(cur, "changes", journal.COLUMNS, (one.row() for one in logged))
        copy_rows(cur, "records", records.COLUMNS, (records.row(*one) for one in made))
        logged, made = (), ()
    *parts, last = in_parts(records.row(*one) for one in changed)
    for part in parts:
        records.update(cur, part)
    values = {
        "logged": as_rows(one.row() for one in logged),
        "made": as_rows(records.row(*one) for one in made),
        "changed": as_rows(last),
        "moved": as_rows(one.row() for one in moved),
    }
    cur.execute(_WRITE, values)
