"""Attempts that may be guesses: failed logins by account and address, signups by address, and
emails that an owner of a space names without there being such an account, by user.

Promises: an attempt is counted before it is judged, under a row lock, so a thousand guesses at
once are a thousand counts; an unknown email is counted like a known one, so the count tells nobody
which emails have accounts; what is counted goes away by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

# A person mistypes a few times; a hotel's address has many people behind it.
FREE_BY_ACCOUNT: Final = 5
FREE_BY_ADDRESS: Final = 50
# A class signs up in a school, behind one address.
FREE_SIGNUPS: Final = 20
FREE_MISSES: Final = 20
WAIT_SECONDS_MAX: Final = 15 * 60
# Who failed longer ago than this starts anew.
FORGET_AFTER: Final = timedelta(hours=1)
# How many rows one request drops on its way.
FORGET_AT_ONCE: Final = 5_000


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose attempts are counted, and how many are free."""

    name: str
    free: int


def logins_to(email: str) -> Subject:
    """Failed logins to an account, which may be there or not."""
    return Subject(f"account:{email}", FREE_BY_ACCOUNT)


def logins_from(address: str) -> Subject:
    """Failed logins from an address."""
    return Subject(f"address:{address}", FREE_BY_ADDRESS)


def signups_from(address: str) -> Subject:
    """Signups from an address, good ones too: each costs a hash and makes rows."""
    return Subject(f"signup:{address}", FREE_SIGNUPS)


def misses_of(user_id: UUID) -> Subject:
    """Emails without an account that a user asked to make a member."""
    return Subject(f"member:{user_id}", FREE_MISSES)


# One who has to wait is not counted: the row stays, and nothing comes back.
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


def count(connection: Connection, subjects: tuple[Subject, ...], now: datetime) -> timedelta:
    """Count an attempt as failed until it is forgiven. Not zero: how long all have to wait.

    Roll back where it is not zero: who waits is not counted. The rows are locked in the order
    given, account before address by everyone: no deadlock.
    """
    return max(_count(connection, subject, now) for subject in subjects)


def _count(connection: Connection, subject: Subject, now: datetime) -> timedelta:
    values = {
        "subject": subject.name,
        "free": subject.free,
        "now": now,
        "fresh": now - FORGET_AFTER,
        "most": WAIT_SECONDS_MAX,
    }
    if connection.execute(_COUNT, values).one_or_none() is not None:
        return timedelta(0)
    until: datetime | None = connection.scalar(_BLOCKED_UNTIL, {"subject": subject.name})
    # None: a good login has just cleared it.
    return until - now if until is not None else timedelta(seconds=1)


_CLEAR: Final = text("DELETE FROM login_failures WHERE subject = :subject")
# Only its own attempt: else one good account would wash clean all guesses from its address.
_FORGIVE: Final = text("""
    UPDATE login_failures SET failures = greatest(failures - 1, 0), blocked_until = :now
    WHERE subject = :subject
""")


def clear(connection: Connection, subject: Subject) -> None:
    """The attempt was a good one: the subject starts anew."""
    connection.execute(_CLEAR, {"subject": subject.name})


def forgive(connection: Connection, subject: Subject, now: datetime) -> None:
    """The attempt was a good one: the subject has one failure less."""
    connection.execute(_FORGIVE, {"subject": subject.name, "now": now})


# Passes by what others hold, so that two who forget at once can't wait for each other. As an array
# they are chosen once: PostgreSQL may run a subquery of IN for each row, and drop them all.
_FORGET: Final = text("""
    DELETE FROM login_failures WHERE subject = ANY(ARRAY(
        SELECT subject FROM login_failures WHERE failed_at < :before
        LIMIT :most FOR UPDATE SKIP LOCKED))
""")


def forget(connection: Connection, now: datetime) -> int:
    """Drop some of what does not count any more, in a transaction of its own; how many."""
    values = {"before": now - FORGET_AFTER, "most": FORGET_AT_ONCE}
    return connection.execute(_FORGET, values).rowcount
