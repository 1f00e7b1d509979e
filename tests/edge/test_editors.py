"""Stock editors on one document: npm's y-websocket and Hocuspocus providers, over real workers.

Two servers with a worker each stand for any two workers: what is at one must get to the other.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import httpx
import pycrdt
import pytest

from tests.edge import editors as made
from tests.edge.editors import HOCUSPOCUS, Author, Editor, Editors, hocuspocus_url, rooms_url
from tests.edge.sockets import Websocket

KINDS = ("y-websocket", "y-websocket-1", HOCUSPOCUS)


@pytest.fixture(scope="module")
def server(start_server: Any) -> Any:
    return start_server(WEB_CONCURRENCY="1")


@pytest.fixture(scope="module")
def servers(server: Any, start_server: Any) -> tuple[str, str]:
    """Two workers on one database."""
    return server.url, start_server(server.database_url, WEB_CONCURRENCY="1").url


@pytest.fixture(scope="module")
def node() -> Iterator[Editors]:
    with made.editors() as node:
        yield node


@pytest.fixture(autouse=True)
def _all_leave(node: Editors) -> Iterator[None]:
    yield
    node.ask("clear")


@pytest.fixture
def ann(servers: tuple[str, str]) -> Author:
    return Author(servers[0])


@pytest.fixture
def bob(servers: tuple[str, str]) -> Author:
    return Author(servers[1])


class Desk:
    """A document of a space, and editors who open it."""

    def __init__(self, node: Editors, space: str, id_: str = "n1") -> None:
        self.node, self.space, self.id, self.opened = node, space, id_, 0

    def open(
        self, author: Author, kind: str = "y-websocket", *, url: str = "", **more: object
    ) -> Editor:
        self.opened += 1
        name, server = f"{self.space} {self.id} {self.opened}", url or author.url
        if kind == HOCUSPOCUS:
            room = f"{self.space}/notes/{self.id}/body"
            return self.node.editor(
                name, kind, hocuspocus_url(server), room, token=author.token, **more
            )
        room = f"{self.space}/documents/notes/{self.id}/body"
        return self.node.editor(name, kind, rooms_url(server), room, token=author.token, **more)


@pytest.fixture
def desk(node: Editors, ann: Author, bob: Author) -> Desk:
    return Desk(node, ann.space(**{bob.email: "editor"}))


@pytest.mark.parametrize("kind", KINDS)
def test_two_who_type_at_once_at_two_workers_end_with_the_same_text(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    hers, his = desk.open(ann, kind), desk.open(bob, kind)
    hers.until(synced=True)
    his.until(synced=True)
    typing = [
        hers.start("type", text="aaaaaaaaaa", every=2),
        his.start("type", text="bbbbbbbbbb", every=3),
    ]
    for each in typing:
        made.told(each)
    hers.until(letters="a" * 10 + "b" * 10)
    his.until(text=hers.state["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_typed_offline_is_there_when_the_editor_is_back(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    hers, his = desk.open(ann, kind), desk.open(bob)
    hers.insert(0, "Milk")
    his.until(text="Milk")
    hers.ask("disconnect")
    hers.until(connected=False)
    hers.insert(4, " and honey")
    his.insert(0, "Warm ")
    hers.ask("connect")
    hers.until(text="Warm Milk and honey", synced=True)
    his.until(text="Warm Milk and honey")


def test_what_is_typed_stands_in_the_log_with_a_dot_of_its_own_and_in_a_pull(
    desk: Desk, ann: Author, bob: Author
) -> None:
    hers, his = desk.open(ann), desk.open(bob)
    hers.insert(0, "Milk")
    his.until(text="Milk")
    (change,) = ann.log(desk.space)
    assert change["device"] not in {ann.device_id, bob.device_id}
    assert change["counter"] == 1
    (op,) = change["ops"]
    assert (op["op"], op["collection"], op["id"], op["field"]) == ("edit", "notes", "n1", "body")
    (record,) = ann.pull(desk.space)["records"]
    assert text_of(record["documents"]["body"]) == "Milk"
    listed = ann.call("GET", "/v1/devices")["devices"]
    assert [device["id"] for device in listed] == [ann.device_id]
    assert (
        httpx.delete(f"{ann.url}/v1/devices/{change['device']}", headers=ann.headers).status_code
        == 404
    )


def test_what_is_typed_reaches_devices_that_are_online(
    desk: Desk, ann: Author, bob: Author
) -> None:
    live = Websocket(bob.url, token=bob.token)
    live.hello(desk.space)
    hers = desk.open(ann)
    hers.until(synced=True)
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    for word in ("Milk", " and", " honey"):
        hers.insert(len(hers.state["text"]), word)
        shown = hers.state["text"]
        while str(document.get("body", type=pycrdt.Text)) != shown:
            for record in live.until("delta")["records"]:
                document.apply_update(base64.b64decode(record["documents"]["body"]))
    live.close()


def text_of(update: str, root: str = "body") -> str:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.apply_update(base64.b64decode(update))
    return str(document.get(root, type=pycrdt.Text))


def edit(text: str, id_: str = "n1") -> dict[str, Any]:
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.get("body", type=pycrdt.Text).insert(0, text)
    update = base64.b64encode(document.get_update()).decode()
    return {"op": "edit", "collection": "notes", "id": id_, "field": "body", "update": update}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_device_pushes_appears_in_the_open_editors_of_all_workers(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    hers, his = desk.open(ann, kind), desk.open(bob, kind)
    hers.until(synced=True)
    his.until(synced=True)
    ann.push(desk.space, edit("Milk"))
    hers.until(text="Milk")
    his.until(text="Milk")
    his.insert(4, "!")
    hers.until(text="Milk!")


@pytest.mark.parametrize("kind", KINDS)
def test_a_viewer_reads_and_what_a_viewer_types_stays_with_the_viewer(
    node: Editors, ann: Author, bob: Author, kind: str
) -> None:
    desk = Desk(node, ann.space(**{bob.email: "viewer"}))
    hers, his = desk.open(ann, kind), desk.open(bob, kind)
    hers.insert(0, "Milk")
    his.until(text="Milk")
    his.insert(0, "Sour ")
    hers.insert(4, "!")
    his.until(text="Sour Milk!")
    fresh = desk.open(ann)
    assert fresh.until(synced=True)["text"] == "Milk!"
    assert len(ann.log(desk.space)) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_there_is_seen_at_all_workers_and_gone_when_the_socket_closes(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    hers = desk.open(ann, kind)
    hers.until(connected=True)
    hers.ask("present", state={"name": "Ann"})
    near, far = desk.open(bob, url=ann.url), desk.open(bob)
    near.until(others=[{"name": "Ann"}, {}])
    far.until(others=[{"name": "Ann"}, {}])
    hers.ask("destroy")
    near.until(others=[{}])
    far.until(others=[{}])


def test_one_hocuspocus_socket_carries_many_documents_and_two_editors_of_one(
    desk: Desk, ann: Author, bob: Author
) -> None:
    other = Desk(desk.node, desk.space, "n/2")
    socket = f"{desk.space} shared"
    first, second = (
        desk.open(ann, HOCUSPOCUS, socket=socket),
        other.open(ann, HOCUSPOCUS, socket=socket),
    )
    first.insert(0, "Milk")
    second.insert(0, "Honey")
    third = desk.open(ann, HOCUSPOCUS, socket=socket, several=True)
    third.until(text="Milk")
    third.insert(4, "!")
    first.until(text="Milk!", saved=True)
    other.open(bob).until(text="Honey")
    first.ask("detach")
    third.insert(5, "!")
    desk.open(bob).until(text="Milk!!")
    second.insert(5, "!")
    second.until(text="Honey!", saved=True)


def test_a_hocuspocus_provider_is_asked_for_a_fresh_token_where_y_websocket_has_to_end(
    desk: Desk, ann: Author, bob: Author, server: Any, start_server: Any
) -> None:
    short = start_server(server.database_url, WEB_CONCURRENCY="1", REJOIN_ACCESS_TOKEN_SECONDS="10")
    lasting, bob.token = bob.token, bob.logged_in(short.url)
    stays, ends = desk.open(bob, HOCUSPOCUS, url=short.url), desk.open(bob, url=short.url)
    stays.ask("token", token=lasting)
    stays.until(connected=True)
    ends.until(closes=[4401], milliseconds=30_000)
    stays.insert(0, "Milk")
    stays.until(saved=True, closes=[], denials=[])
    desk.open(ann).until(text="Milk")


@pytest.mark.parametrize("kind", KINDS)
def test_who_becomes_a_viewer_is_out_with_the_next_letter_and_the_others_go_on(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    hers, his = desk.open(ann, kind), desk.open(bob, kind, url=ann.url)
    hers.insert(0, "Milk")
    his.until(text="Milk", synced=True)
    ann.call("PUT", f"/v1/spaces/{desk.space}/members/{bob.email}", role="viewer")
    his.insert(0, "Sour ")
    his.until(denials=["forbidden"]) if kind == HOCUSPOCUS else his.until(ended=4403)
    hers.insert(4, "!")
    hers.until(text="Milk!", saved=True, closes=[])
    desk.open(bob).until(text="Milk!")


def test_a_letter_in_one_document_is_told_there_and_documents_beside_it_go_on(
    desk: Desk, ann: Author, bob: Author
) -> None:
    beside = [Desk(desk.node, desk.space, f"n{number}") for number in range(2, 8)]
    near, far = [each.open(ann) for each in beside], [each.open(bob) for each in beside]
    for number, editor in enumerate([*near, *far]):
        editor.insert(0, f"{number} ")
    for number, (one, other) in enumerate(zip(near, far, strict=True)):
        both = "".join(sorted(f"{number} {number + len(near)} "))
        one.until(letters=both)
        other.until(letters=both)
    ann.push(desk.space, edit("pushed", "n2"), edit("pushed", "n7"))
    for number, editors in ((0, (near[0], far[0])), (5, (near[5], far[5]))):
        for editor in editors:
            editor.until(letters="".join(sorted(f"{number} {number + len(near)} pushed")))


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_an_editor_that_says_nothing_of_itself_is_not_taken_for_dead(
    desk: Desk, ann: Author, bob: Author, kind: str
) -> None:
    silent, late = desk.open(ann, kind), desk.open(bob)
    silent.until(connected=True)
    silent.ask("present", state=None)
    late.ask("pass", milliseconds=40_000)
    late.insert(0, "Milk")
    assert silent.until(text="Milk")["closes"] == []
