"""The CRDTs of a field, as values: merging makes a new one.

Laws, for any state and any two concurrent writes:
* a write removes exactly what its author had seen, and adds itself;
* concurrent writes commute: the siblings, the sum, the elements are the same in either order;
* the author's clock (`Write.at`) chooses which sibling is shown, and nothing else.

Sources: the multi-value register and the observed-remove set of Shapiro et al., "A comprehensive
study of Convergent and Commutative Replicated Data Types" (2011), without tombstones as in
Bieniusa et al., "An Optimized Conflict-Free Replicated Set" (2012).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from sync.clock import DeviceId, Replica, Seen, Write
from sync.values import Value, canonical, equal

Names = Callable[[Replica], DeviceId]


class Sibling(NamedTuple):
    write: Write
    value: Value


class Register(Struct, frozen=True):
    """A multi-value register: the writes that nobody who had seen them has overwritten."""

    siblings: tuple[Sibling, ...] = ()

    @property
    def present(self) -> bool:
        return bool(self.siblings)

    @property
    def position(self) -> int:
        """Where it changed last: a write that removes siblings stands among those left."""
        return max((s.write.position for s in self.siblings), default=0)

    @property
    def in_conflict(self) -> bool:
        # The last is the newest: great ones that are equal are not compared again for each write.
        return any(not equal(self.siblings[-1].value, s.value) for s in self.siblings[:-1])

    def put(self, value: Value, seen: Seen, write: Write) -> Register:
        return Register((*self.cleared(seen).siblings, Sibling(write, value)))

    def cleared(self, seen: Seen) -> Register:
        if not self.siblings:
            return self
        left = [sibling for sibling in self.siblings if not seen.covers(sibling.write)]
        return self if len(left) == len(self.siblings) else Register(tuple(left))

    def ranked(self, names: Names) -> tuple[Sibling, ...]:
        """The siblings, the one that is shown first."""
        if len(self.siblings) < 2:
            return self.siblings
        order = sorted(self.siblings, key=lambda s: (s.write.at, names(s.write.replica)))
        return tuple(reversed(order))


class Step(NamedTuple):
    """An operation on a counter or a set; `by` is 0 on a set."""

    write: Write
    by: int


class Tail(NamedTuple):
    """What the log says of one counter or set after `floor`: the steps still standing.

    A counter is stored as its sum and a set as its elements, so a new row that has not seen the
    newest of their operations needs these, to know which of them it clears. What the push adds
    is not among them: a new row by the same device clears all of it.
    """

    floor: int
    steps: tuple[Step, ...]
    total: int | None = None

    def cleared(self, seen: Seen) -> tuple[Step, ...]:
        if self.floor > seen.cursor:
            raise LookupError("the log from the author's cursor on is needed here")
        left: list[Step] = []
        start = 0
        while start < len(self.steps):
            replica = self.steps[start].write.replica
            end = bisect_right(self.steps, replica, start, key=_replica)
            left += self.steps[first_unseen(self.steps, seen, start, end) : end]
            start = end
        return tuple(left) if len(left) < len(self.steps) else self.steps


def _replica(step: Step) -> Replica:
    return step.write.replica


def first_unseen(steps: Sequence[Step], seen: Seen, start: int, end: int) -> int:
    """Where, among the steps of one device, in order, those begin that were not seen: whoever
    has seen one has seen all before it.
    """
    return bisect_left(steps, True, start, end, key=lambda step: not seen.covers(step.write))


class Counter(Struct, frozen=True):
    """A sum of increments. `present` is false where a new row cleared all of them."""

    total: int = 0
    position: int = 0
    present: bool = False
    tail: Tail = Tail(0, ())

    def increment(self, by: int, write: Write) -> Counter:
        return Counter(self.total + by, write.position, True, self.tail)

    def cleared(self, seen: Seen) -> Counter:
        steps, total = self.tail.cleared(seen), self.tail.total
        if total is None or steps is not self.tail.steps:
            total = sum(step.by for step in steps)
        return Counter(total, self.position, bool(steps), Tail(self.tail.floor, steps, total))


class ObservedRemoveSet(Struct, frozen=True):
    """Elements by canonical JSON text, each with the additions that nobody has removed."""

    elements: dict[str, tuple[Write, ...]] = {}
    position: int = 0
    present: bool = False
    tail: Tail = Tail(0, ())

    @property
    def texts(self) -> list[str]:
        """The elements' canonical JSON texts, sorted."""
        return sorted(self.elements)

    def add(self, values: list[Value], seen: Seen, write: Write) -> ObservedRemoveSet:
        elements = dict(self.elements)
        for text in map(canonical, values):
            elements[text] = (*_unseen(elements.get(text, ()), seen), write)
        return self._touched(elements, write)

    def remove(self, values: list[Value], seen: Seen, write: Write) -> ObservedRemoveSet:
        elements = dict(self.elements)
        for text in {canonical(value) for value in values} & elements.keys():
            left = _unseen(elements.pop(text), seen)
            if left:
                elements[text] = left
        return self._touched(elements, write)

    def cleared(self, seen: Seen) -> ObservedRemoveSet:
        unseen = {text: _unseen(writes, seen) for text, writes in self.elements.items()}
        elements = {text: writes for text, writes in unseen.items() if writes}
        steps = self.tail.cleared(seen)
        tail = Tail(self.tail.floor, steps)
        return ObservedRemoveSet(elements, self.position, bool(elements or steps), tail)

    def _touched(self, elements: dict[str, tuple[Write, ...]], write: Write) -> ObservedRemoveSet:
        return ObservedRemoveSet(elements, write.position, True, self.tail)


def _unseen(writes: tuple[Write, ...], seen: Seen) -> tuple[Write, ...]:
    return tuple(write for write in writes if not seen.covers(write))


class Document(Struct, frozen=True):
    """A document as its record knows it: where it changed last (0: all of it waits for what is
    missing), and what of it is shown: as it was at position `shown_to`, written at `shown_at` (ms
    since 1970). Its updates are kept beside: see `sync.editing`.
    """

    position: int = 0
    shown: Value = None
    shown_to: int = 0
    shown_at: int = 0

    @property
    def present(self) -> bool:
        return self.position > 0

    def cleared(self, _seen: Seen) -> Document:
        """A new row with an old id goes on with its documents."""
        return self


Field = Register | Counter | ObservedRemoveSet | Document
TYPES: Mapping[type, str] = {
    Register: "register",
    Counter: "counter",
    ObservedRemoveSet: "set",
    Document: "document",
}


def with_tail(value: Field, tail: Tail) -> Field:
    if isinstance(value, Register | Document):
        return value
    # Each device's together: then a new row finds what it clears without a look at every step.
    steps = tuple(sorted(tail.steps, key=lambda step: step.write[:3]))
    return replace(value, tail=Tail(tail.floor, steps))
