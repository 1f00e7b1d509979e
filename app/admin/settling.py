"""Settling a conflict, and restoring what was: new changes over what the agent saw."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from msgspec import Struct

from app.admin import records
from app.admin.actions import Done, note, shown
from app.admin.sight import Sight, plain
from app.admin.writing import Desk, Written, opened, write
from sync.changes import JSON_SAFE_INT, Key
from sync.clock import DeviceId, Replica
from sync.errors import Conflict, NotFound, Refused
from sync.fields import Counter, Field, Names, ObservedRemoveSet, Register
from sync.records import Record
from sync.values import Value, equal

# A counter may be any sum, an increment has 53 bits: what people count takes one or two.
STEPS_MAX: Final = 100


class Choice(Struct, frozen=True):
    """A sibling by its dot, or else a value."""

    sibling: tuple[str, int] | None
    value: Value


def settle(
    at: Desk, space_id: UUID, key: Key, field: str, seen: int, choice: Choice, sight: Sight
) -> tuple[Done, Written]:
    """Settles a field in conflict, on a sibling or on another value.

    `seen`: the position at which the agent looked. Raises NotFound, Conflict (`record_moved`),
    Refused.
    """
    space = opened(at, space_id)
    register = _register(_kept(at, space_id, key, seen), field)
    value = _chosen(at, space_id, register, choice)
    put = {"op": "put", "collection": key[0], "id": key[1], "fields": {field: value}}
    written = write(at, space, [put], {"epoch": space.epoch, "cursor": seen})
    sides = [sight.value(sibling.value) for sibling in register.siblings]
    before = {"seen": seen, "sides": plain(sides)}
    after = {"position": written.position, "value": plain(sight.value(value))}
    return Done(note(at, "settle", before, after, space=space_id), shown([written])), written


def _kept(at: Desk, space_id: UUID, key: Key, seen: int) -> Record:
    """The record, which nobody has moved since `seen`."""
    found = records.kept(at.connection, space_id, key)
    if found is None:
        raise NotFound("not_found", records.NO_RECORD)
    if found.position > seen:
        raise Conflict("record_moved", position=found.position)
    return found


def _register(record: Record, name: str) -> Register:
    field = record.fields.get(name)
    if not isinstance(field, Register) or not field.siblings:
        raise NotFound("not_found", "The record has no such register.")
    return field


def _chosen(at: Desk, space_id: UUID, register: Register, choice: Choice) -> Value:
    if choice.sibling is None:
        return choice.value
    writers = {int(sibling.write.replica) for sibling in register.siblings}
    who = records.authors(at.connection, space_id, writers)
    for sibling in register.siblings:
        if (who(sibling.write.replica).device, sibling.write.counter) == choice.sibling:
            return sibling.value
    raise NotFound("not_found", "The field has no sibling of this dot.")


# Restoring -----------------------------------------------------------------------------------


def restore(
    at: Desk, space_id: UUID, key: Key, position: int, seen: int, names: Sequence[str] | None
) -> tuple[Done, Written]:
    """Makes the record what it was at a position, or some of its fields; a deleted one comes back.

    What the record has besides stays, and so do its documents. Raises as `settle`, and Refused
    (`too_many_operations`) for a counter that is too far from what it was.
    """
    space = opened(at, space_id)
    was = records.was(at.connection, space_id, key, position)
    if was is None or was.deleted:
        raise NotFound("not_found", "The record was not there at that position.")
    now = records.kept(at.connection, space_id, key)
    if now is not None and now.position > seen:
        raise Conflict("record_moved", position=now.position)
    ops = _operations(key, was, now, _names(at, space_id, was), names)
    written = write(at, space, ops, {"epoch": space.epoch, "cursor": min(seen, space.head)})
    before = {"seen": seen, "deleted": now is None or now.deleted}
    after = {"as_at": position, "position": written.position, "operations": len(ops)}
    return Done(note(at, "restore", before, after, space=space_id), shown([written])), written


def _names(at: Desk, space_id: UUID, was: Record) -> Names:
    who = records.authors(at.connection, space_id, records.writers(was))

    def name(replica: Replica) -> DeviceId:
        return DeviceId(who(replica).device)

    return name


def _operations(
    key: Key, was: Record, now: Record | None, names: Names, only: Sequence[str] | None
) -> list[dict[str, Any]]:
    """What makes the record of `now` that of `was`: a put, always, as a sign of life."""
    named = {"collection": key[0], "id": key[1]}
    fields: dict[str, Value] = {}
    others: list[dict[str, Any]] = []
    for name, field in was.fields.items():
        if only is not None and name not in only:
            continue
        present = now.fields.get(name) if now else None
        if isinstance(field, Register):
            _add_register(fields, name, field, present, names)
        elif isinstance(field, Counter):
            others += _counter(named, name, field, present)
        elif isinstance(field, ObservedRemoveSet):
            others += _set(named, name, field, present)
    put = {"op": "put", **named, "fields": fields, "new": now is None}
    return [put, *others]


def _add_register(
    fields: dict[str, Value], name: str, was: Register, now: Field | None, names: Names
) -> None:
    shown = was.ranked(names)
    same = (
        isinstance(now, Register)
        and len(now.siblings) == 1
        and bool(shown)
        and equal(now.siblings[0].value, shown[0].value)
    )
    if shown and not same:
        fields[name] = shown[0].value


def _counter(
    named: Mapping[str, str], name: str, was: Counter, now: Field | None
) -> list[dict[str, Any]]:
    by = was.total - (now.total if isinstance(now, Counter) else 0)
    whole, rest = divmod(abs(by), JSON_SAFE_INT)
    if whole + (rest > 0) > STEPS_MAX:
        detail = f"The counter {name!r} takes more than {STEPS_MAX} increments: name other fields."
        raise Refused("too_many_operations", detail)
    steps = [JSON_SAFE_INT] * whole + [rest] * (rest > 0)
    sign = 1 if by > 0 else -1
    return [{"op": "increment", **named, "field": name, "by": sign * step} for step in steps]


def _set(
    named: Mapping[str, str], name: str, was: ObservedRemoveSet, now: Field | None
) -> list[dict[str, Any]]:
    here = set(now.elements) if isinstance(now, ObservedRemoveSet) else set()
    there = set(was.elements)
    parts = {"add": there - here, "remove": here - there}
    return [
        {"op": op, **named, "field": name, "values": [json.loads(text) for text in sorted(texts)]}
        for op, texts in parts.items()
        if texts
    ]
