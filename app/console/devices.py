"""Finding users and devices, and the page of a device: why is it stuck?"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from flask import Response, request
from sqlalchemy import Connection

from app.admin import devices, users
from app.admin.answers import DevicesFound, UserFound
from app.admin.devices import STATES
from app.admin.shapes import DevicesQuery, DevicesWanted, PagedQuery
from app.console.door import agent, asked_for, blueprint, page
from app.console.findings import cards
from app.runtime import runtime
from app.schemas import EMAIL_CHARS_MAX, require_clean
from storage.search import DeviceQuery

# Of each kind: what fits below a search box.
FOUND_MAX: Final = 8


@blueprint.get("/search")
def search() -> Response:
    """Users and devices, by how they begin or by id."""
    q = require_clean(request.args.get("q", "").strip()[:EMAIL_CHARS_MAX])
    people: list[UserFound] = []
    found = DevicesFound([], None)
    if q:
        with runtime().begin() as connection:
            people = _people(connection, q)
            found = _devices(connection, q)
    return page("search", q=q, users=people, devices=found.devices, more=found.page is not None)


def _people(connection: Connection, q: str) -> list[UserFound]:
    try:
        return users.users(connection, None, UUID(q), None, FOUND_MAX).users
    except ValueError:
        return users.users(connection, q, None, None, FOUND_MAX).users


def _devices(connection: Connection, q: str) -> DevicesFound:
    return devices.devices(connection, DeviceQuery(q=q), runtime().now_ms(), None, FOUND_MAX)


@blueprint.get("/devices")
def list_devices() -> Response:
    """The devices that fit."""
    wanted: DevicesWanted = asked_for(DevicesQuery())
    with runtime().begin() as connection:
        found = devices.devices(
            connection, wanted.query, runtime().now_ms(), wanted.page, wanted.limit
        )
    return page("devices", section="list_devices", wanted=wanted, found=found, states=STATES)


@blueprint.get("/users/<uuid:user>")
def show_user(user: UUID) -> Response:
    """A user with the devices."""
    wanted = asked_for(PagedQuery())
    with runtime().begin() as connection:
        shown = users.user(connection, user)
        query = DeviceQuery(user=user)
        now = runtime().now_ms()
        found = devices.devices(connection, query, now, wanted.page, wanted.limit)
    return page("user", user=shown, found=found)


@blueprint.get("/devices/<uuid:device>")
def show_device(device: UUID) -> Response:
    """Findings first, then how the device stands in its spaces, its clock and its timeline."""
    wanted = asked_for(PagedQuery())
    now, least = runtime().now_ms(), runtime().settings.min_app_version
    with runtime().begin() as connection:
        shown = devices.device(connection, device, now)
        why = devices.diagnosis(connection, device, now, least)
        events = devices.timeline(connection, device, wanted.page, wanted.limit)
    names = {space.id: space.name for space in shown.spaces}
    found = cards(
        why.findings, shown.device, {str(id_): name for id_, name in names.items()}, agent()
    )
    return page(
        "device",
        device=shown.device,
        spaces=shown.spaces,
        names=names,
        findings=found,
        timeline=events,
    )
