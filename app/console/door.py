"""The door to the console: every page is behind it, unless it says otherwise."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from flask import Blueprint, Response, g, make_response, redirect, render_template, request

from app.console import session
from app.console.session import Agent
from app.schemas import Shape
from app.wire import load

T = TypeVar("T")

blueprint = Blueprint(
    "console", __name__, url_prefix="/admin", template_folder="templates", static_folder="static"
)

# Open to who is not logged in; all others are not.
OPEN: Final = frozenset({"console.log_in", "console.static"})
# Reasons and repaired changes are small; Flask would take any size.
FORM_BYTES_MAX: Final = 2**20
# What an action adds to the address that it leads to, for the page to say.
NOTES: Final = frozenset({"done", "position", "audit"})
# (endpoint, name, the least role) of what stands in the masthead.
SECTIONS: Final = (
    ("overview", "Overview", "support"),
    ("list_devices", "Devices", "support"),
    ("list_conflicts", "Conflicts", "support"),
    ("list_quarantine", "Quarantine", "support"),
    ("read_audit", "Audit", "admin"),
)
# No text becomes markup but through the one policy of console.js, for the server's own pages.
POLICY: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types rejoin-console"
)


@blueprint.before_request
def _guard() -> None:
    request.max_content_length = request.max_form_memory_size = FORM_BYTES_MAX
    if request.endpoint in OPEN:
        return
    g.agent = session.require_agent()
    if request.method == "POST":
        session.require_own_form()


@blueprint.after_request
def _secure(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
    return response


def agent() -> Agent:
    """Who is logged in."""
    found: Agent = g.agent
    return found


def page(template: str, status: int = 200, **values: Any) -> Response:
    """The template `console/<template>.html` as an answer.

    Never compressed: it holds the forms' token beside what an address brings, and the size of the
    two compressed together would tell of the token, guess by guess (BREACH).
    """
    who: Agent | None = g.get("agent")
    sections = [(endpoint, name) for endpoint, name, least in SECTIONS if who and who.may(least)]
    values |= {"agent": who, "sections": sections}
    return make_response(render_template(f"console/{template}.html", **values), status)


def asked_for(shape: Shape[T], **more: str) -> T:
    """The query parameters as the value that the schema makes; an empty one was left out.

    Raises BadRequest("bad_parameter").
    """
    given = {name: value for name, value in request.args.items() if value and name not in NOTES}
    return load(shape, {**given, **more}, "bad_parameter")


def to(path: str) -> Response:
    """Go on there, by a GET."""
    return make_response(redirect(path, 303))
