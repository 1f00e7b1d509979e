"""What staff write into a log: changes by a replica of their own, through the door of all.

Promises: what staff write is a change like any other, so that all devices converge on it; it
overwrites what the agent saw and nothing newer: what moved since is refused, or met as a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Connection

from app import exchange
from app.access import Visit
from app.auth import Principal
from app.trees import Doubled
from storage import accounts, spaces
from storage.accounts import Registration
from storage.spaces import Space
from storage.sql import Cursor, cursor
from sync.changes import BadChange, from_tree
from sync.errors import NotFound, Refused
from sync.limits import Limits
from sync.plan import Plan
from sync.requests import SpaceRequest

PLATFORM: Final = "rejoin"
NAME: Final = "Support"


@dataclass(frozen=True, slots=True)
class Desk:
    """An agent at work: who, when (ms since 1970), why, and within which limits."""

    connection: Connection
    who: Principal
    now: int
    reason: str
    limits: Limits

    @property
    def cur(self) -> Cursor:
        """A cursor of the transaction."""
        return cursor(self.connection)


@dataclass(frozen=True, slots=True)
class Written:
    """A change of staff's in a log; the hint is given after the commit."""

    space: UUID
    epoch: int
    position: int
    device: UUID
    counter: int


def replica_of(user_id: UUID) -> UUID:
    """The device that stands for an agent in the logs."""
    return uuid5(user_id, NAME)


def opened(desk: Desk, space_id: UUID) -> Space:
    """The space under its lock, as the agent's replica meets it. Raises NotFound."""
    # Before the space's lock: registering a device locks its row.
    _register(desk)
    space = spaces.open_as_writer(desk.cur, space_id, replica_of(desk.who.user_id))
    if space is None:
        raise NotFound("not_found", "There is no such space.")
    return space


def _register(desk: Desk) -> None:
    device = replica_of(desk.who.user_id)
    made = Registration(device, desk.who.user_id, NAME, PLATFORM, None, None)
    accounts.register_device(desk.connection, made, datetime.fromtimestamp(desk.now / 1000, UTC))


def write(
    desk: Desk,
    space: Space,
    ops: list[Any],
    context: Mapping[str, Any],
    at: int | None = None,
) -> Written:
    """Appends one change to the space, which is locked. Raises Refused, and then nothing is
    written once the transaction is rolled back.
    """
    device = replica_of(desk.who.user_id)
    counter = space.counter + 1
    tree = {
        "counter": counter,
        "context": dict(context),
        "at": desk.now if at is None else at,
        "ops": ops,
    }
    change = from_tree(tree, desk.limits, Doubled)
    if isinstance(change, BadChange):
        raise change.error
    visit = Visit(Principal(desk.who.user_id, device, desk.who.role), desk.now)
    part = SpaceRequest(counter=counter, changes=[change])
    plan = exchange.push(desk.cur, space, visit, part, desk.limits)
    _require_applied(plan)
    return Written(space.id, space.epoch, plan.head, device, counter)


def _require_applied(plan: Plan) -> None:
    for refusal in plan.refusals:
        error = dict(refusal.error)
        code, detail = str(error.pop("code")), str(error.pop("detail"))
        raise Refused(code, detail, **error)
