"""What a page asks for on behalf of an agent: whether values are opened, and acts with a reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from flask import Response, request
from sqlalchemy import Connection

from app.admin.actions import Done
from app.admin.bodies import ReasonBody
from app.admin.sight import Sight, Subject, sight
from app.admin.writing import Desk, Written
from app.console.door import agent, to
from app.runtime import runtime
from app.wire import load
from sync.changes import JSON_SAFE_INT
from sync.errors import BadRequest, Forbidden

DIGITS_MAX: Final = 16


def may_open() -> bool:
    """Whether this agent may open values: the page offers it then."""
    return agent().may("admin") or runtime().settings.support_sees_values


def seen(connection: Connection, subject: Subject) -> Sight:
    """How the agent sees values. A page that is posted to opens them; that is audited.

    Raises Forbidden, BadRequest.
    """
    opens = request.method == "POST"
    reason = _reason() if opens else None
    settings, now = runtime().settings, runtime().now_ms()
    return sight(connection, agent().principal, settings, now, subject, values=opens, reason=reason)


@contextmanager
def acting(least: str = "support") -> Iterator[Desk]:
    """The agent at work, in one transaction, for the reason in the form. Raises Forbidden."""
    if not agent().may(least):
        raise Forbidden("forbidden", f"This asks for the role {least}.")
    reason = _reason()
    with runtime().begin() as connection:
        yield Desk(connection, agent().principal, runtime().now_ms(), reason, runtime().limits)


def _reason() -> str:
    given = {"reason": request.form.get("reason", "").strip()}
    return load(ReasonBody(), given, "malformed_request").reason


def done(path: str, action: str, made: Done, written: Sequence[Written] = ()) -> Response:
    """Back to a page, which says what was done; who watches the spaces hears of what was written.

    Called after the commit.
    """
    for one in written:
        runtime().hints.tell(one.space, one.epoch, one.position)
    positions = {"position": str(written[0].position)} if len(written) == 1 else {}
    said = urlencode({"done": action, **positions, "audit": str(made.audit)})
    return to(f"{path}{'&' if '?' in path else '?'}{said}")


def text(name: str) -> str:
    """A field of the form; raises BadRequest where it is missing."""
    found = request.form.get(name)
    if found is None:
        raise BadRequest("malformed_request", f"The form has no {name}.")
    return found


def number(name: str, given: str | None = None) -> int:
    """A whole number of the form; raises BadRequest."""
    found = text(name) if given is None else given
    if not (found.isascii() and found.isdigit() and len(found) <= DIGITS_MAX):
        raise BadRequest("malformed_request", f"{name} is no whole number.")
    return min(int(found), JSON_SAFE_INT)


def json(name: str) -> Any:
    """A field of the form that is JSON text; raises BadRequest."""
    try:
        return msgspec.json.decode(text(name).encode("utf-8", "surrogatepass"))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise BadRequest("malformed_request", f"What stands in {name} is not JSON.") from None
