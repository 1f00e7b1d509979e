"""What an editor may be sent: a close code for its sender, and nothing at all for the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import psutil
import pycrdt
import pytest
from wsproto.events import BytesMessage, Event

from sync import documents, yprotocol
from sync.pieces import pieces
from sync.yprotocol import Presence
from tests.edge.editors import Author
from tests.edge.sockets import Closed, Refused, Websocket
from tests.letters import letters

EMPTY = b"\0"


class Yjs(Websocket):
    """Whole binary messages, as they come. All are closed after the test."""

    opened: ClassVar[list[Yjs]] = []

    def __init__(self, *where: str, **more: Any) -> None:
        super().__init__(*where, **more)
        self.opened.append(self)

    def _meet(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            self._parts.append(bytes(event.data))
            if event.message_finished:
                self._messages.append(b"".join(self._parts))
                self._parts = []
        else:
            super()._meet(event)


@pytest.fixture(autouse=True)
def _all_leave() -> Iterator[None]:
    yield
    while Yjs.opened:
        Yjs.opened.pop().tcp.close()


@pytest.fixture(scope="module")
def server(start_server: Any) -> Iterator[Any]:
    started = start_server(WEB_CONCURRENCY="1")
    yield started
    assert "unforeseen" not in "".join(started.log)


@pytest.fixture
def ann(server: Any) -> Author:
    return Author(server.url)


class Table:
    """A document, and sockets of one user to it."""

    def __init__(self, author: Author, field: str = "body") -> None:
        self.author, self.space = author, author.space()
        self.path = f"/v1/spaces/{self.space}/documents/notes/n1/{field}"

    def open(self, **more: Any) -> Yjs:
        return Yjs(self.author.url, f"{self.path}?token={self.author.token}", **more)


@pytest.fixture
def table(ann: Author) -> Table:
    return Table(ann)


def typed(text: str, client: int = 7) -> bytes:
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client)
    document.get("body", type=pycrdt.Text).insert(0, text)
    return document.get_update()


def until(socket: Yjs, kind: type) -> Any:
    """The next message of the kind."""
    while True:
        found = yprotocol.read(socket.receive())  # type: ignore[arg-type]
        if isinstance(found, kind):
            return found


def assert_goes_on(table: Table) -> None:
    """Another editor of the same document is served as if nothing had been."""
    socket = table.open()
    until(socket, yprotocol.Step1)
    socket.send_data(yprotocol.write_step_1(EMPTY))
    until(socket, yprotocol.Step2)


UPDATE = typed("Milk")
MALFORMED: dict[str, str | bytes] = {
    "text": "hello",
    "nothing": b"",
    "an unknown type": b"\x63",
    "a cut update": yprotocol.write_update(UPDATE)[:-3],
    "a garbage update": yprotocol.write_update(b"\xff" * 40),
    "an update with more behind it": yprotocol.write_update(UPDATE + b"\0"),
    "a step 2 of garbage": yprotocol.write_step_2(b"\x01\x01\x01\x00\x04\x01"),
    "a state vector of garbage": yprotocol.write_step_1(b"\xff\xff\xff"),
    "a varint of 400 kB": b"\0\2" + b"\xff" * 400_000,
    "a varint of 400 kB in an update": yprotocol.write_update(b"\xff" * 400_000),
    "an awareness bomb": b"\1" + b"\4" + b"\xff\xff\xff\x7f",
    "a state that is no JSON": yprotocol.write_awareness([Presence(1, 1, b"{")]),
    "a state of 5 kB": yprotocol.write_awareness(
        [Presence(1, 1, json.dumps({"name": "x" * 5_000}).encode())]
    ),
    "a state nested deep": yprotocol.write_awareness(
        [Presence(1, 1, b'{"a":' + b"[" * 900 + b"]" * 900 + b"}")]
    ),
}


@pytest.mark.parametrize("frame", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_frame_ends_its_sender_and_is_told_to_nobody(
    table: Table, frame: str | bytes
) -> None:
    near, bad = table.open(), table.open()
    until(near, yprotocol.Step1)
    until(bad, yprotocol.Step1)
    bad.send_data(frame)
    closed = bad.closed()
    assert 4400 <= closed.code < 4500, closed
    assert closed.reason in {"malformed_frame", "bad_update"}
    near.send_data(yprotocol.write_step_1(EMPTY))
    assert yprotocol.read(near.receive()) == yprotocol.Step2(b"\0\0")  # type: ignore[arg-type]
    assert_goes_on(table)


def test_a_frame_larger_than_a_document_is_refused_before_it_is_whole(table: Table) -> None:
    bad = table.open()
    sent = 0
    piece = bytes(2**20)
    bad.send_data(b"\0\2", finished=False)
    with pytest.raises((Closed, OSError)):  # noqa: PT012 - the server may close at any piece
        for _ in range(64):
            bad.send_data(piece, finished=False)
            sent += len(piece)
        raise bad.closed()
    assert sent <= 64 * 2**20
    assert_goes_on(table)


def test_who_asks_for_the_whole_document_without_end_is_told_to_come_later(table: Table) -> None:
    bad = table.open()
    for _ in range(200):
        bad.send_data(yprotocol.write_step_1(EMPTY))
    assert bad.closed().code == 1013
    assert_goes_on(table)


def test_who_tells_of_itself_without_end_is_told_to_come_later(table: Table) -> None:
    bad = table.open()
    with pytest.raises((Closed, OSError)):  # noqa: PT012 - the server may close at any frame
        for clock in range(1, 20_000):
            bad.send_data(yprotocol.write_awareness([Presence(7, clock, b"{}")]))
        raise bad.closed()
    assert_goes_on(table)


def test_states_of_thousands_of_editors_from_one_socket_are_mostly_passed_over(
    table: Table,
) -> None:
    near, bad = table.open(), table.open()
    until(near, yprotocol.Step1)
    crowd = [Presence(n, 1, b"{}") for n in range(1, yprotocol.STATES_MAX + 1)]
    bad.send_data(yprotocol.write_awareness(crowd))
    assert len(until(near, yprotocol.Awareness).presences) <= 16


def test_a_reader_that_reads_nothing_delays_nobody_and_costs_no_growing_memory(
    server: Any, table: Table
) -> None:
    (worker,) = server.worker_pids()
    deaf = table.open(receive_buffer=4096)
    writer, reader = table.open(), table.open()
    until(reader, yprotocol.Step1)
    before = psutil.Process(worker).memory_info().rss
    for client in range(1, 41):
        writer.send_data(yprotocol.write_update(typed("x" * 300_000, client)))
        until(reader, yprotocol.Update)
    assert psutil.Process(worker).memory_info().rss - before < 300 * 2**20
    assert deaf.tcp.fileno() >= 0
    assert_goes_on(table)


def peak(process: int) -> int:
    """The most memory that it ever had, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    (told,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(told.split()[1]) * 1024


@pytest.mark.parametrize("write", [yprotocol.write_update, yprotocol.write_step_2])
def test_a_run_of_single_letters_is_taken_and_costs_no_more_than_its_size(
    server: Any, table: Table, write: Callable[[bytes], bytes]
) -> None:
    (worker,) = server.worker_pids()
    before = peak(worker)
    writer, reader = table.open(), table.open()
    until(reader, yprotocol.Step1)
    writer.send_data(write(letters(60_000)))
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    for piece in pieces(until(reader, yprotocol.Update).update, {}):
        document.apply_update(piece)
    assert str(document.get("body", type=pycrdt.Text)) == "a" * 60_000
    writer.send_data(yprotocol.write_step_2(letters(60_000)))
    assert_goes_on(table)
    assert peak(worker) - before < 300 * 2**20


def test_frames_drawn_by_lot_from_good_ones_end_their_sender_at_most(table: Table) -> None:
    chance = Random(20251122)
    good = [
        yprotocol.write_update(UPDATE),
        yprotocol.write_step_2(typed("Honey", 8)),
        yprotocol.write_step_1(b"\1\7\3"),
        yprotocol.write_awareness([Presence(5, 1, b'{"name":"Ann"}')]),
    ]
    for _ in range(150):
        bad = table.open()
        for _ in range(8):
            frame = bytearray(chance.choice(good))
            for _ in range(chance.randint(1, 4)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            with suppress(OSError):
                bad.send_data(bytes(frame))
        bad.drop()
    assert_goes_on(table)
    late = table.open()
    until(late, yprotocol.Step1)
    late.send_data(yprotocol.write_update(typed("Tea", 9)))
    late.send_data(b"\3")
    assert_goes_on(table)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v1/spaces/me/documents/notes/n1/body", 401, "token_missing"),
        ("/v1/spaces/me/documents/notes/n1/body?token=x", 401, "token_invalid"),
        (
            "/v1/spaces/6f1e7a3e-0000-4000-8000-000000000000/documents/notes/n1/body",
            404,
            "not_found",
        ),
        (f"/v1/spaces/me/documents/{'c' * 129}/n1/body", 422, "invalid_id"),
        ("/v1/spaces/me/documents/notes/n%001/body", 422, "invalid_text"),
    ],
)
def test_who_may_not_come_in_is_told_before_the_handshake(
    ann: Author, path: str, status: int, code: str
) -> None:
    token = None if code.startswith("token") else ann.token
    with pytest.raises(Refused) as refused:
        Yjs(ann.url, path, token=token)
    assert (refused.value.status, refused.value.problem["code"]) == (status, code)


