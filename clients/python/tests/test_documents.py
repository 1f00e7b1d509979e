"""Document fields: edited by hand, by plain SQL and by others, offline and live."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycrdt
import pytest

import rejoin
from rejoin import documents, schema
from rejoin_testing.device import Maker
from rejoin_testing.fake_server import Answer, FakeServer

NOTES = "CREATE TABLE notes (id TEXT PRIMARY KEY, title TEXT, body TEXT)"
Opener = Callable[[str], rejoin.Database]


@pytest.fixture
def note(device: Maker) -> Opener:
    def make(name: str) -> rejoin.Database:
        return device(name, NOTES, "notes", kinds={"body": "document"})

    return make


def body(db: rejoin.Database, record_id: str = "n1") -> Any:
    """What the column shows, which is what the document says."""
    (shown,) = db.execute("SELECT body FROM notes WHERE id = ?", (record_id,)).fetchone()
    assert str(db.document("notes", record_id, "body")) == (shown or "")
    return shown


def meet(*devices: rejoin.Database) -> None:
    for _ in range(2):
        for db in devices:
            db.sync()


def begin(a: rejoin.Database, b: rejoin.Database, text: str = "one two") -> None:
    a.execute("INSERT INTO notes (id, body) VALUES ('n1', ?)", (text,))
    meet(a, b)
    assert body(b) == text


def test_two_who_edit_offline_both_find_their_words(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    with a.document("notes", "n1", "body").edit() as text:
        text.insert(3, " and")
    with b.document("notes", "n1", "body").edit() as text:
        text.insert(len(text), " three")
        del text[0:1]
        text.insert(0, "O")
    meet(a, b)
    assert body(a) == body(b) == "One and two three"


def test_plain_sql_is_an_edit_of_what_differs(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b, "Grüße 😀 aus Köln")
    a.execute("UPDATE notes SET body = replace(body, 'Köln', 'Bonn')")
    b.execute("UPDATE notes SET body = 'Viele ' || body")
    b.execute("UPDATE notes SET body = replace(body, '😀', '😀😀')")
    meet(a, b)
    assert body(a) == body(b) == "Viele Grüße 😀😀 aus Bonn"


def test_edits_travel_in_the_change_of_their_transaction(note: Opener) -> None:
    a = note("a")
    with a.transaction():
        a.execute("INSERT INTO notes (id, title, body) VALUES ('n1', 'T', 'Hello')")
        with a.document("notes", "n1", "body").edit() as text:
            text.insert(len(text), ", world")
        a.execute("UPDATE notes SET body = body || '!', title = 'U'")
    (change,) = a.log()
    assert [op["op"] for op in change["ops"]] == ["put", "edit", "edit"]
    assert change["ops"][0]["fields"] == {"title": "U"}
    a.sync()
    assert body(a) == "Hello, world!"
    other = pycrdt.Doc[Any]()
    for op in change["ops"][1:]:
        other.apply_update(documents.bytes_of(op["update"]) or b"")
    assert str(other.get("text", type=pycrdt.Text)) == "Hello, world!"


def spoil(document: rejoin.Document) -> None:
    with document.edit() as text:
        text.insert(0, "y")
        raise ZeroDivisionError


def test_an_edit_that_is_rolled_back_was_never_made(note: Opener) -> None:
    a = note("a")
    a.execute("INSERT INTO notes (id, body) VALUES ('n1', 'x')")
    before = len(a.log())
    with pytest.raises(ZeroDivisionError):
        spoil(a.document("notes", "n1", "body"))
    assert body(a) == "x"
    assert len(a.log()) == before


def test_a_document_of_the_apps_own_gives_and_takes_updates(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    mine = pycrdt.Doc[Any]()
    mine.apply_update(a.document("notes", "n1", "body").update())
    seen = mine.get_state()
    text = mine.get("text", type=pycrdt.Text)
    text += " 3"
    a.document("notes", "n1", "body").apply(mine.get_update(seen))
    b.document("notes", "n1", "body").write("0 one two")
    meet(a, b)
    assert body(a) == body(b) == "0 one two 3"
    mine.apply_update(a.document("notes", "n1", "body").update(mine.get_state()))
    assert str(text) == "0 one two 3"


def test_an_editors_document_is_shown_whatever_its_text_is_called(
    note: Opener, server: FakeServer
) -> None:
    a = note("a")
    begin(a, note("b"), "")
    theirs = pycrdt.Doc[Any]()
    theirs.get("codemirror", type=pycrdt.Text).insert(0, "typed")
    server.write(edit(theirs.get_update()))
    a.sync()
    assert body(a) == "typed"
    with a.document("notes", "n1", "body").edit() as text:
        text.insert(len(text), "!")
    a.sync()
    for _, update in server.rows["notes", "n1"]["documents"]["body"]:
        theirs.apply_update(update)
    assert str(theirs.get("codemirror", type=pycrdt.Text)) == "typed!"


def edit(update: bytes) -> Answer:
    return documents.edit_op("notes", "n1", "body", update)


def test_a_refused_edit_is_taken_back_and_later_ones_are_not_lost(
    note: Opener, server: FakeServer
) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    server.refuse = lambda change: {"code": "bad_update", "detail": "no"}
    a.document("notes", "n1", "body").write("refused")
    a.sync()
    assert body(a) == "one two"
    server.refuse = lambda change: None
    a.document("notes", "n1", "body").write("one two three")
    meet(a, b)
    assert body(a) == body(b) == "one two three"


def test_a_clone_of_the_file_never_speaks_with_its_twins_voice(
    note: Opener, server: FakeServer, tmp_path: Path
) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    a.sync()
    with sqlite3.connect(tmp_path / "twin.sqlite") as copy:
        a.connection.backup(copy)
    copy.close()
    with rejoin.open(tmp_path / "twin.sqlite", http=server) as twin:
        a.document("notes", "n1", "body").write("one two A")
        twin.document("notes", "n1", "body").write("one two B")
        ours = pycrdt.Doc[Any]()
        for db in (a, twin):
            ours.apply_update(db.document("notes", "n1", "body").update())
        assert str(ours.get("text", type=pycrdt.Text)) in ("one two A B", "one two B A")


def test_a_row_deleted_and_made_anew_shows_what_was_written_then(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    with a.transaction():
        a.document("notes", "n1", "body").write("last words")
        a.execute("DELETE FROM notes")
        a.execute("INSERT INTO notes (id, body) VALUES ('n1', 'fresh')")
    meet(a, b)
    assert body(a) == body(b) == "fresh"
    a.execute("DELETE FROM notes")
    meet(a, b)
    assert b.execute("SELECT count(*) FROM notes").fetchone() == (0,)


def test_rows_that_stood_there_before_tracking_become_documents(device: Maker) -> None:
    a = device("a", "", login=True)
    a.connection.executescript(NOTES + "; INSERT INTO notes VALUES ('n1', 't', 'was here')")
    assert a.track("notes", body="document") == 1
    b = device("b", NOTES, "notes", kinds={"body": "document"})
    meet(a, b)
    assert body(b) == "was here"


def test_many_updates_are_folded_into_one(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b, "")
    for i in range(documents.FOLD_ABOVE + 5):
        with a.document("notes", "n1", "body").edit() as text:
            text.insert(len(text), f"{i} ")
        a.sync()
        b.sync()
    assert body(a) == body(b)
    (count,) = b.connection.execute("SELECT count(*) FROM rejoin_documents").fetchone()
    assert count <= documents.FOLD_ABOVE
    (waiting,) = a.connection.execute(
        "SELECT count(*) FROM rejoin_documents WHERE counter IS NOT NULL"
    ).fetchone()
    assert waiting == 0


def test_what_is_typed_is_kept_in_runs_and_not_in_letters(note: Opener) -> None:
    a, b = note("a"), note("b")
    begin(a, b)
    letters = documents.FOLD_ABOVE * 4
    for _ in range(letters):
        with a.document("notes", "n1", "body").edit() as text:
            text.insert(len(text), "x")
    kept = "SELECT length(data) FROM rejoin_documents WHERE counter = ?"
    (size,) = a.connection.execute(kept, (documents.SO_FAR,)).fetchone()
    # A letter alone takes some 15 bytes.
    assert size < letters * 2
    meet(a, b)
    assert body(a) == body(b) == "one two" + "x" * letters


def test_without_pycrdt_it_says_what_to_install(
    note: Opener, device: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = note("a")
    monkeypatch.setitem(__import__("sys").modules, "pycrdt", None)
    with pytest.raises(rejoin.RejoinError, match=r"pip install 'rejoin-client\[documents\]'"):
        a.document("notes", "n1", "body")
    a.execute("INSERT INTO notes (id, body) VALUES ('n1', 'kept')")
    with pytest.raises(rejoin.RejoinError, match="pycrdt"):
        a.sync()
    monkeypatch.undo()
    a.sync()
    assert body(a) == "kept"


def test_mistakes_are_answered_in_words(note: Opener, device: Maker) -> None:
    a = note("a")
    with pytest.raises(rejoin.TrackingError, match="no document"):
        a.document("notes", "n1", "title")
    with pytest.raises(rejoin.RejoinError, match="no row"):
        a.document("notes", "n9", "body").write("x")
    with pytest.raises(rejoin.TrackingError, match="declare it TEXT"):
        device("c", "CREATE TABLE t (id TEXT PRIMARY KEY, n INTEGER)", "t", kinds={"n": "document"})
    a.execute("INSERT INTO notes (id) VALUES ('n1')")
    with pytest.raises(rejoin.RejoinError, match="more than the server takes"):
        a.document("notes", "n1", "body").write("x" * (1 << 20) + "y")
    assert body(a) is None


def test_documents_of_an_older_file_move_to_their_table(tmp_path: Path) -> None:
    doc = pycrdt.Doc[Any]()
    doc.get("text", type=pycrdt.Text).insert(0, "old")
    update = json.dumps({"body": [documents.edit_op("", "", "", doc.get_update())["update"]]})
    path = tmp_path / "old.sqlite"
    plain = sqlite3.connect(path)
    plain.executescript(
        schema.LOCAL_TABLES.replace(
            "conflicts TEXT, PRIMARY", "conflicts TEXT, documents TEXT, PRIMARY"
        )
        + "DROP TABLE rejoin_documents; INSERT INTO rejoin_meta VALUES ('format', '2');"
    )
    plain.execute("INSERT INTO rejoin_records VALUES (1, 'n1', 1, '{}', NULL, ?)", (update,))
    plain.commit()
    plain.close()
    with rejoin.open(path) as db:
        assert documents.text(db.file, (1, "n1"), "body") == "old"
        assert db.file.execute("SELECT value FROM rejoin_meta WHERE key = 'format'").fetchone() == (
            schema.FORMAT,
        )
