"""Editors on bad days: killed workers, weeks offline, real keystrokes, other languages."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pycrdt
import pytest
from sqlalchemy import text

from storage.engine import make_engine
from tests.contract.people import until_someone_waits
from tests.edge import editors as made
from tests.edge.editors import HOCUSPOCUS, Author, Editors
from tests.edge.test_editors import Desk, text_of
from tests.edge.test_editors_commits import LOCK
from tests.edge.test_editors_hostile import Yjs

# The folder with automerge-paper.json.gz and friendsforever.json.gz (josephg/editing-traces).
TRACES = os.environ.get("REJOIN_TEST_TRACES")
LARGE = 15 * 2**20


@pytest.fixture(scope="module")
def node() -> Iterator[Editors]:
    with made.editors() as node:
        yield node


@pytest.fixture(autouse=True)
def _all_leave(node: Editors) -> Iterator[None]:
    yield
    node.ask("clear")


def trace(name: str) -> str:
    if TRACES is None or not (Path(TRACES) / name).exists():
        pytest.skip(f"REJOIN_TEST_TRACES names no folder with {name}")
    return str(Path(TRACES) / name)


def test_nothing_that_an_editor_was_told_is_saved_is_lost_when_workers_are_killed(
    node: Editors, start_server: Any
) -> None:
    server = start_server(WEB_CONCURRENCY="2")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    typists = [desk.open(ann, HOCUSPOCUS) for _ in range(3)]
    written = [0] * len(typists)
    for _ in range(4):
        for number, editor in enumerate(typists):
            editor.until(connected=True, saved=True)
            typing = editor.start("type", text="abcdefghij", every=1)
            made.told(typing)
            written[number] += 10
        typists[0].until(saved=True)
        kept = len(typists[0].state["text"])
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        witness = desk.open(ann, milliseconds=60_000)
        witness.until(synced=True)
        assert len(witness.state["text"]) >= kept - sum(written[1:])
    for editor in typists:
        editor.until(saved=True, milliseconds=60_000)
    fresh = desk.open(ann)
    fresh.until(letters="".join(letter * (sum(written) // 10) for letter in "abcdefghij"))


def test_a_server_that_is_told_to_stop_keeps_what_was_typed_and_editors_come_back(
    node: Editors, start_server: Any
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    hers, his = desk.open(ann), desk.open(ann, HOCUSPOCUS)
    hers.until(synced=True)
    his.until(synced=True)
    hers.insert(0, "Milk")
    server.stop()
    assert hers.until(connected=False)["closes"][0] == 1001
    his.insert(0, "Warm ")
    port = server.url.rpartition(":")[2]
    start_server(server.database_url, WEB_CONCURRENCY="1", PORT=port)
    hers.until(text="Warm Milk")
    his.until(text="Warm Milk", saved=True)


TERMINATE = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def test_a_commit_that_the_database_breaks_off_is_made_up_for_by_the_editor_itself(
    node: Editors, start_server: Any
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    hers, his = desk.open(ann), desk.open(ann, HOCUSPOCUS)
    hers.until(synced=True)
    his.until(synced=True)
    engine = make_engine(server.database_url, 3)
    with engine.connect() as locking, engine.connect() as ending:
        locking.execute(LOCK, {"space": desk.space})
        hers.insert(0, "Milk")
        his.insert(0, "Warm ")
        until_someone_waits(engine)
        ending.execute(TERMINATE)
        ending.rollback()
        locking.rollback()
    engine.dispose()
    assert 1013 in hers.until(letters="".join(sorted("Milk" + "Warm ")))["closes"]
    his.until(saved=True, text=hers.state["text"])
    desk.open(ann).until(text=hers.state["text"])


def test_what_was_written_in_weeks_offline_gets_through_whole(
    node: Editors, start_server: Any
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    hers, his = desk.open(ann), desk.open(ann)
    hers.until(synced=True)
    hers.ask("disconnect")
    hers.until(connected=False)
    for at in range(0, LARGE, 2**20):
        hers.ask("fill", at=at, count=min(2**20, LARGE - at))
    hers.ask("connect")
    his.until(length=LARGE)
    hers.until(synced=True, closes=[None])
    desk.open(ann).until(length=LARGE)


class Channel:
    """What pycrdt's Provider speaks over: a websocket."""

    def __init__(self, socket: Yjs) -> None:
        self.socket, self.path = socket, "document"

    def __aiter__(self) -> Channel:
        return self

    async def __anext__(self) -> bytes:
        return await self.recv()

    async def send(self, message: bytes) -> None:
        self.socket.send_data(message)

    async def recv(self) -> bytes:
        found: Any = await asyncio.to_thread(self.socket.receive)
        assert isinstance(found, bytes)
        return found


def test_an_editor_in_python_by_the_provider_of_pycrdt_and_one_in_javascript_agree(
    node: Editors, start_server: Any
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    hers, his = desk.open(ann), desk.open(ann)
    hers.insert(0, "Milk")
    his.until(text="Milk")
    his.ask("destroy")
    path = f"/v1/spaces/{desk.space}/documents/notes/n1/body?token={ann.token}"
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    body = document.get("body", type=pycrdt.Text)

    async def edit(socket: Yjs) -> None:
        async with pycrdt.Provider(document, Channel(socket)) as provider:
            await asyncio.wait_for(provider.synced.wait(), 20)
            assert str(body) == "Milk"
            body.insert(4, " and honey")
            await asyncio.to_thread(hers.until, text="Milk and honey")
        socket.tcp.shutdown(SHUT_RDWR)

    asyncio.run(edit(Yjs(ann.url, path)))
    hers.until(others=[])


def test_a_paper_typed_by_one_is_read_by_another_letter_by_letter(
    node: Editors, start_server: Any
) -> None:
    file = trace("automerge-paper.json.gz")
    server = start_server(WEB_CONCURRENCY="1")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    writer, reader = desk.open(ann), desk.open(ann)
    writer.until(synced=True)
    reader.until(synced=True)
    arrived = reader.start("receives", file=file)
    writer.ask("replay", file=file)
    made.told(arrived)
    assert (writer.state["closes"], reader.state["closes"]) == ([], [])
    fresh = desk.open(ann)
    fresh.ask("receives", file=file)
    (record,) = ann.pull(desk.space)["records"]
    assert text_of(record["documents"]["body"]) == fresh.state["text"]


def test_two_friends_who_write_at_once_end_with_the_text_that_they_ended_with(
    node: Editors, start_server: Any
) -> None:
    file = trace("friendsforever.json.gz")
    server = start_server(WEB_CONCURRENCY="2")
    ann = Author(server.url)
    desk = Desk(node, ann.space())
    friends = [desk.open(ann), desk.open(ann)]
    for friend in friends:
        friend.until(synced=True)
    node.ask("friends", both=[friend.name for friend in friends], file=file)
    for friend in (*friends, desk.open(ann)):
        friend.ask("receives", file=file)
