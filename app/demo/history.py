"""What the server's log says: who wrote what, and where several wrote to the same row."""

from __future__ import annotations

import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import rejoin
from app.demo.crew import PASSWORD, Member

ROW: Final = "(row)"
ENTRIES_MAX: Final = 1_000
ROWS_IN_A_LINE: Final = 2


@dataclass(frozen=True)
class Entry:
    """A change in the server's log. `at`: by the device's own clock."""

    position: int
    device: str
    counter: int
    at: int
    received_at: int
    ops: list[dict[str, Any]]


@dataclass(frozen=True)
class Write:
    """What one operation did to one cell, in words. `born`: a cell of a row just inserted."""

    device: str
    collection: str
    id: str
    field: str
    kind: str
    text: str
    born: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a row that several devices wrote to."""

    collection: str
    id: str
    field: str
    writes: tuple[Write, ...]

    def texts(self, device: str) -> list[str]:
        """What the device wrote here, in order."""
        return [write.text for write in self.writes if write.device == device]


class Log:
    """The space's log as its owner reads it, by plain HTTP."""

    def __init__(self, url: str, space: str, owner: Member) -> None:
        self._url, self._space = url, space
        device = {"name": "log reader", "platform": "demo", "app_version": "1"}
        login = {"email": owner.email, "password": PASSWORD, "device": device}
        self._token = str(self._ask("/v1/auth/login", login)["access_token"])

    def after(self, position: int) -> list[Entry]:
        """The changes after the position, in the log's order."""
        path = f"/v1/spaces/{self._space}/log"
        entries: list[Entry] = []
        while True:
            answer = self._ask(f"{path}?after={position}&limit={ENTRIES_MAX}")
            entries += [_entry(change) for change in answer["changes"]]
            if not answer["changes"] or entries[-1].position >= answer["head"]:
                return entries
            position = entries[-1].position

    def _ask(self, path: str, body: object = None) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        if body is None:
            headers["Authorization"] = f"Bearer {self._token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            read: dict[str, Any] = json.load(answer)
            return read


def _entry(change: Mapping[str, Any]) -> Entry:
    return Entry(
        change["position"],
        change["device"],
        change["counter"],
        change["at"],
        change["received_at"],
        change["ops"],
    )


def writes(entries: Iterable[Entry]) -> Iterator[Write]:
    """Every write to a cell, in the log's order."""
    for entry in entries:
        for op in entry.ops:
            for field, kind, text, born in _told(op):
                yield Write(entry.device, op["collection"], op["id"], field, kind, text, born)


def _told(op: Mapping[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    kind = op["op"]
    if kind == "delete":
        yield ROW, kind, "deleted", False
    elif kind == "put":
        if op.get("new"):
            yield ROW, kind, "inserted", False
        for name, value in op.get("fields", {}).items():
            yield name, kind, shown(value), bool(op.get("new"))
    elif kind == "increment":
        yield op["field"], kind, f"{op['by']:+}", False
    else:
        sign = "+" if kind == "add" else "−"
        yield op["field"], kind, " ".join(f"{sign}{element}" for element in op["values"]), False


def shown(value: object) -> str:
    """A value for people."""
    return "NULL" if value is None else str(value)


def summary(entry: Entry) -> str:
    """A change in a line or two."""
    first = entry.ops[0]
    if len({op["id"] for op in entry.ops}) > ROWS_IN_A_LINE:
        return f"{first['collection']}: {len(entry.ops):,} rows in one change"
    return "; ".join(
        f"{write.id} {write.text}"
        if write.field == ROW
        else f"{write.id}.{write.field} {_by(write)}"
        for write in writes([entry])
        if not write.born
    )


def _by(write: Write) -> str:
    return f"= {write.text}" if write.kind == "put" else write.text


def contested(entries: Iterable[Entry]) -> list[Cell]:
    """The cells of all rows that more than one device wrote to.

    Of rows that were inserted: those cells in which the devices' values differ.
    """
    rows: dict[tuple[str, str], dict[str, list[Write]]] = defaultdict(lambda: defaultdict(list))
    for write in writes(entries):
        rows[write.collection, write.id][write.field].append(write)
    return [
        Cell(collection, key, field, tuple(made))
        for (collection, key), cells in rows.items()
        if len({write.device for each in cells.values() for write in each}) > 1
        for field, made in cells.items()
        if not all(write.born for write in made) or len({write.text for write in made}) > 1
    ]


def outcome(cell: Cell, conflicts: Iterable[rejoin.Conflict], lives: bool) -> str:
    """Why the cell holds what it holds."""
    kinds = {write.kind for write in cell.writes}
    if any(
        (c.table, c.key, c.column) == (cell.collection, (cell.id,), cell.field) for c in conflicts
    ):
        return "in conflict"
    if cell.field == ROW:
        return _life(cell.writes, lives)
    if kinds == {"increment"}:
        return "each counts once"
    if kinds <= {"add", "remove"}:
        return "unseen additions stay"
    if len({write.device for write in cell.writes}) == 1:
        return "no other wrote it"
    equal = len({write.text for write in cell.writes}) == 1
    return "equal: no conflict" if equal else "the later had seen the earlier"


def _life(writes: tuple[Write, ...], lives: bool) -> str:
    last = {write.device: write.kind for write in writes}
    if "delete" in last.values():
        return "alive wins" if lives else "deleted"
    begun = any(write.kind == "delete" for write in writes)
    return "a new row; the unseen stays" if begun else "one row"
