"""What devices show of themselves to those that are online in the same space, while they are.

Promises: a state is never stored; it goes with its socket, and with its worker, should that be
killed; who left while the relay was away is not shown for ever; many changes of one device within
FLUSH_SECONDS are one message, the last; what a device sees of a space on coming is at most
SHOWN_MAX others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol
from uuid import UUID

import gevent

from app.relay import BEAT_SECONDS, Relay

FLUSH_SECONDS: Final = 0.05
SHOWN_MAX: Final = 200
# A worker that has said nothing for so long is gone, with all its devices.
SILENT_SECONDS: Final = 16.0
# Whom the other workers have not confirmed so long after they were asked has left.
CONFIRM_SECONDS: Final = 5.0
SENT_PER_TURN: Final = 128
PRESENCE: Final = "presence"
ASK: Final = "ask"


@dataclass(frozen=True, slots=True)
class Shown:
    """A device's state. `worker` None: this one."""

    device: str
    state: dict[str, Any] | None
    worker: str | None = None


class Viewer(Protocol):
    """A member of a room, as presence sees it. `key` names its socket among all of all workers."""

    key: str

    def sees(self, name: str, shown: Shown, written: dict[tuple[str, str], bytes]) -> None:
        """Another device's state; None: it has gone. Must not block. `written`: the message, by
        name and format, as those before had it.
        """


class Audience(Protocol):
    """Where the viewers are: the hub."""

    def viewers(self, space: UUID) -> list[tuple[Viewer, str]]:
        """Those in the space, and how they call it."""

    def audiences(self) -> list[UUID]:
        """The spaces with viewers in this worker."""


class Presences:
    """All that is shown in the spaces that this worker has members in."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._relay: Relay | None = None
        self._shown: dict[UUID, dict[str, Shown]] = {}
        self._changed: dict[tuple[UUID, str], Shown] = {}
        self._flushing = False
        # What others showed before the relay was away, until they confirm it.
        self._doubted: set[tuple[UUID, str]] = set()

    def join(self, relay: Relay) -> None:
        """Exchange presences with the other workers."""
        self._relay = relay
        relay.on(PRESENCE, self._arrived)
        relay.on(ASK, lambda _worker, space, _value: self._tell_all(UUID(space)))
        relay.on_return(self._returned)
        gevent.spawn(self._mourn)

    def show(self, space: UUID, key: str, device: str, state: dict[str, Any] | None) -> None:
        """A device of this worker shows itself; None: it does not any more."""
        if state is None and key not in self._shown.get(space, {}):
            return
        self._put(space, key, Shown(device, state))

    def others(self, space: UUID, key: str) -> Iterator[Shown]:
        """What the others in the space show; SHOWN_MAX of them at most."""
        found = [shown for other, shown in self._shown.get(space, {}).items() if other != key]
        yield from found[:SHOWN_MAX]

    def ask(self, space: UUID) -> None:
        """The space has its first viewer here: who is present elsewhere?"""
        if self._relay is not None:
            self._relay.post(ASK, str(space), None)

    def _returned(self) -> None:
        """The relay is back. Who left meanwhile has said so to nobody here; and who was back
        before us has asked when we did not hear.
        """
        doubted = {
            (space, key)
            for space, here in self._shown.items()
            for key, shown in here.items()
            if shown.worker is not None
        }
        self._doubted = doubted
        gevent.spawn_later(CONFIRM_SECONDS, self._drop_doubted, doubted)
        for space in self._audience.audiences():
            self.ask(space)
            self._tell_all(space)

    def forget(self, space: UUID) -> None:
        """The space has no viewer here any more: what others show is not kept."""
        self._shown.pop(space, None)

    def _tell_all(self, space: UUID) -> None:
        for key, shown in self._shown.get(space, {}).items():
            self._post(space, key, shown)

    def _post(self, space: UUID, key: str, shown: Shown) -> None:
        if shown.worker is None and self._relay is not None:
            self._relay.post(PRESENCE, f"{space} {key}", [shown.device, shown.state])

    def _arrived(self, worker: str, about: str, value: Any) -> None:
        name, key = about.split(" ", 1)
        space = UUID(name)
        device, state = value
        self._doubted.discard((space, key))
        if self._audience.viewers(space):
            self._put(space, key, Shown(device, state, worker))

    def _put(self, space: UUID, key: str, shown: Shown) -> None:
        here = self._shown.setdefault(space, {})
        if here.get(key) == shown:
            return
        if shown.state is None:
            here.pop(key, None)
        else:
            here[key] = shown
        if not here:
            del self._shown[space]
        self._changed[space, key] = shown
        if not self._flushing:
            self._flushing = True
            gevent.spawn_later(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        changed, self._changed = self._changed, {}
        sent = 0
        for (space, key), shown in changed.items():
            self._post(space, key, shown)
            written: dict[tuple[str, str], bytes] = {}
            for viewer, name in self._audience.viewers(space):
                if viewer.key != key:
                    viewer.sees(name, shown, written)
                    sent += 1
                    if sent % SENT_PER_TURN == 0:
                        gevent.sleep(0)

    def _mourn(self) -> None:
        while True:
            gevent.sleep(BEAT_SECONDS)
            self._drop_silent(time.monotonic() - SILENT_SECONDS)

    def _drop_silent(self, heard_after: float) -> None:
        heard = self._relay.heard if self._relay else {}
        for space, here in tuple(self._shown.items()):
            for key, shown in tuple(here.items()):
                if shown.worker is not None and heard.get(shown.worker, 0) < heard_after:
                    self._put(space, key, replace(shown, state=None))

    def _drop_doubted(self, doubted: set[tuple[UUID, str]]) -> None:
        if doubted is not self._doubted:
            return  # asked again since
        for space, key in doubted:
            shown = self._shown.get(space, {}).get(key)
            if shown is not None:
                self._put(space, key, replace(shown, state=None))
