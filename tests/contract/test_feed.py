"""What followers of a space are told at a glance is what a close look would have told them."""

from __future__ import annotations

import json
from base64 import b64encode
from random import Random
from typing import Any
from uuid import UUID

import msgpack
import pytest
from flask import Flask
from flask.testing import FlaskClient
from pycrdt import Doc, Text

from app.auth import Principal
from app.live.feed import Feed, Format, Wanted
from app.runtime import EXTENSION
from storage import glance
from sync.events import Found
from tests.contract.devices import Phone, add, delete, increment, phone, put, remove


@pytest.fixture
def feed(app: Flask) -> Feed:
    return Feed(app.extensions[EXTENSION])


def wanted(space: str, cursor: int, epoch: int | None = 1, format_: Format = "json") -> Wanted:
    return Wanted(space, 0, "s", epoch, cursor, None, 0, format_)


def who(phone_: Phone) -> Principal:
    return Principal(UUID(int=0), UUID(phone_.device), "user")


def told(found: Found | None, format_: Format = "json") -> Any:
    """What a device reads, and where it stands then. A frame's head is at most ten bytes."""
    if found is None or found.message is None:
        return found
    begin = 2 if found.message[1] < 126 else 4 if found.message[1] == 126 else 10
    body = found.message[begin:]
    read = json.loads(body) if format_ == "json" else msgpack.unpackb(body)
    return read, found.next_epoch, found.next_cursor, found.next_page, found.resets


def _space(a: Phone) -> str:
    spaces = a.get("/v1/spaces").json["spaces"]
    found: str = next(one["id"] for one in spaces if one["personal"])
    return found


def _step(random: Random, phone_: Phone) -> None:
    id_ = f"r{random.randrange(5)}"
    op = random.choice(
        [
            put(id_, x=random.randrange(99)),
            put(id_, x="é", y=None),
            delete(id_),
            increment(id_, "n", 2),
            add(id_, "tags", "a", 1),
            remove(id_, "tags", "a"),
            put(id_, new=True, z=[1, {"k": 1.5}]),
        ]
    )
    phone_.sync(phone_.change(op))
    if random.random() < 0.5:
        phone_.cursor = 0  # the next edit has seen nothing: conflicts


@pytest.mark.parametrize("format_", ["json", "msgpack"])
@pytest.mark.parametrize("seed", range(3))
def test_a_glance_tells_what_a_page_would_from_wherever_a_device_stands(
    client: FlaskClient, feed: Feed, seed: int, format_: Format
) -> None:
    random, a = Random(seed), phone(client)
    phones = [a, phone(client, a.email), phone(client, a.email)]
    for _ in range(30):
        _step(random, random.choice(phones))
    space, conflicts = _space(a), 0
    for cursor in range(1, 31):
        for epoch in (1, None):
            asked = wanted(space, cursor, epoch, format_)
            quick, close = feed._glance(asked), feed._read(asked, who(a))
            assert quick is not None
            assert told(quick, format_) == told(close, format_)
            conflicts += b"conflicts" in (close.message or b"")
    assert conflicts, "nothing hard was compared"


def test_what_is_not_plain_or_too_much_is_looked_at_closely(
    client: FlaskClient, feed: Feed, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = phone(client)
    for n in range(4):
        a.sync(a.change(*[put(f"r{n}-{m}", x="x" * 1_000) for m in range(5)]))
    space = _space(a)
    assert feed._glance(wanted(space, 1)) is not None
    assert feed._glance(wanted(space, 9)) is None, "beyond the head"
    assert feed._glance(wanted(space, 1, epoch=2)) is None, "another history"
    assert feed._glance(wanted(space, 0)) is None, "a first transfer"
    assert feed._glance(wanted(space, 1)._replace(floor=3)) is None, "asked to reset"
    assert feed._glance(wanted(str(UUID(int=7)), 1)) is None, "no such space"
    for name, small in {"CHANGES_MAX": 2, "RECORDS_MAX": 14, "BYTES_MAX": 9_999}.items():
        with monkeypatch.context() as patch:
            patch.setattr(glance, name, small)
            assert feed._glance(wanted(space, 1)) is None, name


def test_documents_are_looked_at_closely(client: FlaskClient, feed: Feed) -> None:
    a = phone(client)
    a.sync(a.change(put("r", x=1)))
    doc = Doc({"body": Text("hello")})
    update = b64encode(doc.get_update()).decode()
    edit = {"op": "edit", "collection": "tasks", "id": "r", "field": "body", "update": update}
    assert a.sync(a.change(edit))["rejected"] == []
    asked = wanted(_space(a), 1)
    assert feed._glance(asked) is None
    (delta, *_) = told(feed._found(asked, who(a)))
    assert list(delta["records"][0]["documents"]) == ["body"]
