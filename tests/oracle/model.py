"""What the protocol means, by definition, and slowly.

Written from the protocol's text alone: it shares no line with `sync`. Every change is kept for
ever with the full set of the dots that its author had seen, and a state is computed from nothing
but that: *the writes that nobody who had seen them has overwritten*.

Two readings of the text are fixed here:
* an author's own earlier changes are seen as dots; what *they* had seen is inherited only where
  the context says so (a row inserted over an own deletion takes the deletion's older context);
* an addition overwrites the earlier additions of the same element that its author had seen.
"""

from __future__ import annotations

import copy
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from tests.oracle import texts

Dot = tuple[str, int]
Key = tuple[str, str]
Op = dict[str, Any]
Was = tuple[int, dict[str, int]]
"""The head and the counts when a request came in: no context can name what is later."""
OFFSET_IGNORED_MS = 5_000
TYPES = {
    "put": "register",
    "increment": "counter",
    "add": "set",
    "remove": "set",
    "edit": "document",
}


@dataclass(frozen=True)
class Applied:
    dot: Dot
    position: int
    at: int
    ops: list[Op]
    seen: frozenset[Dot]


@dataclass(frozen=True)
class Written:
    """One operation of an applied change."""

    change: Applied
    index: int
    op: Op

    def has_seen(self, other: Written) -> bool:
        if self.change is other.change:
            return other.index < self.index
        return other.change.dot in self.change.seen


@dataclass(frozen=True)
class Fork:
    known: list[int]


@dataclass(frozen=True)
class Gap:
    expected: int


@dataclass(frozen=True)
class Verdicts:
    accepted: int
    rejected: list[tuple[int, str]]


