"""Changes and their operations: decoded and checked in one step, then trusted.

A change stands or falls alone: what is wrong with one of a request is its own verdict, a
`BadChange`, and never the request's. Only a change without a readable counter breaks the
envelope, for there is nothing that a verdict could be about.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import zip_longest
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from sync.errors import BadRequest, Refused, SyncError
from sync.limits import Limits
from sync.values import Value, are_exact, check_text, check_value, encode, to_json

JSON_SAFE_INT = 2**53 - 1
Natural = Annotated[int, Meta(ge=0, le=JSON_SAFE_INT)]
Counted = Annotated[int, Meta(ge=1, le=JSON_SAFE_INT)]
Step = Annotated[int, Meta(ge=-JSON_SAFE_INT, le=JSON_SAFE_INT)]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]

Key = tuple[str, str]
"""(collection, id): a record in its space."""


class Put(Struct, frozen=True, tag="put", tag_field="op", omit_defaults=True):
    """Writes registers. `new`: the device inserted the row, it knew none with this id."""

    collection: str
    id: str
    fields: dict[str, Value] = {}
    new: bool = False


class Delete(Struct, frozen=True, tag="delete", tag_field="op"):
    collection: str
    id: str


class Increment(Struct, frozen=True, tag="increment", tag_field="op"):
    collection: str
    id: str
    field: str
    by: Step


class Add(Struct, frozen=True, tag="add", tag_field="op"):
    collection: str
    id: str
    field: str
    values: list[Value]


class Remove(Struct, frozen=True, tag="remove", tag_field="op"):
    collection: str
    id: str
    field: str
    values: list[Value]


class Edit(Struct, frozen=True, tag="edit", tag_field="op"):
    """A Yjs v1 update: base64 in JSON, bytes in MessagePack."""

    collection: str
    id: str
    field: str
    update: bytes


Operation = Put | Delete | Increment | Add | Remove | Edit
OPERATIONS = frozenset({"put", "delete", "increment", "add", "remove", "edit"})


class Context(Struct, frozen=True, omit_defaults=True):
    """What the device had seen; an epoch left out is the current one."""

    cursor: Natural
    epoch: Counted | None = None
    clock: dict[str, Natural] = {}


class Change(Struct, frozen=True, omit_defaults=True):
    """One local transaction of a device: operations applied in order, all or none."""

    counter: Counted
    context: Context
    at: Int64
    ops: list[Operation]

    def form(self) -> tuple[bytes, bytes]:
        """(operations as JSON, digest): the digest tells a repeat from a fork."""
        # Most changes put what has no exponent, and need no look for one.
        exact = all(type(op) is Put and are_exact(op.fields.values()) for op in self.ops)
        ops = encode(self.ops) if exact else to_json(self.ops)
        return ops, blake2b(ops, digest_size=16, key=b"%d" % self.at).digest()

    def body(self) -> str:
        """The change whole, as ASCII JSON."""
        return _ascii(self.tree())

    def tree(self) -> dict[str, Any]:
        tree: dict[str, Any] = msgspec.to_builtins(self, enc_hook=_plain)
        return tree


class BadChange(Struct, frozen=True):
    """A change that can never be applied, whole, with the reason."""

    counter: int
    error: Refused
    body: str
    digest: bytes


def check(change: Change, limits: Limits) -> Change | BadChange:
    """The change, or the verdict on one that has the form but breaks a rule."""
    try:
        _check(change, limits)
    except Refused as error:
        return BadChange(change.counter, error, change.body(), _digest_of(change))
    return change


def _digest_of(change: Change) -> bytes:
    try:
        return change.form()[1]
    # Lone surrogates have no bytes; MessagePack has types and keys that JSON has not.
    except (UnicodeEncodeError, TypeError):
        return _digest(_without_context(change.tree()))


def from_tree(tree: object, limits: Limits, doubled: type[dict[str, Any]]) -> Change | BadChange:
    """A change from a forgiving parser's tree, in which `doubled` marks an object with a key
    twice. Raises `BadRequest` where there is no counter to speak of.
    """
    counter = tree.get("counter") if isinstance(tree, dict) else None
    if type(counter) is not int or not 1 <= counter <= JSON_SAFE_INT:
        raise BadRequest("malformed_request", "a change has no counter of 1 to 2^53-1")
    try:
        if _has_doubled(tree, doubled):
            raise Refused("duplicate_key")
        _check_known_operations(tree)
        change = check(msgspec.convert(tree, Change), limits)
        if isinstance(change, BadChange):  # whole: with the members that nobody knows, too
            return BadChange(counter, change.error, _ascii(tree), change.digest)
        return change
    except msgspec.ValidationError as invalid:
        error = Refused("malformed_change", str(invalid))
    except UnicodeEncodeError:  # a lone surrogate where something else is expected
        error = Refused("invalid_text")
    except Refused as refused:
        error = refused
    form = _without_context(tree) if type(tree) is dict else tree
    return BadChange(counter, error, _ascii(tree), _digest(form))


def _without_context(tree: dict[str, Any]) -> dict[str, Any]:
    """What tells a repeat from a fork."""
    return {name: part for name, part in tree.items() if name != "context"}


def _ascii(tree: object, *, sort_keys: bool = False) -> str:
    """JSON text in which nothing is lost: no NaN, NUL or lone surrogate, no key named twice."""
    if any(_is_odd(each) for each in _every(tree)):
        tree = _named_once(tree)
    return json.dumps(tree, default=_plain, separators=(",", ":"), sort_keys=sort_keys)


def _is_odd(tree: object) -> bool:
    """Whether it is an object that JSON could not write as it came."""
    plain = type(tree) is dict and all(isinstance(key, str) for key in tree)
    return isinstance(tree, dict) and not plain


class _Name(str):
    """A key that is equal to none, so that an object can be written as it came."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _named_once(tree: object) -> object:
    """The tree with keys that JSON can write, each as often as it came."""
    if isinstance(tree, dict):
        pairs = getattr(tree, "pairs", None) or tree.items()
        return {
            _Name(key if isinstance(key, str) else repr(key)): _named_once(value)
            for key, value in pairs
        }
    return [_named_once(item) for item in tree] if isinstance(tree, list | tuple) else tree


