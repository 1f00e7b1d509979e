"""A record: its life and its fields, and how one operation changes them.

Laws, for changes that arrive in any order that keeps each device's own:
* alive wins over a concurrent deletion, and the whole row is back;
* a new row clears what its author had seen of the old one, and nothing else;
* a field's type is set by its first operation, for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from msgspec import Struct
from msgspec.json import decode
from msgspec.structs import replace

from sync.changes import Add, Delete, Edit, Increment, Operation, Put, Remove
from sync.clock import Seen, Write
from sync.errors import Refused
from sync.fields import (
    TYPES,
    Counter,
    Document,
    Field,
    ObservedRemoveSet,
    Register,
    Sibling,
    Tail,
    with_tail,
)
from sync.limits import Limits
from sync.values import Value, canonical, to_json

F = TypeVar("F", Register, Counter, ObservedRemoveSet, Document)


class Life(NamedTuple):
    """A sibling of the register of life."""

    write: Write
    deleted: bool


class Record(Struct, frozen=True):
    """A row as merged. `whole`: the position at which it was last begun anew, came back or
    outlived a deletion: who has not seen that needs all of it. `bytes_bound`: it takes no more.
    """

    position: int = 0
    whole: int = 0
    life: tuple[Life, ...] = ()
    fields: dict[str, Field] = {}
    bytes_bound: int = 0

    def record(self) -> Record:
        return self

    def bounded(self, bytes_bound: int) -> Record:
        return replace(self, bytes_bound=bytes_bound)

    @property
    def deleted(self) -> bool:
        return all(sibling.deleted for sibling in self.life)

    @property
    def conflicts(self) -> list[str]:
        """The fields whose siblings differ."""
        return [n for n, f in self.fields.items() if isinstance(f, Register) and f.in_conflict]

    def measure(self) -> int:
        """Bytes of the record's values as JSON, its siblings among them. Documents have a limit of
        their own.
        """
        size = 2
        for name, value in self.fields.items():
            size += len(to_json(name)) + 2
            if isinstance(value, Register):
                size += sum(len(to_json(s.value)) + 1 for s in value.siblings)
            elif isinstance(value, ObservedRemoveSet):
                # As it is kept: 1e300 takes 6 bytes as canonical text, and 303 there.
                size += 2 + sum(len(to_json(decode(text))) + 1 for text in value.elements)
            else:
                size += 20
        return size

    def needs_tail(self, cursor: int) -> bool:
        """Whether a new row by an author at `cursor` needs the log to know what it clears."""
        return any(
            isinstance(f, Counter | ObservedRemoveSet) and f.position > cursor
            for f in self.fields.values()
        )

    def with_tails(self, tails: Mapping[str, Tail], floor: int) -> Record:
        """With what the log says after `floor` of each counter and set, by field."""
        empty = Tail(floor, ())
        fields = {n: with_tail(f, tails.get(n, empty)) for n, f in self.fields.items()}
        return replace(self, fields=fields)


class Begun(NamedTuple):
    """A record that one `put` began and that nothing else has touched, as most of a large push
    are: there is nothing to merge, and its row needs no look at its fields.
    """

    write: Write
    values: Mapping[str, Value]
    bytes_bound: int = 0

    def record(self) -> Record:
        """The same as any other record."""
        write, life = self.write, (Life(self.write, False),)
        fields: dict[str, Field] = {
            n: Register((Sibling(write, v),)) for n, v in self.values.items()
        }
        return Record(write.position, 0, life, fields, self.bytes_bound)

    def bounded(self, bytes_bound: int) -> Begun:
        return Begun(self.write, self.values, bytes_bound)


Row = Record | Begun


class Merged(NamedTuple):
    """A record after an operation. `met`: the operation met something its author had not seen,
    or began, revived or outlived a row, so that the author's own copy may differ.
    """

    record: Row
    met: bool


def apply(row: Row | None, op: Operation, seen: Seen, write: Write, limits: Limits) -> Merged:
    """Raises `Refused` where the field is of another type or the record becomes too large.

    Of an edit it says what that means for the record; what it does to the document is decided by
    `sync.documents`, and told by `with_document`.
    """
    if row is None and isinstance(op, Put):
        _check_count(op.fields, limits)
        return Merged(Begun(write, op.fields), False)
    record = row.record() if row else None
    if isinstance(op, Put):
        return _put(record or Record(), op, seen, write, limits)
    if isinstance(op, Delete):
        return _delete(record or Record(), seen, write)
    if isinstance(op, Increment):
        counter = _typed(record, op.field, Counter).increment(op.by, write)
        return _alive(_with_field(record, op.field, counter, limits), seen, write)
    if isinstance(op, Add):
        grown = _typed(record, op.field, ObservedRemoveSet).add(op.values, seen, write)
        if len(grown.elements) > limits.elements_per_set:
            raise Refused("too_many_elements", f"{limits.elements_per_set} elements at most")
        return _alive(_with_field(record, op.field, grown, limits), seen, write)
    if isinstance(op, Edit):
        document = _typed(record, op.field, Document)
        return _alive(_with_field(record, op.field, document, limits), seen, write)
    return _remove(record, op, seen, write, limits)


def with_document(record: Record, field: str, document: Document) -> Record:
    """The record with the document as it is now."""
    return replace(record, fields={**record.fields, field: document})


def _put(record: Record, op: Put, seen: Seen, write: Write, limits: Limits) -> Merged:
    met = False
    if op.new:
        cleared = {name: value.cleared(seen) for name, value in record.fields.items()}
        record, met = replace(record, fields=cleared, whole=write.position), True
    fields = dict(record.fields)
    for name, value in op.fields.items():
        register = _typed(record, name, Register).put(value, seen, write)
        fields[name] = register
        met = met or len(register.siblings) > 1
    _check_count(fields, limits)
    alive = _alive(replace(record, fields=fields), seen, write)
    return Merged(alive.record, alive.met or met)


def _delete(record: Record, seen: Seen, write: Write) -> Merged:
    life = (*_unseen(record.life, seen), Life(write, True))
    after = replace(record, life=life, position=write.position)
    if after.deleted:
        return Merged(after, False)
    return Merged(replace(after, whole=write.position), True)


def _remove(record: Record | None, op: Remove, seen: Seen, write: Write, limits: Limits) -> Merged:
    """Takes away what was seen; it is the one operation that says nothing of the record's life."""
    left = _typed(record, op.field, ObservedRemoveSet).remove(op.values, seen, write)
    after = _with_field(record, op.field, left, limits)
    met = any(canonical(value) in left.elements for value in op.values)
    return Merged(replace(after, position=write.position), met)


def _alive(record: Record, seen: Seen, write: Write) -> Merged:
    """With a sign of life. A row that was deleted comes back whole."""
    back = record.deleted and record.position > 0
    life = (*_unseen(record.life, seen), Life(write, False))
    whole = write.position if back else record.whole
    return Merged(replace(record, life=life, position=write.position, whole=whole), back)


def _unseen(life: tuple[Life, ...], seen: Seen) -> tuple[Life, ...]:
    return tuple(sibling for sibling in life if not seen.covers(sibling.write))


def _typed(record: Record | None, name: str, kind: type[F]) -> F:
    value = record.fields.get(name) if record else None
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise Refused(
            "field_type_mismatch",
            f"the field is a {TYPES[type(value)]}, the operation is for a {TYPES[kind]}",
            field=name,
        )
    return value


def _with_field(record: Record | None, name: str, value: Field, limits: Limits) -> Record:
    record = record or Record()
    fields = {**record.fields, name: value}
    _check_count(fields, limits)
    return replace(record, fields=fields)


def _check_count(fields: Mapping[str, object], limits: Limits) -> None:
    if len(fields) > limits.fields_per_record:
        raise Refused("too_many_fields", f"{limits.fields_per_record} fields at most")
