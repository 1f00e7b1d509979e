"""The service in figures and charts."""

from __future__ import annotations

from flask import Response

from app.admin import overviews
from app.admin.devices import STATES
from app.console.door import blueprint, page
from app.console.pictures import area, bars
from app.runtime import runtime


@blueprint.get("")
def overview() -> Response:
    """What an agent looks at first."""
    now = runtime().now_ms()
    with runtime().begin() as connection:
        found = overviews.figures(connection, now)
    since = now - overviews.TRAFFIC_MS
    return page(
        "overview",
        section="overview",
        found=found,
        states=bars((name, found.states.get(name, 0)) for name in STATES),
        changes=area({row.minute: row.changes for row in found.traffic}, since, now),
        bytes=area({row.minute: row.bytes for row in found.traffic}, since, now),
        refused=area({row.minute: row.refused for row in found.traffic}, since, now),
    )
