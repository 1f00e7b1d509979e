"""From what the triggers saw to operations. Pure.

One unit (a transaction, or a statement of its own) is taken record by record: what happened to a
row within it becomes its net effect, as the protocol's operations say it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from rejoin.schema import SLOTS
from rejoin.triggers import Slot
from rejoin.values import (
    INTEGER_MAX,
    Json,
    JsonObject,
    SqlValue,
    canonical,
    parse_set,
    sort_elements,
    to_json,
)

Op = JsonObject
Number = int | float
Count = int | float | str | bytes
MERGED = frozenset({"set", "document"})
"""Columns whose new value is not sent: a set's by what differs, a document's by Yjs updates."""


@dataclass(slots=True)
class Seen:
    """One row of `rejoin_ops`: what one trigger saw. `moment` is equal within a statement."""

    kind: str
    part: int
    moment: int
    mask: int
    values: Sequence[SqlValue]


@dataclass(slots=True)
class Edit:
    """What one unit did to one record."""

    kind: Literal["nothing", "insert", "update", "delete"] = "nothing"
    values: dict[str, SqlValue] = field(default_factory=dict)
    """Registers and sets as they are after it."""
    counts: dict[str, Count] = field(default_factory=dict)
    """Counters: by how much they moved; for an insert, from 0. Text or a blob that the app wrote
    into one stays as it is, and is sent to be refused in words."""
    was: dict[str, SqlValue] = field(default_factory=dict)
    """Sets as they were before it."""
    over_delete: bool = False
    """An insert that takes the place of a row deleted in the same unit."""


def net_effect(seen: Sequence[Seen], slots: Sequence[Slot], kinds: Mapping[str, str]) -> Edit:
    """All that a unit did to one record, in one edit. `kinds`: of each field in `slots`."""
    edit = Edit()
    stood: dict[str, SqlValue] | None = None
    stood_at = 0
    before = Edit()  # the edit as it was when `stood` was noted
    inserted_at: int | None = None
    for one in seen:
        if one.kind == "r":
            if one.part == 0:
                stood, stood_at, before = {}, one.moment, _copy(edit)
            if stood is not None:
                stood.update(_whole(one, slots))
        elif one.kind == "d":
            # Gone again within its own unit: nothing happened, unless it took a row's place.
            gone = edit.kind == "insert" and not edit.over_delete
            edit = Edit("nothing" if gone else "delete")
        elif one.kind == "u":
            _update(edit, one, slots)
            stood = None  # an UPSERT: the row that stood was updated, not replaced
        elif one.part > 0 and inserted_at == one.moment:
            _extend(edit, _whole(one, slots), kinds, stood if stood_at == one.moment else None)
        elif stood is not None and stood_at == one.moment:
            edit, inserted_at = before, one.moment  # REPLACE: the columns that differ
            _replace(edit, stood, _whole(one, slots), kinds)
        else:
            edit = _insert(edit, _whole(one, slots), kinds)
            inserted_at = one.moment
            stood = None
    return edit


def _copy(edit: Edit) -> Edit:
    return Edit(edit.kind, dict(edit.values), dict(edit.counts), dict(edit.was), edit.over_delete)


def _places(one: Seen, slots: Sequence[Slot]) -> list[tuple[int, Slot, SqlValue]]:
    part = slots[one.part * SLOTS : (one.part + 1) * SLOTS]
    return [(i, slot, one.values[i]) for i, slot in enumerate(part)]


def _whole(one: Seen, slots: Sequence[Slot]) -> dict[str, SqlValue]:
    part = slots[one.part * SLOTS : (one.part + 1) * SLOTS]
    return {
        slot.field: value
        for slot, value in zip(part, one.values, strict=False)
        if slot.role == "new"
    }


def moved(value: SqlValue, old: SqlValue) -> Count:
    """By how much a counter moved from one value to another; what is no number, as it is."""
    if isinstance(value, str | bytes):
        return value
    return (value or 0) - (old if isinstance(old, int | float) else 0)


def _plus(one: Count, other: Count) -> Count:
    """Two moves after one another; what is no number wins, for it is to be refused."""
    if isinstance(other, str | bytes):
        return other
    return one if isinstance(one, str | bytes) else one + other


def _put_in(edit: Edit, row: dict[str, SqlValue], kinds: Mapping[str, str]) -> None:
    for name, value in row.items():
        if kinds[name] == "counter":
            edit.counts[name] = _plus(moved(value, 0), edit.counts.get(name, 0))
        else:
            edit.values.setdefault(name, value)


def _insert(edit: Edit, row: dict[str, SqlValue], kinds: Mapping[str, str]) -> Edit:
    made = Edit("insert")
    if edit.kind == "update":
        # A trigger of the app changed the new row before ours saw it inserted.
        made.values, made.counts = edit.values, edit.counts
    if edit.kind == "delete":
        made.over_delete = True
    _put_in(made, row, kinds)
    return made


def _extend(
    edit: Edit,
    row: dict[str, SqlValue],
    kinds: Mapping[str, str],
    stood: dict[str, SqlValue] | None,
) -> None:
    if stood is None:
        _put_in(edit, row, kinds)
    else:
        _replace(edit, stood, row, kinds)


def _replace(
    edit: Edit, stood: dict[str, SqlValue], row: dict[str, SqlValue], kinds: Mapping[str, str]
) -> None:
    for name, value in row.items():
        old = stood.get(name)
        if type(value) is type(old) and value == old:
            continue
        if kinds[name] == "counter":
            edit.counts[name] = _plus(edit.counts.get(name, 0), moved(value, old))
        else:
            edit.values[name] = value
            if kinds[name] == "set":
                edit.was.setdefault(name, old)
    if edit.kind == "nothing":
        edit.kind = "update"


def _update(edit: Edit, one: Seen, slots: Sequence[Slot]) -> None:
    places = _places(one, slots)
    for i, slot, value in places:
        if slot.role != "new" or not one.mask >> i & 1:
            continue
        if slot.kind == "counter":
            edit.counts[slot.field] = _plus(edit.counts.get(slot.field, 0), moved(value, 0))
            continue
        edit.values[slot.field] = value
        if slot.kind == "set" and edit.kind != "insert":
            edit.was.setdefault(slot.field, places[i + 1][2])
    if edit.kind in ("nothing", "delete"):
        edit.kind = "update"


def to_ops(edit: Edit, collection: str, record_id: str, kinds: Mapping[str, str]) -> list[Op]:
    """The operations that say an edit. None where nothing changed in the end."""
    at: JsonObject = {"collection": collection, "id": record_id}
    if edit.kind == "nothing":
        return []
    if edit.kind == "delete":
        return [{"op": "delete", **at}]
    ops: list[Op] = []
    registers: JsonObject = {
        n: to_json(v) for n, v in edit.values.items() if kinds[n] not in MERGED
    }
    if edit.kind == "insert":
        # Members that say nothing are left out: the server's quick way reads just what is said.
        ops.append({"op": "put", **at, "new": True, **({"fields": registers} if registers else {})})
    elif registers:
        ops.append({"op": "put", **at, "fields": registers})
    ops += [
        {"op": "increment", **at, "field": name, "by": _by(by)}
        for name, by in edit.counts.items()
        if by != 0
    ]
    for name, value in edit.values.items():
        if kinds[name] == "set":
            ops += _set_ops(at, name, edit.was.get(name), value)
    return ops


def _by(by: Count) -> Json:
    """A counter moves by whole numbers. Anything else goes as it is, and is refused by name."""
    if isinstance(by, float) and by.is_integer() and abs(by) <= INTEGER_MAX:
        return int(by)
    return to_json(by)


def _set_ops(at: JsonObject, name: str, was: SqlValue, now: SqlValue) -> list[Op]:
    elements = parse_set(now)
    if elements is None:
        # Not an array: sent as it is, so that the server refuses it in words instead of a guess.
        return [{"op": "add", **at, "field": name, "values": to_json(now)}]
    old = {canonical(e) for e in parse_set(was) or []}
    new = {canonical(e) for e in elements}
    added = sort_elements(e for e in elements if canonical(e) not in old)
    removed = sort_elements(e for e in parse_set(was) or [] if canonical(e) not in new)
    ops: list[Op] = []
    if added:
        ops.append({"op": "add", **at, "field": name, "values": added})
    if removed:
        ops.append({"op": "remove", **at, "field": name, "values": removed})
    return ops
