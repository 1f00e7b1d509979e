"""Documents as a device's library sees them: Yjs updates in, text out. It does not call `sync`.

A library takes what it can of an update that refers to what is not there; here an update joins
whole or waits, as the protocol says.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import pycrdt

ROOT = "t"


def opened(updates: Iterable[bytes], client: int | None = None) -> Any:
    """The document that takes each update whole, once all that it refers to is there."""
    document: Any = pycrdt.Doc(client_id=client)
    there: dict[int, int] = {}
    waiting = [*updates]
    again = True
    while again:
        again = False
        for update in [*waiting]:
            after = _after(there, update)
            if after is not None:
                document.apply_update(update)
                waiting.remove(update)
                there, again = after, bool(waiting)
    return document


@lru_cache(maxsize=10_000)
def text_of(updates: tuple[bytes, ...]) -> str | None:
    """Its text; None: nothing of it is there."""
    document = opened(updates)
    if document.get_state() == b"\0":
        return None
    return str(document.get(ROOT, type=pycrdt.Text))


def _after(there: dict[int, int], update: bytes) -> dict[int, int] | None:
    """What is there with the update, by client; None: it refers to what is not."""
    items, deletes = _read(update)
    there = dict(there)
    left = len(items) + 1
    while len(items) < left:
        left = len(items)
        for item in [*items]:
            client, clock, end, refers = item
            if all(at < there.get(other, 0) for other, at in refers) and clock <= there.get(
                client, 0
            ):
                there[client] = max(end, there.get(client, 0))
                items.remove(item)
    whole = not items and all(end <= there.get(client, 0) for client, end in deletes)
    return there if whole else None


Item = tuple[int, int, int, list[tuple[int, int]]]


def _read(update: bytes) -> tuple[list[Item], list[tuple[int, int]]]:
    """(client, clock, end, references) of each item, (client, end) of each deletion: of the ASCII
    texts that these histories type.
    """
    data = iter(update)

    def number() -> int:
        found = shift = 0
        while (byte := next(data)) & 0x80:
            found |= (byte & 0x7F) << shift
            shift += 7
        return found | byte << shift

    items: list[Item] = []
    for _ in range(number()):
        count, client, clock = number(), number(), number()
        for _ in range(count):
            info = next(data)
            refers = [(number(), number()) for bit in (0x80, 0x40) if info & bit]
            if not refers and info:
                assert number() == 1, "these texts stand in a root"
                [next(data) for _ in range(number())]
            length = number()
            if info & 0x1F == 4:
                [next(data) for _ in range(length)]
            items.append((client, clock, clock + length, refers))
            clock += length
    deletes = []
    for _ in range(number()):
        client, count = number(), number()
        deletes += [(client, number() + number()) for _ in range(count)]
    return items, deletes


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
