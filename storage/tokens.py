"""Refresh tokens: random, kept as their SHA-256, spent at each use.

Promises: a token is good once; a second use ends its family, whoever came first, since nobody can
tell the thief from the owner, however long ago the first was. Yet a device has one row only, its
newest token's: each token names its family, so one of a family that lives that is not the newest
was used before. Of a family that ended there is nothing left to end, and its rows go too. Every
function here is called under, or takes, the lock of the device's row: without it, a family could
be ended while a renewal adds a token to it unseen.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from sqlalchemy import Connection, text

from storage import accounts

# Nobody guesses a family either: its id, a random UUID, is told in its tokens only.
FAMILY_BYTES: Final = 16
TOKEN_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Grant:
    """What a new token is bound to."""

    device_id: UUID
    family: UUID
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Spent:
    """What became of a token that was used. `invalid`: revoked, by a logout or a reuse."""

    verdict: Literal["good", "invalid", "expired", "reused"]
    device_id: UUID
    family: UUID
    standing: accounts.Standing


def digest(token: str) -> bytes:
    """The form under which a token is kept. It has 256 random bits: no salt, no slow hash."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _family_of(token: str) -> UUID | None:
    """The family that the token names; None: it is not of our form."""
    try:
        raw = base64.b64decode(token, b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return UUID(bytes=raw[:FAMILY_BYTES]) if len(raw) == FAMILY_BYTES + TOKEN_BYTES else None


_DROP: Final = text("""
    DELETE FROM refresh_tokens
    WHERE device_id = :device_id AND (used_at IS NOT NULL OR revoked_at IS NOT NULL)
""")
_INSERT: Final = text("""
    INSERT INTO refresh_tokens (digest, family, device_id, expires_at, created_at)
    VALUES (:digest, :family, :device_id, :expires_at, :created_at)
""")


def issue(connection: Connection, grant: Grant) -> str:
    """A new token of the family; the device's rows that are over go."""
    raw = grant.family.bytes + secrets.token_bytes(TOKEN_BYTES)
    token = base64.urlsafe_b64encode(raw).decode()
    connection.execute(_DROP, {"device_id": grant.device_id})
    connection.execute(
        _INSERT,
        {
            "digest": digest(token),
            "family": grant.family,
            "device_id": grant.device_id,
            "expires_at": grant.expires_at,
            "created_at": grant.created_at,
        },
    )
    return token


_DEVICE_OF: Final = text("""
    SELECT device_id FROM refresh_tokens WHERE digest = :digest OR family = :family LIMIT 1
""")


def device_of(connection: Connection, token: str) -> UUID | None:
    """The device that the token was issued to, good or not; None: it is not one of ours."""
    key = {"digest": digest(token), "family": _family_of(token)}
    found: UUID | None = connection.scalar(_DEVICE_OF, key)
    return found


_READ: Final = text("""
    SELECT family, used_at IS NOT NULL, revoked_at IS NOT NULL, expires_at <= :now
    FROM refresh_tokens WHERE digest = :digest
""")
_USE: Final = text("UPDATE refresh_tokens SET used_at = :now WHERE digest = :digest")


def spend(connection: Connection, token: str, now: datetime) -> Spent | None:
    """Use the token; None: it is not one of ours. A reuse ends the family: commit that."""
    device_id = device_of(connection, token)
    # Read only after the lock: of two that come at once, the second sees what the first did.
    standing = accounts.lock_device(connection, device_id) if device_id else None
    if device_id is None or standing is None:
        return None
    key = {"digest": digest(token), "now": now}
    row = connection.execute(_READ, key).one_or_none()
    family = row[0] if row else _family_of(token)
    if family is None:
        return None
    # Without a row it is not the family's newest: it was used, and its row dropped.
    verdict = _verdict(used=row[1], revoked=row[2], expired=row[3]) if row else "reused"
    if verdict == "good":
        connection.execute(_USE, key)
    elif verdict == "reused":
        revoke_family(connection, family, now)
    return Spent(verdict, device_id, family, standing)


def _verdict(
    *, used: bool, revoked: bool, expired: bool
) -> Literal["good", "invalid", "expired", "reused"]:
    if used:
        return "reused"
    if revoked:
        return "invalid"
    return "expired" if expired else "good"


_REVOKE_FAMILY: Final = text("""
    UPDATE refresh_tokens SET revoked_at = :now WHERE family = :family AND revoked_at IS NULL
""")
_REVOKE_OF_DEVICE: Final = text("""
    UPDATE refresh_tokens SET revoked_at = :now
    WHERE device_id = :device_id AND revoked_at IS NULL
""")
_REVOKE_OF_USER: Final = text("""
    UPDATE refresh_tokens SET revoked_at = :now
    WHERE device_id IN (SELECT id FROM devices WHERE user_id = :user_id FOR NO KEY UPDATE)
      AND revoked_at IS NULL
""")


def revoke_family(connection: Connection, family: UUID, now: datetime) -> None:
    """End all that came of one login."""
    connection.execute(_REVOKE_FAMILY, {"family": family, "now": now})


def revoke_of_device(connection: Connection, device_id: UUID, now: datetime) -> None:
    """End all of the device's tokens. The caller holds the device's lock."""
    connection.execute(_REVOKE_OF_DEVICE, {"device_id": device_id, "now": now})


def revoke_of_user(connection: Connection, user_id: UUID, now: datetime) -> None:
    """End the tokens of all of the user's devices, as after a change of password."""
    connection.execute(_REVOKE_OF_USER, {"user_id": user_id, "now": now})


_FORGET: Final = text("DELETE FROM refresh_tokens WHERE expires_at < :before")


def forget(connection: Connection, before: datetime) -> int:
    """Drop the tokens that expired before that, and return how many: upkeep."""
    return connection.execute(_FORGET, {"before": before}).rowcount
