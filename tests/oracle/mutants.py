"""Planted bugs: what the tests must find, or they prove nothing.

Each mutant replaces a part of the engine by one that breaks a promise in one way. `planted` puts
it in place; `REJOIN_MUTANT=<name> pytest -p tests.oracle.mutants …` runs any tests on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import msgspec

from sync import clock, deltas, editing, plan, records, stored, values
from sync.clock import CausalContext, History, Seen, Write
from sync.deltas import Place
from sync.fields import Counter, ObservedRemoveSet, Register, Sibling, Step, Tail
from sync.records import Life, Merged, Record


@dataclass(frozen=True)
class Mutant:
    """`breaks`: what it does wrong. `invariant`: the number of the promise that it breaks, as in
    section 3 of the protocol (4 also stands for what a device is told).
    """

    name: str
    invariant: int
    breaks: str
    target: object
    attribute: str
    bug: Any


MUTANTS: list[Mutant] = []


def _plant(target: object, attribute: str, invariant: int) -> Callable[[Any], Any]:
    """The decorated function is the bug; its docstring says what it breaks."""

    def keep(bug: Any) -> Any:
        sentence = " ".join((bug.__doc__ or "").split())
        as_found = isinstance(getattr(target, attribute), property)
        made = property(bug) if as_found else bug
        MUTANTS.append(Mutant(bug.__name__, invariant, sentence, target, attribute, made))
        return bug

    return keep


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    with patch.object(mutant.target, mutant.attribute, mutant.bug):
        yield


def pytest_configure() -> None:
    """As a pytest plugin: the bug that the environment names is in place for the whole run."""
    named = os.environ["REJOIN_MUTANT"]
    mutant = next(m for m in MUTANTS if m.name == named)
    patch.object(mutant.target, mutant.attribute, mutant.bug).start()


# 1. No acknowledged write is lost silently --------------------------------------------------


@_plant(Register, "put", 1)
def later_write_drops_siblings(self: Register, value: Any, seen: Seen, write: Write) -> Register:
    """A write removes siblings that its author never saw."""
    return Register((Sibling(write, value),))


@_plant(Record, "deleted", 1)
def delete_wins(self: Record) -> bool:
    """A deletion beats what was written concurrently."""
    return not self.life or any(sibling.deleted for sibling in self.life)


@_plant(Register, "cleared", 1)
def new_row_clears_unseen_writes(self: Register, seen: Seen) -> Register:
    """A new row, or a put, clears registers that its author had not seen."""
    return Register()


@_plant(Counter, "cleared", 1)
def new_row_clears_unseen_increments(self: Counter, seen: Seen) -> Counter:
    """A new row sets a counter to nothing, increments that its author never saw included."""
    return Counter(0, self.position, False, Tail(self.tail.floor, ()))


@_plant(ObservedRemoveSet, "cleared", 1)
def new_row_clears_unseen_additions(self: ObservedRemoveSet, seen: Seen) -> ObservedRemoveSet:
    """A new row empties a set, additions that its author never saw included."""
    return ObservedRemoveSet({}, self.position, False, Tail(self.tail.floor, ()))


@_plant(ObservedRemoveSet, "remove", 1)
def remove_takes_unseen_additions(
    self: ObservedRemoveSet, removed: list[Any], seen: Seen, write: Write
) -> ObservedRemoveSet:
    """A removal takes away additions that its author never saw."""
    gone = {values.canonical(value) for value in removed}
    left = {text: writes for text, writes in self.elements.items() if text not in gone}
    return self._touched(left, write)


_contexts = plan._Push._contexts


@_plant(plan._Push, "_contexts", 1)
def context_is_taken_when_pushing(self: plan._Push, change: Any) -> tuple[Any, Any]:
    """A change counts as having seen all that stands when it is pushed."""
    given, closed = _contexts(self, change)
    head = self.state.history.head
    return replace(given, cursor=head), replace(closed, cursor=head)


_survived = History.survived


@_plant(History, "survived", 1)
def context_of_a_lost_history_is_not_cut(self: History, context: CausalContext) -> CausalContext:
    """A context from before a restore covers what stands at the same positions now."""
    cursor = min(context.cursor, self.head)
    return _survived(self, replace(context, epoch=self.epoch, cursor=cursor))


@_plant(plan, "_is_repeat", 1)
def digest_is_ignored(change: Any, decided: Any) -> bool:
    """Whatever comes under a known counter is taken for a repeat: a clone's writes are dropped."""
    return decided is not None and decided.digest is not None


# 2. Exactly once ----------------------------------------------------------------------------

