"""A device as the protocol tells it to be, in memory.

It learns the server's state from deltas alone, keeps what it has not pushed yet, and shows one on
top of the other. It does not call `sync`.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

from tests.oracle import texts
from tests.oracle.model import TYPES, Key, Op, canonical


@dataclass
class Row:
    fields: dict[str, Any] = field(default_factory=dict)
    conflicts: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, tuple[bytes, ...]] = field(default_factory=dict)


Rows = dict[Key, Row]


def perform(rows: Rows, op: Op) -> None:
    """What an app's own edit does to its own rows."""
    key = (op["collection"], op["id"])
    if op["op"] == "delete":
        rows.pop(key, None)
        return
    if op["op"] == "remove" and key not in rows:
        return
    row = rows.setdefault(key, Row())
    if op["op"] == "put":
        if op.get("new"):
            row.fields, row.conflicts = {}, {}
        row.fields |= op.get("fields", {})
        for name in op.get("fields", {}):
            row.conflicts.pop(name, None)
    elif op["op"] == "edit":
        update = texts.from_json(op["update"])
        row.documents[op["field"]] = (*row.documents.get(op["field"], ()), update)
    elif op["op"] == "increment":
        value = row.fields.get(op["field"], 0)
        row.fields[op["field"]] = value + op["by"] if type(value) is int else value
    elif op["op"] in TYPES:
        _perform_on_set(row, op)


def _perform_on_set(row: Row, op: Op) -> None:
    value = row.fields.get(op["field"], [])
    elements = {canonical(e): e for e in value} if isinstance(value, list) else {}
    for element in op["values"]:
        if op["op"] == "add":
            elements[canonical(element)] = element
        else:
            elements.pop(canonical(element), None)
    row.fields[op["field"]] = [elements[text] for text in sorted(elements)]


@dataclass
class Transfer:
    """Pages of one delta, not applied yet."""

    page: str
    reset: bool
    records: list[dict[str, Any]]


