"""The endpoints, by subject. Bodies of about five lines: the work is done elsewhere."""

from __future__ import annotations

from typing import Final, Literal
from uuid import UUID

from flask import Flask
from werkzeug.routing import BaseConverter

SpaceRef = UUID | Literal["me"]
ME: Final = "me"
_UUID: Final = r"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"


class SpaceConverter(BaseConverter):
    """`<space:space>` in a rule: a SpaceRef. Anything else is no such path, 404."""

    regex = f"me|{_UUID}"

    def to_python(self, value: str) -> SpaceRef:
        """The id, or "me"."""
        return "me" if value == ME else UUID(value)

    def to_url(self, value: SpaceRef) -> str:
        """The text in a path."""
        return str(value)


def install(app: Flask) -> None:
    """Add all routes."""
    from app import admin
    from app.routes import accounts, devices, info, spaces, sync

    app.url_map.converters["space"] = SpaceConverter
    for module in (accounts, devices, spaces, sync, info):
        app.register_blueprint(module.blueprint)
    admin.install(app)
