"""Who may do what in a space: the one table, pure."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from storage.memberships import Membership
from sync.errors import Conflict, Forbidden, NotFound

Action = Literal["read", "write", "manage"]

# read: pull, snapshot, log, members. write: push. manage: members and their roles.
RIGHTS: Final[dict[str, frozenset[Action]]] = {
    "owner": frozenset({"read", "write", "manage"}),
    "editor": frozenset({"read", "write"}),
    "viewer": frozenset({"read"}),
}


def require(membership: Membership | None, action: Action) -> Membership:
    """The membership, which allows the action.

    Raises NotFound for who never was a member: whether there is such a space is not theirs to
    know. Raises Forbidden for a withdrawn member or too small a role.
    """
    if membership is None:
        raise NotFound("not_found")
    if membership.withdrawn:
        raise Forbidden("forbidden", "Your membership of this space was withdrawn.")
    if action not in RIGHTS[membership.role]:
        raise Forbidden("forbidden", f"The role {membership.role} does not allow to {action}.")
    return membership


def require_shared(membership: Membership) -> None:
    """Raise Conflict("personal_space"): nobody else comes into a personal space, nobody leaves."""
    if membership.personal:
        raise Conflict("personal_space")


def require_owner_left(owners: frozenset[UUID], leaving: UUID) -> None:
    """Raise Conflict("last_owner") where the space would have none without `leaving`."""
    if owners == {leaving}:
        raise Conflict("last_owner")
