"""What was typed, on its way into the log: one transaction for all that has been gathered.

Each user writes through their own replica of the server's (app/writers.py), each editor its own
change, its updates merged: so the log says who typed, and what can't be taken is its author's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from app import writers
from app.access import Visit, open_space
from app.exchange import push
from storage import documents as stored
from storage.spaces import Space
from storage.sql import Cursor, cursor
from sync import documents, editing
from sync.changes import BadChange, Change, Context, Edit
from sync.editing import FieldKey
from sync.errors import Refused, SyncError, Unavailable
from sync.limits import Limits
from sync.plan import Plan
from sync.requests import SpaceRequest

if TYPE_CHECKING:
    from app.live.room import Member


RESTORED: Final = "The log was restored from a backup: come back, and give what it lacks."


class DocumentKey(NamedTuple):
    """One field of one record."""

    space: UUID
    collection: str
    id: str
    field: str


class Typed(NamedTuple):
    """An update, checked, and whose it is."""

    member: Member
    update: bytes


@dataclass(slots=True)
class Committed:
    """What became of it. It stands in the log after `before`, up to `head`, 0 where all was
    refused. `others`: what was written meanwhile through other doors, merged.
    """

    epoch: int = 0
    before: int = 0
    head: int = 0
    others: bytes | None = None
    saved: dict[Member, bytes] = field(default_factory=dict)
    refused: dict[Member, SyncError] = field(default_factory=dict)
    unshown: set[FieldKey] = field(default_factory=set)
    waiting: set[Member] = field(default_factory=set)


class Stand(NamedTuple):
    """Up to where a room was told."""

    epoch: int
    position: int


def commit(
    connection: Connection,
    key: DocumentKey,
    stand: Stand,
    batch: Iterable[Typed],
    limits: Limits,
    now_ms: int,
) -> Committed:
    """Writes it all. The transaction is the caller's to commit.

    Raises `Unavailable` where the log is not the one that the room was told of: a restored one.
    """
    done = Committed()
    cur = cursor(connection)
    for merged in _by_user(_merged(batch, done)):
        visit = Visit(writers.as_writer(next(iter(merged)).who), now_ms)
        try:
            space = open_space(cur, visit.who, str(key.space), "write", lock=True)
            _meet(cur, key, stand, space, done)
            _write(cur, key, stand, space, visit, merged, limits, done)
        except Unavailable:
            raise
        except SyncError as error:
            # It comes before anything is written: the other users' changes stand.
            done.refused |= dict.fromkeys(merged, error)
    return done


def _merged(batch: Iterable[Typed], done: Committed) -> dict[Member, bytes]:
    """What each has typed, as one update."""
    gathered: dict[Member, list[bytes]] = {}
    for member, update in batch:
        gathered.setdefault(member, []).append(update)
    merged = {}
    for member, updates in gathered.items():
        try:
            merged[member] = documents.attempt(partial(documents.merge, updates))
        except Refused as error:
            done.refused[member] = error
    return merged


def _by_user(merged: Mapping[Member, bytes]) -> Iterable[Mapping[Member, bytes]]:
    users: dict[UUID, dict[Member, bytes]] = {}
    for member, update in merged.items():
        users.setdefault(member.who.user_id, {})[member] = update
    return users.values()


def _meet(cur: Cursor, key: DocumentKey, stand: Stand, space: Space, done: Committed) -> None:
    """What others wrote since the room was told, before its own writing moves the head on."""
    if done.epoch:
        return
    if space.epoch != stand.epoch or space.head < stand.position:
        raise Unavailable("unavailable", RESTORED)
    if space.head > stand.position:
        done.others = written_after(cur, key, stand.position)
    done.epoch, done.before, done.head = space.epoch, space.head, space.head


def _write(
    cur: Cursor,
    key: DocumentKey,
    stand: Stand,
    space: Space,
    visit: Visit,
    merged: Mapping[Member, bytes],
    limits: Limits,
    done: Committed,
) -> None:
    members = dict(enumerate(merged, space.counter + 1))
    context = Context(cursor=stand.position, epoch=stand.epoch)
    changes: list[Change | BadChange] = [
        Change(counter, context, visit.received_at, [Edit(*key[1:], merged[member])])
        for counter, member in members.items()
    ]
    # It acknowledges nothing: nobody's copy stands there, and compaction must not wait for it.
    part = SpaceRequest(counter=max(members), changes=changes)
    plan = push(cur, space, visit, part, limits)
    done.head = max(done.head, plan.head)
    done.unshown |= plan.unshown
    refused = {
        counter: Refused(str(error["code"]), str(error["detail"]))
        for counter, error in plan.rejected
    }
    for counter, member in members.items():
        if counter in refused:
            done.refused[member] = refused[counter]
        elif counter > plan.accepted:
            done.refused[member] = Unavailable("too_busy", "Too much was typed at once.")
        else:
            done.saved[member] = merged[member]
    _split(key, plan, members, done)


def _split(key: DocumentKey, plan: Plan, members: Mapping[int, Member], done: Committed) -> None:
    """Of what is saved, what waits for missing updates: nobody else is given that, for a library
    may not survive it. What had waited and has come with this is news to all.
    """
    held = plan.documents.get(key[1:])
    if held is None:
        return
    joined = editing.joined(held)
    for entry in plan.entries:
        member = members[entry.counter]
        if any(p.waits and p.position == entry.position for p in held.pieces):
            done.waiting.add(member)
    if held.taken or held.folded:
        done.others = documents.merge([*filter(None, [done.others]), *joined.values()])


def written_after(cur: Cursor, key: DocumentKey, position: int) -> bytes | None:
    """What was written after the position, merged; None: nothing."""
    found = stored.after(cur, *key, position)
    return documents.merge([each.update for each in found]) if found else None
