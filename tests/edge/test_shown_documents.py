"""The text of a large document in its record, with workers that come and go."""

from __future__ import annotations

import base64
import json
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pycrdt
from sqlalchemy import text

from storage.engine import make_engine

SHOWN = "SELECT data->>'body' FROM records"
PATIENCE_SECONDS = 60


def _post(url: str, body: object, token: str = "") -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        return json.load(answer)


def _edits(url: str, token: str, first: int, *updates: bytes) -> None:
    for counter, update in enumerate(updates, first):
        shown = base64.b64encode(update).decode()
        op = {"op": "edit", "collection": "n", "id": "1", "field": "body", "update": shown}
        change = {"counter": counter, "context": {"cursor": 0}, "at": 0, "ops": [op]}
        pushed = _post(f"{url}/v1/spaces/me/push", {"changes": [change]}, token)
        assert (pushed["accepted"], pushed["rejected"]) == (counter, [])


def test_the_last_letters_are_shown_by_a_worker_that_serves_and_by_one_that_stops(
    start_server: Callable[..., Any],
) -> None:
    server = start_server(WEB_CONCURRENCY="1")
    person = {"email": "writer@example.org", "password": "correct horse battery staple"}
    _post(f"{server.url}/v1/auth/signup", person)
    device = {"device": {"name": "x", "platform": "", "app_version": ""}}
    token = _post(f"{server.url}/v1/auth/login", {**person, **device})["access_token"]
    document: Any = pycrdt.Doc()
    made: list[bytes] = []
    watch = document.observe(lambda event: made.append(event.update))
    typed = document.get("t", type=pycrdt.Text)
    typed += "x" * 60_000
    typed += "!"
    typed += "?"
    del watch
    engine = make_engine(server.database_url, 1)
    with engine.connect() as connection:
        _edits(server.url, token, 1, *made[:2])
        until = time.monotonic() + PATIENCE_SECONDS
        while not connection.execute(text(SHOWN)).scalar_one().endswith("!"):
            connection.rollback()
            assert time.monotonic() < until, "nobody showed it"
        connection.rollback()
        _edits(server.url, token, 3, made[2])
        server.stop()
        assert connection.execute(text(SHOWN)).scalar_one().endswith("!?")
    engine.dispose()