def test_a_field_of_another_type_takes_no_typing_and_says_so(ann: Author) -> None:
    table = Table(ann, "title")
    put = {"op": "put", "collection": "notes", "id": "n1", "fields": {"title": "Milk"}}
    ann.push(table.space, put)
    socket = table.open()
    socket.send_data(yprotocol.write_update(UPDATE))
    closed = socket.closed()
    assert (closed.code, closed.reason) == (4422, "field_type_mismatch")


def test_a_revoked_device_a_withdrawn_member_and_an_expired_token_are_out(
    server: Any, start_server: Any
) -> None:
    short = start_server(server.database_url, WEB_CONCURRENCY="1", REJOIN_ACCESS_TOKEN_SECONDS="10")
    ann, bob = Author(server.url), Author(server.url)
    table = Table(ann)
    ann.call("PUT", f"/v1/spaces/{table.space}/members/{bob.email}", role="editor")
    expiring = Author(short.url)
    ann.call("PUT", f"/v1/spaces/{table.space}/members/{expiring.email}", role="editor")
    hers = table.open()
    his = Yjs(server.url, f"{table.path}?token={bob.token}")
    theirs = Yjs(short.url, f"{table.path}?token={expiring.token}")
    ann.call("DELETE", f"/v1/spaces/{table.space}/members/{bob.email}")
    assert his.closed(5).code == 4403
    ann.call("DELETE", f"/v1/devices/{ann.device_id}")
    assert hers.closed(5).code == 4403
    assert theirs.closed(20).code == 4401


