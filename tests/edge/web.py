"""HTTP to a real server, by the interface of Flask's test client, and which worker serves whom."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlencode

import psutil
from flask.testing import FlaskClient

from tests.contract.devices import Phone, phone
from tests.edge.sockets import Websocket

TRIES = 64
PATIENCE_SECONDS = 10


@dataclass
class Answer:
    status_code: int
    headers: Mapping[str, str]
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")

    @property
    def json(self) -> Any:
        return json.loads(self.data)


class Http:
    """One request a connection: any worker may answer."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self, path: str, method: str = "GET", **given: Any) -> Answer:
        headers = dict(given.get("headers") or {})
        data = given.get("data")
        if "json" in given:
            data = json.dumps(given["json"]).encode()
            headers["Content-Type"] = "application/json"
        query = given.get("query_string")
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return Answer(answer.status, answer.headers, answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.headers, error.read())

    def get(self, path: str, **given: Any) -> Answer:
        return self.open(path, "GET", **given)

    def post(self, path: str, **given: Any) -> Answer:
        return self.open(path, "POST", **given)

    def put(self, path: str, **given: Any) -> Answer:
        return self.open(path, "PUT", **given)

    def delete(self, path: str, **given: Any) -> Answer:
        return self.open(path, "DELETE", **given)


def client(url: str) -> FlaskClient:
    """For what is written for Flask's test client."""
    return cast("FlaskClient", Http(url))


def phone_at(url: str, email: str | None = None, **device: Any) -> Phone:
    """A phone of a new user, or another of one that there is, at a real server."""
    return phone(client(url), email, **device)


def worker_of(pids: list[int], socket: Websocket) -> int:
    """The process that serves the websocket."""
    mine = socket.tcp.getsockname()
    deadline = time.monotonic() + PATIENCE_SECONDS
    # Read a piece at a time, while a worker moves the connection to another descriptor.
    while time.monotonic() < deadline:
        for pid in pids:
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.raddr and tuple(connection.raddr) == tuple(mine):
                    return pid
    raise AssertionError("no worker serves this websocket")


def on_each_worker(pids: list[int], connect: Callable[[], Websocket]) -> list[Websocket]:
    """A websocket on each of the workers, in the order of the pids."""
    found: dict[int, Websocket] = {}
    for _ in range(TRIES):
        made = connect()
        pid = worker_of(pids, made)
        if pid in found:
            made.close()
        else:
            found[pid] = made
        if len(found) == len(pids):
            return [found[pid] for pid in pids]
    raise AssertionError("one worker takes everything")
