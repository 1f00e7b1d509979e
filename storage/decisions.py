"""What pushes have decided goes into the log, the records and the heads: few rows by one statement,
many by COPY.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from storage import journal, records, replicas
from storage.journal import Decision
from storage.replicas import Moved
from storage.sql import Cursor, as_rows, copy_rows
from sync.stored import StoredRecord

# Of more, COPY takes in the first while the last are still made.
ROWS_AT_ONCE: Final = 200
_WRITE: Final = f"""
    WITH logged AS ({journal.APPEND}), made AS ({records.MAKE}), changed AS ({records.CHANGE}),
    {replicas.DECIDE}
"""

OfSpace = tuple[str, StoredRecord]
"""A record, and its space."""


def write(
    cur: Cursor,
    logged: Iterator[Decision],
    made: Iterator[OfSpace],
    changed: Iterable[OfSpace],
    moved: Iterable[Moved],
    count: int,
) -> None:
    """The changes, the records that there were none of and those that there were, and how far each
    replica and its space have come. `count`: of changes and records. Under the spaces' locks.
    """
    changes, new = (one.row() for one in logged), (records.row(*one) for one in made)
    if count > ROWS_AT_ONCE:
        copy_rows(cur, "changes", journal.COLUMNS, changes)
        copy_rows(cur, "records", records.COLUMNS, new)
    rows = (changes, new, (records.row(*one) for one in changed), (one.row() for one in moved))
    cur.execute(_WRITE, [as_rows(each) for each in rows])
