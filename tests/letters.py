"""A text as no editor would send it: each letter a struct of its own."""

from __future__ import annotations

from sync.framing import uint


def letters(count: int, root: str = "body") -> bytes:
    """A Yjs update in which client 7 types so many "a"s, one after the other."""
    structs = [b"\4\1" + uint(len(root)) + root.encode() + b"\1a"]
    structs += [b"\x84\7" + uint(clock) + b"\1a" for clock in range(count - 1)]
    return uint(1) + uint(count) + b"\7\0" + b"".join(structs) + b"\0"
