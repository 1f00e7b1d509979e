"""Hints and their relay: who is woken, what goes out together, and what a loss costs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from uuid import UUID, uuid4

import pytest

from app import relay as relays
from app.hints import NOWHERE, Hints, Watch
from app.relay import Relay, payloads
from storage.notify import PAYLOAD_BYTES_MAX, ChannelDown

PATIENCE_SECONDS = 10


def test_who_has_seen_what_a_hint_tells_is_not_woken_by_it() -> None:
    hints, space, woken = Hints(), uuid4(), []
    old = Watch(space, lambda: woken.append("old"), seen=(1, 3))
    new = Watch(space, lambda: woken.append("new"), seen=(1, 7))
    hints.add(old)
    hints.add(new)
    hints.arrived(space, (1, 5))
    hints.arrived(space, (1, 5))
    assert woken == ["old"]
    hints.arrived(space, (1, 8))
    assert sorted(woken[1:]) == ["new", "old"]


def test_a_hint_of_which_nobody_knows_the_place_wakes_all_every_time() -> None:
    hints, space, woken = Hints(), uuid4(), []
    hints.add(Watch(space, lambda: woken.append(1), seen=(1, 7)))
    hints.tell(space)
    hints.arrived(space, NOWHERE)
    assert woken == [1, 1]


def test_a_restored_history_is_news_though_its_head_is_lower() -> None:
    hints, space, woken = Hints(), uuid4(), []
    hints.add(Watch(space, lambda: woken.append(1), seen=(1, 700)))
    hints.arrived(space, (2, 3))
    assert woken == [1]


def test_what_was_told_here_goes_to_the_others_and_what_arrives_does_not() -> None:
    hints, space, sent = Hints(), uuid4(), []
    hints.relay = lambda *told: sent.append(told)
    hints.tell(space, 1, 3)
    hints.arrived(space, (1, 4))
    assert sent == [(space, (1, 3))]


def test_many_hints_go_in_few_messages_none_larger_than_postgresql_takes() -> None:
    items = [("space", str(UUID(int=n)), (1, n)) for n in range(1_000)]
    made = list(payloads("w", [*items, ("x", "too large", "y" * 9_000)]))
    assert len(made) < 10
    assert max(len(one.encode()) for one in made) <= PAYLOAD_BYTES_MAX
    found = [tuple(item) for one in made for item in json.loads(one)[1]]
    assert found == [(topic, key, list(value)) for topic, key, value in items]


class Wire:
    """A channel to listeners of this process, that can be cut."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.cuts = 0
        self.news = threading.Condition()

    def send(self, payloads: Sequence[str]) -> None:
        with self.news:
            self.sent += payloads
            self.news.notify_all()

    def cut(self) -> None:
        with self.news:
            self.cuts += 1
            self.news.notify_all()

    def listen(self) -> Iterator[str]:
        at, cuts = len(self.sent), self.cuts
        yield ""
        while True:
            with self.news:
                while len(self.sent) == at and self.cuts == cuts:
                    self.news.wait(PATIENCE_SECONDS)
                if self.cuts > cuts:
                    raise ChannelDown("cut") from ConnectionError()
                came = self.sent[at:]
                at = len(self.sent)
            yield from came


def test_a_relay_brings_what_others_post_and_looks_again_after_it_was_cut() -> None:
    wire = Wire()
    one, two = Relay(wire), Relay(wire)
    got: list[tuple[str, object]] = []
    came, returned = threading.Event(), threading.Semaphore(0)
    for relay in (one, two):
        relay.on("t", lambda _worker, key, value: (got.append((key, value)), came.set()))
    two.on_return(returned.release)
    two.start()
    assert returned.acquire(timeout=PATIENCE_SECONDS)
    one.start()
    one.post("t", "k", 1)
    assert came.wait(PATIENCE_SECONDS)
    assert got == [("k", 1)], "the sender hears itself, or it came twice"
    wire.cut()
    assert returned.acquire(timeout=PATIENCE_SECONDS), "it does not listen again"


def test_what_a_failing_channel_did_not_take_is_sent_again_but_for_what_came_since(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relays, "RETRY_SECONDS", 0)
    wire, broken = Wire(), Wire()
    one, two = Relay(broken), Relay(wire)
    got: list[tuple[str, object]] = []
    came, listening = threading.Semaphore(0), threading.Event()
    two.on("t", lambda _worker, key, value: (got.append((key, value)), came.release()))
    two.on_return(listening.set)

    def fail_once(_payloads: Sequence[str]) -> None:
        broken.send = wire.send  # type: ignore[method-assign]
        one.post("t", "twice", 2)
        raise ChannelDown("cut") from ConnectionError()

    broken.send = fail_once  # type: ignore[method-assign]
    one.post("t", "twice", 1)
    one.post("t", "once", 1)
    two.start()
    assert listening.wait(PATIENCE_SECONDS)
    one.start()
    for _ in range(2):
        assert came.acquire(timeout=PATIENCE_SECONDS)
    assert sorted(got) == [("once", 1), ("twice", 2)]


def test_what_is_posted_twice_before_it_goes_out_goes_once_as_it_is_last() -> None:
    relay = Relay(Wire())
    for n in range(5):
        relay.post("t", "k", n)
    assert relay._pending == {("t", "k"): 4}
