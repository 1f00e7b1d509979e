"""Values and keys travel and come back as they were."""

from __future__ import annotations

import json
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.values import (
    SqlValue,
    canonical,
    compact,
    from_json,
    id_to_key,
    key_to_id,
    sort_elements,
    to_json,
)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.one_of(st.none(), INTEGERS, st.floats(allow_nan=False), TEXTS, st.binary())
KEYS = st.one_of(INTEGERS, TEXTS, st.binary(max_size=20), st.floats(allow_nan=False))


@given(VALUES)
def test_any_sqlite_value_comes_back_with_its_type(value: SqlValue) -> None:
    back = from_json(json.loads(compact(to_json(value))))
    assert back == value
    assert type(back) is type(value)


@given(st.lists(KEYS, min_size=1, max_size=3), st.booleans())
def test_any_key_comes_back_from_its_id(key: list[SqlValue], text: bool) -> None:
    affinities = [text and isinstance(part, str | bytes) for part in key]
    back = id_to_key(key_to_id(key, affinities), affinities)
    assert back == tuple(key)
    assert [type(part) for part in back or ()] == [type(part) for part in key]


@given(st.lists(KEYS, min_size=2, max_size=2, unique_by=lambda k: (type(k), k)))
def test_two_keys_never_share_an_id(keys: list[SqlValue]) -> None:
    one, other = (key_to_id([key], [False]) for key in keys)
    assert one != other


@pytest.mark.parametrize(
    ("key", "text", "record_id"),
    [
        (["t1"], True, "t1"),
        (["12"], True, "12"),
        (["12"], False, '["12"]'),
        ([12], False, "12"),
        (["012"], False, "012"),
        ([""], True, '[""]'),
        (["[1]"], True, '["[1]"]'),
        ([1.5], False, "[1.5]"),
        ([b"\0\xff"], True, '[{"$blob":"AP8="}]'),
        ([-0], False, "0"),
    ],
)
def test_ids_are_as_documented(key: list[SqlValue], text: bool, record_id: str) -> None:
    assert key_to_id(key, [text]) == record_id


def test_composite_ids_are_arrays_and_keep_types() -> None:
    assert key_to_id([1, "1"], [False, True]) == '[1,"1"]'
    assert id_to_key('[1,"1"]', [False, True]) == (1, "1")
    assert id_to_key("[1]", [False, True]) is None
    assert id_to_key("x", [False, True]) is None


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (True, 1),
        (False, 0),
        ([1, "ä"], '[1,"ä"]'),
        ({"a": 1}, '{"a":1}'),
        (2**70, float(2**70)),
        ({"$blob": "no base64!"}, '{"$blob":"no base64!"}'),
        ({"$real": "inf"}, float("inf")),
        ('{"$blob": "AA=="}', '{"$blob": "AA=="}'),
    ],
)
def test_what_other_clients_write_is_shown_somehow(value: object, stored: SqlValue) -> None:
    assert from_json(value) == stored  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1e21, "1e+21"),
        (1e-7, "1e-7"),
        (0.000001, "0.000001"),
        (1.5e-5, "0.000015"),
        (1e16, "10000000000000000"),
        (2**63 - 1, "9223372036854775807"),
        (-0.0, "0"),
        (0.1, "0.1"),
        ({"b": 1, "a": [None, True]}, '{"a":[null,true],"b":1}'),
        ("ü\n\x1f", '"ü\\n\\u001f"'),
    ],
)
def test_elements_are_ordered_by_their_canonical_text(value: object, text: str) -> None:
    assert canonical(value) == text  # type: ignore[arg-type]
    assert sort_elements([value, value]) == [value]  # type: ignore[list-item]


def test_text_that_is_no_utf8_is_written_in_escapes() -> None:
    raw = sqlite3.connect(":memory:")
    raw.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
    (broken,) = raw.execute("SELECT CAST(x'ff41' AS TEXT)").fetchone()
    raw.close()
    assert compact({"x": broken}) == '{"x":"\\udcffA"}'
