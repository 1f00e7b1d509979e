"""Users with a device each, as the server's own code makes them, and what their phones send.

Accounts are made by the storage's functions and tokens signed here: signing up and logging in
hash passwords on purpose slowly, and are not what is measured.
"""

from __future__ import annotations

import gzip
import itertools
import random
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from backports import zstd
from flask import Flask
from sqlalchemy import Engine

from app import auth
from app.settings import Settings
from storage import accounts, memberships

# When the devices' edits were made: an hour ago.
AT: Final = int(time.time() * 1000) - 3_600_000
WORDS: Final = (
    "Call", "the", "harbour", "office", "about", "berth", "twelve", "before", "evening", "tide",
    "and", "ask", "for", "new", "rates", "check", "oil", "filter", "invoice", "customer",
    "delivery", "pallet", "window", "kitchen", "Tuesday", "meeting", "notes", "draft",
)  # fmt: skip
FORMATS: Final = {"json": "application/json", "msgpack": "application/msgpack"}
# As the clients that come with the project do: gzip as clients/python, zstd at its usual level.
GZIP_LEVEL, ZSTD_LEVEL = 5, 3
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Device:
    """A device of a user of its own. `space` is the user's personal space."""

    user: uuid.UUID
    id: uuid.UUID
    space: uuid.UUID
    token: str


def make_devices(engine: Engine, settings: Settings, users: int, each: int = 1) -> list[Device]:
    """`users` accounts with `each` devices; those of one user stand together."""
    app = Flask(__name__)
    auth.install(app, settings)
    made = []
    with app.app_context(), engine.begin() as connection:
        for _ in range(users):
            email = f"bench-{next(_numbers)}-{uuid.uuid4().hex[:8]}@example.org"
            user = accounts.create_user(connection, email, "no password")
            assert user is not None
            for _ in range(each):
                id_ = uuid.uuid4()
                about = accounts.Registration(id_, user.id, "phone", "bench", "1", None)
                accounts.register_device(connection, about, datetime.now(UTC))
                token = auth.access_token(auth.Principal(user.id, id_, "user"))
                made.append(Device(user.id, id_, user.personal_space_id, token))
    return made


def share(engine: Engine, devices: list[Device]) -> uuid.UUID:
    """A new space of the first one's user; the others' users are members who may write."""
    space = uuid.uuid4()
    with engine.begin() as connection:
        memberships.create_space(connection, space, "bench", devices[0].user)
        for user in {device.user for device in devices} - {devices[0].user}:
            memberships.set_member(connection, space, user, "editor")
    return space


def fields(dice: random.Random) -> dict[str, Any]:
    """Four fields that come to about 150 bytes of JSON."""
    title = " ".join(dice.choices(WORDS, k=15))[:78]
    return {
        "title": f"{title:.<78}",
        "done": dice.random() < 0.3,
        "priority": dice.randrange(1, 6),
        "due": f"2026-{dice.randrange(1, 13):02}-{dice.randrange(1, 29):02}T09:00:00.000Z",
    }


def record_id(number: int, dice: random.Random) -> str:
    """A UUIDv7, as the protocol advises: those made later sort later."""
    stamp = (AT + number) & (2**48 - 1)
    value = stamp << 80 | 7 << 76 | dice.getrandbits(12) << 64 | 2 << 62 | dice.getrandbits(62)
    return str(uuid.UUID(int=value))


def put(id_: str, values: dict[str, Any], *, new: bool) -> dict[str, Any]:
    op = {"op": "put", "collection": "tasks", "id": id_, "fields": values}
    return {**op, "new": True} if new else op


def change(counter: int, cursor: int, *ops: dict[str, Any]) -> dict[str, Any]:
    context = {"epoch": 1, "cursor": cursor}
    return {"counter": counter, "context": context, "at": AT + counter, "ops": [*ops]}


def new_rows(first: int, count: int, cursor: int, dice: random.Random) -> list[dict[str, Any]]:
    """Changes with the counters from `first` on, each of which begins a row."""
    return [
        change(n, cursor, put(record_id(n, dice), fields(dice), new=True))
        for n in range(first, first + count)
    ]


def part(cursor: int, counter: int, changes: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """One space's part of a sync."""
    told = {"epoch": 1, "cursor": cursor, "counter": counter, **more}
    return {**told, "changes": changes} if changes else told


def envelope(space: dict[str, Any], name: str = "me") -> dict[str, Any]:
    """The body of `POST /v1/sync` for one space."""
    return {"sent_at": int(time.time() * 1000), "spaces": {name: space}}


def encoded(body: object, format_: str = "json", coding: str | None = None) -> bytes:
    """A body as it travels."""
    data = msgspec.json.encode(body) if format_ == "json" else msgspec.msgpack.encode(body)
    if coding == "gzip":
        return gzip.compress(data, GZIP_LEVEL, mtime=0)
    return zstd.compress(data, ZSTD_LEVEL) if coding == "zstd" else data


def decoded(data: bytes, format_: str = "json", coding: str | None = None) -> Any:
    """A body as the device reads it."""
    if coding == "gzip":
        data = gzip.decompress(data)
    elif coding == "zstd":
        data = zstd.decompress(data)
    return msgspec.json.decode(data) if format_ == "json" else msgspec.msgpack.decode(data)
