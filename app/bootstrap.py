"""The first account, and accounts made from the shell.

Promises: the support account that the server prints at its start can always log in with what is
printed; an account that is there already keeps its password unless one is asked for.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine

from app import passwords
from app.schemas import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, email_of, normal_password
from app.settings import Settings
from storage import accounts, tokens


def ensure_support_account(engine: Engine, settings: Settings) -> tuple[str, str]:
    """(email, password) of the support staff's account, which is made where it is missing.

    In development the settings bring a password of their own, kept in the data folder (mode
    600), and the account is given it. In production the password counts at the first start only:
    who changed it since keeps it. Both are "" where production has no password: no account.
    """
    if settings.support_password is None:
        return "", ""
    email, password = settings.support_email, settings.support_password
    address = email_of(email)
    if address is None:
        raise ValueError(f"{email} is no email address")
    with engine.connect() as connection:
        found = accounts.user_by_email(connection, address)
    kept = found.password_hash if found else None
    if found is None or not (settings.production or passwords.matches(password, kept)):
        _put(engine, address, password=password, role="support")
    return address, password


def account_command(options: argparse.Namespace, engine: Engine, _settings: Settings) -> int:
    """`account EMAIL [--role ROLE] [--password PASSWORD]`; the exit status.

    Makes the account where there is none, with the password given or one made and printed; else
    sets what is given. A new password ends all the account's refresh tokens.
    """
    email = email_of(options.email)
    if email is None:
        return _refuse(f"{options.email} is no email address.")
    if options.password and not _is_password(options.password):
        return _refuse(f"A password has {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters.")
    with engine.connect() as connection:
        found = accounts.user_by_email(connection, email)
    made = None if found or options.password else secrets.token_urlsafe(12)
    _put(engine, email, password=options.password or made, role=options.role)
    print(f"{'Changed' if found else 'Made'} the account {email}.")
    if made:
        print(f"Its password: {made}")
    return 0


def _put(engine: Engine, email: str, *, password: str | None, role: str | None) -> None:
    """Make the account, or give it what is not None."""
    hashed = passwords.hashed(normal_password(password)) if password else None
    with engine.begin() as connection:
        if hashed and accounts.create_user(connection, email, hashed, role or "user"):
            return
        if hashed:
            _change_password(connection, email, hashed)
        if role:
            accounts.set_role(connection, email, role)


def _change_password(connection: Connection, email: str, hashed: str) -> None:
    user_id = accounts.set_password(connection, email, hashed)
    if user_id is not None:
        tokens.revoke_of_user(connection, user_id, datetime.now(UTC))


def _is_password(text: str) -> bool:
    return PASSWORD_CHARS_MIN <= len(text) <= PASSWORD_CHARS_MAX and "\0" not in text


def _refuse(sentence: str) -> int:
    print(sentence, file=sys.stderr)
    return 1
