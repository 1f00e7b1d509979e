"""What a cursor has not seen, read and written once for all the devices that stand there.

Promises: at most READERS reads at a time, so that a thousand devices that come back leave the
database to others too; who asks after a read has begun is not given its answer, but one that was
begun later: so nobody misses what they were told of.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Literal, NamedTuple
from uuid import UUID

import gevent
import msgspec

from app.access import Visit
from app.auth import Principal
from app.errors import sync_error
from app.live.sockets import frame
from app.pages import next_page
from app.runtime import Runtime
from storage import spaces
from storage.engine import one_moment, one_statement
from storage.glance import Glance, glance
from storage.replicas import Names
from storage.sql import cursor
from sync.answers import SpaceAnswer
from sync.deltas import delta
from sync.errors import NotFound, SyncError
from sync.events import Found, Missed
from sync.messages import Delta
from sync.requests import Pull
from sync.stored import has_documents

log = logging.getLogger(__name__)

READERS: Final = 4
# Of these, so many at most read what is long: a thousand devices that come back after a restart
# must not keep a change of now from those who wait for it.
LONG_READERS: Final = 2
RETRY_SECONDS: Final = 1.0
# Deltas kept for those that come to the same cursor a little later.
KEPT_BYTES_MAX: Final = 16 * 2**20
# What an entry takes beside its message.
ENTRY_BYTES: Final = 2**10
# So many get theirs, and then others have their turn.
SENT_PER_TURN: Final = 256

Format = Literal["json", "msgpack"]
Listener = Callable[[Found | Missed], None]


class Wanted(NamedTuple):
    """Where devices stand, and how they call the space. `news` counts the hints of the space: a
    delta kept from before the last one is not wanted any more. `floor`: see `Following`.
    """

    space: str
    news: int
    name: str
    epoch: int | None
    cursor: int
    page: str | None
    floor: int
    format: Format


def encoded(message: object, format_: Format) -> str | bytes:
    """A message as a text or a binary frame holds it."""
    if format_ == "msgpack":
        return msgspec.msgpack.encode(message)
    return msgspec.json.encode(message).decode()


_Queue = OrderedDict[Wanted, tuple[Principal, list[Listener]]]


class Feed:
    """The reads of a worker."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # What is read next, by whether it is long.
        self._waiting: dict[bool, _Queue] = {False: OrderedDict(), True: OrderedDict()}
        self._readers = {False: 0, True: 0}
        self._kept: OrderedDict[Wanted, Found] = OrderedDict()
        self._kept_bytes = 0

    def want(self, wanted: Wanted, who: Principal, listener: Listener) -> None:
        """Call the listener with what was found, soon."""
        long = wanted.page is not None or wanted.cursor == 0
        self._waiting[long].setdefault(wanted, (who, []))[1].append(listener)
        if self._readers[long] < (LONG_READERS if long else READERS - LONG_READERS):
            self._readers[long] += 1
            gevent.spawn(self._read_all, long)

    def _read_all(self, long: bool) -> None:
        waiting = self._waiting[long]
        try:
            while waiting:
                wanted, (who, listeners) = waiting.popitem(last=False)
                self._deliver(self._found(wanted, who), listeners)
        finally:
            self._readers[long] -= 1

    def _deliver(self, found: Found | Missed, listeners: list[Listener]) -> None:
        if isinstance(found, Missed) and not found.anew:
            # The database is away, or the space: ask again a little later.
            gevent.sleep(RETRY_SECONDS)
        for number, listener in enumerate(listeners, 1):
            try:
                listener(found)
            except Exception as error:  # noqa: BLE001 - the others want theirs
                sync_error(error)
            if number % SENT_PER_TURN == 0:
                gevent.sleep(0)

    def _found(self, wanted: Wanted, who: Principal) -> Found | Missed:
        kept = self._kept.get(wanted)
        if kept is not None:
            return kept
        try:
            found = self._glance(wanted) or self._read(wanted, who)
        except SyncError as error:
            return Missed(wanted.name, anew=error.code == "bad_page")
        except Exception as error:  # noqa: BLE001 - logged; devices go on from their cursors
            sync_error(error)
            return Missed(wanted.name)
        self._keep(wanted, found)
        return found

    def _glance(self, wanted: Wanted) -> Found | None:
        """Most that is read is one small change: in one statement. None: look closely."""
        at = wanted.cursor
        if wanted.page is not None or wanted.floor or at == 0:
            return None
        with one_statement(self._runtime.engine) as connection:
            cur, space = cursor(connection), UUID(wanted.space)
            seen = glance(cur, space, at)
            if seen is None or not _plain(seen, wanted):
                return None
            names, raw = Names(cur, space), wanted.format == "json"
            found = [delta(row, at, names, raw) for row in seen.rows]
        answer = SpaceAnswer(
            epoch=seen.epoch,
            reset=False,
            records=found,
            page=None,
            cursor=seen.head,
            clock=seen.clock,
        )
        return _found(wanted, answer, seen.resets)

    def _read(self, wanted: Wanted, who: Principal) -> Found:
        visit = Visit(who, 0, raw=wanted.format == "json")
        part = Pull(wanted.epoch, wanted.cursor, wanted.page)
        with one_moment(self._runtime.engine) as connection:
            cur = cursor(connection)
            # Whether each of the devices may see the space is looked after by rights.py.
            found = spaces.space_at(cur, UUID(wanted.space), wanted.cursor)
            if found is None:
                raise NotFound("not_found")
            space = replace(found[0], reset_below=wanted.floor)
            answer = next_page(cur, space, visit, part, self._runtime.limits)
        return _found(wanted, answer, found[1])

    def _keep(self, wanted: Wanted, found: Found) -> None:
        self._kept[wanted] = found
        self._kept_bytes += _size(found)
        while self._kept_bytes > KEPT_BYTES_MAX:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= _size(dropped)


def _plain(seen: Glance, wanted: Wanted) -> bool:
    """Whether nothing but the records' fields is to be told: no reset, no documents."""
    in_history = wanted.epoch in (None, seen.epoch) and seen.horizon <= wanted.cursor <= seen.head
    return in_history and not any(has_documents(row) for row in seen.rows)


def _size(found: Found) -> int:
    return ENTRY_BYTES + len(found.message or b"")


def _found(wanted: Wanted, answer: SpaceAnswer, resets: dict[str, int]) -> Found:
    # The members of an answer that is no error are all there.
    told = msgspec.structs.asdict(answer)
    page, reset, records = told["page"], told["reset"], told["records"]
    moved = page or reset or records or told["cursor"] != wanted.cursor
    delta = Delta(
        space=wanted.name,
        epoch=told["epoch"],
        from_=wanted.cursor,
        records=records,
        cursor=told["cursor"],
        partial=page is not None,
        reset=reset,
        clock=told["clock"],
    )
    message = frame(encoded(delta, wanted.format)) if moved else None
    moved_to = told["epoch"], told["cursor"], page
    return Found(wanted.name, *moved_to, message, resets)
