"""What a cursor has not seen, a page at a time, inside the transaction of a push or a pull."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import msgspec

from app.access import Visit
from storage import documents, records, replicas, spaces
from storage.replicas import Names
from storage.spaces import Space
from storage.sql import Cursor
from sync.answers import RecordDelta, SpaceAnswer
from sync.changes import Key
from sync.deltas import (
    PageToken,
    Place,
    Wanted,
    delta,
    documents_wanted,
    needs_reset,
    read_token,
    write_token,
)
from sync.errors import BadRequest
from sync.limits import Limits
from sync.plan import Plan
from sync.requests import Pull
from sync.stored import StoredRecord, has_documents


def page_after(
    cur: Cursor, space: Space, plan: Plan, visit: Visit, part: Pull, limits: Limits
) -> SpaceAnswer:
    """What a device has not seen after its own push: often nothing, for it wrote all of it.

    Raises `BadRequest` (`bad_page`).
    """
    after = replace(space, head=plan.head)
    quiet = plan.quiet and part.page is None and part.cursor == space.head
    if quiet and part.epoch in (None, space.epoch):
        # Under the lock nobody else has moved: the only new entry of the clock is its own.
        clock = {str(visit.who.device_id): plan.accepted} if plan.head > part.cursor else {}
        return _page(after, [], cursor=plan.head, clock=clock)
    return next_page(cur, after, visit, part, limits, known=space.head)


def nothing_new(space: Space, part: Pull) -> SpaceAnswer | None:
    """The answer for a device that stands at the head, or None."""
    at_head = part.page is None and part.cursor == space.head
    if at_head and part.epoch in (None, space.epoch):
        return _page(space, [], cursor=space.head)
    return None


def next_page(
    cur: Cursor, space: Space, visit: Visit, part: Pull, limits: Limits, known: int | None = None
) -> SpaceAnswer:
    """The next page. Raises `BadRequest` (`bad_page`).

    `known`: the head up to which a device may have got cursors, where its own push moved it on.
    """
    token = _token(cur, space, part, space.head if known is None else known)
    base = 0 if token.reset else part.cursor
    if base == space.head:
        return _page(space, [], cursor=space.head, clock={}, reset=token.reset)
    limit = min(part.limit or limits.page_records, limits.page_records)
    skip_deleted = token.head if base == 0 else 0
    rows = records.page(cur, space.id, token.after, skip_deleted, limit + 1, limits.page_bytes)
    more = len(rows) > limit or sum(row.size for row in rows) >= limits.page_bytes
    rows = rows[:limit]
    wanted = [one for row in rows if has_documents(row) for one in documents_wanted(row, base)]
    if wanted:
        fitting = _fitting(rows, documents.sizes(cur, space.id, wanted), limits.page_bytes)
        rows, more = rows[:fitting], more or fitting < len(rows)
    names = Names(cur, space.id)
    found = [delta(row, base, names, visit.raw) for row in rows]
    if wanted:
        found = with_documents(cur, space, found, wanted)
    if more:
        last = rows[-1]
        on = msgspec.structs.replace(token, after=Place(last.position, last.collection, last.id))
        return _page(space, found, cursor=part.cursor, page=write_token(on), reset=token.reset)
    clock = replicas.clock_after(cur, space.id, base)
    return _page(space, found, cursor=space.head, clock=clock, reset=token.reset)


def _fitting(rows: list[StoredRecord], more: Mapping[Key, int], most: int) -> int:
    """How many of the rows fit the bytes with their documents; the last may exceed them."""
    size = 0
    for count, row in enumerate(rows, 1):
        size += row.size + more.get((row.collection, row.id), 0)
        if size >= most:
            return count
    return len(rows)


def with_documents(
    cur: Cursor, space: Space, found: list[RecordDelta], wanted: list[Wanted]
) -> list[RecordDelta]:
    """The deltas with the updates of their documents that are wanted."""
    keys = {(record.collection, record.id) for record in found}
    these = [one for one in wanted if (one.collection, one.id) in keys]
    brought = documents.brought(cur, space.id, these)
    return [
        msgspec.structs.replace(record, documents=brought.get((record.collection, record.id), {}))
        for record in found
    ]


def _token(cur: Cursor, space: Space, part: Pull, known: int) -> PageToken:
    """The transfer that the request goes on with, or a new one."""
    name, reset = str(space.id), _needs_reset(cur, space, part, known)
    if part.page is None:
        start = Place(1 if reset else part.cursor + 1, "", "")
        return PageToken(name, space.epoch, part.cursor, space.head, reset, start)
    token = read_token(part.page, name, space.epoch, part.cursor, _horizon(space))
    if reset and not token.reset:
        raise BadRequest("bad_page", "the space has moved on: start again from the cursor")
    return token


def _needs_reset(cur: Cursor, space: Space, part: Pull, survived: int) -> bool:
    if part.epoch is not None and part.epoch < space.epoch:
        starts = spaces.epochs_after(cur, space.id, part.epoch)
        survived = min([survived, *(start.head for start in starts.values())])
    return needs_reset(part.cursor, part.epoch, space.epoch, survived, _horizon(space))


def _horizon(space: Space) -> int:
    """Below it a cursor is reset: tombstones are gone, or support staff asked this device to."""
    return max(space.horizon, space.reset_below)


def _page(
    space: Space,
    found: list[RecordDelta],
    *,
    cursor: int,
    clock: dict[str, int] | None = None,
    page: str | None = None,
    reset: bool = False,
) -> SpaceAnswer:
    """`cursor` stays the request's until the last page."""
    return SpaceAnswer(
        epoch=space.epoch,
        reset=reset,
        records=found,
        page=page,
        cursor=cursor,
        head=space.head,
        clock=clock or {},
    )