# Hocuspocus -----------------------------------------------------------------------------------


def hello(author: Author, name: str, token: str | None = None) -> bytes:
    body = bytes([yprotocol.AUTH, yprotocol.TOKEN]) + _text(token or author.token)
    return yprotocol.addressed(name, body)


def _text(text: str) -> bytes:
    return yprotocol.addressed(text, b"")


def test_a_document_that_is_refused_leaves_the_others_of_its_socket_alone(ann: Author) -> None:
    space = ann.space()
    socket = Yjs(ann.url, "/v1/hocuspocus")
    good, bad = f"{space}/notes/n1/body", f"{space}/notes"
    socket.send_data(hello(ann, good))
    assert socket.receive() == yprotocol.addressed(
        good, yprotocol.write_authenticated(may_write=True)
    )
    for name, token, reason in [
        (bad, None, "not_found"),
        (f"{ann.personal_space[:-1]}x/notes/n1/body", None, "not_found"),
        (f"{space}/notes/n2/body", "x", "token_invalid"),
    ]:
        socket.send_data(hello(ann, name, token))
        assert socket.receive() == yprotocol.addressed(name, yprotocol.write_refused(reason))
    socket.send_data(yprotocol.addressed(good, yprotocol.write_update(UPDATE)))
    assert socket.receive() == yprotocol.addressed(good, yprotocol.write_sync_status(saved=True))


