"""A server for the device's own tests: one account, answers by the protocol's shapes, no merging.

It knows dots, positions, field-level deltas, pages and rejections; the last write of a field wins.
What it can't do by itself a test scripts: `scripts` change or replace the next answers of a space,
`fail` for the next requests. Conflicts, forks and gaps are said, not computed.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from typing import Any

import pycrdt

from rejoin.transport import HttpAnswer
from rejoin.values import sort_elements

SPACE = "11111111-1111-4111-8111-111111111111"
Answer = dict[str, Any]


class FakeServer:
    """In-process `Http`. `requests` holds every decoded sync body."""

    def __init__(self, page_records: int = 1000) -> None:
        self.page_records = page_records
        self.epoch = 1
        self.head = 0
        self.counters: dict[str, int] = {}
        self.rows: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[Any] = []
        self.changes: list[tuple[str, Any]] = []
        self.refuse: Callable[[Any], Answer | None] = lambda change: None
        self.scripts: list[Callable[[Answer], Answer]] = []
        self.fail: list[HttpAnswer | OSError] = []
        self.devices = 0
        self.logins: list[Any] = []
        self.expired: set[str] = set()
        self.refreshed = 0
        self.lose_answers = 0
        self.access: dict[str, str] = {}

    # ---- HTTP

    def request(  # noqa: C901  # one branch for each path
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpAnswer:
        assert timeout_s > 0
        if self.fail:
            failure = self.fail.pop(0)
            if isinstance(failure, OSError):
                raise failure
            return failure
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body or b"")
        asked = json.loads(body) if body else {}
        path = url.split("/v1/", 1)[1]
        if path == "auth/signup":
            return _said(201, {})
        if path == "auth/login":
            return self._login(asked)
        if path == "auth/refresh":
            self.refreshed += 1
            return _said(200, self._tokens(asked["refresh_token"].split(" ")[1]))
        token = headers.get("Authorization", "").removeprefix("Bearer ")
        if token in self.expired:
            return _problem(401, "token_expired", "The token has expired.")
        if path == "sync":
            self.requests.append(asked)
            answer = {
                "server_time": 0,
                "spaces": {
                    space: self._answer(self.access[token], part)
                    for space, part in asked["spaces"].items()
                },
            }
            if self.lose_answers:
                self.lose_answers -= 1
                raise ConnectionError("the answer was lost")
            return _said(200, answer)
        if path.startswith("spaces/") and "/log" in path:
            return _said(
                200,
                {
                    "epoch": self.epoch,
                    "head": self.head,
                    "changes": [
                        {
                            "position": n,
                            "device": d,
                            "counter": c["counter"],
                            "at": c["at"],
                            "ops": c["ops"],
                        }
                        for n, (d, c) in enumerate(self.changes, 1)
                    ],
                },
            )
        return _problem(404, "not_found", f"no {method} {path}")

    def close(self) -> None:
        """As Urllib3 has it."""

    def _login(self, asked: Any) -> HttpAnswer:
        self.logins.append(asked)
        device = asked.get("device_id")
        if device is None:
            self.devices += 1
            device = f"00000000-0000-4000-8000-{self.devices:012}"
        return _said(200, self._tokens(device))

    def _tokens(self, device: str) -> Answer:
        access = f"access {device} {self.refreshed} {len(self.logins)}"
        self.access[access] = device
        return {
            "access_token": access,
            "refresh_token": f"refresh {device} {self.refreshed}",
            "device_id": device,
            "personal_space": SPACE,
            "expires_in": 900,
        }

    # ---- one space

    def _answer(self, device: str, part: Any) -> Answer:
        if self.scripts and self.scripts[0].__name__ == "instead":
            return self.scripts.pop(0)({})
        rejected = []
        for change in part.get("changes", []):
            if change["counter"] <= self.counters.get(device, 0):
                continue
            expected = self.counters.get(device, 0) + 1
            if change["counter"] != expected and part.get("discarded", 0) < change["counter"] - 1:
                return {"error": {"code": "counter_gap", "detail": "gap", "expected": expected}}
            self.counters[device] = change["counter"]
            error = self.refuse(change)
            if error:
                rejected.append({"counter": change["counter"], "error": error})
            else:
                self.commit(change, device)
        answer = self._pull(part)
        answer |= {"accepted": self.counters.get(device, 0), "rejected": rejected}
        return self.scripts.pop(0)(answer) if self.scripts else answer

    def commit(self, change: Any, device: str = "another") -> None:
        """A change into the log, from anywhere."""
        self.head += 1
        self.changes.append((device, change))
        for op in change["ops"]:
            self._apply(op)

    def write(self, *ops: Answer) -> None:
        """A change of some other device."""
        self.commit({"counter": 0, "at": 0, "ops": list(ops)})

    def _apply(self, op: Any) -> None:
        row = self.rows.setdefault(
            (op["collection"], op["id"]),
            {"fields": {}, "positions": {}, "deleted": True, "begun": 0, "position": 0},
        )
        row["position"] = self.head
        if op["op"] == "delete":
            row["deleted"] = True
            return
        if row["deleted"]:
            row |= {"deleted": False, "begun": self.head}
        if op.get("new"):
            row |= {"fields": {}, "positions": {}, "begun": self.head}
        fields = row["fields"]
        if op["op"] == "put":
            for name, value in op.get("fields", {}).items():
                fields[name], row["positions"][name] = value, self.head
            return
        name = op["field"]
        if op["op"] == "edit":
            update = base64.b64decode(op["update"])
            row.setdefault("documents", {}).setdefault(name, []).append((self.head, update))
            return
        row["positions"][name] = self.head
        if op["op"] == "increment":
            fields[name] = fields.get(name, 0) + op["by"]
        elif op["op"] == "add":
            fields[name] = sort_elements([*fields.get(name, []), *op["values"]])
        else:
            fields[name] = [e for e in fields.get(name, []) if e not in op["values"]]

    def _pull(self, part: Any) -> Answer:
        cursor = part.get("cursor", 0)
        found = []
        for (collection, record_id), row in self.rows.items():
            if row["position"] <= cursor:
                continue
            one: Answer = {"collection": collection, "id": record_id, "position": row["position"]}
            if row["deleted"]:
                one["deleted"] = True
            elif row["begun"] > cursor:
                one |= {"replace": True, "fields": dict(row["fields"])}
            else:
                one["fields"] = {
                    n: row["fields"][n] for n, p in row["positions"].items() if p > cursor
                }
            since = 0 if one.get("replace") else cursor
            told = {
                name: [update for position, update in updates if position > since]
                for name, updates in row.get("documents", {}).items()
            }
            if not row["deleted"] and any(told.values()):
                one["documents"] = {
                    name: base64.b64encode(pycrdt.merge_updates(*updates)).decode()
                    for name, updates in told.items()
                    if updates
                }
            found.append(one)
        found.sort(key=lambda one: one["position"])
        start = int(part["page"]) if part.get("page") else 0
        end = start + self.page_records
        last = end >= len(found)
        return {
            "epoch": self.epoch,
            "reset": False,
            "records": found[start:end],
            "clock": {},
            "page": None if last else str(end),
            "head": self.head,
            **({"cursor": self.head} if last else {}),
        }


def _said(status: int, body: Answer) -> HttpAnswer:
    return HttpAnswer(status, {"content-type": "application/json"}, json.dumps(body).encode())


def _problem(status: int, code: str, detail: str) -> HttpAnswer:
    return _said(status, {"code": code, "detail": detail, "status": status})
