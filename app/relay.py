"""What the workers tell each other: hints, who is present, whose rights have changed.

Promises: nobody waits for the relay; what is posted twice before it goes out goes once, as it is
last; many go in one statement. It may lose things: where the channel fails it is tried again, and
when it is back, all who care are told (`on_return`), so that they look for what they missed.
A worker's own messages don't come back to it.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Engine

from app.errors import UNREACHABLE
from app.hints import Hints, Stand
from storage.engine import one_statement
from storage.notify import PAYLOAD_BYTES_MAX, Channel, ChannelDown, stands
from storage.sql import cursor

log = logging.getLogger(__name__)

# What has not gone out yet. Past it the channel is down, or too slow: better to lose hints.
PENDING_MAX: Final = 20_000
RETRY_SECONDS: Final = 1.0
# A hint that was lost costs at most so long.
LOOK_SECONDS: Final = 2.0
# Spaces to look at in one statement.
LOOK_AT_ONCE: Final = 5_000
# Every worker beats: who does not even hear itself for so long has lost the channel.
BEAT: Final = "beat"
BEAT_SECONDS: Final = 5.0
DEAF_SECONDS: Final = 20.0
SPACE: Final = "space"

# With the worker's name, the key and the value.
Receiver = Callable[[str, str, Any], None]


class Relay:
    """One for each worker. `worker` is its name among the others."""

    def __init__(self, channel: Channel) -> None:
        self.worker = secrets.token_hex(4)
        self._channel = channel
        # When each of the other workers was last heard, by time.monotonic.
        self.heard: dict[str, float] = {}
        self._receivers: dict[str, Receiver] = {}
        self._returned: list[Callable[[], None]] = []
        self._pending: dict[tuple[str, str], Any] = {}
        self._posted = threading.Event()

    def on(self, topic: str, receiver: Receiver) -> None:
        """Call it with what other workers post on the topic. It must not block."""
        self._receivers[topic] = receiver

    def on_return(self, look: Callable[[], None]) -> None:
        """Call it when the relay listens, first or again: what was told meanwhile is lost."""
        self._returned.append(look)

    def post(self, topic: str, key: str, value: object) -> None:
        """To all other workers; what waits under the same key is overwritten."""
        if len(self._pending) < PENDING_MAX or (topic, key) in self._pending:
            self._pending[topic, key] = value
            self._posted.set()

    def start(self) -> None:
        """Send and listen, each in a thread of its own (a greenlet, in gevent's worker)."""
        for task in (self._send, self._listen, self._beat):
            threading.Thread(target=task, daemon=True, name=f"relay{task.__name__}").start()

    def _beat(self) -> None:
        while True:
            self.post(BEAT, "", None)
            time.sleep(BEAT_SECONDS)

    def _send(self) -> None:
        while True:
            self._posted.wait()
            self._posted.clear()
            pending, self._pending = self._pending, {}
            items = [(topic, key, value) for (topic, key), value in pending.items()]
            try:
                self._channel.send(list(payloads(self.worker, items)))
            except ChannelDown as error:
                log.warning("hints can't be sent: %s", type(error.__cause__).__name__)
                time.sleep(RETRY_SECONDS)
                self._put_back(pending)

    def _put_back(self, pending: dict[tuple[str, str], Any]) -> None:
        """What the channel did not take goes with the next, but for what was overwritten since."""
        for (topic, key), value in pending.items():
            if (topic, key) not in self._pending:
                self.post(topic, key, value)

    def _listen(self) -> None:
        while True:
            try:
                self._follow(self._channel.listen())
            except ChannelDown as error:
                log.warning("hints can't be received: %s", type(error.__cause__).__name__)
            except Exception:
                log.exception("a hint could not be taken")
            time.sleep(RETRY_SECONDS)

    def _follow(self, arriving: Iterator[str]) -> None:
        next(arriving)
        for look in self._returned:
            look()
        heard_at = time.monotonic()
        for payload in arriving:
            if payload:
                heard_at = time.monotonic()
                self._take(payload)
            elif time.monotonic() - heard_at > DEAF_SECONDS:
                raise ChannelDown("nothing comes")

    def _take(self, payload: str) -> None:
        try:
            worker, items = json.loads(payload)
            if worker != self.worker:
                self.heard[worker] = time.monotonic()
                for topic, key, value in items:
                    if topic in self._receivers:
                        self._receivers[topic](worker, key, value)
        except (ValueError, TypeError):
            return  # someone else's, on a channel of the same name


def payloads(worker: str, items: Sequence[tuple[str, str, Any]]) -> Iterator[str]:
    """The items in as few messages as hold them. One too large for any is left out."""
    head = f'["{worker}",['
    room = PAYLOAD_BYTES_MAX - len(head) - 2
    held: list[str] = []
    size = 0
    for item in items:
        text = json.dumps(item, separators=(",", ":"))
        if held and size + len(text) + 1 > room:
            yield f"{head}{','.join(held)}]]"
            held, size = [], 0
        if len(text) <= room:
            held.append(text)
            size += len(text) + 1
    if held:
        yield f"{head}{','.join(held)}]]"


def connect(hints: Hints, relay: Relay, engine: Engine) -> None:
    """Let hints go by the relay, and look for those that it loses."""

    def arrived(_worker: str, space: str, stand: Any) -> None:
        epoch, head = stand
        hints.arrived(UUID(space), (int(epoch), int(head)))

    def send(space: UUID, stand: Stand) -> None:
        relay.post(SPACE, str(space), stand)

    def look_for_ever() -> None:
        while True:
            time.sleep(LOOK_SECONDS)
            look(hints, engine)

    relay.on(SPACE, arrived)
    relay.start()
    threading.Thread(target=look_for_ever, daemon=True, name="hints look again").start()
    hints.relay = send


def look(hints: Hints, engine: Engine) -> None:
    """One look at all the spaces that are watched: whoever stands behind is woken."""
    watched = hints.watched()
    try:
        for begin in range(0, len(watched), LOOK_AT_ONCE):
            with one_statement(engine) as connection:
                found = stands(cursor(connection), watched[begin : begin + LOOK_AT_ONCE])
            for space, stand in found.items():
                hints.arrived(space, stand)
    except UNREACHABLE as error:
        log.warning("no look at the spaces watched: %s", type(error).__name__)
