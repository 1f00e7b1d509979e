"""The service in figures and charts."""

from __future__ import annotations

from typing import Final

from flask import Response

from app.admin import overviews
from app.admin.devices import STATES
from app.console.door import blueprint, page
from app.console.pictures import area, bars
from app.runtime import runtime

# As `storage.overview.LAG_MS` parts them.
LAGS: Final = ("under a minute", "1 to 5 minutes", "5 to 60 minutes", "1 to 24 hours", "longer")


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
        lag=bars(zip(LAGS, found.lag, strict=True)),
        changes=area({row.minute: row.changes for row in found.traffic}, since, now),
        bytes=area({row.minute: row.bytes for row in found.traffic}, since, now),
        refused=area({row.minute: row.refused for row in found.traffic}, since, now),
    )
