"""`/v1/admin`: questions, for the roles `support` and `admin`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from flask import Blueprint, Response
from sqlalchemy import Connection

from app.admin import devices, overviews, users
from app.admin.answers import (
    DevicesFound,
    DeviceShown,
    Diagnosis,
    Timeline,
    UserFound,
    UsersFound,
)
from app.admin.overviews import AuditTrail, Overview
from app.admin.shapes import AuditQuery, DevicesQuery, PagedQuery, UsersQuery
from app.auth import Principal, require_role, token_principal
from app.openapi import describe
from app.runtime import runtime
from app.wire import answer, read_query
from sync.errors import Forbidden

blueprint = Blueprint("admin", __name__, url_prefix="/v1/admin")


@blueprint.before_request
def _require_token() -> None:
    """Before a body is read: strangers are not worth the work."""
    token_principal()


@contextmanager
def asked(least: str = "support") -> Iterator[tuple[Connection, Principal]]:
    """A transaction of one who has the role; raises Unauthenticated, Forbidden."""
    with runtime().begin() as connection:
        yield connection, require_role(connection, least)


@blueprint.get("/users")
@describe("Find users", query=UsersQuery, answer=UsersFound, errors=[Forbidden, "bad_page"])
def list_users() -> Response:
    """By how their email begins, or by id."""
    wanted = read_query(UsersQuery())
    with asked() as (connection, _):
        found = users.users(connection, wanted.email, wanted.id, wanted.page, wanted.limit)
    return answer(found)


@blueprint.get("/users/<uuid:user>")
@describe("Show a user", answer=UserFound, errors=[Forbidden])
def show_user(user: UUID) -> Response:
    """With the numbers of devices and spaces."""
    with asked() as (connection, _):
        found = users.user(connection, user)
    return answer(found)


@blueprint.get("/devices")
@describe("Find devices", query=DevicesQuery, answer=DevicesFound, errors=[Forbidden, "bad_page"])
def list_devices() -> Response:
    """Lag and states are those of the last sweep, some 15 seconds ago."""
    wanted = read_query(DevicesQuery())
    with asked() as (connection, _):
        found = devices.devices(
            connection, wanted.query, runtime().now_ms(), wanted.page, wanted.limit
        )
    return answer(found)


@blueprint.get("/devices/<uuid:device>")
@describe("Show a device in its spaces", answer=DeviceShown, errors=[Forbidden])
def show_device(device: UUID) -> Response:
    """Cursor against head in each of its user's spaces, looked up at this moment."""
    with asked() as (connection, _):
        found = devices.device(connection, device, runtime().now_ms())
    return answer(found)


@blueprint.get("/devices/<uuid:device>/diagnosis")
@describe("Why is this device stuck?", answer=Diagnosis, errors=[Forbidden])
def diagnose_device(device: UUID) -> Response:
    """Ranked findings, each with its evidence and the next step; a healthy device has none."""
    least = runtime().settings.min_app_version
    with asked() as (connection, _):
        found = devices.diagnosis(connection, device, runtime().now_ms(), least)
    return answer(found)


@blueprint.get("/devices/<uuid:device>/events")
@describe(
    "Read a device's timeline", query=PagedQuery, answer=Timeline, errors=[Forbidden, "bad_page"]
)
def read_timeline(device: UUID) -> Response:
    """The newest first; what happened within one minute stands in one row, counted."""
    wanted = read_query(PagedQuery())
    with asked() as (connection, _):
        found = devices.timeline(connection, device, wanted.page, wanted.limit)
    return answer(found)


@blueprint.get("/overview")
@describe("Show the service in figures", answer=Overview, errors=[Forbidden])
def show_overview() -> Response:
    """Users, devices by state, changes and bytes a minute, lag, and what holds compaction back."""
    with asked() as (connection, _):
        found = overviews.figures(connection, runtime().now_ms())
    return answer(found)


@blueprint.get("/audit")
@describe(
    "Read the audit trail", query=AuditQuery, answer=AuditTrail, errors=[Forbidden, "bad_page"]
)
def read_audit() -> Response:
    """Who did what, when and why, the newest first. For admins."""
    wanted = read_query(AuditQuery())
    with asked("admin") as (connection, _):
        found = overviews.audit_trail(
            connection,
            wanted.page,
            wanted.limit,
            actor=wanted.actor,
            action=wanted.action,
            subject=wanted.subject,
        )
    return answer(found)
