"""What support staff see and do: functions that answer a question, and endpoints over them.

`devices`, `users`, … answer with plain frozen structs (`answers`); `routes` puts them behind
`/v1/admin` for the roles `support` and `admin`. A page for people uses the same functions.
"""

from __future__ import annotations

from flask import Flask


def install(app: Flask) -> None:
    """Add the endpoints."""
    from app.admin import action_routes, log_routes, routes

    # Importing them adds them to the one blueprint.
    for module in (routes, log_routes, action_routes):
        assert module.blueprint is routes.blueprint  # noqa: S101
    app.register_blueprint(routes.blueprint)