def test_a_socket_has_a_hundred_documents_and_a_stranger_few_guesses(ann: Author) -> None:
    space = ann.space()
    socket = Yjs(ann.url, "/v1/hocuspocus")
    for number in range(100):
        name = f"{space}/notes/n{number}/body"
        socket.send_data(hello(ann, name))
        welcome = yprotocol.write_authenticated(may_write=True)
        assert socket.receive() == yprotocol.addressed(name, welcome)
    name = f"{space}/notes/n100/body"
    socket.send_data(hello(ann, name))
    refused = yprotocol.write_refused("too_many_documents")
    assert socket.receive() == yprotocol.addressed(name, refused)
    guessing = Yjs(ann.url, "/v1/hocuspocus")
    for _ in range(30):
        guessing.send_data(hello(ann, name, "a.b.c"))
    assert guessing.closed().code == 1013


def test_a_hocuspocus_frame_that_is_none_ends_the_socket(ann: Author) -> None:
    for frame in (b"\xff" * 20, "text", b"", yprotocol.addressed("x" * 3_000, b"\3")):
        socket = Yjs(ann.url, "/v1/hocuspocus")
        socket.send_data(frame)
        assert socket.closed().code == 4400


def test_what_comes_before_a_token_is_passed_over_and_may_not_be_large(ann: Author) -> None:
    socket = Yjs(ann.url, "/v1/hocuspocus")
    name = f"{ann.space()}/notes/n1/body"
    socket.send_data(yprotocol.addressed(name, yprotocol.write_update(UPDATE)))
    socket.send_data(b"\x0a")
    socket.send_data(hello(ann, name))
    assert socket.receive() == yprotocol.addressed(
        name, yprotocol.write_authenticated(may_write=True)
    )
    large = Yjs(ann.url, "/v1/hocuspocus")
    large.send_data(bytes(100_000))
    assert large.closed().code == 4400


def test_many_sockets_that_come_and_go_at_once_leave_nothing_behind(
    server: Any, table: Table
) -> None:
    (worker,) = server.worker_pids()
    assert_goes_on(table)
    process = psutil.Process(worker)
    before = process.num_fds()

    def come_and_go() -> None:
        for _ in range(25):
            socket = table.open()
            socket.send_data(yprotocol.write_awareness([Presence(7, 1, b"{}")]))
            socket.drop()

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert_goes_on(table)
    last = table.open()
    until(last, yprotocol.Step1)
    assert process.num_fds() <= before + 30


def test_an_update_before_what_it_depends_on_is_given_to_nobody_until_that_has_come(
    table: Table,
) -> None:
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=7)
    made: list[bytes] = []
    watch = document.observe(lambda event: made.append(event.update))
    text = document.get("body", type=pycrdt.Text)
    for word in ("a", "b", "c"):
        text.insert(len(text), word)
    del watch
    near, early, late = table.open(), table.open(), table.open()
    for socket in (near, early, late):
        until(socket, yprotocol.Step1)
    early.send_data(yprotocol.write_update(made[2]))
    # A circle, which would end a library that took it.
    early.send_data(yprotocol.write_update(b"\1\1\x05\0\x84\x06\0\1x\0"))
    early.send_data(yprotocol.write_update(b"\1\1\x06\0\x84\x05\0\1x\0"))
    early.send_data(yprotocol.write_step_1(EMPTY))
    assert until(early, yprotocol.Step2).update == b"\0\0", "committed, and still nothing"
    late.send_data(yprotocol.write_update(documents.merge(made[:2])))
    copy: pycrdt.Doc[Any] = pycrdt.Doc()
    while str(copy.get("body", type=pycrdt.Text)) != "abc":
        copy.apply_update(until(near, yprotocol.Update).update)
    assert until(late, yprotocol.Update).update, "its author lacks what it freed"
