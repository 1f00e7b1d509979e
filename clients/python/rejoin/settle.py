"""What one space's answer does to this file, each answer in one local transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator

from rejoin import document_rows, spaces
from rejoin.answers import Problem, SpaceAnswer, read_delta
from rejoin.apply import Applying, applying, writing
from rejoin.collections import Collection
from rejoin.edits import Op
from rejoin.outbox import seal
from rejoin.overlay import Delta
from rejoin.rowwatch import Watch
from rejoin.schema import get_meta
from rejoin.shape import quote
from rejoin.spaces import Space
from rejoin.values import compact, parse

KEEP_MS = 30 * 24 * 3600 * 1000
KEEP_CHANGES = 10_000
"""Accepted changes are kept this long, to give back what a restored server has lost."""
FOREVER_CODES = frozenset({"forbidden", "not_found"})


NOTHING = range(0)
COUNTER_MAX = (1 << 63) - 1
"""Above every counter: an answer that names none has them all."""


def settle(
    db: sqlite3.Connection,
    asked: Space,
    answer: SpaceAnswer,
    now_ms: int,
    held: range = NOTHING,
    *,
    muted: bool = False,
    watch: Watch | None = None,
) -> None:
    """Takes a space's answer without error. `asked`: the space as the request described it.

    held: the counters of the changes that the request carried. muted: it carries none, on purpose.
    watch: told of the rows that changed, after the commit.
    """
    complete = answer.page is None and answer.cursor is not None
    if not complete and not answer.rejected:
        with writing(db):
            _decide(db, asked.no, answer, now_ms, held)
            if _still(db, asked) and (muted or not unasked(db, asked.no, answer)):
                _stage(db, asked, answer)
        return
    with applying(db, asked.no, now_ms, watch) as frame:
        _show_again(frame, _decide(db, asked.no, answer, now_ms, held))
        if not _still(db, asked) or (unasked(db, asked.no, answer) and not muted):
            return
        if complete:
            # Only muted changes may be decided and pending still: the records have them already.
            db.execute(
                "UPDATE rejoin_changes SET folded = 1 WHERE space = ? AND state = 'pending'"
                " AND counter <= ?",
                (asked.no, answer.covered or 0),
            )
            _complete(frame, asked, answer, now_ms, held)
        else:
            _stage(db, asked, answer)


def unasked(db: sqlite3.Connection, no: int, answer: SpaceAnswer) -> bool:
    """Whether a counter that the server has decided is pending here, and was not in the request.

    Only the change itself can tell whose it is: our own, whose answer was lost, or a twin's (a
    copied file uses the same counters). Until then the records of the answer can't be taken: our
    own change may be in them already, and would count twice.
    """
    return (
        answer.covered is not None
        and db.execute(
            "SELECT 1 FROM rejoin_changes WHERE space = ? AND state = 'pending' AND counter <= ?"
            " LIMIT 1",
            (no, answer.covered),
        ).fetchone()
        is not None
    )


def _still(db: sqlite3.Connection, asked: Space) -> bool:
    """Whether the file stands where the request said. Another process may have synced meanwhile."""
    now = spaces.read(db, asked.no)
    return (now.pull_cursor, now.page, now.epoch) == (asked.pull_cursor, asked.page, asked.epoch)


def _stage(db: sqlite3.Connection, asked: Space, answer: SpaceAnswer) -> None:
    if answer.page is None:
        return
    db.execute(
        "INSERT INTO rejoin_staged (space, records) VALUES (?, ?)",
        (asked.no, compact(answer.raw_records)),
    )
    db.execute(
        "UPDATE rejoin_spaces SET page = ?, head = ?, error = NULL,"
        " replacing = max(replacing, ?) WHERE no = ?",
        (answer.page, answer.head, answer.reset, asked.no),
    )


def _decide(
    db: sqlite3.Connection, no: int, answer: SpaceAnswer, now_ms: int, held: range
) -> list[str]:
    """Marks what the server decided of the request. Returns the bodies of those newly refused."""
    if answer.accepted is None:
        return []
    give_back(db, no, answer.accepted + 1)
    refused = []
    for counter, problem in answer.rejected:
        row = db.execute(
            "SELECT body FROM rejoin_changes WHERE space = ? AND counter = ?"
            " AND state <> 'rejected'",
            (no, counter),
        ).fetchone()
        if row and counter in held:
            refused.append(str(row[0]))
            refuse(db, no, counter, problem, now_ms)
    first, last = held.start, min(held.stop - 1, answer.accepted)
    if db.execute("SELECT 1 FROM rejoin_deletes LIMIT 1").fetchone():
        bodies = [
            str(r[0])
            for r in db.execute(
                "SELECT body FROM rejoin_changes WHERE space = ? AND state = 'pending'"
                " AND counter BETWEEN ? AND ?",
                (no, first, last),
            )
        ]
        _forget_deletes(db, no, [*bodies, *refused])
    db.execute(
        "DELETE FROM rejoin_refused WHERE space = ? AND device = ? AND counter IN (SELECT"
        " counter FROM rejoin_changes WHERE space = ? AND state = 'pending'"
        " AND counter BETWEEN ? AND ?)",
        (no, get_meta(db, "device_id"), no, first, last),
    )
    db.execute(
        "UPDATE rejoin_changes SET state = 'accepted', decided_at = ? WHERE space = ?"
        " AND state = 'pending' AND counter BETWEEN ? AND ?",
        (now_ms, no, first, last),
    )
    db.execute("UPDATE rejoin_spaces SET discarded = NULL, withdrawn = 0 WHERE no = ?", (no,))
    return refused


def _forget_deletes(db: sqlite3.Connection, no: int, bodies: Iterable[str]) -> None:
    for body in bodies:
        for op in json.loads(body)["ops"]:
            if op["op"] == "delete":
                db.execute(
                    "DELETE FROM rejoin_deletes WHERE id = ? AND collection ="
                    " (SELECT no FROM rejoin_collections WHERE space = ? AND name = ?)",
                    (op["id"], no, op["collection"]),
                )


def refuse(db: sqlite3.Connection, no: int, counter: int, problem: Problem, now_ms: int) -> None:
    """A change that will never be applied: it keeps its number, and is listed whole."""
    device = get_meta(db, "device_id") or ""
    error = {**problem.whole, "code": problem.code, "detail": problem.detail}
    db.execute(
        "INSERT OR REPLACE INTO rejoin_refused SELECT space, ?, counter, at, body, ?"
        " FROM rejoin_changes WHERE space = ? AND counter = ?",
        (device, compact(error), no, counter),
    )
    db.execute(
        "UPDATE rejoin_changes SET state = 'rejected', folded = 1, decided_at = ?"
        " WHERE space = ? AND counter = ?",
        (now_ms, no, counter),
    )
    document_rows.refused(db, no, counter)


def give_back(db: sqlite3.Connection, no: int, expected: int) -> None:
    """The server has less than it once had (a restored backup): what it lacks is pending again.

    What this device no longer has is named as discarded.
    """
    lost = db.execute(
        "SELECT count(*) FROM rejoin_changes WHERE space = ? AND counter >= ?"
        " AND state <> 'pending'",
        (no, expected),
    ).fetchone()[0]
    if lost:
        db.execute(
            "UPDATE rejoin_changes SET state = 'pending', decided_at = NULL"
            " WHERE space = ? AND counter >= ? AND state <> 'pending'",
            (no, expected),
        )
        document_rows.reindex(db, no)
    have = db.execute(
        "SELECT min(counter) FROM rejoin_changes WHERE space = ? AND counter >= ?", (no, expected)
    ).fetchone()[0]
    counter = spaces.read(db, no).counter
    first = have if have is not None else counter + 1
    if first > expected:
        db.execute("UPDATE rejoin_spaces SET discarded = ? WHERE no = ?", (first - 1, no))


def _show_again(frame: Applying, refused: list[str]) -> None:
    """The rows of refused changes show the server's values again; a refused new row stays."""
    for body in refused:
        for op in json.loads(body)["ops"]:
            at = (frame.replica.number(str(op["collection"])), str(op["id"]))
            frame.replica.show(at)
            if op.get("new"):
                _keep_stray(frame, at)


