"""Sessions of support staff at the console: random tokens, kept as their SHA-256.

Promises: a session ends at its time, at logout, and with the role or the password that it began
with: each use looks at the account as it is now. Ended once, it stays so, also where the role is
given back.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from storage.accounts import User

TOKEN_BYTES: Final = 32
# Of an account: more browsers than a person has. The oldest go.
SESSIONS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Staff:
    """Whose session it is; `role` is `support` or `admin`."""

    user_id: UUID
    email: str
    role: str


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


_DROP: Final = text("""
    DELETE FROM console_sessions WHERE expires_at <= :now OR digest IN (
        SELECT digest FROM console_sessions WHERE user_id = :user_id
        ORDER BY created_at DESC OFFSET :kept)
""")
_INSERT: Final = text("""
    INSERT INTO console_sessions (digest, user_id, password_digest, expires_at, created_at)
    VALUES (:digest, :user_id, :password_digest, :expires_at, :now)
""")


def begin(connection: Connection, user: User, now: datetime, expires_at: datetime) -> str:
    """The token of a new session of one whose password was just checked; those over go."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    values = {"user_id": user.id, "now": now}
    connection.execute(_DROP, {**values, "kept": SESSIONS_MAX - 1})
    made = {"digest": _digest(token), "password_digest": _digest(user.password_hash)}
    connection.execute(_INSERT, {**values, **made, "expires_at": expires_at})
    return token


_FIND: Final = text("""
    SELECT u.id, u.email, u.role,
           u.role IN ('support', 'admin') AND s.expires_at > :now
               AND s.password_digest = sha256(convert_to(u.password_hash, 'UTF8'))
    FROM console_sessions s JOIN users u ON u.id = s.user_id WHERE s.digest = :digest
""")


def find(connection: Connection, token: str, now: datetime) -> Staff | None:
    """Whose session it is; None: it has ended, and commit that."""
    row = connection.execute(_FIND, {"digest": _digest(token), "now": now}).one_or_none()
    if row is None:
        return None
    *staff, good = row
    if not good:
        end(connection, token)
        return None
    return Staff(*staff)


_END: Final = text("DELETE FROM console_sessions WHERE digest = :digest")


def end(connection: Connection, token: str) -> None:
    """The session is over."""
    connection.execute(_END, {"digest": _digest(token)})
