"""`/v1/admin`: actions. Harmless ones for the role `support`, all for `admin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from uuid import UUID

from flask import Response
from msgspec import UNSET

from app.admin import actions, farewell, settling
from app.admin.actions import Compacted, Done, ResetAsked
from app.admin.bodies import ReasonBody, ReplayBody, ResetBody, RestoreBody, SettleBody
from app.admin.farewell import Erased
from app.admin.routes import asked, blueprint
from app.admin.settling import Choice
from app.admin.sight import Sight
from app.admin.writing import Desk, Written
from app.openapi import describe
from app.routes.sync import NDJSON
from app.runtime import runtime
from app.wire import answer, decode, read, read_body, streamed
from sync.errors import BadRequest, Forbidden, Refused


@contextmanager
def desk(reason: str, least: str = "support") -> Iterator[Desk]:
    """An agent with the role, at work in one transaction."""
    with asked(least) as (connection, who):
        yield Desk(connection, who, runtime().now_ms(), reason, runtime().limits)


def _told(done: Done, written: Sequence[Written]) -> Response:
    """After the commit, whoever watches the spaces hears of it."""
    for one in written:
        runtime().hints.tell(one.space, one.epoch, one.position)
    return answer(done)


@blueprint.post("/devices/<uuid:device>/revoke")
@describe("Revoke a device", body=ReasonBody, answer=Done, errors=[Forbidden])
def revoke_device(device: UUID) -> Response:
    """At once and for good; its user logs in again as a new one. For admins."""
    reason = read(ReasonBody(), runtime().limits).reason
    with desk(reason, "admin") as at:
        done = actions.revoke(at, device)
    return answer(done)


@blueprint.post("/devices/<uuid:device>/reset")
@describe("Ask a device to reset", body=ResetBody, answer=ResetAsked, errors=[Forbidden])
def reset_device(device: UUID) -> Response:
    """With its next pull it replaces its copy and keeps its pending changes. Of very many, 100
    at a time: ask again `after` what the answer names as `next`.
    """
    wanted = read(ResetBody(), runtime().limits)
    with desk(wanted.reason) as at:
        done, written = actions.reset(at, device, wanted.space, wanted.after)
    return _told(done, written)


@blueprint.post("/spaces/<uuid:space>/settle")
@describe(
    "Settle a conflict",
    body=SettleBody,
    answer=Done,
    errors=[Forbidden, Refused, "record_moved"],
)
def settle_conflict(space: UUID) -> Response:
    """On one of the siblings, or on another value: a new change, on which all devices converge.
    `record_moved`: something was written since the agent looked.
    """
    wanted = read(SettleBody(), runtime().limits)
    if (wanted.sibling is None) == (wanted.value is UNSET):
        raise BadRequest("malformed_request", "Name a sibling or a value, one of the two.")
    dot = wanted.sibling
    choice = Choice((str(dot.device), dot.counter) if dot else None, wanted.value)
    key = (wanted.collection, wanted.id)
    with desk(wanted.reason) as at:
        sight = Sight(runtime().settings.secret)
        done, one = settling.settle(at, space, key, wanted.field, wanted.seen, choice, sight)
    return _told(done, [one])


@blueprint.post("/spaces/<uuid:space>/restore")
@describe(
    "Restore a record to what it was",
    body=RestoreBody,
    answer=Done,
    errors=[Forbidden, Refused, "record_moved"],
)
def restore_record(space: UUID) -> Response:
    """At an earlier position, whole or in some fields; a deleted record comes back."""
    wanted = read(RestoreBody(), runtime().limits)
    key = (wanted.collection, wanted.id)
    with desk(wanted.reason) as at:
        done, one = settling.restore(at, space, key, wanted.position, wanted.seen, wanted.names)
    return _told(done, [one])


@blueprint.post("/quarantine/<uuid:space>/<uuid:device>/<int:counter>/replay")
@describe(
    "Repair and replay a change that was put aside",
    body=ReplayBody,
    answer=Done,
    errors=[Forbidden, Refused, "already_settled"],
)
def replay_change(space: UUID, device: UUID, counter: int) -> Response:
    """By a replica of the server's, with the original context; its device reads of it in its
    outcomes. What can't be applied even so is refused, and stays open.
    """
    wanted = decode(read_body(runtime().limits), ReplayBody())
    with desk(wanted.reason) as at:
        dot = (space, device, counter)
        done, one = actions.replay(at, dot, ops=wanted.ops, drop=wanted.drop)
    return _told(done, [one])


@blueprint.post("/quarantine/<uuid:space>/<uuid:device>/<int:counter>/discard")
@describe(
    "Discard a change that was put aside",
    body=ReasonBody,
    answer=Done,
    errors=[Forbidden, "already_settled"],
)
def discard_change(space: UUID, device: UUID, counter: int) -> Response:
    """It is not open any more; its device is told as before that it was rejected. For admins."""
    reason = read(ReasonBody(), runtime().limits).reason
    with desk(reason, "admin") as at:
        done = actions.discard(at, (space, device, counter))
    return answer(done)


@blueprint.post("/spaces/<uuid:space>/compact")
@describe("Compact a space", body=ReasonBody, answer=Compacted, errors=[Forbidden])
def compact_space(space: UUID) -> Response:
    """Drops the tombstones that no device needs any more, or that are too old. For admins."""
    reason = read(ReasonBody(), runtime().limits).reason
    before = runtime().now() - timedelta(days=runtime().settings.tombstone_days)
    with desk(reason, "admin") as at:
        done = actions.compact(at, space, before)
    return answer(done)


@blueprint.post("/users/<uuid:user>/export")
@describe("Export one user's data", body=ReasonBody, media=[NDJSON], errors=[Forbidden, "too_busy"])
def export_user(user: UUID) -> Response:
    """Lines of JSON, each with its `kind`: user, device, membership, event, record, change,
    document, quarantined. For admins.
    """
    reason = read(ReasonBody(), runtime().limits).reason
    with desk(reason, "admin") as at:
        farewell.noted_export(at, user)
    stream = runtime().streams.counted(farewell.export(runtime().engine, user))
    return streamed(chain([next(stream)], stream), NDJSON)


@blueprint.post("/users/<uuid:user>/erase")
@describe(
    "Erase a user everywhere", body=ReasonBody, answer=Erased, errors=[Forbidden, "own_account"]
)
def erase_user(user: UUID) -> Response:
    """With the account, its devices and tokens, the spaces that are theirs alone, and what was put
    aside of theirs. For admins; says how many rows went from each table.
    """
    reason = read(ReasonBody(), runtime().limits).reason
    with desk(reason, "admin") as at:
        done = farewell.erase(at, user)
    return answer(done)
