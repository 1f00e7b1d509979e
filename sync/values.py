"""JSON values: which ones there are, when two are equal, how they are written down."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import msgspec

from sync.clock import INT64_MAX, INT64_MIN
from sync.errors import Refused
from sync.limits import Limits

Value = Any
"""null, booleans, strings, integers of 64 bits, finite doubles, arrays and objects of these."""

encode = msgspec.json.Encoder(order="deterministic").encode
# A double so large that it is written with an exponent, and so an integer to jsonb.
_EXPONENT = re.compile(rb"[:\[,]-?\d[\d.]*e\d|^-?\d[\d.]*e\d")
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: object) -> bytes:
    """Deterministic JSON that PostgreSQL's jsonb gives back with the types that went in.

    jsonb keeps numbers as decimals: `1e16` would come back as an integer, `10000000000000000.0`
    comes back as a double.
    """
    text = encode(value)
    if type(value) is dict and are_exact(value.values()):
        return text
    if _EXPONENT.search(text):
        return encode(_spelled_out(value))
    return text


_EXACT = frozenset({str, int, bool, type(None)})


def are_exact(values: Iterable[Value]) -> bool:
    """Whether each is a scalar but no double: then none is written with an exponent."""
    return _EXACT.issuperset(map(type, values))


def _spelled_out(value: object) -> object:
    if isinstance(value, float) and abs(value) >= 1e16:
        return msgspec.Raw(b"%d.0" % int(value))
    if isinstance(value, dict):
        return {key: _spelled_out(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spelled_out(item) for item in value]
    if isinstance(value, msgspec.Struct):
        return _spelled_out(msgspec.to_builtins(value))
    return value


def canonical(value: Value) -> str:
    """The value's canonical JSON text: RFC 8785, but with integers written exactly."""
    if isinstance(value, str):
        return encode(value).decode()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: key.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(k)}:{canonical(value[k])}" for k in keys) + "}"
    return "[" + ",".join(canonical(item) for item in value) + "]"


def _number(value: float) -> str:
    """A double as ECMAScript writes it (ECMA-262, Number::toString)."""
    if value == 0:
        return "0"
    if 1e-6 <= abs(value) < 1e21:
        return format(Decimal(repr(value)).normalize(), "f")
    mantissa, _, exponent = repr(value).partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent):+d}"


def equal(a: Value, b: Value) -> bool:
    """Whether two values are the same JSON value: 1 and 1.0 are, 1 and true are not.

    Looks no further than the first difference: whoever writes one byte beside a great value must
    not cost a look at all of it.
    """
    if type(a) is not type(b):
        return {type(a), type(b)} == {int, float} and canonical(a) == canonical(b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(value, b[key]) for key, value in a.items())
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return canonical(a) == canonical(b) if isinstance(a, float) else bool(a == b)


def fitting(values: dict[str, Value]) -> dict[str, Value]:
    """The values for MessagePack, whose integers end at 64 bits: a greater sum is a double."""
    return {
        name: float(v) if type(v) is int and not INT64_MIN <= v <= INT64_MAX else v
        for name, v in values.items()
    }


def check_text(text: str) -> None:
    """Raises `Refused` (`invalid_text`) for what PostgreSQL can't hold."""
    if "\0" in text or not (text.isascii() or _SURROGATE.search(text) is None):
        raise Refused("invalid_text")


def check_value(value: Value, limits: Limits, depth: int = 0) -> None:
    """Raises `Refused` for what is no value of the protocol."""
    kind = type(value)
    if kind is str:
        check_text(value)
    elif value is None or kind is bool:
        return
    elif kind is int:
        if not INT64_MIN <= value <= INT64_MAX:
            raise Refused("invalid_number", "an integer does not fit 64 bits")
    elif kind is float:
        if not math.isfinite(value):
            raise Refused("invalid_number", "a number is not finite")
    elif kind is list or isinstance(value, dict):
        _check_nested(value, limits, depth + 1)
    else:
        raise Refused("invalid_value", f"{kind.__name__} is no JSON value")


def _check_nested(value: Value, limits: Limits, depth: int) -> None:
    if depth > limits.value_depth:
        raise Refused("too_deep", f"a value has more than {limits.value_depth} levels")
    if isinstance(value, list):
        for item in value:
            check_value(item, limits, depth)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise Refused("invalid_value", "the keys of an object are strings")
        check_text(key)
        check_value(item, limits, depth)
