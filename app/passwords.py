"""Passwords, hashed with argon2id (RFC 9106).

Promises: checking a password takes the same time whether or not there is such an account; a hash
runs in a thread of its own under gevent, so the connections of a worker go on meanwhile; at most
as many run at once as that pool has threads (10), each with 19 MiB.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

T = TypeVar("T")

# OWASP's smaller set: some 15 ms. The 64 MiB of RFC 9106's would let a few logins at once push
# a small server out of memory.
_HASHER: Final = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


def hashed(password: str) -> str:
    """The password's hash, to be kept. Takes some 15 ms."""
    return _aside(lambda: _HASHER.hash(password))


def matches(password: str, kept: str | None) -> bool:
    """Whether the password is the one kept. None, no such account, takes as long and is False."""
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
    """Run it in gevent's thread pool where gevent rules, else here (argon2 releases the GIL)."""
    monkey = sys.modules.get("gevent.monkey")
    if monkey is None or not monkey.is_module_patched("threading"):
        return work()
    import gevent

    result: T = gevent.get_hub().threadpool.apply(work)
    return result
