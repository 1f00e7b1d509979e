"""Devices that speak the protocol over HTTP, one request at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from flask.testing import FlaskClient

PASSWORD = "correct horse battery staple"
_numbers = itertools.count(1)


@dataclass
class Phone:
    """One device of a user. It keeps its counter, its cursor and its epoch; no data."""

    http: FlaskClient
    email: str
    token: str
    device: str
    space: str = "me"
    counter: int = 0
    cursor: int = 0
    epoch: int | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def change(self, *ops: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The next change, made now, having seen what was pulled."""
        self.counter += 1
        context: dict[str, Any] = {"cursor": self.cursor}
        if self.epoch is not None:
            context["epoch"] = self.epoch
        made = {"counter": self.counter, "context": context, "at": 1_763_800_000_000, "ops": [*ops]}
        return {**made, **more}

    def sync(self, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
        """One round trip for this phone's space; moves the cursor as a device does."""
        part = {
            "cursor": self.cursor,
            "counter": self.counter,
            "changes": [*changes],
            **({"epoch": self.epoch} if self.epoch is not None else {}),
            **more,
        }
        answer = self.post("/v1/sync", {"spaces": {self.space: part}})
        assert answer.status_code == 200, answer.text
        got: dict[str, Any] = answer.json["spaces"][self.space]
        if "error" not in got:
            self.cursor, self.epoch = got["cursor"], got["epoch"]
        return got

    def post(self, path: str, body: object) -> Any:
        return self.http.post(path, json=body, headers=self.headers)

    def get(self, path: str, **query: object) -> Any:
        return self.http.get(path, query_string=query, headers=self.headers)

    def pull_all(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The whole space from 0, page by page, by (collection, id)."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        page = None
        while True:
            query = {"page": page} if page else {}
            answer = self.get(f"/v1/spaces/{self.space}/pull", cursor=0, **query).json
            for record in answer["records"]:
                found[record["collection"], record["id"]] = record
            page = answer["page"]
            if page is None:
                return {key: r for key, r in found.items() if not r.get("deleted")}


def phone(http: FlaskClient, email: str | None = None, **device: Any) -> Phone:
    """A phone of a new user, or another one of a user that there is."""
    if email is None:
        email = f"user{next(_numbers)}-{id(http)}@example.org"
        made = http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
        assert made.status_code == 201, made.text
    about = {"name": "phone", "platform": "test", "app_version": "1", **device}
    body = {"email": email, "password": PASSWORD, "device": about}
    answer = http.post("/v1/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    return Phone(http, email, answer.json["access_token"], answer.json["device_id"])


def put(id_: str, *, new: bool = False, collection: str = "tasks", **fields: Any) -> dict[str, Any]:
    op = {"op": "put", "collection": collection, "id": id_, "fields": fields}
    return {**op, "new": True} if new else op


def delete(id_: str) -> dict[str, Any]:
    return {"op": "delete", "collection": "tasks", "id": id_}


def increment(id_: str, field: str, by: int) -> dict[str, Any]:
    return {"op": "increment", "collection": "tasks", "id": id_, "field": field, "by": by}


def add(id_: str, field: str, *values: Any) -> dict[str, Any]:
    return {"op": "add", "collection": "tasks", "id": id_, "field": field, "values": [*values]}


def remove(id_: str, field: str, *values: Any) -> dict[str, Any]:
    return {"op": "remove", "collection": "tasks", "id": id_, "field": field, "values": [*values]}
