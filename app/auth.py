"""A token → who asks: user, device and role.

Promises: only HS256 with this server's secret counts; whatever else comes is 401 with a code that
says what to do, never 500, and never decides a change. Access tokens are short-lived JWTs (RFC
7519), renewed by refresh tokens, which are opaque and live in the database (storage/tokens.py).

A token that was found good is good until it expires: a worker remembers the last ones, for the
check of a signature takes longer than all the rest of a sync with nothing new.

Two doors. `token_principal` looks at the token only; whoever uses it checks the device in a
statement of its own. `require_principal` asks the database too: a revoked or frozen device is out
with its next request, and a changed role is in force at once.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from flask import Flask, current_app, request
from flask_jwt_extended import JWTManager, create_access_token, decode_token
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt.exceptions import ExpiredSignatureError, PyJWTError
from sqlalchemy import Connection

from app.settings import Settings
from storage import accounts
from sync.errors import Conflict, Forbidden, Unauthenticated

ROLES: Final = ("user", "support", "admin")
# Ours have some 400: more than this is not looked at.
TOKEN_CHARS_MAX: Final = 4096
ALGORITHM: Final = "HS256"
# Two servers' clocks differ: a token must not be "from the future" at the one next door.
LEEWAY_SECONDS: Final = 5
# Of the devices that a worker heard last; a kilobyte each.
TOKENS_KEPT: Final = 4096
EXTENSION: Final = "rejoin-tokens"

# Besides PyJWT's own: what json, base64 and UUID say of garbage, nested deep or typed wrongly.
NO_TOKEN: Final = (
    PyJWTError,
    JWTExtendedException,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `role` is one of ROLES, and each holds the rights of those before it."""

    user_id: UUID
    device_id: UUID
    role: str


def install(app: Flask, settings: Settings) -> None:
    """Set up the signing of access tokens."""
    app.config["JWT_SECRET_KEY"] = settings.secret
    app.config["JWT_ALGORITHM"] = ALGORITHM
    app.config["JWT_DECODE_ALGORITHMS"] = [ALGORITHM]
    app.config["JWT_ACCESS_TOKEN_EXPIRES"] = timedelta(seconds=settings.access_token_seconds)
    app.config["JWT_DECODE_LEEWAY"] = LEEWAY_SECONDS
    # Tokens travel in headers: a cookie's defence would only make them longer.
    app.config["JWT_COOKIE_CSRF_PROTECT"] = False
    JWTManager(app)
    app.extensions[EXTENSION] = OrderedDict()


def access_token(principal: Principal) -> str:
    """A fresh access token."""
    claims = {"device": str(principal.device_id), "role": principal.role}
    made: str = create_access_token(str(principal.user_id), additional_claims=claims)
    return made


def token_principal() -> Principal:
    """Who the `Authorization` header says is asking; raises Unauthenticated (`token_…`)."""
    token = _header_token()
    if token is None:
        raise Unauthenticated("token_missing")
    return principal_of(token)


def handshake_token() -> str | None:
    """The token of a websocket's handshake: in the header, or, for browsers can set none, in the
    query parameter `token`. Raises Unauthenticated (`token_invalid`).
    """
    token = _header_token()
    return request.args.get("token") if token is None else token


def _header_token() -> str | None:
    header = request.headers.get("Authorization", "")
    scheme, _, token = header.partition(" ")
    if not header:
        return None
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("token_invalid", "The header must be: Authorization: Bearer <token>.")
    return token.strip()


def principal_of(token: str) -> Principal:
    """Who the access token was made for; raises Unauthenticated: `token_expired`, `token_invalid`.

    For tokens that come another way than in the header, such as in a websocket's first message.
    """
    return admitted(token)[0]


def admitted(token: str) -> tuple[Principal, int]:
    """As `principal_of`, and when it expires, in ms since 1970: a socket that is open till then
    needs no leeway.
    """
    if len(token) > TOKEN_CHARS_MAX or not token.isascii():
        raise Unauthenticated("token_invalid")
    kept: OrderedDict[str, tuple[Principal, float]] = current_app.extensions[EXTENSION]
    principal, good_until = kept.get(token) or _checked(token)
    if good_until <= time.time():
        kept.pop(token, None)
        raise Unauthenticated("token_expired")
    kept[token] = principal, good_until
    kept.move_to_end(token)
    if len(kept) > TOKENS_KEPT:
        kept.popitem(last=False)
    return principal, int((good_until - LEEWAY_SECONDS) * 1000)


def _checked(token: str) -> tuple[Principal, float]:
    """Who the token was made for, and until when it is good, in seconds since 1970."""
    try:
        claims = decode_token(token)
        return _principal(claims), claims["exp"] + LEEWAY_SECONDS
    except ExpiredSignatureError:
        raise Unauthenticated("token_expired") from None
    except NO_TOKEN:
        raise Unauthenticated("token_invalid") from None


def _principal(claims: dict[str, Any]) -> Principal:
    if claims["type"] != "access" or claims["role"] not in ROLES or "exp" not in claims:
        raise ValueError("not an access token of ours")
    return Principal(UUID(claims["sub"]), UUID(claims["device"]), claims["role"])


def device_of_token() -> UUID | None:
    """The device that this request's token was made for, though it be expired; None: no token of
    this server's. Tells where a refusal belongs, and opens nothing.
    """
    token = request.headers.get("Authorization", "").partition(" ")[2].strip()
    if not token.isascii() or len(token) > TOKEN_CHARS_MAX:
        return None
    try:
        return _principal(decode_token(token, allow_expired=True)).device_id
    except NO_TOKEN:
        return None


def require_role(connection: Connection, least: str) -> Principal:
    """Who asks, whose role is at least this one of ROLES; raises as `require_principal`, and
    Forbidden.
    """
    principal = require_principal(connection)
    if ROLES.index(principal.role) < ROLES.index(least):
        raise Forbidden("forbidden", f"This asks for the role {least}.")
    return principal


def require_principal(connection: Connection) -> Principal:
    """Who asks, as the database knows them now: one statement by two primary keys.

    Raises Unauthenticated (`token_…`, `device_revoked`), Conflict (`device_fork`).
    """
    return current(connection, token_principal())


def current(connection: Connection, principal: Principal) -> Principal:
    """The principal with the role in force; raises as `require_principal`."""
    found = accounts.standing(connection, principal.user_id, principal.device_id)
    if found is None:
        # A database restored from a backup doesn't know the device: it logs in again.
        raise Unauthenticated("token_invalid")
    require_good_standing(found)
    return replace(principal, role=found.role)


def require_good_standing(found: accounts.Standing) -> None:
    """Raise Unauthenticated("device_revoked") or Conflict("device_fork") where due."""
    if found.revoked:
        raise Unauthenticated("device_revoked")
    if found.frozen:
        raise Conflict("device_fork", "This device was replaced: log in as a new one.")
