"""The console at `/admin`: what support staff see and do, as pages.

Promises: the pages call the functions behind `/v1/admin` and show no more than these; they take
nothing from another host, and their policy (CSP) lets in nothing but their own script and style;
whatever users wrote is text in them; every form carries a token that other sites don't know.
"""

from __future__ import annotations

from flask import Flask

from app.console import acts, desks, devices, entry, errors, overview, spaces
from app.console.door import blueprint
from app.console.words import FILTERS

# Importing them is what adds their routes.
PARTS = (entry, overview, devices, spaces, desks, acts, errors)


def install(app: Flask) -> None:
    """Add the pages."""
    app.jinja_env.filters.update(FILTERS)
    app.register_blueprint(blueprint)