_plan_push = plan.plan_push


@_plant(plan, "plan_push", 2)
def repeats_are_applied_again(state: Any, request: Any, *rest: Any) -> plan.Plan:
    """A change that comes again is applied again."""
    first = min((c.counter for c in request.changes), default=state.counter + 1)
    counter = min(state.counter, first - 1)
    if not state.frozen:
        state = replace(state, counter=counter)
    return _plan_push(state, request, *rest)


@_plant(plan._Push, "_refuse", 2)
def a_refusal_is_forgotten(self: plan._Push, counter: int, *rest: Any) -> None:
    """A refused change leaves no verdict: its device is told nothing, and it can't come again."""


_decide = plan._Push.decide


@_plant(plan._Push, "decide", 2)
def a_refused_change_does_not_use_up_its_counter(self: plan._Push, changes: Any) -> None:
    """After a batch that ends in a refusal, `accepted` stays before it."""
    _decide(self, changes)
    while self.plan.refusals and self.plan.refusals[-1].counter == self.plan.accepted:
        self.plan.refusals.pop()
        self.plan.accepted -= 1


@_plant(plan, "_check_fork", 2)
def forks_are_not_seen(state: Any, request: Any) -> None:
    """A counter used twice for two things passes."""


_fork = plan._check_fork


@_plant(plan, "_check_fork", 2)
def a_frozen_id_still_writes(state: Any, request: Any) -> None:
    """A late request under a replaced id is applied beside its renumbered copy."""
    _fork_unplanted(replace(state, frozen=False), request)


_fork_unplanted = _fork


@_plant(plan, "_discard", 2)
def discarding_reopens_a_counter(made: plan.Plan, request: Any) -> None:
    """`discarded` moves the count whether or not those changes were decided."""
    if request.discarded is not None:
        made.discarded = (made.accepted + 1, request.discarded)
        made.accepted = request.discarded


# 3. Order does not matter -------------------------------------------------------------------


@_plant(Seen, "covers", 3)
def the_cursor_itself_is_not_covered(self: Seen, write: Write) -> bool:
    """A context covers what stands before its cursor, but not at it."""
    return (
        write.position < self.cursor
        or (write.replica == self.replica and write.counter <= self.counter)
        or write.counter <= self.clock[write.replica]
    )


@_plant(Seen, "covers", 3)
def own_writes_are_not_covered(self: Seen, write: Write) -> bool:
    """A device is in conflict with itself."""
    return write.position <= self.cursor or write.counter <= self.clock[write.replica]


@_plant(Seen, "covers", 3)
def the_clock_of_a_context_is_ignored(self: Seen, write: Write) -> bool:
    """After a fork the new id is in conflict with what it wrote under the old one."""
    own = write.replica == self.replica and write.counter <= self.counter
    return own or write.position <= self.cursor


@_plant(plan, "close", 3)
def contexts_are_not_closed(context: CausalContext, contexts_of: Any) -> CausalContext:
    """Who has seen a change has not seen what that change had seen."""
    return context


@_plant(Tail, "cleared", 3)
def the_tail_is_ignored(self: Tail, seen: Seen) -> tuple[Step, ...]:
    """What a new row had not seen of a counter, and the log knows, is not kept."""
    return ()


@_plant(Record, "needs_tail", 3)
def the_log_is_never_asked(self: Record, cursor: int) -> bool:
    """A new row is merged without knowing which increments its author saw."""
    return False


@_plant(Register, "ranked", 3)
def ties_go_by_replica_number(self: Register, names: Any) -> tuple[Sibling, ...]:
    """Of writes at the same time, the device that came first to the space decides."""
    order = sorted(self.siblings, key=lambda s: (s.write.at, s.write.replica), reverse=True)
    return tuple(order)


# 4. Convergence, and what a device is told --------------------------------------------------

_delete = records._delete


@_plant(records, "_delete", 4)
def replace_is_missing_where_a_row_outlives_a_deletion(
    record: Record, seen: Seen, write: Write
) -> Merged:
    """Who dropped the row gets back only the fields that were written since."""
    merged = _delete(record, seen, write)
    whole = msgspec.structs.replace(merged.record, whole=record.whole)
    return merged._replace(record=whole)


_alive = records._alive


@_plant(records, "_alive", 4)
def replace_is_missing_where_a_row_comes_back(record: Record, seen: Seen, write: Write) -> Merged:
    """Who dropped the row gets back only the fields that were written since."""
    merged = _alive(record, seen, write)
    whole = msgspec.structs.replace(merged.record, whole=record.whole)
    return merged._replace(record=whole)


