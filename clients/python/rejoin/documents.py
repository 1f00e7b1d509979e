"""Document fields: Yjs updates in the file, their text in the app's column.

All that a document is here stands in `rejoin_documents`: what the server has said (`counter` NULL),
own edits that wait (their change's counter), and own edits not numbered yet (0). A document is
opened for one call, under the file's lock, and closed again; so every edit of this file stands on
all edits before it, and one Yjs client id serves them all. That id must never say two things: it is
renewed with each `open()` (the file may be a restored backup), and whenever updates leave the file.

pycrdt is needed where documents are opened, and nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from rejoin.collections import Collection
from rejoin.edits import Op
from rejoin.errors import RejoinError
from rejoin.schema import get_meta, set_meta
from rejoin.values import Json, SqlValue, to_json

At = tuple[int, str]
"""(collection number, record id)"""
ROOT = "text"
"""The name of the Y.Text that this device begins. A document that is one text of another name (an
editor's) is shown and edited under that one."""
FOLD_ABOVE = 50
"""Updates of the server's for one document; more are folded into one."""
PIECE_CHARS = 100_000
"""Of a text that plain SQL wrote, in one update: far below the server's 1 MiB, in any script."""
EDIT_BYTES_MAX = 1 << 20
"""The protocol's bound for one update."""
UNNUMBERED = 0
SO_FAR = -1
"""The counter of a row that holds all rows of its document before it, so that a document with many
own edits is opened at once. It goes when one of those goes."""
IS_SO_FAR = f"counter = {SO_FAR}"
NOTHING = b"\0\0"
"""The update that says nothing."""
AT = "collection = ? AND id = ? AND field = ?"


def library() -> ModuleType:
    """pycrdt. Raises RejoinError, in words, where it is not installed."""
    try:
        import pycrdt
    except ImportError as error:
        raise RejoinError(
            "Document columns need pycrdt, which is not installed here:"
            " pip install 'rejoin-client[documents]'. Your data and pending changes are kept."
        ) from error
    return pycrdt


def fields_of(home: Collection) -> list[str]:
    """The document columns of a tracked table."""
    return [name for name, kind in (home.kinds or {}).items() if kind == "document"]


# ---- the client id


def renew_client(db: sqlite3.Connection) -> None:
    """A Yjs client id that nobody has used: what it said before may be gone from this file."""
    set_meta(db, "yjs_client", secrets.randbits(32))


def renew_if_used(db: sqlite3.Connection) -> None:
    """At `open()`: only a file that has edited documents has an id to renew."""
    if get_meta(db, "yjs_client") is not None:
        renew_client(db)


def _client(db: sqlite3.Connection) -> int:
    found = get_meta(db, "yjs_client")
    if found is None:
        renew_client(db)
        return _client(db)
    return int(found)


# ---- one document


def opened(db: sqlite3.Connection, at: At, field: str, *, writing: bool = False) -> Any:
    """A `pycrdt.Doc` with all that this file knows of the field. writing: inside a transaction
    that writes anyway, many updates are put together for the next time."""
    made = library().Doc(client_id=_client(db))
    rows = _rows(db, at, field)
    if writing and len(rows) > FOLD_ABOVE:
        whole = _squashed(rows)
        db.execute(f"DELETE FROM rejoin_documents WHERE {AT} AND {IS_SO_FAR}", (*at, field))
        keep(db, at, field, whole, SO_FAR)
        rows = [whole]
    for update in rows:
        made.apply_update(update)
    return made


def _squashed(updates: list[bytes]) -> bytes:
    """One update for several, typing in it joined to runs. Opening a run that is still in letters
    takes the square of their number. What was deleted stays: others may still refer to it.
    """
    doc = library().Doc(skip_gc=True)
    for update in updates:
        doc.apply_update(update)
    squashed, merged = bytes(doc.get_update()), joined(updates) or NOTHING
    # pycrdt loses count where someone refers to one half of a character that takes two clocks.
    get_state = library().get_state
    return squashed if get_state(squashed) == get_state(merged) else merged


def _rows(db: sqlite3.Connection, at: At, field: str) -> list[bytes]:
    """The updates it takes: what was put together last, and what has come since."""
    start = db.execute(
        f"SELECT max(n) FROM rejoin_documents WHERE {AT} AND {IS_SO_FAR}", (*at, field)
    ).fetchone()[0]
    return [
        bytes(data)
        for (data,) in db.execute(
            f"SELECT data FROM rejoin_documents WHERE {AT} AND n >= ? ORDER BY n",
            (*at, field, start or 0),
        )
    ]


def root_of(doc: Any) -> Any:
    """Its text: the one there is, whatever its name, else ours."""
    kind = library().Text
    texts = [made for name in doc.keys() if str(made := doc.get(name, type=kind))]  # noqa: SIM118
    return texts[0] if len(texts) == 1 else doc.get(ROOT, type=kind)


def text(db: sqlite3.Connection, at: At, field: str) -> str:
    """What the column shows; "" where nobody has written."""
    known = db.execute(
        "SELECT 1 FROM rejoin_documents WHERE collection = ? AND id = ? AND field = ? LIMIT 1",
        (*at, field),
    ).fetchone()
    return str(root_of(opened(db, at, field))) if known else ""


@contextmanager
def listening(doc: Any) -> Iterator[list[bytes]]:
    """The updates that what is done to the document inside makes."""
    made: list[bytes] = []
    subscription = doc.observe(lambda event: made.append(event.update))
    try:
        yield made
    finally:
        doc.unobserve(subscription)  # else pycrdt keeps the document for ever


def joined(updates: list[bytes]) -> bytes | None:
    """One update for several; None for none."""
    if not updates:
        return None
    return updates[0] if len(updates) == 1 else bytes(library().merge_updates(*updates))


# ---- edits


def keep(db: sqlite3.Connection, at: At, field: str, update: bytes, counter: int | None) -> int:
    """Puts an update into the file; returns its number there."""
    return int(
        db.execute(
            "INSERT INTO rejoin_documents (collection, id, field, counter, data)"
            " VALUES (?, ?, ?, ?, ?) RETURNING n",
            (*at, field, counter, update),
        ).fetchone()[0]
    )


def edit_op(collection: str, record_id: str, field: str, update: bytes) -> Op:
    """The operation that says an update."""
    return {
        "op": "edit",
        "collection": collection,
        "id": record_id,
        "field": field,
        "update": base64.b64encode(update).decode(),
    }


def text_ops(
    db: sqlite3.Connection, home: Collection, record_id: str, field: str, value: SqlValue
) -> list[Op]:
    """What plain SQL wrote into the column, as edits of what stood there. May be none.

    A blob, or text that is no UTF-8, is sent as it is, to be refused by name.
    """
    wanted = _as_text(value)
    if wanted is None:
        return [{**edit_op(home.name, record_id, field, b""), "update": to_json(value)}]
    at = (home.no, record_id)
    if not wanted and not text(db, at, field):
        return []
    doc = opened(db, at, field, writing=True)
    with listening(doc) as made:
        rewrite(doc, root_of(doc), wanted)
    for update in made:
        keep(db, at, field, update, UNNUMBERED)
    return [edit_op(home.name, record_id, field, update) for update in made]


def _as_text(value: SqlValue) -> str | None:
    if isinstance(value, bytes):
        return None
    wanted = "" if value is None else str(value)
    try:
        wanted.encode()
    except UnicodeEncodeError:
        return None
    return wanted


def rewrite(doc: Any, root: Any, wanted: str) -> None:
    """Makes the text the wanted one by one cut and one insertion, so that others' edits elsewhere
    in it stand. pycrdt counts bytes of UTF-8."""
    stands = str(root)
    head = _common(stands, wanted)
    tail = _common(stands[head:][::-1], wanted[head:][::-1])
    start = len(stands[:head].encode())
    gone = len(stands[head : len(stands) - tail].encode())
    fresh = wanted[head : len(wanted) - tail]
    if gone:
        with doc.transaction():
            del root[start : start + gone]
    for i in range(0, len(fresh), PIECE_CHARS):
        piece = fresh[i : i + PIECE_CHARS]
        with doc.transaction():
            root.insert(start, piece)
        start += len(piece.encode())


def _common(one: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    most = min(len(one), len(other))
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def bytes_of(value: Json) -> bytes | None:
    """An update as it travels in JSON; None where it is none."""
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
