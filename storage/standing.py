"""Who may stay: many devices and memberships, in one statement each."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from storage.sql import Cursor

_DEVICES: Final = """
    SELECT asked.id, d.revoked_at IS NOT NULL, d.frozen_at IS NOT NULL
    FROM unnest(%s::uuid[]) AS asked (id) LEFT JOIN devices d ON d.id = asked.id
    WHERE d.id IS NULL OR d.revoked_at IS NOT NULL OR d.frozen_at IS NOT NULL
"""


def fallen_devices(cur: Cursor, devices: Collection[UUID]) -> dict[UUID, str]:
    """Of these, those that may nothing any more: `revoked`, `frozen`, or `unknown`."""
    cur.execute(_DEVICES, (list(devices),))
    return {
        device: "revoked" if revoked else "frozen" if frozen else "unknown"
        for device, revoked, frozen in cur
    }


_MEMBERS: Final = """
    SELECT asked.space_id, asked.user_id
    FROM unnest(%s::uuid[], %s::uuid[]) AS asked (space_id, user_id)
    LEFT JOIN memberships m ON m.space_id = asked.space_id AND m.user_id = asked.user_id
    WHERE m.user_id IS NULL OR m.withdrawn_at IS NOT NULL
"""


def withdrawn(cur: Cursor, members: Collection[tuple[UUID, UUID]]) -> set[tuple[UUID, UUID]]:
    """Of these (space, user), those that are no members any more."""
    cur.execute(_MEMBERS, ([space for space, _ in members], [user for _, user in members]))
    return {(space, user) for space, user in cur}
