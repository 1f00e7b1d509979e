"""The log of a space: what was decided, in order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from storage.sql import Cursor, Row, from_rows
from sync.changes import Key
from sync.clock import CausalContext, Epoch, Replica, VectorClock
from sync.fields import Tail
from sync.plan import Decided, Entry
from sync.tails import LoggedOperation, standing
from sync.values import to_json

COLUMNS: Final = {
    "space_id": "uuid",
    "position": "bigint",
    "replica": "int",
    "counter": "bigint",
    "epoch": "int",
    "cursor": "bigint",
    "clock": "jsonb",
    "at": "bigint",
    "at_corrected": "bigint",
    "received_at": "bigint",
    "ops": "jsonb",
    "digest": "bytea",
    "conflicts": "jsonb",
}
APPEND: Final = f"""
    INSERT INTO changes ({", ".join(COLUMNS)}) {from_rows(COLUMNS, "logged")}
"""


class Decision(NamedTuple):
    """A change on its way into the log. `received_at` in ms since 1970."""

    space: str
    replica: Replica
    received_at: int
    entry: Entry

    def row(self) -> Row:
        """By `COLUMNS`."""
        e, seen = self.entry, self.entry.context
        return (
            self.space,
            str(e.position),
            str(self.replica),
            str(e.counter),
            str(seen.epoch),
            str(seen.cursor),
            to_json(_by_number(seen.clock)).decode() if seen.clock else None,
            str(e.at),
            str(e.at_corrected),
            str(self.received_at),
            e.ops.decode(),
            f"\\x{e.digest.hex()}",
            to_json(e.conflicts).decode() if e.conflicts else None,
        )


def _by_number(clock: VectorClock) -> dict[str, int]:
    return {str(replica): counter for replica, counter in clock.items()}


_DECIDED: Final = """
    SELECT counter, digest, NULL FROM changes
    WHERE space_id = %(space)s AND replica = %(replica)s AND counter BETWEEN %(low)s AND %(high)s
    UNION ALL
    SELECT counter, digest, error FROM quarantine
    WHERE space_id = %(space)s AND replica = %(replica)s AND counter BETWEEN %(low)s AND %(high)s
"""


def decided(
    cur: Cursor, space: UUID, replica: Replica, low: int, high: int
) -> Mapping[int, Decided]:
    """The verdicts that stand on the counters `low` to `high`; none on those given up."""
    if low > high:
        return {}
    cur.execute(_DECIDED, {"space": space, "replica": replica, "low": low, "high": high})
    return {counter: Decided(digest, error) for counter, digest, error in cur}


# Of what the clock names, only what stands past the cursor can have seen more than the cursor.
_CONTEXTS: Final = """
    SELECT c.epoch, c.cursor, c.clock
    FROM unnest(%s::int[], %s::bigint[]) AS named (replica, counter)
    JOIN changes c ON c.replica = named.replica AND c.counter <= named.counter
    WHERE c.space_id = %s AND c.position > %s AND (c.cursor > %s OR c.clock IS NOT NULL)
"""


class Contexts:
    """What the changes that a clock names had seen: `sync.clock.ContextsOf`, from the log."""

    def __init__(self, cur: Cursor, space: UUID) -> None:
        self._cur, self._space = cur, space

    def __call__(self, clock: VectorClock, after: int) -> list[CausalContext]:
        named = (list(clock), list(clock.values()))
        self._cur.execute(_CONTEXTS, (*named, self._space, after, after))
        return [_context(*row) for row in self._cur]


def _context(epoch: int, cursor: int, clock: Mapping[str, int] | None) -> CausalContext:
    counters = {Replica(int(replica)): counter for replica, counter in (clock or {}).items()}
    return CausalContext(Epoch(epoch), cursor, VectorClock(counters))


_TAILS: Final = """
    SELECT c.position, c.replica, c.counter, c.epoch, c.cursor, c.clock, op
    FROM changes c, jsonb_array_elements(c.ops) WITH ORDINALITY AS o (op, number)
    WHERE c.space_id = %s AND c.position > %s
      AND (op->>'collection', op->>'id') IN (SELECT * FROM unnest(%s::text[], %s::text[]))
      AND (op->>'op' IN ('increment', 'add', 'remove') OR op->'new' = 'true')
    ORDER BY c.position, o.number
