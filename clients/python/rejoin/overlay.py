"""The server's state of a record, and own operations on top of it. Pure.

`fold` says what an operation makes of a record's fields. It serves twice: accepted changes are
folded into the kept state (the server may answer that the device has it all), and pending ones are
shown on top of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rejoin.edits import Op
from rejoin.values import Json, JsonObject, canonical, plain, sort_elements


@dataclass(slots=True)
class Delta:
    """A record of an answer: what changed of it after the cursor."""

    collection: str
    id: str
    position: int | None
    fields: JsonObject
    conflicts: JsonObject
    documents: JsonObject
    deleted: bool
    replace: bool


@dataclass(slots=True)
class Record:
    """What the server last said of a record. `fields` is None where it doesn't live."""

    fields: JsonObject | None = None
    conflicts: JsonObject = field(default_factory=dict)
    position: int | None = None

    def take(self, delta: Delta, *, whole: bool) -> set[str] | None:
        """Applies a delta. Returns the fields that may have changed; None: all of them."""
        self.position = delta.position
        if delta.deleted:
            self.fields, self.conflicts = None, {}
            return None
        if whole or delta.replace or self.fields is None:
            self.fields = delta.fields
            self.conflicts = delta.conflicts
            return None
        self.fields.update(delta.fields)
        for name in delta.fields:
            self.conflicts.pop(name, None)
        self.conflicts.update(delta.conflicts)
        return {*delta.fields, *delta.documents}

    def fold(self, op: Op) -> None:
        """An own operation that the server has accepted."""
        self.fields = fold(self.fields, op)
        if self.fields is None or op.get("new"):
            self.conflicts = {}
        written = op.get("fields")
        if isinstance(written, dict):
            for name in written:
                self.conflicts.pop(name, None)


def fold(fields: JsonObject | None, op: Op) -> JsonObject | None:
    """A record's fields after one operation; None: it is deleted."""
    kind = op["op"]
    if kind == "delete":
        return None
    if kind == "put":
        written = op.get("fields")
        start = {} if op.get("new") or fields is None else fields
        return {**start, **written} if isinstance(written, dict) else start
    start = dict(fields or {})
    name = str(op.get("field"))
    if kind == "increment":
        start[name] = _sum(start.get(name), op.get("by"))
    elif kind in ("add", "remove"):
        start[name] = _elements(start.get(name), op.get("values"), add=kind == "add")
    return start


def _sum(value: Json, by: Json) -> Json:
    left = value if isinstance(value, int | float) else 0
    right = by if isinstance(by, int | float) else 0
    return left + right


def _elements(value: Json, change: Json, *, add: bool) -> Json:
    have = value if isinstance(value, list) else []
    given = list(map(plain, change)) if isinstance(change, list) else []
    if add:
        return sort_elements([*have, *given])
    gone = {canonical(element) for element in given}
    return sort_elements(e for e in have if canonical(e) not in gone)


def shown(base: JsonObject | None, pending: Iterable[Op]) -> tuple[JsonObject | None, bool]:
    """The fields that the app's table shows, and whether they are the whole row.

    They are not whole where a pending edit meets a row that the server has deleted meanwhile: the
    row comes back whole with the server's answer, and until then the table stays as it is.
    """
    fields, whole = base, True
    for op in pending:
        if op["op"] == "delete" or op.get("new"):
            whole = True
        elif fields is None:
            whole = False
        fields = fold(fields, op)
    return fields, whole
