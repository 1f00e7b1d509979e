"""Many customers' devices, as support staff meet them: written by COPY.

`devices` devices, two of each user, each with changes in its user's personal space: most have it
all, some are behind, silent, off in their clocks, quarantined, or in conflict.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import psycopg

NOW: Final = 1_795_000_000_000
MINUTE: Final = 60_000
BATCH: Final = 2_000
# A change's operations and a record's causality, as small as an app's usual ones.
OPS: Final = (
    '[{"op":"put","collection":"tasks","id":"t%d","fields":{"title":"Call the harbour",'
    '"done":false},"new":true}]'
)
# As sync/stored.py packs a record of two registers: written once, or one of them twice at once.
_WRITES: Final = ([1, 1, 1, NOW], [2, 1, 2, NOW])
CAUSALITY: Final = msgspec.msgpack.encode([_WRITES[:1], [0], 0, {"title": 0, "done": 0}])
FORKED: Final = msgspec.msgpack.encode(
    [_WRITES, [0], 0, {"title": [0, 1, 0, "Call the office"], "done": 0}]
)
COLUMNS: Final = {
    "users": "id, email, password_hash, personal_space_id",
    "spaces": "id, name, personal, head",
    "memberships": "space_id, user_id, role",
    "devices": "id, user_id, name, platform, app_version, revoked_at, seen_at",
    "device_states": "device_id, seen_at, pushed_at, pulled_at, clock_offset, pending,"
    " oldest_pending_at, reported_at, worker",
    "replicas": "space_id, number, device_id, counter, position, cursor",
    "changes": "space_id, position, replica, counter, epoch, cursor, at, at_corrected,"
    " received_at, ops, digest, conflicts",
    "records": "space_id, collection, id, position, deleted, bytes, conflicts, data, causality",
    "quarantine": "space_id, replica, counter, position, body, digest, error, received_at",
    "events": "device_id, minute, kind, code, space_id, first_at, last_at, times, changes,"
    " rejected, records",
}
PLATFORMS: Final = ("iOS 19.1", "iOS 18.7", "Android 16", "Android 15", "Windows 11")
Rows = dict[str, list[tuple[Any, ...]]]


def fill(connection: psycopg.Connection[Any], devices: int, changes: int) -> None:
    """So many devices, and about so many changes in all; statistics as autovacuum leaves them."""
    dice = random.Random(7)
    users = max(1, devices // 2)
    each = max(2, changes // users)
    for start in range(0, users, BATCH):
        rows: Rows = {table: [] for table in COLUMNS}
        for number in range(start, min(start + BATCH, users)):
            _customer(rows, number, each, dice)
        for table, columns in COLUMNS.items():
            with connection.cursor().copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                for row in rows[table]:
                    copy.write_row(row)
        connection.commit()
    connection.autocommit = True
    connection.execute("VACUUM (ANALYZE)")


def _customer(rows: Rows, number: int, changes: int, dice: random.Random) -> None:
    user, space = uuid.UUID(int=dice.getrandbits(128)), uuid.UUID(int=dice.getrandbits(128))
    rows["users"].append((user, f"customer-{number}@example.org", "no password", space))
    rows["spaces"].append((space, "Personal", True, changes))
    rows["memberships"].append((space, user, "owner"))
    for replica in (1, 2):
        _device(rows, user, space, replica, changes, dice)
    conflict = number % 100 == 3
    for position in range(1, changes + 1):
        # Of one customer in a hundred the conflict is open, of another it was settled.
        met = '[["tasks","t1","title"]]' if number % 100 in {3, 4} and position == 2 else None
        at = NOW - (changes - position) * 10 * MINUTE
        rows["changes"].append((
            space, position, position % 2 + 1, (position + 1) // 2, 1, position - 1, at, at, at,
            OPS % position, position.to_bytes(16), met,
        ))  # fmt: skip
        if position % 4 == 1:
            rows["records"].append(_record(space, position, conflict and position == 1))


def _record(space: uuid.UUID, position: int, conflict: bool) -> tuple[Any, ...]:
    data = '{"title":"Call the harbour","done":false}'
    deleted = position % 40 == 1 and not conflict
    key = (space, "tasks", f"t{position}", position, deleted, len(data), int(conflict))
    return (*key, data, FORKED if conflict else CAUSALITY)


def _device(
    rows: Rows, user: uuid.UUID, space: uuid.UUID, replica: int, changes: int, dice: random.Random
) -> None:
    device, kind = uuid.UUID(int=dice.getrandbits(128)), dice.random()
    behind = dice.randrange(changes) if kind < 0.1 else 0
    silent = dice.randrange(8, 60) * 1440 * MINUTE if 0.1 < kind < 0.15 else 0
    seen = NOW - silent - dice.randrange(600) * MINUTE
    offset = 3_600_000 if 0.15 < kind < 0.16 else dice.randrange(-500, 500)
    pending = (5, seen - 3_600_000, seen) if 0.16 < kind < 0.17 else (None, None, None)
    online = "host:1" if kind > 0.95 else ""
    revoked = "2026-01-01" if 0.2 < kind < 0.21 else None
    name = f"{dice.choice(('Ada', 'Bob', 'Eve', 'Zoe'))}'s phone {dice.randrange(10_000)}"
    version = f"4.{dice.randrange(10)}.{dice.randrange(5)}"
    rows["devices"].append(
        (device, user, name, dice.choice(PLATFORMS), version, revoked, "2026-11-01")
    )
    state = (device, seen, seen - MINUTE, seen, offset, *pending, online)
    rows["device_states"].append(state)
    count = (changes + 1) // 2
    rows["replicas"].append((space, replica, device, count, changes, changes - behind))
    if 0.17 < kind < 0.18:
        error = '{"code": "field_type_mismatch", "detail": "another type"}'
        body = '{"counter": 1, "context": {"cursor": 0}, "at": 1, "ops": []}'
        bad = (space, replica, count + 1, changes, body, b"d" * 16, error, seen)
        rows["quarantine"].append(bad)
    rows["events"] += _events(device, space, seen)


def _events(device: uuid.UUID, space: uuid.UUID, seen: int) -> Iterator[tuple[Any, ...]]:
    for n in range(10):
        minute = seen - seen % MINUTE - n * 60 * MINUTE
        yield (device, minute, "pushed", "", space, minute, minute + 9, 1, 3, 0, 0)
