"""Documents as a device's library sees them: Yjs updates in, text out. It does not call `sync`."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pycrdt

ROOT = "t"


def opened(updates: Iterable[bytes], client: int | None = None) -> Any:
    """The document that takes the updates in this order; what depends on missing ones waits."""
    document: Any = pycrdt.Doc(client_id=client)
    for update in updates:
        document.apply_update(update)
    return document


@lru_cache(maxsize=10_000)
def text_of(updates: tuple[bytes, ...]) -> str | None:
    """Its text; None: nothing of it is there."""
    document = opened(updates)
    if document.get_state() == b"\0":
        return None
    return str(document.get(ROOT, type=pycrdt.Text))


def typed(updates: Iterable[bytes], client: int, at: int, word: str, cut: int) -> bytes:
    """The update of one edit by a client with a fresh number, as each opening of a document has."""
    document = opened(updates, client)
    text = document.get(ROOT, type=pycrdt.Text)
    before = document.get_state()
    at = min(at, len(text))
    with document.transaction():
        del text[at : min(at + cut, len(text))]
        text.insert(at, word)
    update: bytes = document.get_update(before)
    return update


def from_json(text: str) -> bytes:
    return base64.b64decode(text)


def to_json(update: bytes) -> str:
    return base64.b64encode(update).decode()