"""


class Tails:
    """The counter and set steps after a cursor that no new row has cleared, from the log."""

    def __init__(self, cur: Cursor, space: UUID, contexts: Contexts) -> None:
        self._cur, self._space, self._contexts = cur, space, contexts

    def __call__(self, wanted: Mapping[Key, int]) -> Mapping[Key, Mapping[str, Tail]]:
        """One reading of the log for all of them, from the oldest cursor on."""
        collections, ids = [key[0] for key in wanted], [key[1] for key in wanted]
        self._cur.execute(_TAILS, (self._space, min(wanted.values()), collections, ids))
        logged = [
            LoggedOperation(position, replica, counter, _context(epoch, cursor, clock), op)
            for position, replica, counter, epoch, cursor, clock, op in self._cur
        ]
        return standing(wanted, logged, self._contexts)


class Logged(NamedTuple):
    """A change as the log shows it. `clock` by the number of the replica."""

    position: int
    device: str
    counter: int
    epoch: int
    cursor: int
    clock: dict[str, int] | None
    at: int
    received_at: int
    ops: str
    conflicts: list[list[str]] | None


_LOG: Final = """
    WITH page AS MATERIALIZED (
        SELECT *, octet_length(ops::text) AS size FROM changes
        WHERE space_id = %(space)s AND position > %(after)s ORDER BY position LIMIT %(limit)s
    ), summed AS (
        SELECT *, sum(size) OVER (ORDER BY position) - size AS before FROM page
    )
    SELECT c.position, r.device_id::text, c.counter, c.epoch, c.cursor, c.clock, c.at,
           c.received_at, c.ops::text, c.conflicts
    FROM summed c JOIN replicas r ON r.space_id = c.space_id AND r.number = c.replica
    WHERE c.before < %(bytes)s ORDER BY c.position
"""


def log(cur: Cursor, space: UUID, after: int, limit: int, size: int) -> list[Logged]:
    """The changes after the position: `limit` at most, and about `size` bytes."""
    cur.execute(_LOG, {"space": space, "after": after, "limit": limit, "bytes": size})
    return [Logged(*row) for row in cur]


class Outcome(NamedTuple):
    """What became of one change, or of a range of counters: `applied`, `rejected`,
    `replayed`, `discarded`."""

    counter: int
    last: int
    outcome: str
    position: int | None
    conflicts: list[list[str]] | None
    error: dict[str, Any] | None


_OUTCOMES: Final = """
    SELECT * FROM (
        (SELECT counter, counter AS last, 'applied' AS outcome, position, conflicts, NULL::jsonb
         FROM changes WHERE space_id = %(space)s AND replica = %(replica)s
           AND counter > %(after)s ORDER BY counter LIMIT %(limit)s)
        UNION ALL
        (SELECT counter, counter,
                CASE settled WHEN 'replayed' THEN settled ELSE 'rejected' END,
                replayed_as, NULL, error
         FROM quarantine WHERE space_id = %(space)s AND replica = %(replica)s
           AND counter > %(after)s ORDER BY counter LIMIT %(limit)s)
        UNION ALL
        (SELECT first, last, 'discarded', NULL, NULL, NULL
         FROM discarded WHERE space_id = %(space)s AND replica = %(replica)s
           AND last > %(after)s ORDER BY first LIMIT %(limit)s)
    ) AS outcomes (counter, last, outcome, position, conflicts, error)
    ORDER BY counter LIMIT %(limit)s
"""


def outcomes(
    cur: Cursor, space: UUID, replica: Replica, after: int, limit: int
) -> Iterable[Outcome]:
    """What became of the replica's changes after the counter, in order."""
    values = {"space": space, "replica": replica, "after": after, "limit": limit}
    cur.execute(_OUTCOMES, values)
    return [Outcome(*row) for row in cur]
