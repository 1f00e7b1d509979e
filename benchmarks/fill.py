"""Spaces with many records, written by the storage's own functions: HTTP would take too long.

`rows` fills one space as pushes of one device would have; `copies` clones a space as the database
keeps it into spaces of many new users. Both leave statistics as autovacuum would.
"""

from __future__ import annotations

import random
import uuid
from typing import Final

import psycopg
from psycopg import sql
from sqlalchemy import Engine

from benchmarks.devices import AT, Device, fields, record_id
from storage import decisions, replicas
from storage.journal import Decision
from storage.replicas import Moved
from storage.sql import cursor
from sync.clock import CausalContext, DeviceId, Epoch, Replica, VectorClock, Write
from sync.fields import Register, Sibling
from sync.plan import Entry
from sync.records import Life, Record
from sync.stored import StoredRecord, pack
from sync.values import to_json

BATCH: Final = 10_000
REPLICA: Final = Replica(1)
TABLES: Final = ("changes", "records", "replicas")
# A space's own number of distinct values: making a million of them is not what is measured.
VARIETY: Final = 500


def rows(dice: random.Random, engine: Engine, device: Device, last: int) -> list[str]:
    """The positions 1 to `last`, a new record of the device at each; returns the ids."""
    values = [fields(dice) for _ in range(VARIETY)]
    ids = []
    for start in range(1, last + 1, BATCH):
        end = min(start + BATCH, last + 1)
        batch = [(n, record_id(n, dice)) for n in range(start, end)]
        ids += [id_ for _, id_ in batch]
        with engine.begin() as connection:
            cur = cursor(connection)
            if start == 1:
                replicas.add(cur, device.space, device.id)
            made = [_made(n, id_, values[n % VARIETY]) for n, id_ in batch]
            space = str(device.space)
            decisions.write(
                cur,
                (Decision(space, REPLICA, AT, entry) for entry, _ in made),
                ((space, row) for _, row in made),
                (),
                [Moved(space, REPLICA, end - 1, end - 1, end - 1, 1)],
                BATCH,
            )
    return ids


def _made(position: int, id_: str, values: dict[str, object]) -> tuple[Entry, StoredRecord]:
    write = Write(REPLICA, position, position, AT)
    cells = {name: Register((Sibling(write, value),)) for name, value in values.items()}
    record = Record(position, position, (Life(write, False),), {**cells}, 0)
    op = {"op": "put", "collection": "tasks", "id": id_, "fields": values, "new": True}
    context = CausalContext(Epoch(1), 0, VectorClock())
    digest = uuid.uuid5(uuid.NAMESPACE_OID, id_).bytes
    entry = Entry(position, position, context, AT, AT, to_json([op]), digest, ())
    return entry, pack("tasks", id_, record, _no_names)


def _no_names(_replica: Replica) -> DeviceId:
    raise AssertionError("a record without siblings asks for no names")


def copies(connection: psycopg.Connection, source: Device, others: list[Device]) -> None:
    """The space of `source`, its log and its records, into the spaces of the others."""
    with connection.transaction():
        connection.execute("CREATE TEMP TABLE copied (space uuid, device uuid) ON COMMIT DROP")
        with connection.cursor().copy("COPY copied FROM STDIN") as copy:
            for other in others:
                copy.write_row((other.space, other.id))
        for table in TABLES:
            connection.execute(_clone(connection, table), [source.space])
        connection.execute(
            "UPDATE spaces SET head = (SELECT head FROM spaces WHERE id = %s)"
            " WHERE id IN (SELECT space FROM copied)",
            [source.space],
        )


def _clone(connection: psycopg.Connection, table: str) -> sql.Composed:
    """INSERT … SELECT of all columns, whatever they are, but for the space and its device."""
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND table_name = %s ORDER BY ordinal_position",
        [table],
    )
    names = [name for (name,) in found]
    given = {"space_id": sql.SQL("c.space"), "device_id": sql.SQL("c.device")}
    chosen = [given.get(name) or sql.SQL("t.{}").format(sql.Identifier(name)) for name in names]
    return sql.SQL(
        "INSERT INTO {table} ({names}) SELECT {chosen} FROM copied c, {table} t"
        " WHERE t.space_id = %s"
    ).format(
        table=sql.Identifier(table),
        names=sql.SQL(", ").join(map(sql.Identifier, names)),
        chosen=sql.SQL(", ").join(chosen),
    )


def settle(connection: psycopg.Connection) -> None:
    """As autovacuum and the next checkpoint would leave it; the connection is in autocommit."""
    for table in (*TABLES, "spaces", "users", "devices", "memberships"):
        connection.execute(sql.SQL("VACUUM ANALYZE {}").format(sql.Identifier(table)))
    connection.execute("CHECKPOINT")
