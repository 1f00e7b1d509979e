"""What an agent may see of what customers wrote: names, sizes and hashes, or the values.

Promises: a value is shown only to one who may, who asked for it, and gave a reason; that stands in
the audit trail before it is shown. A hash is keyed with the server's secret: equal values have
equal hashes, and nobody finds a short one by trying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from msgspec import UNSET, Struct, UnsetType
from sqlalchemy import Connection

from app.auth import Principal
from app.settings import Settings
from storage import audit
from sync.errors import BadRequest, Forbidden
from sync.values import Value, to_json

HASH_BYTES: Final = 8
# What of an operation or a change names or counts, and is no value.
NAMES: Final = frozenset({"op", "collection", "id", "field", "new"})
TYPES: Final = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


class ValueShown(Struct, frozen=True, omit_defaults=True):
    """A value: its JSON type, its bytes as JSON, a keyed hash; and itself, where it was opened."""

    type: str
    bytes: int
    hash: str
    value: Value | UnsetType = UNSET


@dataclass(frozen=True, slots=True)
class Sight:
    """How values are shown in one answer."""

    secret: str
    opened: bool = False

    def value(self, value: Value) -> ValueShown:
        """The value as this agent may see it."""
        text = to_json(value)
        shown = value if self.opened else UNSET
        return ValueShown(TYPES.get(type(value), "other"), len(text), self.hash(text), shown)

    def hash(self, text: bytes) -> str:
        """The same for the same text, on this server."""
        key = blake2b(self.secret.encode(), digest_size=32).digest()
        return blake2b(text, digest_size=HASH_BYTES, key=key).hexdigest()

    def operation(self, op: object) -> object:
        """An operation, or what was sent for one: names stay, values are shown as they may be."""
        if not isinstance(op, Mapping):
            return self.value(op)
        return {name: self._part(name, part) for name, part in op.items()}

    def _part(self, name: str, part: object) -> object:
        if name in NAMES and isinstance(part, str | bool):
            return part
        if name == "fields" and isinstance(part, Mapping):
            return {field: self.value(value) for field, value in part.items()}
        if name == "values" and isinstance(part, list):
            return [self.value(value) for value in part]
        return self.value(part)


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a question or an action is about."""

    user: UUID | None = None
    device: UUID | None = None
    space: UUID | None = None


def sight(
    connection: Connection,
    who: Principal,
    settings: Settings,
    now: int,
    subject: Subject,
    *,
    values: bool,
    reason: str | None,
) -> Sight:
    """How `who` sees values; opening them is audited. Raises Forbidden, BadRequest."""
    if not values:
        return Sight(settings.secret)
    if who.role != "admin" and not settings.support_sees_values:
        raise Forbidden("forbidden", "Values are customers' data: REJOIN_SUPPORT_SEES_VALUES.")
    if not reason:
        raise BadRequest("bad_parameter", errors={"reason": "Opening values takes a reason."})
    about = (subject.user, subject.device, subject.space)
    entry = audit.Entry(now, who.user_id, "open_values", *about, reason, None, None)
    audit.add(connection, entry)
    return Sight(settings.secret, opened=True)


def plain(value: Any) -> Any:
    """The shown parts as JSON has them, for what is written into the audit trail."""
    if isinstance(value, ValueShown):
        return {"bytes": value.bytes, "hash": value.hash}
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    return [plain(part) for part in value] if isinstance(value, list) else value
