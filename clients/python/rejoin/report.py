"""What the app (and its user) can ask of the file: status and conflicts. Read only."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from datetime import UTC, datetime

from rejoin import collections, spaces
from rejoin.schema import get_meta
from rejoin.values import JsonObject, SqlValue, from_json


@dataclass(frozen=True)
class Sibling:
    """One of several concurrent values. `at`: ms since 1970, as corrected by the server."""

    value: SqlValue
    device: str
    at: int | None
    position: int | None


@dataclass(frozen=True)
class Conflict:
    """A cell with concurrent values. `shown` is the one in the table; all are in `siblings`."""

    space: str
    table: str
    key: tuple[SqlValue, ...]
    column: str
    shown: SqlValue
    siblings: tuple[Sibling, ...]


@dataclass(frozen=True)
class Refused:
    """A change that the server refused: whole, with its error."""

    space: str
    device: str
    counter: int
    at: int
    code: str
    detail: str
    ops: list[JsonObject]


@dataclass(frozen=True)
class Aside:
    """A remote row that a local constraint refuses. It is tried again at every sync."""

    space: str
    table: str
    id: str
    reason: str
    since: int


@dataclass(frozen=True)
class SpaceStatus:
    """How far one space is. `state`: new, synced, read only, withdrawn, or failing."""

    id: str
    state: str
    pending: int
    cursor: int
    error: str | None


@dataclass(frozen=True)
class Status:
    """Everything about this device's sync. Times are ms since 1970. `str()` says it in words."""

    server: str | None
    email: str | None
    device_id: str | None
    logged_in: bool
    pending: int
    oldest_pending_at: int | None
    last_sync_at: int | None
    last_error: str | None
    last_error_at: int | None
    conflicts: int
    spaces: list[SpaceStatus] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    aside: list[Aside] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        who = f"Logged in as {self.email}" if self.logged_in else "Not logged in"
        lines = [f"{who}{f' at {self.server}' if self.server else ''}."]
        lines.append(
            f"Last synced {when(self.last_sync_at)}." if self.last_sync_at else "Never synced."
        )
        lines.append(
            "Nothing is waiting to be sent."
            if not self.pending
            else f"{_count(self.pending, 'change')} waiting to be sent,"
            f" the oldest since {when(self.oldest_pending_at)}."
        )
        if self.last_error:
            lines.append(f"Last trouble, {when(self.last_error_at)}: {self.last_error}")
        lines += [
            f"Space {s.id}: {s.state}{f' - {s.error}' if s.error else ''}"
            for s in self.spaces
            if s.state not in ("new", "synced")
        ]
        if self.conflicts:
            lines.append(f"{_count(self.conflicts, 'cell')} in conflict: see conflicts.")
        lines += [
            f"Refused: change {r.counter} of {when(r.at)}: {r.detail} ({r.code})"
            for r in self.refused
        ]
        lines += [f"Kept aside: {a.table} {a.id}: {a.reason}" for a in self.aside]
        lines += self.troubles
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def when(at_ms: int | None) -> str:
    """A time for people, in UTC; times far outside the calendar are given as they are."""
    if at_ms is None:
        return "never"
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"


def status(db: sqlite3.Connection) -> Status:
    """Reads only, so it may be called inside a transaction; that one's edits are not counted."""
    numbered, oldest = db.execute(
        "SELECT count(*), min(at) FROM rejoin_changes WHERE state = 'pending'"
    ).fetchone()
    recorded, recorded_at = db.execute(
        "SELECT count(DISTINCT CASE grp WHEN 0 THEN 'at ' || at ELSE grp END), min(at)"
        " FROM rejoin_ops WHERE kind <> 'r'"
    ).fetchone()
    last_sync, last_error_at = get_meta(db, "last_sync_at"), get_meta(db, "last_error_at")
    return Status(
        server=get_meta(db, "server"),
        email=get_meta(db, "email"),
        device_id=get_meta(db, "device_id"),
        logged_in=get_meta(db, "access_token") is not None,
        pending=numbered + recorded,
        oldest_pending_at=min((t for t in (oldest, recorded_at) if t is not None), default=None),
        last_sync_at=int(last_sync) if last_sync else None,
        last_error=get_meta(db, "last_error"),
        last_error_at=int(last_error_at) if last_error_at else None,
        conflicts=db.execute("SELECT count(*) FROM rejoin_conflicts").fetchone()[0],
        spaces=_spaces(db),
        refused=refused(db),
        aside=_aside(db),
        troubles=[str(r[0]) for r in db.execute("SELECT text FROM rejoin_troubles ORDER BY at")],
    )


def _spaces(db: sqlite3.Connection) -> list[SpaceStatus]:
    made = []
    for space in spaces.read_all(db):
        state = (
            "withdrawn"
            if space.withdrawn
            else "failing"
            if space.error
            else "read only"
            if space.read_only
            else "synced"
            if space.pulled
            else "new"
        )
        waiting = spaces.pending(db, space.no)
        words = space.error
        if space.read_only and waiting and not words:
            words = f"your role lets you read, not write: {_count(waiting, 'change')} kept here"
        made.append(SpaceStatus(space.id, state, waiting, space.cursor, words))
    return made


def refused(db: sqlite3.Connection) -> list[Refused]:
    """The refused changes that were not dismissed."""
    made = []
    for space, device, counter, at, body, error in db.execute(
        "SELECT s.id, r.device, r.counter, r.at, r.body, r.error FROM rejoin_refused AS r"
        " JOIN rejoin_spaces AS s ON s.no = r.space ORDER BY r.at, r.counter"
    ):
        told = json.loads(error)
        made.append(
            Refused(
                space,
                device,
                counter,
                at,
                str(told.get("code", "")),
                str(told.get("detail", "")),
                json.loads(body)["ops"],
            )
        )
    return made


def _aside(db: sqlite3.Connection) -> list[Aside]:
    return [
        Aside(*row)
        for row in db.execute(
            "SELECT s.id, c.name, a.id, a.reason, a.since FROM rejoin_aside AS a"
            " JOIN rejoin_collections AS c ON c.no = a.collection"
            " JOIN rejoin_spaces AS s ON s.no = c.space ORDER BY a.since, c.name, a.id"
        )
    ]


def conflicts(db: sqlite3.Connection) -> list[Conflict]:
    """All cells in conflict of tracked tables."""
    homes = collections.read_all(db)
    names = {space.no: space.id for space in spaces.read_all(db)}
    made = []
    for no, record_id, column, text in db.execute(
        "SELECT collection, id, field, siblings FROM rejoin_conflicts"
        " ORDER BY collection, id, field"
    ):
        home = homes[no]
        siblings = tuple(
            Sibling(
                from_json(s.get("value")), str(s.get("device", "")), s.get("at"), s.get("position")
            )
            for s in json.loads(text)
        )
        fields = db.execute(
            "SELECT fields FROM rejoin_records WHERE collection = ? AND id = ?", (no, record_id)
        ).fetchone()
        shown = json.loads(fields[0]).get(column) if fields else None
        made.append(
            Conflict(
                names[home.space],
                home.name,
                home.row_key(record_id) or (record_id,),
                column,
                from_json(shown),
                siblings,
            )
        )
    return made
