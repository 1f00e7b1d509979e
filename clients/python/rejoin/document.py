"""`db.document()`: one document field of one row, for the app to edit."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rejoin import documents, settle
from rejoin.collections import Collection
from rejoin.errors import RejoinError, TrackingError
from rejoin.rows import Key, read_row
from rejoin.schema import KEY_NAMES
from rejoin.shape import quote, read_shape
from rejoin.triggers import AT
from rejoin.values import SqlValue

if TYPE_CHECKING:
    from rejoin.database import Database


class Document:
    """See `Database.document`. Holds nothing: each call reads the file, and writes it."""

    def __init__(self, db: Database, home: Collection, key: Key, column: str) -> None:
        if column not in documents.fields_of(home):
            raise TrackingError(
                f'{home.name}.{column} is no document: track it as one, {column}="document".'
            )
        documents.library()
        self._db = db
        self._home = home
        self._key = key
        self._column = column
        self._at = (home.no, home.record_id(key))

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """Its text, as the column shows it."""
        return documents.text(self._db.connection, self._at, self._column)

    def update(self, since: bytes = b"\0") -> bytes:
        """A Yjs update with all that one with this state vector lacks; usually, with everything."""
        doc = documents.opened(self._db.connection, self._at, self._column)
        return bytes(doc.get_update(since))

    @contextmanager
    def edit(self) -> Iterator[Any]:
        """The `pycrdt.Text`, to be edited inside; one change, or part of the open transaction's.

        Positions count bytes of UTF-8, as pycrdt does. The row must be there. Raises RejoinError
        where the edit is larger than the server takes at once (1 MiB).
        """
        with self._changing() as doc:
            yield documents.root_of(doc)

    def apply(self, update: bytes) -> None:
        """A Yjs update that a document of the app's own has made, as an edit of this device."""
        with self._changing() as doc:
            doc.apply_update(update)

    def write(self, wanted: str) -> None:
        """Makes the text this one; what others write elsewhere in it meanwhile stands."""
        with self._changing() as doc:
            documents.rewrite(doc, documents.root_of(doc), wanted)

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        if not self._db.connection.in_transaction:
            settle.sealed(self._db.file)
        with self._db.transaction() as db:
            row = read_row(db, self._home, self._key)
            if row is None:
                raise RejoinError(f"There is no row {self._key} in {self._home.name}.")
            doc = documents.opened(db, self._at, self._column, writing=True)
            with documents.listening(doc) as made:
                # Plain SQL may have written the column in this very transaction.
                shown = row[self._column]
                documents.rewrite(doc, documents.root_of(doc), "" if shown is None else str(shown))
                yield doc
            update = documents.joined(made)
            if update is not None:
                self._record(db, row, update, str(documents.root_of(doc)))

    def _record(
        self, db: sqlite3.Connection, row: dict[str, SqlValue], update: bytes, text: str
    ) -> None:
        if len(update) > documents.EDIT_BYTES_MAX:
            raise RejoinError(
                f"An edit of {len(update):,} bytes is more than the server takes at once"
                f" ({documents.EDIT_BYTES_MAX:,}); make several of it."
            )
        home = self._home
        n = documents.keep(db, self._at, self._column, update, documents.UNNUMBERED)
        shape = read_shape(db, home.name, {})
        key = [row[name] for name in shape.key]  # as it is stored: '7' may be 7 there
        where = " AND ".join(f"{quote(k)} = ?" for k in shape.key)
        db.execute(
            f"UPDATE {quote(home.name)} SET {quote(self._column)} = ? WHERE {where}",
            (text, *key),
        )
        keys = KEY_NAMES[: len(key)]
        db.execute(
            f"INSERT INTO rejoin_ops (kind, collection, part, grp, at, epoch, cursor,"
            f" {', '.join(keys)}, v0, v1)"
            f" SELECT 'e', ?, 0, s.grp, {AT}, p.epoch, p.cursor, {', '.join('?' * len(keys))}, ?, ?"
            f" FROM rejoin_state AS s, rejoin_spaces AS p WHERE p.no = ?",
            (home.no, *key, self._column, n, home.space),
        )