def _keep_stray(frame: Applying, at: tuple[int, str]) -> None:
    frame.strays.add(at)
    frame.db.execute("INSERT OR IGNORE INTO rejoin_strays VALUES (?, ?)", at)


def _complete(frame: Applying, asked: Space, answer: SpaceAnswer, now_ms: int, held: range) -> None:
    db, no = frame.db, asked.no
    deltas = [*_staged(db, no), *answer.records]
    # A transfer from 0 names no deletions: it is the whole space, as after a reset.
    replacing = asked.replacing or answer.reset or asked.pull_cursor == 0
    covered = COUNTER_MAX if answer.covered is None else answer.covered
    if replacing:
        # Own rows may be gone there too: another device has deleted them before we heard of it.
        for op in _ops(db, no, "state = 'accepted' AND folded = 0"):
            frame.replica.show((frame.replica.number(str(op["collection"])), str(op["id"])))
        # Nothing is folded: the pages are the whole truth. What was given back is shown again.
        db.execute(
            "UPDATE rejoin_changes SET folded = CASE state WHEN 'rejected' THEN 1"
            " WHEN 'accepted' THEN counter <= ? ELSE counter <= ? END WHERE space = ?",
            (covered, answer.covered or 0, no),
        )
        frame.replica.forget(deltas)
        own = f"state = 'accepted' AND counter BETWEEN {held.start} AND {held.stop - 1}"
        if _all_own(db, no, own, answer):
            document_rows.folded(db, no)
            for op in _ops(db, no, own):
                frame.replica.fold(op)
        else:
            document_rows.replaced(db, no)
    else:
        mine = f"state = 'accepted' AND folded = 0 AND counter <= {covered}"
        for op in _ops(db, no, mine):
            frame.replica.fold(op)
        db.execute(f"UPDATE rejoin_changes SET folded = 1 WHERE space = ? AND {mine}", (no,))
        document_rows.folded(db, no)
    for delta in deltas:
        frame.replica.take(delta, whole=replacing)
    db.execute("DELETE FROM rejoin_staged WHERE space = ?", (no,))
    db.execute(
        "UPDATE rejoin_spaces SET epoch = ?, cursor = ?, pull_cursor = ?, clock = NULL,"
        " page = NULL, replacing = 0, withdrawn = 0,"
        " error = NULL, synced_at = ?, head = ? WHERE no = ?",
        (answer.epoch, answer.cursor, answer.cursor, now_ms, answer.head, no),
    )
    db.execute(
        "DELETE FROM rejoin_changes WHERE space = ? AND state = 'accepted' AND folded = 1"
        " AND (decided_at < ? OR counter <= ?)",
        (no, now_ms - KEEP_MS, asked.counter - KEEP_CHANGES),
    )