def _plain(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else repr(value)


def _digest(tree: object) -> bytes:
    """In some languages an object's keys come in another order at every retry."""
    return blake2b(_ascii(tree, sort_keys=True).encode(), digest_size=16).digest()


def _has_doubled(tree: object, doubled: type[dict[str, Any]]) -> bool:
    return any(isinstance(each, doubled) for each in _every(tree))


def _every(tree: object) -> Iterator[object]:
    """The tree and all that is in it, level by level, so that depth costs no stack."""
    level = [tree]
    while level:
        yield from level
        level = [child for each in level for child in _children(each)]


def _children(tree: object) -> Iterable[object]:
    if isinstance(tree, dict):
        return tree.values()
    return tree if isinstance(tree, list) else ()


def _check_known_operations(tree: object) -> None:
    ops = tree.get("ops") if isinstance(tree, dict) else None
    for index, op in enumerate(ops if isinstance(ops, list) else ()):
        name = op.get("op") if isinstance(op, dict) else None
        if isinstance(name, str) and name not in OPERATIONS:
            raise Refused("unknown_operation", f"no operation is called {name[:40]!a}", op=index)


def _check(change: Change, limits: Limits) -> None:
    if len(change.ops) > limits.operations_per_change:
        most = limits.operations_per_change
        raise Refused("too_many_operations", f"{len(change.ops)} operations; {most} at most")
    if len(change.context.clock) > limits.clock_entries:
        raise Refused("too_many_clock_entries", f"{limits.clock_entries} entries at most")
    for device in change.context.clock:
        check_text(device)
    for index, op in enumerate(change.ops):
        try:
            _check_operation(op, limits)
        except SyncError as error:
            raise Refused(error.code, error.detail, op=index) from None


def _check_operation(op: Operation, limits: Limits) -> None:
    if isinstance(op, Put):
        _check_names((op.collection, op.id, *op.fields), limits)
        for value in op.fields.values():
            _check_one(value, limits)
    elif isinstance(op, Delete):
        _check_names((op.collection, op.id), limits)
    else:
        _check_names((op.collection, op.id, op.field), limits)
        if isinstance(op, Edit):
            # What is in it is read where it is merged, under that work's bound.
            if len(op.update) > limits.document_update_bytes:
                most = limits.document_update_bytes
                raise Refused(
                    "document_update_too_large", f"{len(op.update)} bytes; {most} at most"
                )
        elif not isinstance(op, Increment):
            for value in op.values:
                _check_one(value, limits)


def _check_one(value: Value, limits: Limits) -> None:
    # A character takes six bytes at most, so that a short text needs no writing down.
    if type(value) is str and len(value) * 6 + 2 <= limits.value_bytes:
        check_text(value)
        return
    check_value(value, limits)
    if isinstance(value, str | list | dict) and len(to_json(value)) > limits.value_bytes:
        raise Refused("value_too_large", f"a value takes more than {limits.value_bytes} bytes")


def _check_names(names: tuple[str, ...], limits: Limits) -> None:
    """The collection, the id and the fields."""
    if "" in names or max(map(len, names)) > limits.id_chars:
        for name, what in zip_longest(names, ("collection", "id"), fillvalue="field name"):
            if not 1 <= len(name) <= limits.id_chars:
                most = f"not 1 to {limits.id_chars}"
                raise Refused("invalid_id", f"the {what} has {len(name)} characters, {most}")
    check_text("".join(names))
