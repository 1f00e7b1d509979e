"""A device in a space: its short number, the counter decided, the cursor it has applied."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from uuid import UUID

from storage.sql import Cursor, Row
from sync.clock import DeviceId, Replica, VectorClock

_ADD: Final = """
    INSERT INTO replicas (space_id, number, device_id)
    SELECT %(space)s, coalesce(max(number), 0) + 1, %(device)s
    FROM replicas WHERE space_id = %(space)s
    RETURNING number
"""


def add(cur: Cursor, space: UUID, device: UUID) -> Replica:
    """Gives the device a number. Call it under the space's lock: only then is the next one free."""
    cur.execute(_ADD, {"space": space, "device": device})
    (number,) = cur.fetchone() or (1,)
    return Replica(number)


COLUMNS: Final = {
    "space_id": "uuid",
    "number": "int",
    "counter": "bigint",
    "head": "bigint",
    "cursor": "bigint",
    "epoch": "int",
}
# Of `moved`: each space's head, and each replica's entry in the vector clock and its cursor.
ADVANCE: Final = """
    UPDATE spaces SET head = m.head FROM moved m
    WHERE spaces.id = m.space_id AND spaces.head <> m.head
"""
DECIDE: Final = """
    UPDATE replicas SET counter = m.counter, position = m.head, cursor = m.cursor,
        cursor_epoch = m.epoch, cursor_at = now()
    FROM moved m WHERE replicas.space_id = m.space_id AND replicas.number = m.number
"""


class Moved(NamedTuple):
    """A replica after its push: what is decided, and the cursor that it acknowledged."""

    space: str
    replica: Replica
    counter: int
    head: int
    cursor: int
    epoch: int

    def row(self) -> Row:
        """By `COLUMNS`."""
        return tuple(map(str, self))


_ACKNOWLEDGE: Final = """
    UPDATE replicas SET cursor = %(cursor)s, cursor_epoch = %(epoch)s, cursor_at = now()
    WHERE space_id = %(space)s AND number = %(replica)s
      AND (cursor, cursor_epoch) <> (%(cursor)s, %(epoch)s)
"""


def acknowledge(cur: Cursor, space: UUID, replica: Replica, cursor: int, epoch: int) -> None:
    """Remembers what the device has applied, for compaction and for support staff."""
    values = {"space": space, "replica": replica, "cursor": cursor, "epoch": epoch}
    cur.execute(_ACKNOWLEDGE, values)


class Acknowledged(NamedTuple):
    """What a device has applied of a space."""

    space: UUID
    device: UUID
    epoch: int
    cursor: int


# It waits for no lock while it holds some: a push locks rows of its own in another order.
_ACKNOWLEDGE_ALL: Final = """
    WITH told AS (
        SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::int[], %s::bigint[])
            AS told (space_id, device_id, epoch, cursor)
    ), locked AS (
        SELECT r.space_id, r.number, told.epoch, told.cursor
        FROM told JOIN replicas r USING (space_id, device_id)
        WHERE (r.cursor, r.cursor_epoch) <> (told.cursor, told.epoch)
        ORDER BY r.space_id, r.number FOR NO KEY UPDATE OF r SKIP LOCKED
    ), moved AS (
        UPDATE replicas r SET cursor = l.cursor, cursor_epoch = l.epoch, cursor_at = now()
        FROM locked l WHERE r.space_id = l.space_id AND r.number = l.number
        RETURNING r.space_id, r.number
    )
    SELECT told.space_id, told.device_id, r.number IS NULL
    FROM told LEFT JOIN replicas r USING (space_id, device_id)
    LEFT JOIN moved m ON m.space_id = r.space_id AND m.number = r.number
    WHERE r.number IS NULL
       OR m.number IS NULL AND (r.cursor, r.cursor_epoch) <> (told.cursor, told.epoch)
"""


class Unwritten(NamedTuple):
    """Acknowledgements, by space and device, that were not written: those of devices that have no
    number yet, and those whose row another transaction had locked.
    """

    unnumbered: list[tuple[UUID, UUID]]
    locked: list[tuple[UUID, UUID]]


def acknowledge_all(cur: Cursor, told: Sequence[Acknowledged]) -> Unwritten:
    """As `acknowledge`, of many; waits for nobody. Each space and device at most once."""
    columns = [list(column) for column in zip(*told, strict=True)] or [[], [], [], []]
    cur.execute(_ACKNOWLEDGE_ALL, columns)
    left = Unwritten([], [])
    for space, device, unnumbered in cur:
        (left.unnumbered if unnumbered else left.locked).append((space, device))
    return left


_CLOCK: Final = """
    SELECT device_id::text, counter FROM replicas WHERE space_id = %s AND position > %s
"""


def clock_after(cur: Cursor, space: UUID, position: int) -> dict[str, int]:
    """The entries of the space's vector clock that moved after the position, by device."""
    cur.execute(_CLOCK, (space, position))
    return dict(cur.fetchall())


_BY_DEVICE: Final = """
    SELECT device_id::text, number, counter FROM replicas
    WHERE space_id = %s AND device_id::text = ANY(%s)
"""


def by_device(
    cur: Cursor, space: UUID, devices: Iterable[str]
) -> tuple[Mapping[DeviceId, Replica], VectorClock]:
    """The replicas of these devices, and their entries in the vector clock."""
    cur.execute(_BY_DEVICE, (space, list(devices)))
    rows = cur.fetchall()
    replicas = {DeviceId(device): Replica(number) for device, number, _ in rows}
    return replicas, VectorClock({Replica(number): counter for _, number, counter in rows})


_NAMES: Final = "SELECT number, device_id::text FROM replicas WHERE space_id = %s"


class Names:
    """The device of a replica. All of a space are read when the first is asked for: a record in
    conflict names many.
    """

    def __init__(self, cur: Cursor, space: UUID) -> None:
        self._cur, self._space = cur, space
        self._names: dict[Replica, DeviceId] | None = None

    def __call__(self, replica: Replica) -> DeviceId:
        if self._names is None:
            self._cur.execute(_NAMES, (self._space,))
            self._names = {Replica(number): DeviceId(device) for number, device in self._cur}
        return self._names[replica]
