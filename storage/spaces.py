"""A space's head, and who may stand before it.

The lock on the head's row is what makes positions gapless and visible in order: a sequence or a
clock as cursor loses the changes that commit late.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from storage.sql import Cursor
from sync.clock import Epoch, EpochStart, Replica, VectorClock


@dataclass(frozen=True, slots=True)
class Space:
    """A space as one device of a member meets it. `replica` is None for a device that neither
    pushed to it nor applied anything of it; then what follows is 0.
    """

    id: UUID
    head: int
    epoch: Epoch
    horizon: int
    personal: bool
    role: str
    withdrawn: bool
    device_revoked: bool
    device_frozen: bool
    replica: Replica | None
    counter: int
    cursor: int
    cursor_epoch: int
    # Support asked this device to reset where its cursor is below that.
    reset_below: int


SPACE: Final = """
    s.id, s.head, s.epoch, s.horizon, s.personal, m.role, m.withdrawn_at IS NOT NULL,
    d.revoked_at IS NOT NULL, d.frozen_at IS NOT NULL,
    r.number, coalesce(r.counter, 0), coalesce(r.cursor, 0), coalesce(r.cursor_epoch, 0),
    coalesce(r.reset_below, 0)
"""
_OPEN: Final = f"""
    SELECT {SPACE}
    FROM devices d
    JOIN users u ON u.id = d.user_id
    JOIN spaces s ON s.id = coalesce(%(space)s::uuid, u.personal_space_id)
    JOIN memberships m ON m.space_id = s.id AND m.user_id = u.id
    LEFT JOIN replicas r ON r.space_id = s.id AND r.device_id = d.id
    WHERE d.id = %(device)s AND u.id = %(user)s
"""  # noqa: S608
# Foreign keys to the space may be checked meanwhile: its key does not change.
_LOCK: Final = """
    SELECT FROM users u
    JOIN spaces s ON s.id = coalesce(%(space)s::uuid, u.personal_space_id)
    JOIN memberships m ON m.space_id = s.id AND m.user_id = u.id
    WHERE u.id = %(user)s
    FOR NO KEY UPDATE OF s
"""


Asked = tuple[UUID, UUID | None, UUID]
"""(user, space, device); no space stands for the personal one."""


def open_space(
    cur: Cursor, user: UUID, device: UUID, space: UUID | None, *, lock: bool
) -> Space | None:
    """The space (None: the personal one) as this device of a member meets it, or None.

    With `lock`, until the transaction ends nobody else moves its head. The lock has a statement
    of its own, before the one that reads: whoever waited for it must see what was committed
    meanwhile, and PostgreSQL looks again at a row that it waited for, not at those joined to it.
    """
    values = {"space": space, "device": device, "user": user}
    if lock:
        cur.execute(_LOCK, values)
    cur.execute(_OPEN, values)
    row = cur.fetchone()
    return None if row is None else Space(*row)


_HEAD: Final = "SELECT FROM spaces WHERE id = %(space)s FOR NO KEY UPDATE"
_OPEN_AS_WRITER: Final = """
    SELECT s.id, s.head, s.epoch, s.horizon, s.personal, 'owner', false, false, false,
           r.number, coalesce(r.counter, 0), coalesce(r.cursor, 0), coalesce(r.cursor_epoch, 0), 0
    FROM spaces s LEFT JOIN replicas r ON r.space_id = s.id AND r.device_id = %(device)s
    WHERE s.id = %(space)s
"""


def lock_head(cur: Cursor, space: UUID) -> None:
    """Until the transaction ends nobody else writes in the space."""
    cur.execute(_HEAD, {"space": space})


def open_as_writer(cur: Cursor, space: UUID, device: UUID) -> Space | None:
    """The space with its lock, as a replica of the server's meets it, which is no member's."""
    values = {"space": space, "device": device}
    cur.execute(_HEAD, values)
    cur.execute(_OPEN_AS_WRITER, values)
    row = cur.fetchone()
    return None if row is None else Space(*row)


_AT: Final = """
    SELECT s.id, s.head, s.epoch, s.horizon,
           (SELECT jsonb_object_agg(r.device_id, r.reset_below) FROM replicas r
            WHERE r.space_id = s.id AND r.reset_below > %s)
    FROM spaces s WHERE s.id = %s
"""


def space_at(cur: Cursor, space: UUID, cursor: int) -> tuple[Space, dict[str, int]] | None:
    """The space as no device in particular meets it, for what many are told at once, and those
    devices that are asked to reset where they stand at the cursor.
    """
    cur.execute(_AT, (cursor, space))
    row = cur.fetchone()
    if row is None:
        return None
    space, head, epoch, horizon, resets = row
    nobody: Any = (False, "", False, False, False, None, 0, 0, 0, 0)
    return Space(space, head, epoch, horizon, *nobody), resets or {}


_DEVICE: Final = """
    SELECT revoked_at IS NOT NULL FROM devices WHERE id = %(device)s AND user_id = %(user)s
"""


def device_state(cur: Cursor, user: UUID, device: UUID) -> bool | None:
    """Whether the device is revoked; None: the server has none such."""
    cur.execute(_DEVICE, {"device": device, "user": user})
    row = cur.fetchone()
    return None if row is None else bool(row[0])


_EPOCHS: Final = """
    SELECT epoch, head, clock FROM epochs WHERE space_id = %s AND epoch > %s
"""


def epochs_after(cur: Cursor, space: UUID, epoch: int) -> Mapping[Epoch, EpochStart]:
    """How each epoch after this one began."""
    cur.execute(_EPOCHS, (space, epoch))
    return {
        Epoch(number): EpochStart(head, VectorClock({Replica(int(r)): n for r, n in clock.items()}))
        for number, head, clock in cur
    }
