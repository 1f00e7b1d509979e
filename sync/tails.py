"""Which steps of counters and sets still stand, told from the log: the rare case of a new row whose
author has not seen the newest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any, NamedTuple

from sync.changes import Key
from sync.clock import CausalContext, ContextsOf, Replica, Seen, Write, close
from sync.fields import Step, Tail, first_unseen


class LoggedOperation(NamedTuple):
    """An `increment`, `add` or `remove`, or a `put` with `new`, as it stands in the log."""

    position: int
    replica: Replica
    counter: int
    context: CausalContext
    op: Mapping[str, Any]


Standing = dict[str, dict[Replica, list[Step]]]
"""By field and device, the steps that no new row has cleared, in order."""


def standing(
    wanted: Mapping[Key, int], logged: Iterable[LoggedOperation], contexts_of: ContextsOf
) -> Mapping[Key, Mapping[str, Tail]]:
    """For each record and the cursor wanted of it, by field, the steps after it that still stand.

    `logged` holds these records' operations in order, from the oldest of the cursors on.
    """
    steps: dict[Key, Standing] = {key: {} for key in wanted}
    last = (0, Seen(Replica(0), 0, 0))
    for one in logged:
        key = (one.op["collection"], one.op["id"])
        if one.position <= wanted[key]:
            continue
        if one.op["op"] != "put":
            _add(steps[key], one)
            continue
        if one.position != last[0]:  # many new rows may be of one change
            last = (one.position, _seen(one, contexts_of))
        _clear(steps[key], last[1])
    return {
        key: {name: Tail(wanted[key], tuple(_all(left))) for name, left in fields.items()}
        for key, fields in steps.items()
    }


def _add(fields: Standing, one: LoggedOperation) -> None:
    step = Step(Write(one.replica, one.counter, one.position, 0), one.op.get("by", 0))
    fields.setdefault(one.op["field"], {}).setdefault(one.replica, []).append(step)


def _clear(fields: Standing, seen: Seen) -> None:
    for steps in chain.from_iterable(left.values() for left in fields.values()):
        del steps[: first_unseen(steps, seen, 0, len(steps))]


def _seen(one: LoggedOperation, contexts_of: ContextsOf) -> Seen:
    closed = close(one.context, contexts_of)
    return Seen(one.replica, one.counter, closed.cursor, closed.clock)


def _all(left: Mapping[Replica, list[Step]]) -> Iterable[Step]:
    return chain.from_iterable(left.values())
