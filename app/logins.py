"""Signup, login and renewal: what happens, in order.

Promises: no connection is held while a password is hashed; an attempt is counted before it is
judged, so guessing in parallel gains nothing; a login that fails after its device was decided
leaves nothing behind; of two renewals with one token exactly one wins, and the other ends the
family.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final
from uuid import UUID

from flask import g, request
from sqlalchemy import Connection

from app import attempts, passwords
from app.auth import Principal, access_token, require_good_standing, token_principal
from app.runtime import runtime
from app.schemas import Account, Credentials, DeviceInfo, Login, Session
from app.writers import is_writer
from storage import accounts, tokens
from storage.attempts import logins_from, logins_to, signups_from
from sync.errors import BadRequest, Conflict, NotFound, Unauthenticated

NO_DEVICE: Final = "You have no such device."


def sign_up(wanted: Credentials) -> Account:
    """Make an account with its personal space; raises Conflict("email_taken"), TooMany."""
    # Taken emails count too: else the answer would tell any number of emails that have accounts.
    attempts.count(signups_from(request.remote_addr or ""))
    hashed = passwords.hashed(wanted.password)
    with runtime().begin() as connection:
        user = accounts.create_user(connection, wanted.email, hashed)
    if user is None:
        raise Conflict("email_taken")
    return Account(user.id, user.email, user.personal_space_id)


def log_in(login: Login) -> Session:
    """A session for the device.

    Raises Unauthenticated (`bad_credentials`, `device_revoked`), TooMany, NotFound (another
    user's device), Conflict("device_fork").
    """
    g.device_named, g.account_named = login.device_id, login.email
    user = checked_user(login.email, login.password)
    with runtime().begin() as connection:
        device_id = _device(connection, user.id, login)
        tokens.revoke_of_device(connection, device_id, runtime().now())
        session = _session(connection, user, device_id, family=uuid.uuid4())
    _note("login", device_id)
    return session


def renew(refresh_token: str) -> Session:
    """A session in exchange for the refresh token.

    Raises Unauthenticated (`token_invalid`, `token_expired`, `token_reused`, `device_revoked`),
    Conflict("device_fork").
    """
    session: Session | None = None
    with runtime().begin() as connection:
        spent = tokens.spend(connection, refresh_token, runtime().now())
        if spent is None:
            raise Unauthenticated("token_invalid")
        g.device_named = spent.device_id
        require_good_standing(spent.standing)
        if spent.verdict == "good":
            user = accounts.user_of_device(connection, spent.device_id)
            session = _session(connection, user, spent.device_id, spent.family)
    if session is not None:
        _note("token_renewed", spent.device_id)
        return session
    # Only after the commit: a token used twice has ended its family for good.
    raise Unauthenticated(f"token_{spent.verdict}")


def log_out(refresh_token: str | None) -> None:
    """End the refresh tokens of the device that holds this one, or that asks.

    The access token goes on until it expires, in 15 minutes at most: the device drops it. Revoke
    the device to end it at once. An unknown refresh token is no error (RFC 7009 §2.2).
    """
    with runtime().begin() as connection:
        device_id = (
            token_principal().device_id
            if refresh_token is None
            else tokens.device_of(connection, refresh_token)
        )
        if device_id is not None:
            accounts.lock_device(connection, device_id)
            tokens.revoke_of_device(connection, device_id, runtime().now())
    if device_id is not None:
        _note("logout", device_id)


def _note(kind: str, device_id: UUID) -> None:
    runtime().recorder.happened(kind, device_id, runtime().now_ms())


def checked_user(email: str, password: str) -> accounts.User:
    """The account of the email and the password; raises Unauthenticated("bad_credentials"),
    TooMany.
    """
    account, address = logins_to(email), logins_from(request.remote_addr or "")
    attempts.count(account, address)
    with runtime().begin() as connection:
        found = accounts.user_by_email(connection, email)
    if not passwords.matches(password, found.password_hash if found else None) or not found:
        raise Unauthenticated("bad_credentials")
    attempts.forgive(address, clear=account)
    return found


def _device(connection: Connection, user_id: UUID, login: Login) -> UUID:
    """The device's id: registered, or logged in again; what it replaces is frozen."""
    device_id = login.device_id or uuid.uuid4()
    replaces = login.device.replaces
    if replaces == device_id:
        raise BadRequest("malformed_request", "A device can't replace itself.")
    # In the order of their ids: two logins that name each other's device can't lock crosswise.
    if replaces is not None and replaces < device_id:
        _freeze(connection, user_id, replaces)
    _register(connection, user_id, device_id, login.device)
    if replaces is not None and replaces > device_id:
        _freeze(connection, user_id, replaces)
    return device_id


def _register(connection: Connection, user_id: UUID, device_id: UUID, info: DeviceInfo) -> None:
    # The server's own replica is in no list of the user's: a session as it could not be ended.
    if is_writer(user_id, device_id):
        raise NotFound("not_found", NO_DEVICE)
    standing = accounts.register_device(
        connection,
        accounts.Registration(
            device_id, user_id, info.name, info.platform, info.app_version, info.replaces
        ),
        runtime().now(),
    )
    if standing is None:
        raise NotFound("not_found", NO_DEVICE)
    require_good_standing(standing)


def _freeze(connection: Connection, user_id: UUID, device_id: UUID) -> None:
    # Frozen, the server's own replica would write nothing any more.
    found = not is_writer(user_id, device_id) and accounts.freeze_device(
        connection, user_id, device_id, runtime().now()
    )
    if not found:
        raise NotFound("not_found", "You have no such device to replace.")
    tokens.revoke_of_device(connection, device_id, runtime().now())


def _session(connection: Connection, user: accounts.User, device_id: UUID, family: UUID) -> Session:
    settings, now = runtime().settings, runtime().now()
    expires_at = now + timedelta(days=settings.refresh_token_days)
    refresh = tokens.issue(connection, tokens.Grant(device_id, family, now, expires_at))
    return Session(
        access_token=access_token(Principal(user.id, device_id, user.role)),
        refresh_token=refresh,
        device_id=device_id,
        personal_space=user.personal_space_id,
        expires_in=settings.access_token_seconds,
    )