def _staged(db: sqlite3.Connection, no: int) -> Iterator[Delta]:
    """The records of the pages before the last."""
    for (records,) in db.execute(
        "SELECT records FROM rejoin_staged WHERE space = ? ORDER BY n", (no,)
    ):
        page = parse(records)
        yield from (read_delta(r) for r in (page if isinstance(page, list) else []))


def _all_own(db: sqlite3.Connection, no: int, own: str, answer: SpaceAnswer) -> bool:
    """Whether the request's changes are the whole log: then there may be no records to tell."""
    count = db.execute(
        f"SELECT count(*) FROM rejoin_changes WHERE space = ? AND {own}", (no,)
    ).fetchone()[0]
    return bool(count) and count == answer.cursor


def _ops(db: sqlite3.Connection, no: int, which: str) -> list[Op]:
    """The operations of some changes, in order."""
    return [
        op
        for (body,) in db.execute(
            f"SELECT body FROM rejoin_changes WHERE space = ? AND {which} ORDER BY counter", (no,)
        )
        for op in json.loads(body)["ops"]
    ]


def drop_pages(db: sqlite3.Connection, no: int) -> None:
    """An interrupted pull that can't be taken up again starts over from its cursor."""
    with writing(db):
        db.execute("DELETE FROM rejoin_staged WHERE space = ?", (no,))
        db.execute("UPDATE rejoin_spaces SET page = NULL WHERE no = ?", (no,))


def withdraw(
    db: sqlite3.Connection,
    space: Space,
    problem: Problem,
    now_ms: int,
    watch: Watch | None = None,
) -> None:
    """The space is no longer ours: its rows leave this device, and no deletion is recorded.

    Changes that were never sent are listed as refused, whole.
    """
    with applying(db, space.no, now_ms, watch) as frame:
        for (counter,) in db.execute(
            "SELECT counter FROM rejoin_changes WHERE space = ? AND state = 'pending'", (space.no,)
        ).fetchall():
            refuse(db, space.no, counter, problem, now_ms)
        for home in frame.replica.homes.values():
            if home.space != space.no:
                continue
            _empty(frame, home)
            for table in ("records", "conflicts", "aside", "deletes"):
                db.execute(f"DELETE FROM rejoin_{table} WHERE collection = ?", (home.no,))
        document_rows.withdrawn(db, space.no)
        db.execute("DELETE FROM rejoin_staged WHERE space = ?", (space.no,))
        db.execute(
            "UPDATE rejoin_spaces SET withdrawn = 1, epoch = NULL, cursor = 0,"
            " pull_cursor = 0, clock = NULL, page = NULL, replacing = 1, synced_at = NULL"
            " WHERE no = ?",
            (space.no,),
        )


def _empty(frame: Applying, home: Collection) -> None:
    """The table's rows go, but for those that are nowhere else: the server never took them."""
    shape = frame.writer.shape(home)
    if shape is None:
        return
    kept = [
        value
        for no, record_id in frame.strays
        if no == home.no
        for value in home.row_key(record_id) or ()
    ]
    names = ", ".join(map(quote, shape.key))
    one = f"({', '.join('?' * len(shape.key))})"
    others = f" AND ({names}) NOT IN (VALUES {', '.join([one] * (len(kept) // len(shape.key)))})"
    identified = " AND ".join(f"{quote(k)} IS NOT NULL" for k in shape.key)
    frame.db.execute(
        f"DELETE FROM {quote(home.name)} WHERE {identified}{others if kept else ''}", kept
    )
    frame.changed_all(home)


def sealed(db: sqlite3.Connection) -> None:
    """Numbers what was recorded, in a transaction of its own."""
    if db.execute("SELECT 1 FROM rejoin_ops LIMIT 1").fetchone():
        with writing(db):
            seal(db)
