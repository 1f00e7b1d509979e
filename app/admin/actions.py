"""What staff do, each with a reason and a row of the audit trail in the same transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec
from msgspec import Struct

from app.admin.quarantine import row_of
from app.admin.writing import Desk, Written, opened, write
from app.writers import is_writer
from storage import accounts, audit, desk, resets, search, spaces, tokens, trail
from storage.desk import Quarantined
from storage.spaces import Space
from storage.upkeep import drop_tombstones
from sync.changes import Context
from sync.errors import BadRequest, Conflict, NotFound

NO_DEVICE: Final = "There is no such device."


class Done(Struct, frozen=True):
    """An action is done: its number in the audit trail, and the changes that it wrote."""

    audit: int
    written: list[WrittenShown]


class ResetAsked(Done, frozen=True):
    """A device is asked to reset, in 100 spaces at most; `next`: go on `after` that."""

    next: UUID | None


class WrittenShown(Struct, frozen=True):
    """A change by the agent's replica: its dot, and where it stands in the space's log."""

    space: UUID
    position: int
    device: UUID
    counter: int


class Compacted(Struct, frozen=True):
    """A space was compacted: so many tombstones are gone."""

    audit: int
    dropped: int


def revoke(at: Desk, device: UUID) -> Done:
    """Revokes the device, at once and for good. Raises NotFound, also for the server's own
    replicas: nobody carries one, and its user's documents go on through it.
    """
    found = search.device(at.connection, device, at.now)
    if found is None or is_writer(found.user_id, device):
        raise NotFound("not_found", NO_DEVICE)
    now = datetime.fromtimestamp(at.now / 1000, UTC)
    accounts.revoke_device(at.connection, found.user_id, device, now)
    tokens.revoke_of_device(at.connection, device, now)
    before, after = {"revoked_at": found.revoked_at}, {"revoked_at": found.revoked_at or at.now}
    return Done(note(at, "revoke", before, after, device=device, user=found.user_id), [])


def reset(
    at: Desk, device: UUID, only: UUID | None, after: UUID | None = None
) -> tuple[ResetAsked, list[Written]]:
    """Asks the device to reset: to replace its copies, of one space or of all, and to keep its
    pending changes. Raises NotFound.

    An empty change by the agent's replica marks the place in the log: what stands before it is
    reset, and what the device will have taken anew stands behind it.
    """
    if search.device(at.connection, device, at.now) is None:
        raise NotFound("not_found", NO_DEVICE)
    copies, more = resets.copies(at.cur, device, only, after)
    if not copies:
        raise NotFound("not_found", "The device has applied nothing there that it could reset.")
    made: list[Written] = []
    for copy in copies:
        space = opened(at, copy.space)
        written = write(at, space, [], {"epoch": space.epoch, "cursor": space.head})
        resets.ask(at.cur, copy.space, device, written.position)
        made.append(written)
    before = {str(copy.space): {"cursor": copy.cursor} for copy in copies}
    now = {str(one.space): {"reset_below": one.position} for one in made}
    number = note(at, "reset", before, now, device=device)
    return ResetAsked(number, shown(made), more), made


# The quarantine ------------------------------------------------------------------------------


def replay(
    at: Desk,
    dot: tuple[UUID, UUID, int],
    *,
    ops: list[Any] | None = None,
    drop: Sequence[int] = (),
) -> tuple[Done, Written]:
    """Replays a change that was put aside, repaired or as it is: a change by the agent's replica
    with the original context and time, in the name of its device, which reads of it in its
    outcomes. `ops`: in place of the original ones; `drop`: which of these to leave out.

    Raises NotFound, Conflict (`already_settled`), BadRequest, Refused: then it stays open.
    """
    space = opened(at, dot[0])
    item = row_of(at.connection, *dot)
    if item.settled is not None:
        raise Conflict("already_settled", state=item.settled)
    tree = _tree(item)
    wanted = _repaired(tree.get("ops"), ops, drop)
    context = _context(item, tree.get("context"), space)
    when = tree.get("at")
    written = write(at, space, wanted, context, when if type(when) is int else item.received_at)
    # Discarded meanwhile: then what was just written goes with the transaction.
    if not desk.settle(at.cur, item, "replayed", at.now, written.position):
        raise Conflict("already_settled")
    before = {"device": str(dot[1]), "counter": dot[2], "code": item.error.get("code")}
    after = {"position": written.position, "repaired": ops is not None, "dropped": list(drop)}
    return Done(_noted(at, "replay", item, before, after), shown([written])), written


def discard(at: Desk, dot: tuple[UUID, UUID, int]) -> Done:
    """Gives up a change that was put aside; it stays as it is, and is not shown as open any more.
    Raises NotFound, Conflict (`already_settled`).
    """
    # One of those who replay and discard at once waits here, and then is told.
    spaces.lock_head(at.cur, dot[0])
    item = row_of(at.connection, *dot)
    if not desk.settle(at.cur, item, "discarded", at.now):
        raise Conflict("already_settled")
    before = {"device": str(dot[1]), "counter": dot[2], "code": item.error.get("code")}
    return Done(_noted(at, "discard", item, before, None), [])


def _tree(item: Quarantined) -> dict[str, Any]:
    try:
        tree = json.loads(item.body)
    except (ValueError, RecursionError):
        tree = None
    return tree if isinstance(tree, dict) else {}


def _repaired(original: object, ops: list[Any] | None, drop: Sequence[int]) -> list[Any]:
    if ops is not None:
        return ops
    if not isinstance(original, list):
        raise BadRequest("malformed_request", "The change has no operations: send `ops`.")
    if not set(drop) <= set(range(len(original))):
        raise BadRequest("malformed_request", f"The change has {len(original)} operations.")
    return [op for index, op in enumerate(original) if index not in drop]


def _context(item: Quarantined, given: object, space: Space) -> dict[str, Any]:
    """The original one, and the device's own earlier changes, which another replica has to name.

    What can't be read, or named what never was, had seen nothing: then the change meets what is
    there as a conflict, and overwrites none of it.
    """
    try:
        context = msgspec.convert(given, Context)
    except (msgspec.ValidationError, UnicodeEncodeError):
        context = Context(0)
    if item.error.get("code") == "bad_context":
        context = Context(0)
    own = {str(item.device): item.counter - 1} if item.counter > 1 else {}
    epoch = context.epoch or space.epoch
    return {"epoch": epoch, "cursor": context.cursor, "clock": {**context.clock, **own}}


def _noted(
    at: Desk, action: str, item: Quarantined, before: dict[str, Any], after: dict[str, Any] | None
) -> int:
    return note(at, action, before, after, space=item.space, device=item.device)


def compact(at: Desk, space_id: UUID, before: datetime) -> Compacted:
    """Drops the tombstones of a space that no device needs, or that are older. Raises NotFound."""
    if trail.space(at.connection, space_id) is None:
        raise NotFound("not_found", "There is no such space.")
    dropped = drop_tombstones(at.connection, space_id, int(before.timestamp() * 1000))
    return Compacted(note(at, "compact", None, {"dropped": dropped}, space=space_id), dropped)


# What all of them do --------------------------------------------------------------------------


def note(
    at: Desk,
    action: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
    *,
    user: UUID | None = None,
    device: UUID | None = None,
    space: UUID | None = None,
) -> int:
    """Adds the action to the audit trail; its number there."""
    subject = (user, device, space)
    entry = audit.Entry(at.now, at.who.user_id, action, *subject, at.reason, before, after)
    return audit.add(at.connection, entry)


def shown(made: Sequence[Written]) -> list[WrittenShown]:
    return [WrittenShown(one.space, one.position, one.device, one.counter) for one in made]
