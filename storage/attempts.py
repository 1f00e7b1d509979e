"""Logins that failed, by account and by address.

Promises: an attempt is counted before its password is looked at, under a row lock, so a thousand
guesses at once are a thousand counts; an unknown email is counted like a known one, so the count
tells nobody which emails have accounts.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, text

# A person mistypes a few times; a hotel's address has many people behind it.
FREE_BY_ACCOUNT: Final = 5
FREE_BY_ADDRESS: Final = 50
WAIT_SECONDS_MAX: Final = 15 * 60
# Who failed longer ago than this starts anew.
FORGET_AFTER: Final = timedelta(hours=1)

# One who has to wait is not counted: the row stays, and nothing comes back. The rows are locked
# in this order, account before address, by everyone: no deadlock.
_COUNT: Final = text("""
    INSERT INTO login_failures AS f (subject, failures, blocked_until, failed_at)
    VALUES (:subject, 1, :now, :now)
    ON CONFLICT (subject) DO UPDATE SET
        failures = CASE WHEN f.failed_at < :fresh THEN 1 ELSE f.failures + 1 END,
        blocked_until = CASE
            WHEN f.failed_at < :fresh OR f.failures + 1 < :free THEN :now
            ELSE CAST(:now AS timestamptz)
                + least(:most, power(2, least(f.failures + 1 - :free, 30))) * interval '1 second'
        END,
        failed_at = :now
    WHERE f.blocked_until <= :now
    RETURNING failures
""")
_BLOCKED_UNTIL: Final = text("SELECT blocked_until FROM login_failures WHERE subject = :subject")


def count(connection: Connection, account: str, address: str, now: datetime) -> timedelta:
    """Count an attempt as failed until it is forgiven. Not zero: how long both have to wait.

    Roll back where it is not zero: who waits is not counted.
    """
    waits = [
        _count(connection, account, FREE_BY_ACCOUNT, now),
        _count(connection, address, FREE_BY_ADDRESS, now),
    ]
    return max(waits)


def _count(connection: Connection, subject: str, free: int, now: datetime) -> timedelta:
    values = {
        "subject": subject,
        "free": free,
        "now": now,
        "fresh": now - FORGET_AFTER,
        "most": WAIT_SECONDS_MAX,
    }
    if connection.execute(_COUNT, values).one_or_none() is not None:
        return timedelta(0)
    until: datetime | None = connection.scalar(_BLOCKED_UNTIL, {"subject": subject})
    # None: a good login has just cleared it.
    return until - now if until is not None else timedelta(seconds=1)


_FORGIVE_ACCOUNT: Final = text("DELETE FROM login_failures WHERE subject = :subject")
# Only its own attempt: else one good account would wash clean all guesses from its address.
_FORGIVE_ADDRESS: Final = text("""
    UPDATE login_failures SET failures = greatest(failures - 1, 0), blocked_until = :now
    WHERE subject = :subject
""")


def forgive(connection: Connection, account: str, address: str, now: datetime) -> None:
    """The attempt was a good one: the account starts anew, the address has one failure less."""
    connection.execute(_FORGIVE_ACCOUNT, {"subject": account})
    connection.execute(_FORGIVE_ADDRESS, {"subject": address, "now": now})


_FORGET: Final = text("DELETE FROM login_failures WHERE failed_at < :before")


def forget(connection: Connection, before: datetime) -> None:
    """Drop what is older: upkeep."""
    connection.execute(_FORGET, {"before": before})
