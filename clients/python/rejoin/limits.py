"""How much one request may hold: the protocol's usual bounds, or what this server has told."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from rejoin.answers import as_int, as_object
from rejoin.errors import ServerRefused
from rejoin.schema import get_meta, set_meta
from rejoin.transport import Session
from rejoin.values import JsonObject, compact

CHANGES_MAX = 1000
"""Changes in one request; the protocol's bound."""
BYTES_MAX = 4 << 20
"""Of changes in one request, before compression: half of the server's bound for a body."""
SPACES_MAX = 100
"""Spaces in one request; the protocol's bound."""
TOO_MUCH = frozenset({"too_many_changes", "too_many_spaces", "body_too_large"})


@dataclass(frozen=True)
class Limits:
    """Of one request."""

    changes: int = CHANGES_MAX
    bytes: int = BYTES_MAX
    spaces: int = SPACES_MAX


def read(db: sqlite3.Connection) -> Limits:
    """What was learned from this server, or the protocol's own."""
    kept = get_meta(db, "limits")
    told = as_object(json.loads(kept)) if kept else {}

    def least(name: str, usual: int, share: int = 1) -> int:
        value = as_int(told.get(name))
        return usual if value is None else max(1, min(usual, value // share))

    return Limits(
        least("changes_per_request", CHANGES_MAX),
        least("body_bytes", BYTES_MAX, 2),
        least("spaces_per_request", SPACES_MAX),
    )


def learn(db: sqlite3.Connection, session: Session, refused: ServerRefused) -> None:
    """After a request that was too much: asks for the limits. Raises it again if none is lower."""
    if refused.code not in TOO_MUCH:
        raise refused
    before = read(db)
    told: JsonObject = as_object(session.get("/v1").get("limits"))
    set_meta(db, "limits", compact(told))
    if read(db) == before:
        raise refused
