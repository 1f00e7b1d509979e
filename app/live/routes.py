"""`GET /v1/live`: devices that stay connected."""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Flask, current_app

from app import auth
from app.live.device import Device
from app.live.hub import Hub
from app.live.sockets import Rules, mount, sockets
from app.openapi import describe
from app.runtime import EXTENSION as RUNTIME
from app.runtime import runtime
from sync.errors import Unavailable

EXTENSION: Final = "rejoin-hub"
# Who has not shown a token yet; they have seconds to do so.
STRANGERS_MAX: Final = 1_000
RETRY_SECONDS: Final = 5
# Deltas go one after another, each when the one before is taken; the rest is small.
OUTBOX_BYTES: Final = 2 * 2**20

blueprint = Blueprint("live", __name__, url_prefix="/v1")


def install(app: Flask) -> None:
    """Give the app its hub and its websocket."""
    app.extensions[EXTENSION] = Hub(app, app.extensions[RUNTIME], sockets(app))
    app.register_blueprint(blueprint)


def hub() -> Hub:
    """The hub of the app that answers now."""
    found: Hub = current_app.extensions[EXTENSION]
    return found


@describe(
    "Live: changes as they come, on a websocket",
    status=101,
    errors=["token_expired", "token_invalid", "device_revoked", "device_fork", "too_many_sockets"],
    media=(),
)
def _device() -> Device:
    """The messages are in docs/PROTOCOL.md, section 5. The token may also be in the parameter
    `token`, or in the first message; where it is not good, the answer comes before the handshake.
    """
    token = auth.handshake_token()
    if token is None:
        if hub().strangers >= STRANGERS_MAX:
            raise Unavailable("too_many_sockets", retry_after=RETRY_SECONDS)
        return Device(hub(), None, None)
    who, until = auth.admitted(token)
    with runtime().begin() as connection:
        return Device(hub(), auth.current(connection, who), until)


def _rules() -> Rules:
    return Rules(message_bytes=runtime().limits.body_bytes, outbox_bytes=OUTBOX_BYTES)


mount(blueprint, "/live", _device, _rules)
