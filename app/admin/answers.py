"""What an admin question is answered with. Times are milliseconds since 1970."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from msgspec import Struct


class UserFound(Struct, frozen=True):
    """A user. `devices` and `spaces`: how many."""

    id: UUID
    email: str
    role: str
    personal_space: UUID
    created_at: int
    devices: int
    spaces: int


class UsersFound(Struct, frozen=True):
    """A page of users, in the order of their ids; `page` null on the last."""

    users: list[UserFound]
    page: str | None


class DeviceFound(Struct, frozen=True):
    """A device. `state` is the first of `states`, or `online`, or `ok`. `behind`: changes by
    others not applied, the most in any space; `pending` as the device reported it at
    `reported_at`; `clock_offset`: the server's clock less the device's, ms.
    """

    id: UUID
    user_id: UUID
    email: str
    name: str
    platform: str
    app_version: str
    state: str
    states: list[str]
    online: bool
    worker: str
    created_at: int
    seen_at: int
    pushed_at: int | None
    pulled_at: int | None
    clock_offset: int | None
    pending: int | None
    oldest_pending_at: int | None
    reported_at: int | None
    behind: int
    behind_since: int | None
    revoked_at: int | None
    frozen_at: int | None
    replaces: UUID | None
    replaced_by: UUID | None


class DevicesFound(Struct, frozen=True):
    """A page of devices, in the order of their ids; `page` null on the last."""

    devices: list[DeviceFound]
    page: str | None


class SpaceStanding(Struct, frozen=True):
    """A device in a space: its cursor against the head, and `clock`, its entry in the space's
    vector clock: the highest counter decided, and `position`, the head when it was.
    """

    id: UUID
    name: str
    personal: bool
    role: str
    withdrawn_at: int | None
    head: int
    epoch: int
    horizon: int
    cursor: int
    cursor_epoch: int
    cursor_at: int
    clock: int
    position: int
    behind: int
    behind_since: int | None
    reset_below: int
    quarantined: int
    conflicts: int


class DeviceShown(Struct, frozen=True):
    """A device with its spaces, the personal one first."""

    device: DeviceFound
    spaces: list[SpaceStanding]


class EventShown(Struct, frozen=True):
    """What happened within one minute, `times` times. `code`: why it was refused or reset."""

    minute: int
    kind: str
    code: str
    space: UUID | None
    first_at: int
    last_at: int
    times: int
    changes: int
    rejected: int
    records: int


class Timeline(Struct, frozen=True):
    """A page of a device's events, the newest first."""

    events: list[EventShown]
    page: str | None


class FindingShown(Struct, frozen=True):
    """One likely cause: `evidence` are the figures, `links` paths of this API."""

    code: str
    sentence: str
    evidence: dict[str, Any]
    links: list[str]
    next_step: str


class Diagnosis(Struct, frozen=True):
    """The likeliest cause first; none where the device is healthy."""

    device: UUID
    at: int
    healthy: bool
    findings: list[FindingShown]