@dataclass
class Device:
    id: str
    skew_ms: int = 0
    epoch: int | None = None
    cursor: int = 0
    seen: Op = field(default_factory=lambda: {"cursor": 0})
    """The context of an edit made now: it moves when a pull is complete."""
    copy: Rows = field(default_factory=dict)
    counter: int = 0
    accepted: int = 0
    pending: list[Op] = field(default_factory=list)
    kept: list[Op] = field(default_factory=list)
    """Changes the server has decided: kept for a while, in case it loses them."""
    unpulled: list[Op] = field(default_factory=list)
    """Changes decided that the copy does not hold yet."""
    covered: int = 0
    """Up to which of its own changes the copy holds all that were applied."""
    discarded: int | None = None
    transfer: Transfer | None = None
    rejected: dict[int, str] = field(default_factory=dict)

    @property
    def in_sync(self) -> bool:
        return not self.pending and self.transfer is None

    def view(self) -> Rows:
        """What the app shows."""
        rows = copy.deepcopy(self.copy)
        for change in [*self.unpulled, *self.pending]:
            for op in change["ops"]:
                perform(rows, op)
        return rows

    # Editing -----------------------------------------------------------------------------------

    def edit(self, ops: list[Op], now: int) -> Op:
        """One local transaction, with the context of this moment."""
        self.counter += 1
        change = {
            "counter": self.counter,
            "context": self._context(ops),
            "at": now + self.skew_ms,
            "ops": ops,
        }
        self.pending.append(change)
        return change

    def _context(self, ops: list[Op]) -> Op:
        for op in ops:
            deletion = self._pending_deletion(op)
            if deletion is not None:
                return copy.deepcopy(deletion["context"])
        return copy.deepcopy(self.seen)

    def _pending_deletion(self, op: Op) -> Op | None:
        """The own deletion, not pushed yet, over which this operation inserts the row."""
        if not (op["op"] == "put" and op.get("new")):
            return None
        for change in reversed(self.pending):
            for other in reversed(change["ops"]):
                if (other["collection"], other["id"]) == (op["collection"], op["id"]):
                    return change if other["op"] == "delete" else None
        return None

    def type(
        self, now: int, client: int, id_: str, field: str, at: int, word: str, cut: int
    ) -> None:
        """Opens the document of a row, types in it, and closes it."""
        row = self.view().get(("c", id_), Row())
        update = texts.typed(row.documents.get(field, ()), client, at, word, cut)
        op = {"op": "edit", "collection": "c", "id": id_, "field": field}
        self.edit([{**op, "update": texts.to_json(update)}], now)

    # Speaking ----------------------------------------------------------------------------------

    def request(self, now: int, most: int, limit: int) -> Op:
        request: Op = {
            "sent_at": now + self.skew_ms,
            "cursor": self.cursor,
            "counter": self.counter,
            "changes": self.pending[:most],
            "limit": limit,
        }
        if self.epoch is not None:
            request["epoch"] = self.epoch
        if self.transfer:
            request["page"] = self.transfer.page
        if self.discarded is not None:
            request["discarded"] = self.discarded
        return request

    def hear(self, request: Op, answer: Op) -> None:
        """Any answer but `device_fork`.

        `accepted` speaks for the changes that the request held, for they were compared. Of one
        that was never sent it may be a clone's namesake that was accepted.
        """
        code = answer.get("error", {}).get("code")
        if code == "counter_gap":
            self._give_back(answer["error"]["expected"])
            return
        told = {r["counter"]: r["error"]["code"] for r in answer["rejected"]}
        sent = {change["counter"] for change in request["changes"]}
        applied = self._settle(answer["accepted"], sent, told)
        if code == "bad_page":
            self.transfer = None
            return
        assert code is None, answer
        self._take_page(answer, applied)

    def _settle(self, accepted: int, sent: set[int], rejected: dict[int, str]) -> list[Op]:
        """Changes decided leave the queue. Returns those that were applied."""
        self.rejected |= rejected
        if self.discarded is not None and accepted >= self.discarded:
            self.accepted, self.discarded = max(self.accepted, self.discarded), None
        if accepted < self.accepted:
            self._give_back(accepted + 1)
            return []
        decided = [c for c in self.pending if c["counter"] in sent and c["counter"] <= accepted]
        applied = [c for c in decided if c["counter"] not in rejected]
        self.pending = self.pending[len(decided) :]
        self.kept += decided
        self.unpulled += [c for c in applied if c["counter"] > self.covered]
        self.accepted = max([self.accepted, *(c["counter"] for c in decided)])
        return [c for c in applied if c["counter"] > self.covered]

    def _give_back(self, expected: int) -> None:
        """The server expects less than it once had."""
        self.pending = [c for c in self.kept if c["counter"] >= expected] + self.pending
        self.kept = [c for c in self.kept if c["counter"] < expected]
        first = self.pending[0]["counter"] if self.pending else self.counter + 1
        self.discarded = first - 1 if first > expected else None
        self.accepted = self.covered = expected - 1
        self.unpulled = []

    def _take_page(self, answer: Op, applied: list[Op]) -> None:
        records, reset = answer["records"], answer["reset"]
        if self.transfer is not None:
            records, reset = self.transfer.records + records, self.transfer.reset or reset
        if answer["page"] is not None:
            self.transfer = Transfer(answer["page"], reset, records)
            return
        # Nothing but its own changes moved the head, and none of them met anything: it has it all.
        quiet = not records and not reset and answer["cursor"] == self.cursor + len(applied)
        if reset or self.cursor == 0:
            self.copy = {}
        if quiet:
            for change in applied:
                for op in change["ops"]:
                    perform(self.copy, op)
        for record in records:
            _take_record(self.copy, record)
        self.transfer, self.unpulled, self.covered = None, [], answer["accepted"]
        self.cursor, self.epoch = answer["cursor"], answer["epoch"]
        self.seen = {"epoch": self.epoch, "cursor": self.cursor}

    # Forks -------------------------------------------------------------------------------------

    def become(self, new_id: str, known: list[int]) -> None:
        """After `device_fork`: a new id; what the old one had in common with the server is seen."""
        line = self.accepted
        while line + 1 in known:
            line += 1
        left = [c for c in self.pending if c["counter"] not in known]
        dropped = [c for c in self.pending if c["counter"] in known]
        for number, change in enumerate(left, 1):
            change["counter"] = number
        for context in [self.seen, *(change["context"] for change in left)]:
            context["clock"] = {**context.get("clock", {}), self.id: line}
        self.id, self.counter, self.accepted, self.covered = new_id, len(left), 0, 0
        self.pending, self.kept = left, []
        self.unpulled += dropped
        self.cursor, self.epoch, self.discarded, self.transfer = 0, None, None, None


def _take_record(rows: Rows, record: dict[str, Any]) -> None:
    key = (record["collection"], record["id"])
    if record.get("deleted"):
        rows.pop(key, None)
        return
    if record.get("replace"):
        rows.pop(key, None)
    row = rows.setdefault(key, Row())
    conflicts = record.get("conflicts", {})
    for name, value in record.get("fields", {}).items():
        row.fields[name] = value
        row.conflicts.pop(name, None)
        if name in conflicts:
            row.conflicts[name] = conflicts[name]
    for name, update in record.get("documents", {}).items():
        row.documents[name] = (*row.documents.get(name, ()), texts.from_json(update))


def shown(rows: Rows) -> dict[Key, dict[str, Any]]:
    return {
        key: {"fields": row.fields, "conflicts": row.conflicts, "documents": _texts(row)}
        for key, row in rows.items()
    }


def _texts(row: Row) -> dict[str, str]:
    found = {name: texts.text_of(updates) for name, updates in row.documents.items()}
    return {name: text for name, text in found.items() if text is not None}
