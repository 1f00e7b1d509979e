"""Who has seen what: dots, vector clocks, causal contexts.

A log is one sequence, so a cursor stands for the whole vector clock at that position: 8 bytes,
however many devices share the space. An explicit clock is needed only for what a device knows
beyond its cursor. Sources: Almeida et al., "Scalable and Accurate Causality Tracking for
Eventually Consistent Stores" (2014), for dots; Fidge (1988) and Mattern (1989) for the clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NewType

from msgspec import Struct

from sync.errors import Refused

Replica = NewType("Replica", int)
"""A device's short number in one space."""
DeviceId = NewType("DeviceId", str)
Position = NewType("Position", int)
Epoch = NewType("Epoch", int)


class Write(NamedTuple):
    """A dot, `(replica, counter)`, which names a change for ever; where the change stands in the
    log, and the corrected time of its edit (ms).
    """

    replica: Replica
    counter: int
    position: int
    at: int


class VectorClock(Mapping[Replica, int]):
    """For each replica, the highest counter. A replica that is not named stands at 0.

    Laws: `merge` is commutative, associative and idempotent, with the empty clock as its unit;
    `a.merge(b)` descends from both; exactly one of equal, before, after, concurrent holds.
    """

    __slots__ = ("_counters",)

    def __init__(self, counters: Mapping[Replica, int] | None = None) -> None:
        self._counters = {r: n for r, n in (counters or {}).items() if n > 0}

    def __getitem__(self, replica: Replica) -> int:
        return self._counters.get(replica, 0)

    def __contains__(self, replica: object) -> bool:
        return replica in self._counters

    def __iter__(self) -> Iterator[Replica]:
        return iter(self._counters)

    def __len__(self) -> int:
        return len(self._counters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VectorClock) and self._counters == other._counters

    def __hash__(self) -> int:
        return hash(frozenset(self._counters.items()))

    def __repr__(self) -> str:
        return f"VectorClock({self._counters})"

    def descends(self, other: VectorClock) -> bool:
        """Whether everything that `other` has seen was seen here."""
        return all(self[replica] >= counter for replica, counter in other.items())

    def concurrent(self, other: VectorClock) -> bool:
        return not self.descends(other) and not other.descends(self)

    def merge(self, other: VectorClock) -> VectorClock:
        merged = dict(self._counters)
        for replica, counter in other.items():
            merged[replica] = max(counter, merged.get(replica, 0))
        return VectorClock(merged)

    def meet(self, other: VectorClock) -> VectorClock:
        """What both have seen."""
        return VectorClock({r: min(n, other[r]) for r, n in self.items()})


NOTHING = VectorClock()


@dataclass(frozen=True, slots=True)
class CausalContext:
    """What a device had seen: positions up to `cursor`, and what `clock` names beyond."""

    epoch: Epoch
    cursor: int
    clock: VectorClock = NOTHING


class Seen(Struct, frozen=True):
    """What the author of one change had seen: its closed context, and its own earlier writes.

    `counter` is the change's own: what the same change wrote before counts as seen.
    """

    replica: Replica
    counter: int
    cursor: int
    clock: VectorClock = NOTHING

    def covers(self, write: Write) -> bool:
        return (
            write.position <= self.cursor
            or (write.replica == self.replica and write.counter <= self.counter)
            or write.counter <= self.clock[write.replica]
        )


@dataclass(frozen=True, slots=True)
class EpochStart:
    """What survived when an epoch began."""

    head: int
    clock: VectorClock


ContextsOf = Callable[[VectorClock, int], Iterable[CausalContext]]
"""(clock, after) → the contexts of the changes that `clock` names at positions past `after`."""


@dataclass(frozen=True, slots=True)
class History:
    """The log as a context refers to it. `epochs` holds the start of each epoch but the first."""

    epoch: Epoch
    head: int
    clock: VectorClock
    epochs: Mapping[Epoch, EpochStart]
    contexts_of: ContextsOf

    def survived(self, context: CausalContext) -> CausalContext:
        """The context cut down to what is left of it in this epoch.

        Raises `Refused` (`bad_context`) where it names what never was.
        """
        if context.epoch > self.epoch:
            raise Refused("bad_context", f"epoch {context.epoch} has not begun")
        cursor, clock = context.cursor, context.clock
        for epoch, start in self.epochs.items():
            if epoch > context.epoch:
                cursor, clock = min(cursor, start.head), clock.meet(start.clock)
        if cursor > self.head:
            raise Refused("bad_context", f"cursor {cursor} is above the head, {self.head}")
        if not self.clock.descends(clock):
            raise Refused("bad_context", "the clock names changes that the server never had")
        return CausalContext(context.epoch, cursor, clock)


def close(context: CausalContext, contexts_of: ContextsOf) -> CausalContext:
    """The context with what the changes that its clock names had seen, and so on.

    Positions need no closing: whoever wrote position p had seen only what stands before p.
    """
    cursor, clock = context.cursor, context.clock
    while clock:
        wider_cursor, wider_clock = cursor, clock
        for other in contexts_of(clock, cursor):
            wider_cursor = max(wider_cursor, other.cursor)
            wider_clock = wider_clock.merge(other.clock)
        if (wider_cursor, wider_clock) == (cursor, clock):
            break
        cursor, clock = wider_cursor, wider_clock
    return CausalContext(context.epoch, cursor, clock)


def corrected(at: int, sent_at: int | None, received_at: int) -> int:
    """When an edit was made, by the server's clock; all in ms since 1970.

    The device's offset counts from 5 s on: below, the way of the request outweighs it. No edit
    counts as later than its receipt, so that a clock that runs ahead can't win for ever.
    """
    offset = received_at - sent_at if sent_at is not None else 0
    if abs(offset) <= CLOCK_OFFSET_IGNORED_MS:
        offset = 0
    return max(INT64_MIN, min(at + offset, received_at))


CLOCK_OFFSET_IGNORED_MS = 5_000
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
