"""Documents over HTTP: edits, deltas, what SQL sees, and bounds."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgpack
import pycrdt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from app.runtime import EXTENSION, Runtime
from storage import documents as stored
from storage import upkeep
from sync import documents
from tests.contract.devices import Phone, delete, increment, phone, put

MSGPACK = "application/msgpack"


class Editor:
    """A Yjs document with one text, as an editor keeps it."""

    def __init__(self, client_id: int) -> None:
        self.doc: Any = pycrdt.Doc(client_id=client_id)
        self.text = self.doc.get("text", type=pycrdt.Text)
        self.made: list[bytes] = []
        self._watch = self.doc.observe(lambda event: self.made.append(event.update))

    def type(self, at: int, words: str, *, cut: int = 0) -> bytes:
        """The update of one edit."""
        with self.doc.transaction():
            if cut:
                del self.text[at : at + cut]
            self.text.insert(at, words)
        return self.made[-1]

    def take(self, record: dict[str, Any], field: str = "body") -> None:
        update = record["documents"][field]
        self.doc.apply_update(base64.b64decode(update) if isinstance(update, str) else update)

    def __str__(self) -> str:
        return str(self.text)


def edit(update: bytes, id_: str = "n1", field: str = "body") -> dict[str, Any]:
    shown = base64.b64encode(update).decode()
    return {"op": "edit", "collection": "tasks", "id": id_, "field": field, "update": shown}


def codes(answer: dict[str, Any]) -> list[str]:
    return [told["error"]["code"] for told in answer["rejected"]]


@pytest.fixture
def runtime(app: Flask) -> Runtime:
    found: Runtime = app.extensions[EXTENSION]
    return found


@pytest.fixture
def limited(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets limits for one test."""

    def limit(**limits: int) -> None:
        settings = runtime.settings
        smaller = replace(settings, limits=replace(settings.limits, **limits))
        monkeypatch.setattr(runtime, "settings", smaller)

    return limit


def sql(runtime: Runtime, of: Phone, statement: str) -> Any:
    """One value; the statement ends where the phone's space is to be named."""
    space = (
        " space_id = (SELECT personal_space_id FROM users u JOIN devices d ON d.user_id = u.id"
        " WHERE d.id = :device)"
    )
    with runtime.begin() as connection:
        return connection.execute(text(statement + space), {"device": of.device}).scalar_one()


@pytest.fixture
def data(runtime: Runtime) -> Callable[[Phone], Any]:
    """The plain values of the phone's record n1, as SQL shows them."""

    def read(of: Phone) -> Any:
        return sql(runtime, of, "SELECT data FROM records WHERE id = 'n1' AND")

    return read