def canonical(value: Any) -> str:
    """Canonical text of the plain values that the histories use."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{canonical(value[k])}" for k in sorted(value)) + "}"
    return json.dumps(value, ensure_ascii=False)


@dataclass
class Model:
    epoch: int = 1
    log: list[Applied] = field(default_factory=list)
    count: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    forms: dict[Dot, str] = field(default_factory=dict)
    refused: dict[Dot, str] = field(default_factory=dict)
    starts: dict[int, tuple[int, frozenset[Dot]]] = field(default_factory=dict)
    forgotten: dict[Key, int] = field(default_factory=dict)
    frozen: set[str] = field(default_factory=set)

    @property
    def head(self) -> int:
        return len(self.log)

    # Section 4: what a push is answered --------------------------------------------------------

    def push(self, device: str, request: dict[str, Any], received_at: int) -> Any:
        changes, used = request.get("changes", []), request.get("counter")
        known = [
            c["counter"] for c in changes if self.forms.get((device, c["counter"])) == form_of(c)
        ]
        count = self.count[device]
        repeats = [c for c in changes if c["counter"] <= count]
        if device in self.frozen or (used is not None and used < count):
            return Fork(known)
        if any(c["counter"] not in known for c in repeats):
            return Fork(known)
        given_up = max(count, request.get("discarded") or 0)
        fresh = [c for c in changes if c["counter"] > count]
        if fresh and fresh[0]["counter"] > given_up + 1:
            return Gap(given_up + 1)
        was = (self.head, dict(self.count))
        self.count[device] = given_up
        for change in fresh:
            self._decide(device, change, was, request.get("sent_at"), received_at)
        told = [
            (n, self.refused[device, n])
            for c in changes
            if (device, n := c["counter"]) in self.refused
        ]
        return Verdicts(self.count[device], told)

    def _decide(
        self, device: str, change: Op, was: Was, sent_at: int | None, received_at: int
    ) -> None:
        dot = (device, change["counter"])
        self.forms[dot] = form_of(change)
        seen = self._seen(device, change, was)
        verdict = self._form_error(change) or (seen if isinstance(seen, str) else None)
        verdict = verdict or self._type_error(change)
        self.count[device] = change["counter"]
        if verdict is not None:
            self.refused[dot] = verdict
            return
        assert isinstance(seen, frozenset)
        at = _by_the_servers_clock(change["at"], sent_at, received_at)
        self.log.append(Applied(dot, self.head + 1, at, change["ops"], seen))

    def _form_error(self, change: Op) -> str | None:
        return (
            "unknown_operation"
            if any(op["op"] not in TYPES.keys() | {"delete"} for op in change["ops"])
            else None
        )

    def _type_error(self, change: Op) -> str | None:
        types: dict[tuple[Key, str], str] = {}
        for written in self.operations() + [Written(None, 0, op) for op in change["ops"]]:  # type: ignore[arg-type]
            for name in _fields(written.op):
                kind = TYPES[written.op["op"]]
                if types.setdefault((_key(written.op), name), kind) != kind:
                    return "field_type_mismatch"
        return None

    def _seen(self, device: str, change: Op, was: Was) -> frozenset[Dot] | str:
        """The dots that the author had seen, or the code of the verdict."""
        head, count = was
        context = change["context"]
        epoch, cursor = context.get("epoch") or self.epoch, context["cursor"]
        if epoch > self.epoch:
            return "bad_context"
        if context.get("clock", {}).get(device, 0) >= change["counter"]:
            return "bad_context"
        named = {
            (other, n + 1)
            for other, counter in context.get("clock", {}).items()
            if other != device
            for n in range(counter)
        }
        for later in range(epoch + 1, self.epoch + 1):
            if later in self.starts:
                survived, survivors = self.starts[later]
                cursor, named = min(cursor, survived), named & survivors
        if cursor > head or any(n > count.get(d, 0) for d, n in named):
            return "bad_context"
        stands = {c.dot for c in self.log if c.position <= cursor}
        own = {(device, n) for n in range(1, change["counter"])}
        inherited = (c.seen for c in self.log if c.dot in named)
        return frozenset(stands.union(named, own, *inherited))

    # Section 3: what the changes come to -------------------------------------------------------

    def operations(self, key: Key | None = None) -> list[Written]:
        return [
            Written(change, index, op)
            for change in self.log
            for index, op in enumerate(change.ops)
            if key in (None, _key(op)) and change.position > self.forgotten.get(_key(op), 0)
        ]

    def keys(self) -> set[Key]:
        return {_key(written.op) for written in self.operations()}

    def record(self, key: Key) -> dict[str, Any] | None:
        """{"deleted", "fields": {name: state}} of a record, or None where nothing was written."""
        ops = self.operations(key)
        if not ops:
            return None
        rows = [w for w in ops if w.op["op"] == "put" and w.op.get("new")]
        names = {name for w in ops for name in _fields(w.op)}
        return {
            "deleted": not _lives(ops),
            "position": ops[-1].change.position,
            "fields": {name: self._field(name, ops, rows) for name in names},
        }

    def _field(self, name: str, ops: list[Written], rows: list[Written]) -> dict[str, Any]:
        writes = [w for w in ops if name in _fields(w.op)]
        kind = TYPES[writes[0].op["op"]]
        if kind == "register":
            return {"type": kind, "siblings": self._siblings(name, writes, rows)}
        if kind == "document":
            # In the order of the log; what depends on missing updates waits, by Yjs' own rules.
            updates = tuple(texts.from_json(w.op["update"]) for w in writes)
            return {"type": kind, "text": texts.text_of(updates)}
        left = _standing(writes, rows)
        if kind == "counter":
            total = sum(w.op["by"] for w in left)
            return {"type": kind, "present": bool(left), "total": total}
        return {"type": kind, "present": bool(left), "elements": _elements(writes, rows)}

    def _siblings(self, name: str, writes: list[Written], rows: list[Written]) -> list[Any]:
        """(device, counter, position, at, value) of each, the one that is shown first."""
        left = _standing(writes, writes + rows)
        # One change may write a field twice; the later has seen the earlier, so one is left.
        found = [
            (*w.change.dot, w.change.position, w.change.at, w.op["fields"][name]) for w in left
        ]
        return sorted(found, key=lambda s: (s[3], s[0]), reverse=True)

    def shown(self) -> dict[Key, dict[str, Any]]:
        """What a device with nothing pending shows: {record: {"fields", "conflicts"}}."""
        found = {}
        for key in self.keys():
            record = self.record(key)
            if record is not None and not record["deleted"]:
                found[key] = _shown(record["fields"])
        return found

    # Section 4: what a cursor has not seen ----------------------------------------------------

    def delta(self, key: Key, cursor: int) -> dict[str, Any]:
        """Of a record changed after the cursor: the fields changed after it, or all of a row that
        was begun anew, came back, or outlived a deletion after it.
        """
        record = self.record(key)
        assert record is not None
        told = {"position": record["position"], "deleted": record["deleted"], "replace": False}
        if record["deleted"]:
            return {**told, "fields": {}, "conflicts": []}
        ops = self.operations(key)
        whole = any(self._begins(ops[: n + 1]) for n, w in enumerate(ops) if _after(w, cursor))
        changed = {name for w in ops if whole or _after(w, cursor) for name in _fields(w.op)}
        shown = _shown(record["fields"])
        values = {n: canonical(v) for n, v in shown["fields"].items() if n in changed}
        conflicts = sorted(changed & shown["conflicts"].keys())
        return {**told, "replace": whole, "fields": values, "conflicts": conflicts}

    def _begins(self, ops: list[Written]) -> bool:
        """Whether the last of the operations begins a row anew, brings it back, or is a deletion
        that it outlives.
        """
        *before, last = ops
        if last.op["op"] == "delete":
            return _lives(ops)
        begins = last.op["op"] == "put" and bool(last.op.get("new"))
        return bool(before) and last.op["op"] != "remove" and (begins or not _lives(before))

    # Disasters and upkeep ----------------------------------------------------------------------

    def backup(self) -> Model:
        return copy.deepcopy(self)

    def restored(self, epoch: int, frozen: set[str]) -> Model:
        """The backup put in place as the start of an epoch."""
        model = copy.deepcopy(self)
        dots = frozenset((d, n + 1) for d, count in model.count.items() for n in range(count))
        model.epoch, model.frozen = epoch, set(frozen)
        model.starts[epoch] = (model.head, dots)
        return model

    def forget_tombstones(self, horizon: int) -> set[Key]:
        gone = set()
        for key in self.keys():
            record = self.record(key)
            if record is not None and record["deleted"] and record["position"] <= horizon:
                gone.add(key)
        self.forgotten |= dict.fromkeys(gone, self.head)
        return gone


def form_of(change: Op) -> str:
    """What must be equal for a change under a known dot to be a repeat."""
    return json.dumps([change["at"], change["ops"]], sort_keys=True)


def _by_the_servers_clock(at: int, sent_at: int | None, received_at: int) -> int:
    offset = 0 if sent_at is None else received_at - sent_at
    if abs(offset) > OFFSET_IGNORED_MS:
        at += offset
    return max(-(2**63), min(at, received_at))


def _standing(writes: list[Written], overwriters: list[Written]) -> list[Written]:
    return [w for w in writes if not any(o.has_seen(w) for o in overwriters)]


def _lives(ops: list[Written]) -> bool:
    lives = [w for w in ops if w.op["op"] != "remove"]
    return any(w.op["op"] != "delete" for w in _standing(lives, lives))


def _after(written: Written, cursor: int) -> bool:
    return written.change.position > cursor


def _elements(writes: list[Written], rows: list[Written]) -> dict[str, set[Dot]]:
    """Each element with the additions that nobody who had seen them took away."""
    found: dict[str, set[Dot]] = {}
    for text in {canonical(v) for w in writes for v in w.op["values"]}:
        about = [w for w in writes if text in map(canonical, w.op["values"])]
        additions = [w for w in about if w.op["op"] == "add"]
        left = _standing(additions, about + rows)
        if left:
            found[text] = {w.change.dot for w in left}
    return found


def _shown(fields: dict[str, Any]) -> dict[str, Any]:
    values, conflicts, documents = {}, {}, {}
    for name, state in fields.items():
        if state["type"] == "document" and state["text"] is not None:
            documents[name] = state["text"]
        elif state["type"] == "counter" and state["present"]:
            values[name] = state["total"]
        elif state["type"] == "set" and state["present"]:
            values[name] = [json.loads(text) for text in sorted(state["elements"])]
        elif state["type"] == "register" and state["siblings"]:
            values[name] = state["siblings"][0][4]
            if len({canonical(s[4]) for s in state["siblings"]}) > 1:
                conflicts[name] = [
                    {"value": value, "device": device, "at": at, "position": position}
                    for device, _, position, at, value in state["siblings"]
                ]
    return {"fields": values, "conflicts": conflicts, "documents": documents}


def _key(op: Op) -> Key:
    return op["collection"], op["id"]


def _fields(op: Op) -> list[str]:
    if op["op"] == "put":
        return list(op.get("fields", {}))
    return [op["field"]] if "field" in op else []
