"""Where a list goes on: opaque tokens that name the last row shown.

Pages are by key, not by number: a list may grow between two of them, and a page past the end is
empty.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar

import msgspec

from app.schemas import require_clean
from sync.errors import BadRequest

T = TypeVar("T")

PAGE_ROWS: Final = 50
PAGE_ROWS_MAX: Final = 200
TOKEN_CHARS_MAX: Final = 4_096
_CHECK_BYTES: Final = 8


def write_page(kind: str, key: Sequence[Any]) -> str:
    """URL-safe text of the list's kind and the last row's key."""
    packed = msgspec.msgpack.encode([kind, list(key)])
    return base64.urlsafe_b64encode(_check(packed) + packed).decode().rstrip("=")


def read_page(kind: str, token: str | None, type_: type[T]) -> T | None:
    """The key, as a tuple of the types in `type_`; None: from the start. Raises BadRequest."""
    if token is None:
        return None
    try:
        whole = base64.b64decode(token.encode() + b"=" * (-len(token) % 4), b"-_", validate=True)
        packed = whole[_CHECK_BYTES:]
        if whole[:_CHECK_BYTES] != _check(packed):
            raise BadRequest("bad_page")
        named, key = msgspec.msgpack.decode(packed, type=tuple[str, msgspec.Raw])
        found = msgspec.msgpack.decode(key, type=type_)
        for part in msgspec.msgpack.decode(key):
            require_clean(part if isinstance(part, str) else "")
    except (ValueError, msgspec.MsgspecError, RecursionError, BadRequest):
        raise BadRequest("bad_page") from None
    if named != kind:
        raise BadRequest("bad_page", "The token belongs to another list.")
    return found


def page_of(
    kind: str, rows: Sequence[T], limit: int, key: Callable[[T], Sequence[Any]]
) -> tuple[Sequence[T], str | None]:
    """(the page, its token) of what a query found that asked for one row more than `limit`."""
    more = len(rows) > limit
    return rows[:limit], write_page(kind, key(rows[limit - 1])) if more else None


def _check(packed: bytes) -> bytes:
    """Finds damage, not forgery: a forged key shows nothing that another page does not."""
    return blake2b(packed, digest_size=_CHECK_BYTES).digest()
