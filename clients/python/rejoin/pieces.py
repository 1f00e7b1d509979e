"""Deltas of the live socket, put together: the partial ones with the one that ends them. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from rejoin.answers import SpaceAnswer, as_int, as_object, as_text, read_delta
from rejoin.values import Json, JsonObject

RECORDS_MAX = 20_000
"""Records of one space in hand and not applied yet. Above it a plain sync fetches them, whose pages
are kept in the file."""


@dataclass(frozen=True)
class Delta:
    """What happened in a space after `start`, up to the answer's cursor."""

    start: int
    answer: SpaceAnswer


@dataclass
class Stream:
    """One space's deltas in their order: those not complete, and those that wait to be applied."""

    ready: deque[Delta] = field(default_factory=deque)
    _start: int = 0
    _reset: bool = False
    _records: list[Json] = field(default_factory=list)
    _clock: JsonObject = field(default_factory=dict)
    _dropping: bool = False
    """What was begun was given up; the rest of it is passed over."""

    def add(self, message: JsonObject, device: str) -> None:
        """One `delta` message. `device`: our own id, to find what of our own is in it."""
        if self._dropping:
            self._dropping = message.get("partial") is True
            return
        if not self._records:
            self._start = as_int(message.get("from")) or 0
        records = message.get("records")
        self._records += records if isinstance(records, list) else []
        self._reset = self._reset or message.get("reset") is True
        self._clock.update(as_object(message.get("clock")))
        if message.get("partial") is True:
            return
        cursor = as_int(message.get("cursor"))
        self.ready.append(
            Delta(
                self._start,
                SpaceAnswer(
                    epoch=as_int(message.get("epoch")),
                    accepted=None,
                    rejected=[],
                    reset=self._reset,
                    records=[read_delta(r) for r in self._records],
                    raw_records=self._records,
                    page=None,
                    cursor=cursor,
                    head=cursor,
                    error=None,
                    covered=as_int(self._clock.get(device)) or 0,
                ),
            )
        )
        self._records, self._clock, self._reset = [], {}, False

    @property
    def too_much(self) -> bool:
        waiting = sum(len(delta.answer.raw_records) for delta in self.ready)
        return len(self._records) + waiting > RECORDS_MAX

    def clear(self) -> None:
        """Forgets all that is in hand, and the rest of what has begun: a plain sync brings it."""
        self._dropping = bool(self._records)
        self.ready.clear()
        self._records, self._clock, self._reset = [], {}, False


def space_of(message: JsonObject) -> str:
    return as_text(message.get("space"))
