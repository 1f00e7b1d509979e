"""Changes put aside: the list, and one whole."""

from __future__ import annotations

import json
import math
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from app.admin.log_answers import Author, QuarantinedShown, QuarantineFound, QuarantineItem
from app.admin.paging import page_of, read_page
from app.admin.sight import Sight
from storage import desk
from storage.desk import Quarantined
from storage.events import NO_SPACE
from sync.changes import JSON_SAFE_INT, Natural
from sync.clock import INT64_MAX, INT64_MIN
from sync.errors import NotFound

# Deeper, a value is shown as text: what is kept may be nested without end.
DEPTH_MAX: Final = 64
STATES: Final = ("open", "replayed", "discarded")


def quarantine(
    connection: Connection,
    page: str | None,
    limit: int,
    *,
    state: str = "open",
    space: UUID | None = None,
    device: UUID | None = None,
    code: str | None = None,
) -> QuarantineFound:
    """The changes put aside that fit, page by page."""
    after = read_page("quarantine", page, tuple[UUID, Natural, Natural]) or (
        space or NO_SPACE,
        0,
        0,
    )
    settled = None if state == "open" else state
    rows = desk.quarantined(
        connection, after, limit + 1, settled=settled, only=space, device=device, code=code
    )
    shown, token = page_of(
        "quarantine", rows, limit, lambda row: [row.space, row.replica, row.counter]
    )
    return QuarantineFound([_shown(row) for row in shown], token)


def item(
    connection: Connection, space: UUID, device: UUID, counter: int, sight: Sight
) -> QuarantineItem:
    """One change put aside, as far as the agent may see it. Raises NotFound."""
    row = row_of(connection, space, device, counter)
    return QuarantineItem(_shown(row), _change(row, sight))


def row_of(connection: Connection, space: UUID, device: UUID, counter: int) -> Quarantined:
    """The change of this dot that was put aside; raises NotFound."""
    known = counter <= JSON_SAFE_INT
    row = desk.quarantined_one(connection, space, device, counter) if known else None
    if row is None:
        raise NotFound("not_found", "There is no such change in the quarantine.")
    return row


def _change(row: Quarantined, sight: Sight) -> Any:
    """What was sent. It may be anything: what has not a change's form is one value."""
    try:
        tree = printable(json.loads(row.body))
    except (ValueError, RecursionError):
        tree = row.body
    if not isinstance(tree, dict):
        return sight.value(tree)
    return {name: _part(name, part, sight) for name, part in tree.items()}


def printable(tree: Any, depth: int = 0) -> Any:
    """The tree as any JSON reader takes it: what may be wrong in a change is shown, spelt out."""
    if depth > DEPTH_MAX:
        return repr(tree)
    if isinstance(tree, str):
        return tree.encode("utf-8", "backslashreplace").decode()
    if isinstance(tree, dict):
        return {printable(str(k)): printable(v, depth + 1) for k, v in tree.items()}
    if isinstance(tree, list):
        return [printable(item, depth + 1) for item in tree]
    odd = isinstance(tree, float) and not math.isfinite(tree)
    large = type(tree) is int and not INT64_MIN <= tree <= INT64_MAX
    return repr(tree) if odd or large else tree


def _part(name: str, part: Any, sight: Sight) -> Any:
    if name in {"counter", "at"} and isinstance(part, int):
        return part
    if name == "context" and isinstance(part, dict):
        return {key: _seen(key, value, sight) for key, value in part.items()}
    if name == "ops" and isinstance(part, list):
        return [sight.operation(op) for op in part]
    return sight.value(part)


def _seen(name: str, part: Any, sight: Sight) -> Any:
    """A context's parts are counts; what else stands there is a value."""
    if name == "clock" and isinstance(part, dict) and all(type(n) is int for n in part.values()):
        return part
    return part if type(part) is int else sight.value(part)


def _shown(row: Quarantined) -> QuarantinedShown:
    return QuarantinedShown(
        row.space,
        row.space_name,
        Author(str(row.device), row.name, row.email),
        row.counter,
        row.position,
        row.error,
        row.received_at,
        len(row.body),
        row.settled or "open",
        row.settled_at,
        row.replayed_as,
    )
