"""SQLite values ⇄ JSON values, primary keys ⇄ record ids. Pure, and reversible both ways.

| SQLite            | JSON                                   |
| ----------------- | -------------------------------------- |
| NULL              | null                                   |
| INTEGER (64 bit)  | integer                                |
| REAL              | number with a point or exponent        |
| ±Infinity         | {"$real": "inf"} / {"$real": "-inf"}   |
| TEXT              | string                                 |
| BLOB              | {"$blob": "<base64>"}                  |

SQLite's text always travels as a JSON string, so text that looks like `{"$blob": …}` needs no
escape. What other clients write and SQLite has no type for is shown as: true/false → 1/0, arrays
and other objects → their compact JSON text, integers beyond 64 bits → REAL.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Iterable, Sequence
from typing import Union, cast

Json = Union[None, bool, int, float, str, list["Json"], dict[str, "Json"]]  # noqa: UP007  # recursive
JsonObject = dict[str, Json]
SqlValue = int | float | str | bytes | None

PLAIN = frozenset({str, float, type(None)})
"""Types that are the same in JSON and in SQLite, whatever the value (but for ±Infinity)."""
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_ESCAPE = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

INTEGER_TEXT = re.compile(r"0|-?[1-9][0-9]{0,18}")
INTEGER_MIN, INTEGER_MAX = -(2**63), 2**63 - 1


def compact(value: Json) -> str:
    """JSON text without spaces; non-ASCII as itself, unless it holds text that UTF-8 can't carry.

    Invalid UTF-8 in SQLite is read as lone surrogates. Written as escapes they reach the server,
    which refuses that one change with `invalid_text`, and the queue behind it moves on.
    """
    text = _ENCODE(value)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return _ESCAPE(value)
    return text


def parse(text: str | bytes) -> Json:
    """The inverse of `compact`. Raises ValueError."""
    return cast("Json", json.loads(text))


def to_json(value: SqlValue) -> Json:
    """One SQLite value as it travels."""
    if type(value) is str or type(value) is int or value is None:
        return value
    if isinstance(value, bytes):
        return {"$blob": base64.b64encode(value).decode()}
    if isinstance(value, float) and math.isinf(value):
        return {"$real": "inf" if value > 0 else "-inf"}
    return value or 0.0  # -0.0 becomes 0.0, on this device too


def from_json(value: Json) -> SqlValue:
    """One travelling value as SQLite stores it. Never fails: the unknown becomes JSON text."""
    if type(value) in PLAIN:
        return cast("SqlValue", value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return value if INTEGER_MIN <= value <= INTEGER_MAX else float(value)
    if value is None or isinstance(value, float | str):
        return value
    if isinstance(value, dict) and len(value) == 1:
        blob, real = value.get("$blob"), value.get("$real")
        if isinstance(blob, str):
            try:
                return base64.b64decode(blob, validate=True)
            except (binascii.Error, ValueError):
                return compact(value)
        if real in ("inf", "-inf"):
            return math.inf if real == "inf" else -math.inf
    return compact(value)


def key_to_id(key: Sequence[SqlValue], text_affinity: Sequence[bool]) -> str:
    """The record id of a primary key.

    One column: text as itself, an integer as decimal text. Everything that would be read back as
    something else (text that looks like an integer in a column that is not TEXT, text that is
    empty or begins with `[`, reals, blobs) and every composite key: a compact JSON array.
    """
    if len(key) == 1:
        value = key[0]
        if isinstance(value, int):
            if not text_affinity[0]:
                return str(value)
        elif isinstance(value, str) and _stands_alone(value, text=text_affinity[0]):
            return value
    return compact([to_json(value) for value in key])


def _stands_alone(value: str, *, text: bool) -> bool:
    return bool(value) and value[0] != "[" and (text or not _reads_as_integer(value))


def id_to_key(record_id: str, text_affinity: Sequence[bool]) -> tuple[SqlValue, ...] | None:
    """The primary key of a record id; None if it can't be a key of so many columns."""
    if record_id.startswith("["):
        try:
            parts = parse(record_id)
        except ValueError:
            parts = None
        if isinstance(parts, list) and len(parts) == len(text_affinity):
            return tuple(from_json(part) for part in parts)
    if len(text_affinity) != 1:
        return None
    if not text_affinity[0] and _reads_as_integer(record_id):
        return (int(record_id),)
    return (record_id,)


def _reads_as_integer(text: str) -> bool:
    return bool(INTEGER_TEXT.fullmatch(text)) and INTEGER_MIN <= int(text) <= INTEGER_MAX


def canonical(value: Json) -> str:
    """RFC 8785 text, integers written exactly: the identity and the order of set elements."""
    if isinstance(value, float):
        return _es6_number(value)
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return (
            "{"
            + ",".join(f"{json.dumps(n, ensure_ascii=False)}:{canonical(value[n])}" for n in names)
            + "}"
        )
    return json.dumps(value, ensure_ascii=False)


def _es6_number(value: float) -> str:
    if value == 0:
        return "0"
    if value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent:
        return mantissa
    power = int(exponent)
    if -7 < power < 0:
        digits = len(mantissa.lstrip("-").partition(".")[2]) - power
        return f"{value:.{digits}f}"
    return f"{mantissa.removesuffix('.0')}e{'+' if power > 0 else ''}{power}"


def sort_elements(elements: Iterable[Json]) -> list[Json]:
    """A set as an array: no element twice, in the order of the canonical text."""
    by_text = {canonical(element): element for element in elements}
    return [by_text[text] for text in sorted(by_text)]


def plain(value: Json) -> Json:
    """A value as its canonical text is read again: 1.0 is 1, -0.0 is 0."""
    return parse(canonical(value))


def parse_set(value: SqlValue) -> list[Json] | None:
    """The elements in a set column: NULL and '' are empty; None says it is no JSON array."""
    if value is None or value == "":
        return []
    if not isinstance(value, str):
        return None
    try:
        parsed = parse(value)
    except ValueError:
        return None
    return parsed if isinstance(parsed, list) else None
