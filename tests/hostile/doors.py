"""The doors of the sync endpoints, and what must hold behind them whatever comes in."""

from __future__ import annotations

import gzip
import json
import time
from dataclasses import dataclass
from typing import Any

import msgpack
from backports import zstd
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from tests.contract.devices import Phone, put

JSON, MSGPACK = "application/json", "application/msgpack"
FORMATS = (JSON, MSGPACK)
CODINGS = ("identity", "gzip", "zstd")
# A refusal takes milliseconds. CPU time is what one client can take from the others, and unlike
# the time on the wall it does not depend on what else the machine does.
CPU_SECONDS_MAX = 1.0
WALL_SECONDS_MAX = 10.0


def written(tree: object, format_: str) -> bytes:
    """The tree in the format, with all that a decent encoder would refuse."""
    if format_ == JSON:
        return json.dumps(tree).encode()
    packed: bytes = msgpack.packb(tree, unicode_errors="surrogatepass")
    return packed


def squeezed(data: bytes, coding: str) -> bytes:
    if coding == "gzip":
        return gzip.compress(data, 1)
    return zstd.compress(data, 1) if coding == "zstd" else data


def send(
    phone: Phone, path: str, data: bytes, format_: str = JSON, coding: str = "identity", **more: str
) -> TestResponse:
    """POST the bytes. Whatever they are, the server answers soon, and finds no fault in itself."""
    headers = {"Content-Type": format_, **phone.headers}
    if coding != "identity":
        headers["Content-Encoding"] = coding
    began = time.process_time(), time.monotonic()
    answer = phone.http.post(path, data=data, headers={**headers, **more})
    assert time.process_time() - began[0] < CPU_SECONDS_MAX
    assert time.monotonic() - began[1] < WALL_SECONDS_MAX
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.content_type == "application/problem+json"
        assert answer.json["code"]
        assert answer.json["detail"]
    return answer


def sync(phone: Phone, part: dict[str, Any], format_: str = JSON) -> dict[str, Any]:
    """One round trip for the phone's space, whose answer stands in JSON."""
    body = written({"spaces": {phone.space: part}}, format_)
    answer = send(phone, "/v1/sync", body, format_, Accept=JSON)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json["spaces"][phone.space]
    return found


def good(phone: Phone, id_: str = "fine") -> dict[str, Any]:
    """The phone's next change, in the plainest form."""
    return phone.change(put(id_, title="x"))


@dataclass(frozen=True)
class Ledger:
    """All that the database holds of a space."""

    head: int
    changes: list[tuple[Any, ...]]
    records: list[tuple[Any, ...]]
    quarantine: list[tuple[Any, ...]]
    discarded: list[tuple[Any, ...]]
    counters: dict[int, int]

    def require_consistent(self) -> None:
        """Positions and counters have no gap, and each record stands where a change put it."""
        assert [row[0] for row in self.changes] == list(range(1, self.head + 1))
        assert {row[2] for row in self.records} <= set(range(1, self.head + 1))
        for replica, counter in self.counters.items():
            decided = [row[2] for row in self.changes if row[1] == replica]
            decided += [row[1] for row in self.quarantine if row[0] == replica]
            for _, first, last in [row for row in self.discarded if row[0] == replica]:
                if last > 2**20:
                    return  # given up at one stroke: nobody counts so far
                decided += range(first, last + 1)
            assert sorted(decided) == list(range(1, counter + 1))


_OF = {
    "changes": "position, replica, counter, at, ops::text",
    "records": "collection, id, position, deleted, data::text, causality",
    "quarantine": "replica, counter, body, error::text",
    "discarded": "replica, first, last",
    "replicas": "number, counter",
}
_SPACE = """
    SELECT u.personal_space_id FROM devices d JOIN users u ON u.id = d.user_id WHERE d.id = :device
"""


def ledger(engine: Engine, phone: Phone) -> Ledger:
    with engine.connect() as connection:
        space = phone.space
        if space == "me":
            space = connection.scalar(text(_SPACE), {"device": phone.device})

        def rows(table: str) -> list[tuple[Any, ...]]:
            sql = f"SELECT {_OF[table]} FROM {table} WHERE space_id = :space ORDER BY 1, 2"  # noqa: S608
            return [tuple(row) for row in connection.execute(text(sql), {"space": space})]

        head = connection.scalar(
            text("SELECT head FROM spaces WHERE id = :space"), {"space": space}
        )
        return Ledger(
            head,
            rows("changes"),
            rows("records"),
            rows("quarantine"),
            rows("discarded"),
            dict(rows("replicas")),
        )
