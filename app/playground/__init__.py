"""`/demo`: two devices in one browser page, to go offline with and to watch merging.

Promises: the page needs nothing from another host and its policy (CSP) lets nothing else in; it
holds no secret: it makes an account for itself by the ordinary signup. Yjs, which its text pane
needs, is bundled by `make yjs` where Node is there; without it the list works all the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, render_template, url_for

from app.openapi import describe
from app.settings import Settings
from app.wire import compressed
from sync.errors import NotFound

blueprint = Blueprint("demo", __name__, url_prefix="/demo", template_folder="page")

PAGE: Final = Path(__file__).parent / "page"
TYPES: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
PARTS: Final = {path.name: path for path in PAGE.iterdir() if path.suffix in TYPES}
# Made by `make yjs`; not in the repository.
YJS: Final = Path(__file__).parent / "build" / "yjs.js"
# Trusted Types: no text can ever become markup, whatever the script does with it. The one policy
# names worker.js, which keeps the page for the time when the server is away.
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types rejoin-demo"
)


def install(app: Flask, settings: Settings) -> None:
    """Add the page, where the settings say so."""
    if settings.demo:
        app.register_blueprint(blueprint)


@blueprint.get("")
@describe("A page with two devices, to try offline and merging", auth=False, media=("text/html",))
def page() -> Response:
    """Each pane is a device of an account that the page makes for itself."""
    yjs = url_for("demo.part", name=YJS.name) if YJS.exists() else ""
    return _secured(render_template("demo.html", yjs=yjs), "text/html; charset=utf-8")


@blueprint.get("/<name>")
@describe("The page's scripts and style", auth=False, media=tuple(TYPES.values()))
def part(name: str) -> Response:
    """As they are on the disk. Yjs is there once it was bundled."""
    path = YJS if name == YJS.name else PARTS.get(name)
    if path is None or not path.exists():
        raise NotFound("not_found")
    response = _secured(path.read_text(encoding="utf-8"), TYPES[path.suffix])
    # The worker is for the page above it too.
    response.headers["Service-Worker-Allowed"] = url_for("demo.page")
    return response


def _secured(text: str, type_: str) -> Response:
    response = compressed(Response(text, content_type=type_))
    response.headers["Content-Security-Policy"] = POLICY
    # Asked for anew each time: a page of one version with scripts of another would be neither.
    response.headers["Cache-Control"] = "no-cache"
    return response
