"""Who guesses, or asks for much, has to wait: the server's end of storage/attempts.py.

Promise: what was counted and does not count any more is dropped on the way, once an hour by each
worker, so the counts of a flood don't stay although no operator looks.
"""

from __future__ import annotations

from datetime import timedelta

from app.runtime import runtime
from storage import attempts
from storage.attempts import Subject
from sync.errors import TooMany


def count(*subjects: Subject) -> None:
    """Count an attempt as a bad one until it is forgiven; raises TooMany (`retry_after`)."""
    if not runtime().settings.rate_limits:
        return
    with runtime().begin() as connection:
        wait = attempts.count(connection, subjects, runtime().now())
        if wait > timedelta(0):
            # Leaving by an exception takes the count back: who waits is not made to wait longer.
            seconds = int(wait.total_seconds()) + 1
            raise TooMany("too_many_attempts", retry_after=seconds)
    _forget_the_old()


def forgive(subject: Subject, *, clear: Subject | None = None) -> None:
    """The attempt was a good one: it does not count, and `clear` starts anew."""
    if not runtime().settings.rate_limits:
        return
    with runtime().begin() as connection:
        if clear is not None:
            attempts.clear(connection, clear)
        attempts.forgive(connection, subject, runtime().now())


def _forget_the_old() -> None:
    now, last = runtime().now(), runtime().attempts_forgotten_at
    if last is not None and now - last < attempts.FORGET_AFTER:
        return
    runtime().attempts_forgotten_at = now
    with runtime().begin() as connection:
        if attempts.forget(connection, now) == attempts.FORGET_AT_ONCE:
            # There is more: the next attempt goes on.
            runtime().attempts_forgotten_at = None
