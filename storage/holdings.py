"""All that is kept of one user, a row at a time: what an export writes down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from storage.sql import server_cursor

# (kind, statement): each gives one JSON text a row. Values stand as they are kept.
_USER: Final = """
    SELECT jsonb_build_object('kind', 'user', 'id', id, 'email', email, 'role', role,
        'personal_space', personal_space_id, 'created_at', created_at)::text
    FROM users WHERE id = %(user)s
"""
_DEVICES: Final = """
    SELECT (jsonb_build_object('kind', 'device', 'state', to_jsonb(s)) || to_jsonb(d))::text
    FROM devices d LEFT JOIN device_states s ON s.device_id = d.id
    WHERE d.user_id = %(user)s ORDER BY d.created_at, d.id
"""
_MEMBERSHIPS: Final = """
    SELECT (jsonb_build_object('kind', 'membership', 'space_name', s.name, 'personal', s.personal)
            || to_jsonb(m))::text
    FROM memberships m JOIN spaces s ON s.id = m.space_id
    WHERE m.user_id = %(user)s ORDER BY m.created_at, m.space_id
"""
_EVENTS: Final = """
    SELECT jsonb_build_object('kind', 'event', 'event', to_jsonb(e))::text
    FROM events e JOIN devices d ON d.id = e.device_id
    WHERE d.user_id = %(user)s ORDER BY e.device_id, e.minute
"""
# What is merged in their personal space, and every change that a device of theirs wrote anywhere.
_RECORDS: Final = """
    SELECT jsonb_build_object('kind', 'record', 'space_id', r.space_id, 'collection', r.collection,
        'id', r.id, 'position', r.position, 'deleted', r.deleted, 'data', r.data)::text
    FROM users u JOIN records r ON r.space_id = u.personal_space_id
    WHERE u.id = %(user)s ORDER BY r.position, r.collection, r.id
"""
_CHANGES: Final = """
    SELECT jsonb_build_object('kind', 'change', 'space_id', c.space_id, 'position', c.position,
        'device', r.device_id, 'counter', c.counter, 'context', jsonb_build_object(
            'epoch', c.epoch, 'cursor', c.cursor), 'at', c.at, 'received_at', c.received_at,
        'ops', c.ops)::text
    FROM devices d JOIN replicas r ON r.device_id = d.id
    JOIN changes c ON c.space_id = r.space_id AND c.replica = r.number
    WHERE d.user_id = %(user)s ORDER BY c.space_id, c.position
"""
# A document as it is kept: Yjs v1 updates in base64, to be applied in order.
_DOCUMENTS: Final = """
    SELECT jsonb_build_object('kind', 'document', 'space_id', o.space_id,
        'collection', o.collection, 'id', o.id, 'field', o.field, 'position', o.position,
        'update', translate(encode(o.update, 'base64'), E'\\n', ''))::text
    FROM users u JOIN documents o ON o.space_id = u.personal_space_id
    WHERE u.id = %(user)s ORDER BY o.collection, o.id, o.field, o.position
"""
# Its body is text: what is wrong in it JSON might not hold.
_QUARANTINE: Final = """
    SELECT jsonb_build_object('kind', 'quarantined', 'space_id', q.space_id, 'device', r.device_id,
        'counter', q.counter, 'body', q.body, 'error', q.error, 'received_at', q.received_at,
        'settled', q.settled)::text
    FROM devices d JOIN replicas r ON r.device_id = d.id
    JOIN quarantine q ON q.space_id = r.space_id AND q.replica = r.number
    WHERE d.user_id = %(user)s ORDER BY q.space_id, q.replica, q.counter
"""
PARTS: Final = (
    _USER, _DEVICES, _MEMBERSHIPS, _EVENTS, _RECORDS, _CHANGES, _DOCUMENTS, _QUARANTINE
)  # fmt: skip


def every(connection: Connection, user: UUID) -> Iterator[str]:
    """All rows as JSON texts, the user's own first, a batch at a time."""
    values: dict[str, Any] = {"user": user}
    for number, statement in enumerate(PARTS):
        with server_cursor(connection, f"holdings_{number}") as cur:
            cur.execute(statement, values)
            for (row,) in cur:
                yield row
