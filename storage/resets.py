"""Asking a device to reset: where its cursor is below a position, it is told to take all anew."""

from __future__ import annotations

from typing import Final, NamedTuple
from uuid import UUID

from storage.sql import Cursor

# As many as one request may name.
SPACES_MAX: Final = 100


class Copy(NamedTuple):
    """A device's copy of a space, and what it was asked for before."""

    space: UUID
    cursor: int
    reset_below: int


# In one order, so that two who ask lock one after the other.
_COPIES: Final = """
    SELECT space_id, cursor, reset_below FROM replicas
    WHERE device_id = %(device)s AND cursor > 0
      AND (%(only)s::uuid IS NULL OR space_id = %(only)s)
      AND (%(after)s::uuid IS NULL OR space_id > %(after)s)
    ORDER BY space_id LIMIT %(limit)s
"""
_ASK: Final = """
    UPDATE replicas SET reset_below = %s WHERE space_id = %s AND device_id = %s
"""


def copies(
    cur: Cursor, device: UUID, only: UUID | None, after: UUID | None
) -> tuple[list[Copy], UUID | None]:
    """The spaces of which the device has applied something, or the one of these, in the order of
    their ids; and after which of them to go on: SPACES_MAX at most come at once.
    """
    values = {"device": device, "only": only, "after": after, "limit": SPACES_MAX + 1}
    cur.execute(_COPIES, values)
    found = [Copy(*row) for row in cur]
    shown = found[:SPACES_MAX]
    return shown, shown[-1].space if len(found) > len(shown) else None


def ask(cur: Cursor, space: UUID, device: UUID, below: int) -> None:
    """From now on a cursor of the device's below that is reset."""
    cur.execute(_ASK, (below, space, device))
