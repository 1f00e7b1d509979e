"""Documents over HTTP: edits, deltas, what SQL sees, and bounds."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pycrdt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app.runtime import EXTENSION
from tests.contract.devices import phone, put


class Editor:
    """A Yjs document with one text, as an editor keeps it; `made` are its own updates."""

    def __init__(self, client_id: int) -> None:
        self.doc: Any = pycrdt.Doc(client_id=client_id)
        self.text = self.doc.get("text", type=pycrdt.Text)
        self.made: list[bytes] = []

    def type(self, at: int, words: str, *, cut: int = 0) -> bytes:
        """The update of one edit."""
        before = self.doc.get_state()
        with self.doc.transaction():
            if cut:
                del self.text[at : at + cut]
            self.text.insert(at, words)
        update: bytes = self.doc.get_update(before)
        self.made.append(update)
        return update

    def take(self, record: dict[str, Any], field: str = "body") -> None:
        self.doc.apply_update(base64.b64decode(record["documents"][field]))

    def __str__(self) -> str:
        return str(self.text)


def edit(update: bytes, id_: str = "n1", field: str = "body") -> dict[str, Any]:
    shown = base64.b64encode(update).decode()
    return {"op": "edit", "collection": "tasks", "id": id_, "field": field, "update": shown}


@pytest.fixture
def data(app: Flask) -> Callable[[str], Any]:
    """The plain values of a record, as SQL shows them."""

    def read(id_: str) -> Any:
        with app.extensions[EXTENSION].begin() as connection:
            found = connection.execute(text("SELECT data FROM records WHERE id = :id"), {"id": id_})
            return found.scalar_one()

    return read


def test_two_devices_that_edit_offline_end_with_one_text(
    client: FlaskClient, data: Callable[[str], Any]
) -> None:
    one = phone(client)
    two, a, b = phone(client, one.email), Editor(1), Editor(2)
    one.sync(one.change(put("n1", new=True, title="Notes"), edit(a.type(0, "Hello"))))
    (record,) = two.sync()["records"]
    assert record["fields"] == {"title": "Notes"}
    b.take(record)
    first, second = a.type(5, " world"), b.type(0, "Oh! ")
    one.sync(one.change(edit(first)))
    (back,) = two.sync(two.change(edit(second)))["records"]
    b.take(back)
    (news,) = one.sync()["records"]
    assert (news["fields"], list(news["documents"])) == ({}, ["body"])
    a.take(news)
    assert str(a) == str(b) == data("n1")["body"] == "Oh! Hello world"
    assert data("n1")["title"] == "Notes"
