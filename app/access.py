"""The one guarded door to a space."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.auth import Principal
from app.rights import Action, require
from storage import spaces
from storage.memberships import Membership
from storage.spaces import Space
from storage.sql import Cursor
from sync.errors import Conflict, NotFound, Unauthenticated

PERSONAL = "me"


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: who asks, when its headers came in (ms since 1970), and what the device's
    clock said when it was sent. `raw`: JSON values are spliced into the answer unread.
    """

    who: Principal
    received_at: int
    sent_at: int | None = None
    raw: bool = False


def open_space(
    cur: Cursor, who: Principal, name: str, action: Action, *, lock: bool = False
) -> Space:
    """The space by its id, or `me`; with `lock` its head stays until the transaction ends.

    Raises NotFound for who never was a member, Forbidden for who may not (any more), Conflict
    (`device_fork`) for reading by a device that was replaced, Unauthenticated for a device that
    was revoked.
    """
    space = spaces.open_space(cur, who.user_id, who.device_id, space_id(name), lock=lock)
    if space is None:
        require_device(cur, who)
        raise NotFound("not_found")
    require_right(space, action)
    return space


def require_right(space: Space, action: Action) -> None:
    """Whether the device may do it; raises as `open_space`."""
    if space.device_revoked:
        raise Unauthenticated("device_revoked")
    require(Membership(space.role, space.withdrawn, space.personal), action)
    if space.device_frozen and action == "read":
        raise Conflict("device_fork", known=[])


def space_id(name: str) -> UUID | None:
    """None stands for the personal space. What is no id names nothing that anyone may see."""
    if name == PERSONAL:
        return None
    try:
        return UUID(name)
    except ValueError:
        raise NotFound("not_found") from None


def require_device(cur: Cursor, who: Principal) -> None:
    """Raises Unauthenticated where the device is revoked, or unknown: a restored database."""
    revoked = spaces.device_state(cur, who.user_id, who.device_id)
    if revoked is None:
        raise Unauthenticated("token_invalid", "The server does not know this device: log in.")
    if revoked:
        raise Unauthenticated("device_revoked")
