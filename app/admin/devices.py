"""Devices: found, shown, diagnosed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from sqlalchemy import Connection

from app.admin.answers import (
    DeviceFound,
    DevicesFound,
    DeviceShown,
    Diagnosis,
    EventShown,
    FindingShown,
    SpaceStanding,
    Timeline,
)
from app.admin.paging import page_of, read_page
from storage import casefile, search
from storage.casefile import SpaceRow
from storage.events import NO_SPACE
from storage.search import DeviceQuery, DeviceRow
from storage.states import FLAGS
from sync.changes import Natural
from sync.diagnosis import Facts, Finding, SpaceFacts, diagnose
from sync.errors import NotFound

STATES: Final = ("online", "ok", *FLAGS)


def devices(
    connection: Connection, query: DeviceQuery, now: int, page: str | None, limit: int
) -> DevicesFound:
    """The devices that fit, page by page."""
    after = read_page("devices", page, tuple[UUID])
    rows = search.devices_found(connection, query, now, after[0] if after else None, limit + 1)
    shown, token = page_of("devices", rows, limit, lambda row: [row.id])
    return DevicesFound([found(row) for row in shown], token)


def device(connection: Connection, id_: UUID, now: int) -> DeviceShown:
    """One device with its spaces; raises NotFound."""
    row = _row(connection, id_, now)
    spaces = casefile.spaces_of(connection, id_)
    return DeviceShown(found(row), [_space(space) for space in spaces])


def timeline(connection: Connection, id_: UUID, page: str | None, limit: int) -> Timeline:
    """The device's events, the newest first."""
    before = read_page("events", page, tuple[Natural, str, str, UUID])
    rows = casefile.timeline(connection, id_, before, limit + 1)
    shown, token = page_of(
        "events", rows, limit, lambda e: [e.minute, e.kind, e.code, e.space or NO_SPACE]
    )
    return Timeline([EventShown(*row) for row in shown], token)


def diagnosis(connection: Connection, id_: UUID, now: int, min_app_version: str) -> Diagnosis:
    """Why the device is stuck, looked up at this moment; raises NotFound."""
    findings = diagnose(facts(connection, id_, now, min_app_version))
    return Diagnosis(id_, now, not findings, [_finding(one) for one in findings])


def facts(connection: Connection, id_: UUID, now: int, min_app_version: str) -> Facts:
    """All that is known of the device; raises NotFound."""
    row = _row(connection, id_, now)
    spaces = casefile.spaces_of(connection, id_)
    return Facts(
        now=now,
        id=str(id_),
        app_version=row.app_version,
        seen_at=row.seen_at,
        pushed_at=row.pushed_at,
        pulled_at=row.pulled_at,
        online=row.online,
        clock_offset=row.clock_offset,
        pending=row.pending,
        oldest_pending_at=row.oldest_pending_at,
        reported_at=row.reported_at,
        growing_since=row.growing_since,
        revoked_at=row.revoked_at,
        frozen_at=row.frozen_at,
        replaced_by=str(row.replaced_by) if row.replaced_by else None,
        spaces=tuple(_facts(space) for space in spaces),
        events=casefile.events_of(connection, id_),
        min_app_version=min_app_version,
    )


def found(row: DeviceRow) -> DeviceFound:
    """The device as a list shows it."""
    states: list[str] = [flag for flag in FLAGS if flag in row.flags]
    return DeviceFound(
        id=row.id,
        user_id=row.user_id,
        email=row.email,
        name=row.name,
        platform=row.platform,
        app_version=row.app_version,
        state=_state(states, online=row.online),
        states=states,
        online=row.online,
        worker=row.worker if row.online else "",
        created_at=row.created_at,
        seen_at=row.seen_at,
        pushed_at=row.pushed_at,
        pulled_at=row.pulled_at,
        clock_offset=row.clock_offset,
        pending=row.pending,
        oldest_pending_at=row.oldest_pending_at,
        reported_at=row.reported_at,
        behind=row.behind,
        behind_since=row.behind_since,
        revoked_at=row.revoked_at,
        frozen_at=row.frozen_at,
        replaces=row.replaces,
        replaced_by=row.replaced_by,
    )


def _state(states: Sequence[str], *, online: bool) -> str:
    return states[0] if states else "online" if online else "ok"


def _row(connection: Connection, id_: UUID, now: int) -> DeviceRow:
    row = search.device(connection, id_, now)
    if row is None:
        raise NotFound("not_found", "There is no such device.")
    return row


def _space(row: SpaceRow) -> SpaceStanding:
    return SpaceStanding(
        id=row.id,
        name=row.name,
        personal=row.personal,
        role=row.role,
        withdrawn_at=row.withdrawn_at,
        head=row.head,
        epoch=row.epoch,
        horizon=row.horizon,
        cursor=row.cursor,
        cursor_epoch=row.cursor_epoch,
        cursor_at=row.cursor_at,
        clock=row.counter,
        position=row.position,
        behind=row.behind,
        behind_since=row.behind_since,
        reset_below=row.reset_below,
        quarantined=sum(row.quarantined.values()),
        conflicts=row.conflicts,
    )


def _facts(row: SpaceRow) -> SpaceFacts:
    return SpaceFacts(
        id=str(row.id),
        name=row.name,
        role=row.role,
        withdrawn_at=row.withdrawn_at,
        head=row.head,
        epoch=row.epoch,
        horizon=row.horizon,
        counter=row.counter,
        cursor=row.cursor,
        cursor_epoch=row.cursor_epoch,
        cursor_at=row.cursor_at,
        reset_below=row.reset_below,
        behind=row.behind,
        behind_since=row.behind_since,
        quarantined=row.quarantined,
        # A space that this device never took part in has no conflicts of its.
        conflicts=row.conflicts if row.replica is not None else 0,
    )


def _finding(one: Finding) -> FindingShown:
    return FindingShown(one.code, one.sentence, one.evidence, one.links, one.next_step)
