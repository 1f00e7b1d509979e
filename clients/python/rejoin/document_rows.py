"""What becomes of documents' updates in the file: numbered, folded, refused, replaced, taken."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping

from rejoin import documents
from rejoin.documents import At
from rejoin.edits import Op
from rejoin.errors import RejoinError
from rejoin.values import Json, JsonObject

FOLDED = (
    "(counter > 0 AND EXISTS (SELECT 1 FROM rejoin_changes AS c WHERE c.space = ?"
    " AND c.counter = rejoin_documents.counter AND c.folded = 1))"
)
OWN = "(SELECT no FROM rejoin_collections WHERE space = ?)"


def numbered(db: sqlite3.Connection, space: int, counter: int, ops: Iterable[Op]) -> None:
    """The edits among these operations now belong to a change."""
    for op in ops:
        if op["op"] == "edit" and (update := _update_of(op)) is not None:
            db.execute(
                "UPDATE rejoin_documents SET counter = ? WHERE counter = 0 AND id = ?"
                " AND field = ? AND data = ? AND collection ="
                " (SELECT no FROM rejoin_collections WHERE space = ? AND name = ?)",
                (counter, op["id"], op["field"], update, space, op["collection"]),
            )


def reindex(db: sqlite3.Connection, space: int) -> None:
    """Own edits as the changes have them, after those were numbered anew or are pending again."""
    _apart(db)
    db.execute(f"DELETE FROM rejoin_documents WHERE counter > 0 AND collection IN {OWN}", (space,))
    for counter, body in db.execute(
        "SELECT counter, body FROM rejoin_changes WHERE space = ? AND state <> 'rejected'"
        " AND (folded = 0 OR state = 'pending') ORDER BY counter",
        (space,),
    ).fetchall():
        for op in json.loads(body)["ops"]:
            if op["op"] == "edit" and (update := _update_of(op)) is not None:
                no = db.execute(
                    "SELECT no FROM rejoin_collections WHERE space = ? AND name = ?",
                    (space, op["collection"]),
                ).fetchone()[0]
                documents.keep(db, (no, op["id"]), op["field"], update, counter)


def refused(db: sqlite3.Connection, space: int, counter: int) -> None:
    """An own change was refused: what it wrote is not in the document any more."""
    _gone(
        db,
        db.execute(
            f"DELETE FROM rejoin_documents WHERE counter = ? AND collection IN {OWN}",
            (counter, space),
        ).rowcount,
    )


def folded(db: sqlite3.Connection, space: int) -> None:
    """Own changes were folded: what they wrote is the server's word now."""
    db.execute(
        f"UPDATE rejoin_documents SET counter = NULL WHERE {FOLDED} AND collection IN {OWN}",
        (space, space),
    )


def replaced(db: sqlite3.Connection, space: int) -> None:
    """Before a transfer of the whole space: it brings all that the server has."""
    _gone(
        db,
        db.execute(
            f"DELETE FROM rejoin_documents WHERE (counter IS NULL OR {FOLDED})"
            f" AND collection IN {OWN}",
            (space, space),
        ).rowcount,
    )


def withdrawn(db: sqlite3.Connection, space: int) -> None:
    """The space's documents leave this device, with its records."""
    _gone(
        db,
        db.execute(f"DELETE FROM rejoin_documents WHERE collection IN {OWN}", (space,)).rowcount,
    )


def forget(db: sqlite3.Connection, ats: Iterable[At]) -> None:
    """Records that live no more: what the server had said of their documents."""
    _gone(
        db,
        sum(
            db.execute(
                "DELETE FROM rejoin_documents WHERE collection = ? AND id = ? AND counter IS NULL",
                at,
            ).rowcount
            for at in ats
        ),
    )


def _gone(db: sqlite3.Connection, count: int) -> None:
    if count:
        documents.renew_client(db)
        _apart(db)


def _apart(db: sqlite3.Connection) -> None:
    """Rows were taken away, so nothing that was put together holds."""
    db.execute(f"DELETE FROM rejoin_documents WHERE {documents.IS_SO_FAR}")


def take(db: sqlite3.Connection, at: At, told: JsonObject, *, whole: bool) -> None:
    """The documents of a delta. whole: they are all there is."""
    if (
        whole
        and db.execute(
            "DELETE FROM rejoin_documents WHERE collection = ? AND id = ? AND counter IS NULL", at
        ).rowcount
    ):
        _apart(db)
    for field, value in told.items():
        update = documents.bytes_of(value)
        if update is not None:
            documents.keep(db, at, field, update, None)
            _fold(db, at, field)


def _fold(db: sqlite3.Connection, at: At, field: str) -> None:
    rows = db.execute(
        "SELECT n, data FROM rejoin_documents WHERE collection = ? AND id = ? AND field = ?"
        " AND counter IS NULL ORDER BY n",
        (*at, field),
    ).fetchall()
    if len(rows) <= documents.FOLD_ABOVE:
        return
    try:
        whole = documents.joined([data for _, data in rows])
    except RejoinError:
        return  # without pycrdt they are kept as they came
    db.executemany("DELETE FROM rejoin_documents WHERE n = ?", [(n,) for n, _ in rows])
    if whole is not None:
        documents.keep(db, at, field, whole, None)


def _update_of(op: Mapping[str, Json]) -> bytes | None:
    return documents.bytes_of(op.get("update"))