@_plant(stored.Causality, "position_of", 4)
def the_position_of_a_field_is_its_oldest(self: stored.Causality, name: str) -> int:
    """A field in conflict counts as changed when its oldest sibling was written."""
    packed = self.fields[name]
    if isinstance(packed, int):
        return int(self.writes[packed][2])
    if packed[0] != stored.REGISTER:
        return int(packed[1])
    return min((int(self.writes[i][2]) for i in (*packed[1:2], *packed[2::2])), default=0)


@_plant(Counter, "increment", 4)
def the_position_of_a_counter_stays(self: Counter, by: int, write: Write) -> Counter:
    """A device that has the counter is not told of later increments."""
    tail = self.tail._replace(steps=(*self.tail.steps, Step(write, by)))
    return Counter(self.total + by, self.position or write.position, True, tail)


_write_token = deltas.write_token


@_plant(deltas, "write_token", 4)
def a_page_loses_records_at_its_last_position(token: Any) -> str:
    """The next page begins behind all records that the same change wrote."""
    place = Place(token.after.position, "\U0010ffff", "")
    return _write_token(
        deltas.PageToken(token.space, token.epoch, token.cursor, token.head, token.reset, place)
    )


_delta = deltas.delta


@_plant(deltas, "delta", 4)
def replace_is_missing_in_a_first_transfer(row: Any, cursor: int, *rest: Any, **raw: Any) -> Any:
    """A row begun anew between two pages of a first transfer is mixed with the old one."""
    found = _delta(row, cursor, *rest, **raw)
    return found if cursor else msgspec.structs.replace(found, replace=False)


@_plant(deltas, "needs_reset", 4)
def the_horizon_is_ignored(
    cursor: int, epoch: int | None, current: int, survived: int, horizon: int
) -> bool:
    """A device that missed a deletion keeps the row for ever."""
    return cursor > survived


@_plant(deltas, "needs_reset", 4)
def a_lost_history_is_not_seen(
    cursor: int, epoch: int | None, current: int, survived: int, horizon: int
) -> bool:
    """After a restore a device goes on from a position that now means something else."""
    return 0 < cursor < horizon


_merge = records.apply


@_plant(plan, "apply", 4)
def every_push_is_quiet(*given: Any) -> Merged:
    """A device is told nothing of what its changes met."""
    return _merge(*given)._replace(met=False)


@_plant(records, "_unseen", 4)
def a_deletion_forgets_who_lived(life: tuple[Life, ...], seen: Seen) -> tuple[Life, ...]:
    """A sign of life removes the deletions that its author had not seen, and so the reverse."""
    return ()


_documents_wanted = deltas.documents_wanted


@_plant(deltas, "documents_wanted", 4)
def documents_are_in_part_where_a_row_came_back(row: Any, cursor: int) -> Any:
    """Who dropped the row gets back only what was typed since."""
    return [
        one._replace(cursor=cursor)
        for one in _documents_wanted(row, cursor)
        if stored.causality_of(row).documents[one.field][0] > cursor
    ]


@_plant(editing, "_take_waiting", 1)
def updates_that_wait_never_join(held: Any, *rest: Any) -> Any:
    """An edit that came before what it depends on is never shown."""
    return held, False


# 5. Clocks do not matter --------------------------------------------------------------------


@_plant(Register, "put", 5)
def the_latest_clock_wins(self: Register, value: Any, seen: Seen, write: Write) -> Register:
    """Last write wins, by the clock of the device."""
    left = tuple(s for s in self.cleared(seen).siblings if s.write.at >= write.at)
    return Register((*left, Sibling(write, value)))


@_plant(plan, "corrected", 5)
def time_is_not_capped(at: int, sent_at: int | None, received_at: int) -> int:
    """A phone that is a year ahead is shown before all others for a year."""
    return at


@_plant(plan, "corrected", 5)
def clocks_are_corrected_twice(at: int, sent_at: int | None, received_at: int) -> int:
    """A slow clock is put ahead by as much as it was behind."""
    once = clock.corrected(at, sent_at, received_at)
    return clock.corrected(once, sent_at, received_at)


@_plant(Seen, "covers", 5)
def an_edit_in_the_past_has_seen_nothing(self: Seen, write: Write) -> bool:
    """What carries a time before 1970 is never overwritten."""
    own = write.replica == self.replica and write.counter <= self.counter
    seen = own or write.position <= self.cursor or write.counter <= self.clock[write.replica]
    return seen and write.at >= 0
