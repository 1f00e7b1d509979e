"""When an editor's letters are committed, and when others hear of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pycrdt
import pytest
from sqlalchemy import Connection, Engine, text

from storage.engine import make_engine
from sync import yprotocol
from tests.contract.people import until_someone_waits
from tests.edge.editors import Author
from tests.edge.test_editors_hostile import Table, Yjs, hello, until

LOCK = text("SELECT head FROM spaces WHERE id = :space FOR UPDATE")


@pytest.fixture(scope="module")
def server(start_server: Any) -> Any:
    return start_server(WEB_CONCURRENCY="1")


@pytest.fixture
def engine(server: Any) -> Iterator[Engine]:
    made = make_engine(server.database_url, 2)
    yield made
    made.dispose()


@pytest.fixture(autouse=True)
def _all_leave() -> Iterator[None]:
    yield
    while Yjs.opened:
        Yjs.opened.pop().tcp.close()


def letters(count: int) -> list[bytes]:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    body, sent = document.get("body", type=pycrdt.Text), []
    subscription = document.observe(lambda event: sent.append(event.update))
    for at in range(count):
        body.insert(at, "x")
    document.unobserve(subscription)
    return sent


def told(socket: Yjs) -> bytes:
    """What is told of typing next, awaited no longer than a message takes that is sent after."""
    socket.send_data(yprotocol.write_awareness([yprotocol.Presence(9, told.clock, b"{}")]))
    told.clock += 1
    found = yprotocol.read(socket.receive())  # type: ignore[arg-type]
    return found.update if isinstance(found, yprotocol.Update) else b""


told.clock = 1


def locked(connection: Connection, space: str) -> None:
    connection.execute(LOCK, {"space": space})


def test_nobody_hears_of_a_letter_before_it_is_committed_and_all_that_came_meanwhile_is_one_change(
    server: Any, engine: Engine
) -> None:
    ann = Author(server.url)
    table = Table(ann)
    writer, reader = table.open(), table.open()
    saved = Yjs(ann.url, "/v1/hocuspocus")
    name = f"{table.space}/notes/n1/body"
    saved.send_data(hello(ann, name))
    for socket in (writer, reader):
        until(socket, yprotocol.Step1)
    first, *others = letters(50)
    with engine.connect() as connection:
        locked(connection, table.space)
        writer.send_data(yprotocol.write_update(first))
        until_someone_waits(engine)
        for letter in others:
            writer.send_data(yprotocol.write_update(letter))
        saved.send_data(yprotocol.addressed(name, yprotocol.write_update(letters(1)[0])))
        assert told(reader) == b""
        connection.rollback()
    while len(shown := text_of(table)) < 51:
        until(reader, yprotocol.Update)
    assert shown == "x" * 51
    while saved.receive() != yprotocol.addressed(name, yprotocol.write_sync_status(saved=True)):
        pass
    assert len(ann.log(table.space)) <= 3


def text_of(table: Table) -> str:
    fresh = table.open()
    until(fresh, yprotocol.Step1)
    fresh.send_data(yprotocol.write_step_1(b"\0"))
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.apply_update(until(fresh, yprotocol.Step2).update)
    return str(document.get("body", type=pycrdt.Text))


def test_one_of_a_batch_that_cannot_be_taken_harms_its_author_only(
    server: Any, engine: Engine
) -> None:
    ann = Author(server.url)
    good, bad = Table(ann), Table(ann)
    bad.path = good.path
    writer, other = good.open(), bad.open()
    until(writer, yprotocol.Step1)
    until(other, yprotocol.Step1)
    first, second = letters(2)
    deep: pycrdt.Doc[Any] = pycrdt.Doc()
    inner: Any = deep.get("body", type=pycrdt.Array)
    for _ in range(120):
        inner.append(pycrdt.Array())
        inner = inner[0]
    with engine.connect() as connection:
        locked(connection, good.space)
        writer.send_data(yprotocol.write_update(first))
        until_someone_waits(engine)
        writer.send_data(yprotocol.write_update(second))
        other.send_data(yprotocol.write_update(deep.get_update()))
        assert told(writer) == b""
        connection.rollback()
    closed = other.closed()
    assert (closed.code, closed.reason) == (4422, "too_deep")
    assert text_of(good) == "xx"
    assert len(ann.log(good.space)) == 2


def test_what_an_editor_gives_back_again_is_not_written_again(server: Any) -> None:
    ann = Author(server.url)
    table = Table(ann)
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    body = document.get("body", type=pycrdt.Text)
    body.insert(0, "Milk and honey")
    del body[4:8]
    for _ in range(3):
        socket = table.open()
        until(socket, yprotocol.Step1)
        socket.send_data(yprotocol.write_step_2(document.get_update()))
        socket.send_data(yprotocol.write_step_1(document.get_state()))
        until(socket, yprotocol.Step2)
    assert text_of(table) == "Milk honey"
    assert len(ann.log(table.space)) == 1
