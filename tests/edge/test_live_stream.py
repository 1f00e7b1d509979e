"""Catch-up and live changes are one stream: no gap, no repeat, whatever commits in that moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from tests.conftest import LiveServer
from tests.contract.devices import Phone, delete, increment, put
from tests.edge.sockets import Websocket
from tests.edge.web import on_each_worker, phone_at

WRITERS, CHANGES, READERS = 4, 25, 6
PATIENCE_SECONDS = 60


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    # Small pages, so that the stream has partial deltas all the time.
    return start_server(REJOIN_LIMIT_PAGE_RECORDS="3")


class Copy:
    """What a device makes of the stream: the records, and the cursor they are measured from."""

    def __init__(self) -> None:
        self.cursor = 0
        self.records: dict[tuple[str, str], dict[str, Any]] = {}
        self._partial: list[dict[str, Any]] = []

    def take(self, delta: dict[str, Any]) -> None:
        assert delta["from"] == self.cursor, "a gap, or a repeat"
        self._partial.append(delta)
        if delta["partial"]:
            assert delta["cursor"] == self.cursor
            return
        for part in self._partial:
            for record in part["records"]:
                self._apply(record)
        self._partial = []
        assert delta["cursor"] >= self.cursor
        self.cursor = delta["cursor"]

    def _apply(self, record: dict[str, Any]) -> None:
        key = record["collection"], record["id"]
        if record.get("deleted"):
            self.records.pop(key, None)
        elif record.get("replace"):
            self.records[key] = dict(record["fields"])
        else:
            self.records.setdefault(key, {}).update(record["fields"])


class Progress:
    """How many changes are committed, for readers that come in between."""

    def __init__(self) -> None:
        self.count = 0
        self.changed = threading.Condition()

    def note(self) -> None:
        with self.changed:
            self.count += 1
            self.changed.notify_all()

    def reach(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.count >= count, PATIENCE_SECONDS)


def _write(phone: Phone, number: int, progress: Progress) -> None:
    random = Random(number)
    for _ in range(CHANGES):
        id_ = f"r{random.randrange(12)}"
        op = random.choice(
            [
                put(id_, x=random.random()),
                put(id_, y="é" * random.randrange(9)),
                delete(id_),
                increment(id_, "n", 1),
                put(id_, new=True, z=number),
            ]
        )
        answer = phone.post(
            "/v1/spaces/me/push", {"counter": phone.counter + 1, "changes": [phone.change(op)]}
        )
        assert answer.status_code == 200, answer.text
        progress.note()


def _follow(server: LiveServer, phone: Phone, progress: Progress, after: int) -> Copy:
    progress.reach(after)
    socket = Websocket(server.url, token=phone.token)
    copy = Copy()
    socket.hello("me")
    while copy.cursor < WRITERS * CHANGES:
        copy.take(socket.until("delta", PATIENCE_SECONDS))
    socket.close()
    return copy


def test_who_comes_while_others_write_misses_nothing_and_gets_nothing_twice(
    server: LiveServer,
) -> None:
    first = phone_at(server.url)
    writers = [phone_at(server.url, first.email) for _ in range(WRITERS)]
    progress = Progress()
    with ThreadPoolExecutor(WRITERS + READERS) as pool:
        readers = [pool.submit(_follow, server, first, progress, n * 15) for n in range(READERS)]
        writing = [pool.submit(_write, w, n, progress) for n, w in enumerate(writers)]
        for one in writing:
            one.result(PATIENCE_SECONDS)
        copies = [reader.result(PATIENCE_SECONDS) for reader in readers]
    truth = {key: record["fields"] for key, record in first.pull_all().items()}
    for copy in copies:
        assert copy.cursor == WRITERS * CHANGES
        assert copy.records == truth


def test_a_reader_that_does_not_read_falls_back_to_its_cursor_and_delays_nobody(
    server: LiveServer,
) -> None:
    a = phone_at(server.url)
    slow = Websocket(server.url, token=a.token, receive_buffer=4096)
    quick = Websocket(server.url, token=a.token)
    slow.hello("me")
    quick.hello("me")
    copies = {"slow": Copy(), "quick": Copy()}
    text = "x" * 100_000
    for n in range(60):
        a.sync(a.change(put(f"r{n % 10}", text=f"{n} {text}")))
        while copies["quick"].cursor <= n:
            copies["quick"].take(quick.until("delta"))
    deltas = 0
    while copies["slow"].cursor < 60:
        copies["slow"].take(slow.until("delta"))
        deltas += 1
    assert copies["slow"].records == copies["quick"].records
    assert deltas < 60, "it was sent every change, one by one"
    slow.close()
    quick.close()


def test_a_long_poll_wakes_for_a_change_through_another_worker(server: LiveServer) -> None:
    a = phone_at(server.url)
    sockets = on_each_worker(server.worker_pids(), lambda: Websocket(server.url, token=a.token))
    for socket in sockets:
        socket.hello("me")
    with ThreadPoolExecutor(1) as pool:
        for n in range(6):
            poll = pool.submit(a.get, "/v1/spaces/me/pull", cursor=n, wait=30)
            # Whichever worker the poll is on, one of the two sockets writes through the other.
            change = a.change(put("t", n=n))
            sockets[n % 2].send({"type": "push", "space": "me", "changes": [change]})
            answer = poll.result(PATIENCE_SECONDS).json
            assert (answer["cursor"], len(answer["records"])) == (n + 1, 1)
    for socket in sockets:
        socket.close()
