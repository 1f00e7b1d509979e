"""Notes of what devices did, and what they add up to: one row for each kind in a minute."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

from msgspec import UNSET, Struct

from app.access import PERSONAL
from storage.events import NO_SPACE, Seen
from sync.answers import SpaceAnswer
from sync.diagnosis import MINUTE
from sync.requests import Client, Pull

VERSION_CHARS_MAX: Final = 200


class Note(Struct, frozen=True):
    """One event. `space`: as the request named it; None: about no one space."""

    device: UUID
    at: int
    kind: str
    code: str = ""
    space: str | None = None
    email: str | None = None
    times: int = 1
    changes: int = 0
    rejected: int = 0
    records: int = 0


class Contact(Struct, frozen=True):
    """A device was here. `good`: nothing that it asked for was refused or reset."""

    device: UUID
    at: int
    sent_at: int | None
    client: Client | None
    pushed: bool
    good: bool


@dataclass(slots=True)
class Batch:
    """What the notes come to. Events and traffic are lists of what is added up."""

    events: dict[tuple[UUID, int, str, str, UUID | None, str | None], list[int]] = field(
        default_factory=dict
    )
    seen: dict[UUID, Seen] = field(default_factory=dict)
    versions: dict[UUID, str] = field(default_factory=dict)
    traffic: dict[int, list[int]] = field(default_factory=dict)
    gone: set[UUID] = field(default_factory=set)


def reset_code(part: Pull, answer: SpaceAnswer) -> str:
    """Why the device was told to reset, as far as its request tells."""
    if part.epoch is not None and part.epoch != answer.epoch:
        return "lost_epoch"
    head = 0 if answer.head is UNSET else answer.head
    return "cursor_above_head" if part.cursor > head else "behind_horizon"


def count(batch: Batch, note: Note) -> None:
    minute = note.at - note.at % MINUTE
    key = (note.device, minute, note.kind, note.code, _space_id(note.space), note.email)
    row = batch.events.setdefault(key, [note.at, note.at, 0, 0, 0, 0])
    row[0], row[1] = min(row[0], note.at), max(row[1], note.at)
    for index, figure in enumerate((note.times, note.changes, note.rejected, note.records), 2):
        row[index] += figure
    traffic = batch.traffic.setdefault(minute, [0, 0, 0, 0, 0])
    traffic[1], traffic[3] = traffic[1] + note.changes, traffic[3] + note.records


def _space_id(name: str | None) -> UUID | None:
    if name == PERSONAL:
        return None
    try:
        return UUID(name) if name is not None else NO_SPACE
    except ValueError:
        return NO_SPACE


def see(batch: Batch, came: Contact) -> None:
    before = batch.seen.get(came.device) or Seen(came.device, came.at, *[None] * 7)
    client = came.client
    batch.seen[came.device] = before._replace(
        seen_at=max(before.seen_at, came.at),
        pushed_at=came.at if came.pushed else before.pushed_at,
        pulled_at=came.at if came.good else before.pulled_at,
        clock_offset=before.clock_offset if came.sent_at is None else _offset(came),
        pending=client.pending if client else before.pending,
        oldest_pending_at=client.oldest_pending_at if client else before.oldest_pending_at,
        reported_at=came.at if client else before.reported_at,
    )
    if client and client.app_version:
        batch.versions[came.device] = client.app_version[:VERSION_CHARS_MAX]


def _offset(came: Contact) -> int:
    """What the column holds: a clock may be off by all that 64 bits can say."""
    return max(-(2**62), min(came.at - (came.sent_at or 0), 2**62))