def test_two_devices_that_edit_offline_end_with_one_text(
    client: FlaskClient, data: Callable[[Phone], Any]
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
    assert str(a) == str(b) == data(one)["body"] == "Oh! Hello world"
    assert data(one)["title"] == "Notes"


def test_in_messagepack_documents_are_bytes_in_and_out_and_in_the_log(client: FlaskClient) -> None:
    one, a, b = phone(client), Editor(1), Editor(2)
    op = {**edit(b""), "update": a.type(0, "Hello")}
    body = msgpack.packb({"changes": [one.change(op)], "counter": 1})
    headers = {**one.headers, "Content-Type": MSGPACK, "Accept": MSGPACK}
    pushed = client.post("/v1/spaces/me/push", data=body, headers=headers)
    assert msgpack.unpackb(pushed.data)["accepted"] == 1
    pulled = msgpack.unpackb(client.get("/v1/spaces/me/pull?cursor=0", headers=headers).data)
    b.take(pulled["records"][0])
    log = msgpack.unpackb(client.get("/v1/spaces/me/log", headers=headers).data)
    assert str(b) == "Hello"
    assert log["changes"][0]["ops"] == [op]
    assert one.get("/v1/spaces/me/log").json["changes"][0]["ops"] == [edit(a.made[0])]


def test_a_document_is_a_type_of_field_for_good(client: FlaskClient) -> None:
    one, a = phone(client), Editor(1)
    answer = one.sync(
        one.change(put("n1", new=True, title="x"), edit(a.type(0, "y"))),
        one.change(edit(a.made[0], field="title")),
        one.change(put("n1", body="text")),
        one.change(increment("n1", "body", 1)),
        one.change(put("n1", title="z")),
    )
    assert codes(answer) == ["field_type_mismatch"] * 3
    assert answer["accepted"] == 5


def test_an_edit_brings_a_deleted_row_back_whole_and_a_new_row_goes_on_with_its_document(
    client: FlaskClient, data: Callable[[Phone], Any]
) -> None:
    one, a = phone(client), Editor(1)
    two = phone(client, one.email)
    one.sync(one.change(put("n1", new=True, title="x"), edit(a.type(0, "Hello"))))
    two.sync()
    one.sync(one.change(delete("n1")))
    assert two.sync()["records"][0]["deleted"] is True
    one.sync(one.change(edit(a.type(5, "!"))))
    (back,) = two.sync()["records"]
    b = Editor(2)
    b.take(back)
    assert (back["replace"], back["fields"], str(b)) == (True, {"title": "x"}, "Hello!")
    one.sync(one.change(delete("n1")), one.change(put("n1", new=True, title="anew")))
    (anew,) = two.sync()["records"]
    c = Editor(3)
    c.take(anew)
    assert (anew["replace"], anew["fields"], str(c)) == (True, {"title": "anew"}, "Hello!")
    assert data(one) == {"title": "anew", "body": "Hello!"}


def test_a_new_device_gets_one_update_by_pull_and_by_snapshot(client: FlaskClient) -> None:
    one, a = phone(client), Editor(1)
    one.sync(*[one.change(edit(a.type(0, word))) for word in ("c", "b", "a")])
    for record in (
        one.pull_all()["tasks", "n1"],
        json.loads(one.get("/v1/spaces/me/snapshot").text.splitlines()[1]),
    ):
        b = Editor(2)
        b.take(record)
        assert (str(b), record["fields"]) == ("abc", {})


def test_edits_pushed_again_leave_the_document_as_it_was(
    client: FlaskClient, runtime: Runtime, data: Callable[[Phone], Any]
) -> None:
    one, a = phone(client), Editor(1)
    changes = [one.change(edit(a.type(0, "Hello"))), one.change(edit(a.type(5, "!")))]
    one.sync(*changes)
    size = "SELECT sum(octet_length(update)) FROM documents WHERE"
    before = sql(runtime, one, size)
    assert one.sync(*changes)["accepted"] == 2
    assert (sql(runtime, one, size), data(one)) == (before, {"body": "Hello!"})
    one.sync(one.change(edit(documents.merge(a.made))))
    assert data(one) == {"body": "Hello!"}


def test_an_update_before_what_it_depends_on_waits_and_comes_with_it(
    client: FlaskClient, data: Callable[[Phone], Any]
) -> None:
    one, a = phone(client), Editor(1)
    two, three = phone(client, one.email), phone(client, one.email)
    first, second, third = a.type(0, "a"), a.type(1, "b"), a.type(2, "c")
    one.sync(one.change(put("n1", new=True, title="x"), edit(third)), one.change(edit(second)))
    (early,) = three.sync()["records"]
    assert (early["fields"], "documents" in early) == ({"title": "x"}, False)
    assert data(one) == {"title": "x"}
    two.sync()
    # At the head, and all its own: but what had waited for it is news to its author too.
    (own,) = two.sync(two.change(edit(first)))["records"]
    for record in (own, *three.sync()["records"]):
        b = Editor(2)
        b.take(record)
        assert str(b) == "abc"
    assert data(one)["body"] == "abc"


def test_a_whole_document_ends_the_wait_for_what_never_comes(client: FlaskClient) -> None:
    one, a = phone(client), Editor(1)
    a.type(0, "lost ")
    one.sync(one.change(edit(a.type(5, "found"))))
    one.sync(one.change(edit(a.doc.get_update())))
    b = Editor(2)
    b.take(one.pull_all()["tasks", "n1"])
    assert str(b) == "lost found"


def test_only_so_many_updates_may_wait(
    client: FlaskClient, limited: Callable[..., None], data: Callable[[Phone], Any]
) -> None:
    limited(document_waiting=2)
    one, a = phone(client), Editor(1)
    for letter in "abcd":
        a.type(0, letter)
    answer = one.sync(*[one.change(edit(update)) for update in a.made[1:]])
    assert (answer["accepted"], codes(answer)) == (3, ["too_many_missing"])
    one.sync(one.change(edit(a.made[0])))
    assert data(one) == {"body": "cba"}


@pytest.mark.parametrize(
    "update",
    [
        b"",
        b"\0",
        b"\xff" * 400_000,
        b"\x80" * 400_000 + b"\0",
        b"garbage, no update",
        Editor(1).type(0, "Hello")[:-1],
        Editor(1).type(0, "Hello") + b"\0",
    ],
    ids=["nothing", "half", "huge varint", "long varint", "garbage", "cut", "more"],
)
def test_what_is_no_update_is_refused_alone_and_kept_whole(
    update: bytes, client: FlaskClient, runtime: Runtime, data: Callable[[Phone], Any]
) -> None:
    one, a = phone(client), Editor(1)
    good = one.change(edit(a.type(0, "a")))
    bad = one.change(put("n1", title="gone"), edit(update))
    answer = one.sync(good, bad, one.change(edit(a.type(1, "b"))))
    assert (answer["accepted"], codes(answer)) == (3, ["bad_update"])
    assert answer["rejected"][0]["error"]["op"] == 1
    assert data(one) == {"body": "ab"}
    kept = json.loads(sql(runtime, one, "SELECT body FROM quarantine WHERE"))
    assert kept["ops"] == bad["ops"]


def test_updates_and_documents_have_a_size(
    client: FlaskClient, limited: Callable[..., None], data: Callable[[Phone], Any]
) -> None:
    limited(document_update_bytes=1_000, document_bytes=1_500)
    one, a = phone(client), Editor(1)
    answer = one.sync(
        one.change(edit(a.type(0, "x" * 900))),
        one.change(edit(Editor(2).type(0, "y" * 1_000))),
        one.change(edit(Editor(3).type(0, "z" * 900))),
        one.change(edit(a.type(0, "a"))),
    )
    assert codes(answer) == ["document_update_too_large", "document_too_large"]
    assert data(one)["body"] == "a" + "x" * 900


def test_small_edits_count_as_what_they_come_to(
    client: FlaskClient, limited: Callable[..., None], runtime: Runtime
) -> None:
    limited(document_bytes=1_000)
    one, a = phone(client), Editor(1)
    changes = [one.change(edit(a.type(n, "x"))) for n in range(200)]
    assert sum(map(len, a.made)) > 2_000
    assert one.sync(*changes)["rejected"] == []
    assert sql(runtime, one, "SELECT sum(octet_length(update)) FROM documents WHERE") < 1_000
    b = Editor(2)
    b.take(one.pull_all()["tasks", "n1"])
    assert str(b) == "x" * 200


def test_a_document_of_thousands_of_edits_is_folded_and_every_cursor_gets_what_it_lacks(
    client: FlaskClient,
    runtime: Runtime,
    data: Callable[[Phone], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stored, "FOLD_ROWS", 8)
    one, a = phone(client), Editor(1)
    copies: list[tuple[Phone, Editor]] = []
    rows = "SELECT count(*) FROM documents WHERE"
    for batch in range(60):
        made = [
            a.type(n * min(batch, 1), f"{batch}.{n} ", cut=n % 3 * min(batch, 1)) for n in range(9)
        ]
        one.sync(*[one.change(edit(update)) for update in made])
        assert sql(runtime, one, rows) <= 2 * 8 + 1
        if batch % 15 == 0:
            copies.append((phone(client, one.email), Editor(1_000 + batch)))
        if batch % 10 == 0:
            for two, b in copies:
                b.take(two.sync()["records"][0])
                assert str(b) == str(a)
    assert sql(runtime, one, "SELECT max(level) FROM documents WHERE") == 2
    for two, b in copies:
        b.take(two.sync()["records"][0])
        assert str(b) == str(a)
    runtime.unshown.show_now()
    assert data(one) == {"body": str(a)}


def test_a_large_document_is_shown_a_moment_later(
    client: FlaskClient, runtime: Runtime, data: Callable[[Phone], Any]
) -> None:
    one, a = phone(client), Editor(1)
    one.sync(one.change(edit(a.type(0, "x" * 100_000))))
    one.sync(one.change(edit(a.type(0, "first "))))
    assert data(one) == {"body": "x" * 100_000}
    one.sync(one.change(edit(a.type(0, "very "))), one.change(put("n1", title="t")))
    assert data(one) == {"body": "x" * 100_000, "title": "t"}
    position = sql(runtime, one, "SELECT position FROM records WHERE")
    runtime.unshown.show_now()
    assert data(one) == {"body": "very first " + "x" * 100_000, "title": "t"}
    assert sql(runtime, one, "SELECT position FROM records WHERE") == position


def test_a_page_counts_the_bytes_of_documents(client: FlaskClient) -> None:
    one = phone(client)
    for n in range(4):
        update = Editor(n + 1).type(0, "x" * 700_000)
        one.sync(one.change(edit(update, f"n{n}"), put(f"n{n}", title=n)))
    sizes, page = [], None
    while page is not None or not sizes:
        query = {"page": page} if page else {}
        answer = one.get("/v1/spaces/me/pull", cursor=0, **query).json
        sizes.append(len(answer["records"]))
        page = answer["page"]
    assert sizes == [2, 2]
    assert sorted(one.pull_all()) == [("tasks", f"n{n}") for n in range(4)]


def test_documents_go_with_the_tombstone_of_their_record(
    client: FlaskClient, runtime: Runtime
) -> None:
    one, a = phone(client), Editor(1)
    one.sync(one.change(edit(a.type(0, "gone"))), one.change(edit(Editor(2).type(0, "b"), "n2")))
    one.sync(one.change(delete("n1")))
    space = sql(runtime, one, "SELECT id FROM (SELECT id, id AS space_id FROM spaces) AS s WHERE")
    with runtime.begin() as connection:
        assert upkeep.drop_tombstones(connection, space, before=2**60) == 1
    assert sql(runtime, one, "SELECT count(*) FROM documents WHERE") == 1
    b = Editor(3)
    one.sync(one.change(edit(b.type(0, "anew"))))
    c = Editor(4)
    c.take(one.pull_all()["tasks", "n1"])
    assert str(c) == "anew"


def _of(**roots: Any) -> bytes:
    document: Any = pycrdt.Doc()
    for name, value in roots.items():
        document[name] = value
    update: bytes = document.get_update()
    return update


def test_sql_sees_maps_arrays_and_markup_as_json(
    client: FlaskClient, data: Callable[[Phone], Any]
) -> None:
    one = phone(client)
    paragraph = pycrdt.XmlFragment([pycrdt.XmlElement("p", {}, [pycrdt.XmlText("Hi")])])
    nested = {"a": 1.5, "n": None, "t": pycrdt.Text("in"), "l": pycrdt.Array([1, "x", True])}
    shown = {
        "map": (_of(m=pycrdt.Map(nested)), {"a": 1.5, "n": None, "t": "in", "l": [1, "x", True]}),
        "array": (_of(l=pycrdt.Array(["a", {"b": [1]}])), ["a", {"b": [1]}]),
        "xml": (_of(x=paragraph), "<p>Hi</p>"),
        "two": (_of(t=pycrdt.Text("a"), l=pycrdt.Array([1])), {"t": "a", "l": [1]}),
        "nul": (_of(t=pycrdt.Text("a\0b")), "a\ufffdb"),
    }
    edits = [edit(update, field=name) for name, (update, _) in shown.items()]
    assert one.sync(one.change(*edits))["rejected"] == []
    assert data(one) == {name: value for name, (_, value) in shown.items()}
