"""Bodies as plain values, tolerant: what a strict decoder refused, looked at closely.

Promise: what a tree shows is what was sent, its faults included; looking costs no more memory than
the body itself has elements, and no depth overflows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import msgpack  # type: ignore[import-untyped]

from sync.errors import BadRequest

Format = Literal["json", "msgpack"]


@dataclass(frozen=True, slots=True)
class Body:
    """A request body, decompressed."""

    data: bytes
    format: Format


class Doubled(dict[Any, Any]):
    """An object that named a key twice: the last value by key, and `pairs` as they came."""

    def __init__(self, pairs: list[tuple[Any, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def parse_tree(body: Body) -> object:
    """The body as plain values, tolerant: for looking closely at what a strict decoder refused.

    Objects that name a key twice are `Doubled`. NaN, infinities, lone surrogates and NULs are
    let through; a JSON integer of more than 4,300 digits comes as an infinity. From MessagePack
    also come bytes, keys that are no strings, `msgpack.ExtType` and `msgpack.Timestamp`.
    Raises BadRequest: `malformed_body`, `too_deep`.
    """
    try:
        return _json_tree(body.data) if body.format == "json" else _msgpack_tree(body.data)
    except (RecursionError, msgpack.StackError):
        raise BadRequest("too_deep") from None
    # msgpack and json raise ValueErrors of many kinds; a key may be unhashable (TypeError).
    except (ValueError, TypeError, OverflowError, msgpack.UnpackException) as error:
        raise BadRequest("malformed_body") from error


def _object(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    made = dict(pairs)
    return made if len(made) == len(pairs) else Doubled(pairs)


def _integer(digits: str) -> float | int:
    # Python refuses to read thousands of digits, for the time that it takes.
    return int(digits) if len(digits) <= 4_300 else float("-inf" if digits[0] == "-" else "inf")


def _json_tree(data: bytes) -> object:
    # Always UTF-8 (RFC 8259 §8.1): json.loads of bytes would guess UTF-16 and 32 as well.
    text = data.decode("utf-8", "surrogatepass")
    return json.loads(text, object_pairs_hook=_object, parse_int=_integer)


def _msgpack_tree(data: bytes) -> object:
    # A header may claim four billion elements, and the list is made before they are read. So the
    # structure is walked first, making nothing: past it, every element claimed is really there.
    walker = msgpack.Unpacker(max_buffer_size=max(1, len(data)), strict_map_key=False)
    walker.feed(data)
    walker.skip()
    if walker.tell() != len(data):
        raise ValueError("data follow the value")
    return msgpack.unpackb(
        data,
        raw=False,
        unicode_errors="surrogatepass",
        strict_map_key=False,
        object_pairs_hook=_object,
    )
