"""Passwords, hashed with argon2id (RFC 9106).

Promises: checking a password takes the same time whether or not there is such an account; a hash
runs in a thread of its own under gevent, so the connections of a worker go on meanwhile; few run
at once, so a rush of logins takes neither the memory nor the processor from those who sync.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from sync.errors import Unavailable

T = TypeVar("T")

# Of each worker: with ten, the other requests of a small machine waited for a second.
HASHES_AT_ONCE: Final = 2
# Who has waited so long is better told to come back.
WAIT_SECONDS_MAX: Final = 10

# OWASP's smaller set: some 15 ms. The 64 MiB of RFC 9106's would let a few logins at once push
# a small server out of memory.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


_TURNS: Final = threading.BoundedSemaphore(HASHES_AT_ONCE)


def hashed(password: str) -> str:
    """The password's hash, to be kept. Takes some 15 ms. Raises Unavailable in a rush."""
    return _aside(lambda: _HASHER.hash(password))


def matches(password: str, kept: str | None) -> bool:
    """Whether the password is the one kept. None, no such account, takes as long and is False.

    Raises Unavailable in a rush.
    """
    return _aside(lambda: _verified(password, kept or _decoy())) and kept is not None


def _verified(password: str, kept: str) -> bool:
    try:
        return _HASHER.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


@functools.cache
def _decoy() -> str:
    return _HASHER.hash("nobody's password")


def _aside(work: Callable[[], T]) -> T:
    """Run it when it is its turn, in gevent's thread pool where gevent rules, else here."""
    if not _TURNS.acquire(timeout=WAIT_SECONDS_MAX):
        raise Unavailable("unavailable", "Too many log in at once: try again.", retry_after=10)
    try:
        return _in_thread(work) if _under_gevent() else work()
    finally:
        _TURNS.release()


def _under_gevent() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _in_thread(work: Callable[[], T]) -> T:
    import gevent

    # argon2 releases the interpreter's lock: the loop goes on.
    result: T = gevent.get_hub().threadpool.apply(work)
    return result
