"""Changes that were refused, whole, and counters that were given up."""

from __future__ import annotations

import json
from typing import Final
from uuid import UUID

from storage.sql import Cursor
from sync.clock import Replica
from sync.plan import Refusal

_KEEP: Final = """
    INSERT INTO quarantine (space_id, replica, counter, position, body, digest, error, received_at)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""


def keep(
    cur: Cursor,
    space: UUID,
    replica: Replica,
    head: int,
    received_at: int,
    refusals: list[Refusal],
) -> None:
    """`head`: that of the log when they were decided."""
    rows = [
        (space, replica, r.counter, head, r.body, r.digest, json.dumps(r.error), received_at)
        for r in refusals
    ]
    if rows:
        cur.executemany(_KEEP, rows)


_DISCARD: Final = "INSERT INTO discarded (space_id, replica, first, last) VALUES (%s, %s, %s, %s)"


def discard(cur: Cursor, space: UUID, replica: Replica, given_up: tuple[int, int] | None) -> None:
    """Remembers the range of counters that the device could not give back."""
    if given_up is not None:
        cur.execute(_DISCARD, (space, replica, *given_up))
