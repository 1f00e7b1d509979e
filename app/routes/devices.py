"""One's own devices."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from flask import Blueprint, Response

from app.auth import require_principal
from app.openapi import describe
from app.runtime import runtime
from app.schemas import Device, Devices
from app.wire import answer, empty
from app.writers import is_writer
from storage import accounts, tokens
from sync.errors import NotFound

blueprint = Blueprint("devices", __name__, url_prefix="/v1/devices")


@blueprint.get("")
@describe("List your devices", answer=Devices)
def list_devices() -> Response:
    """All that ever logged in, the oldest first, also those that were revoked or replaced."""
    with runtime().begin() as connection:
        principal = require_principal(connection)
        user = principal.user_id
        found = [d for d in accounts.devices_of(connection, user) if not is_writer(user, d.id)]
    return answer(Devices([_device(one, principal.device_id) for one in found]))


@blueprint.delete("/<uuid:device>")
@describe("Revoke one of your devices", status=204)
def revoke(device: UUID) -> Response:
    """At once and for good: its tokens stop working with their next use. May be repeated."""
    with runtime().begin() as connection:
        principal = require_principal(connection)
        user, now = principal.user_id, runtime().now()
        if is_writer(user, device) or not accounts.revoke_device(connection, user, device, now):
            raise NotFound("not_found", "You have no such device.")
        tokens.revoke_of_device(connection, device, now)
    return empty()


def _device(one: accounts.Device, current: UUID) -> Device:
    return Device(
        id=one.id,
        name=one.name,
        platform=one.platform,
        app_version=one.app_version,
        current=one.id == current,
        replaces=one.replaces,
        created_at=_ms(one.created_at),
        seen_at=_ms(one.seen_at),
        frozen_at=_ms(one.frozen_at) if one.frozen_at else None,
        revoked_at=_ms(one.revoked_at) if one.revoked_at else None,
    )


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
