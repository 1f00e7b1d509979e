"""JSON values: which there are, when two are equal, how they are written down."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.errors import Refused
from sync.limits import Limits
from sync.values import canonical, check_text, check_value, equal, to_json

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=300)

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5)
floats = st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | floats | texts
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@LAW
@given(values)
def test_a_value_comes_back_from_its_json_with_its_types(value: Any) -> None:
    back = msgspec.json.decode(to_json(value))
    assert back == value
    assert repr(back) == repr(value) or isinstance(value, dict | list)


@LAW
@given(floats)
def test_a_double_is_written_so_that_a_decimal_keeps_it_a_double(value: float) -> None:
    """jsonb keeps the digits after the point, and no exponent."""
    digits = format(Decimal(to_json(value).decode()), "f")
    assert "." in digits
    assert float(digits) == value


@LAW
@given(values)
def test_equal_values_have_one_text_and_it_is_json_of_the_same_value(value: Any) -> None:
    text = canonical(value)
    assert canonical(json.loads(text)) == text
    assert equal(json.loads(text), value)


@LAW
@given(values, values)
def test_two_values_are_equal_where_their_canonical_texts_are(a: Any, b: Any) -> None:
    assert equal(a, b) is (canonical(a) == canonical(b))
    assert equal(a, b) is equal(b, a)


@LAW
@given(floats)
def test_a_double_is_written_as_ecmascript_writes_it(value: float) -> None:
    """The shortest digits that give the double back, with an exponent only far from 1."""
    text = canonical(value)
    assert float(text) == value
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?(e[+-]\d+)?", text)
    assert ("e" in text) is (value != 0 and not 1e-6 <= abs(value) < 1e21)
    assert len(re.sub(r"e.*|[-.]", "", text).strip("0")) <= 17


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (333333333.33333329, "333333333.3333333"),
        (1e30, "1e+30"),
        (4.50, "4.5"),
        (2e-3, "0.002"),
        (1e-27, "1e-27"),
        (-0.0, "0"),
        (295147905179352830000.0, "295147905179352830000"),
        (9007199254740993, "9007199254740993"),
    ],
)
def test_numbers_are_written_as_rfc_8785_shows_and_integers_exactly(
    value: float, text: str
) -> None:
    assert canonical(value) == text


def test_keys_stand_in_the_order_of_their_utf_16_units() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical(dict.fromkeys(keys, 0)))) == ordered


@pytest.mark.parametrize("bad", ["a\0", "\ud800", "\udfff\ud800", "\udc00x"])
def test_text_that_the_database_can_not_hold_is_invalid(bad: str) -> None:
    for value in (bad, [bad], {"k": bad}, {bad: 1}):
        with pytest.raises(Refused) as refused:
            check_value(value, Limits())
        assert refused.value.code == "invalid_text"


def test_text_of_any_other_character_is_fine() -> None:
    check_text("\x01\x7f\ud7ff\ue000\ufffe\uffff\U0010ffff")


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (2**63, "invalid_number"),
        (-(2**63) - 1, "invalid_number"),
        (math.nan, "invalid_number"),
        (math.inf, "invalid_number"),
        (b"bytes", "invalid_value"),
        ({1: "a"}, "invalid_value"),
        ([object()], "invalid_value"),
    ],
)
def test_what_is_no_value_of_the_protocol_is_refused(value: Any, code: str) -> None:
    with pytest.raises(Refused) as refused:
        check_value(value, Limits())
    assert refused.value.code == code


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}], ids=["arrays", "objects"])
def test_a_value_may_be_thirty_two_levels_deep_and_no_deeper(wrap: Any) -> None:
    value: Any = 1
    for _ in range(32):
        value = wrap(value)
    check_value(value, Limits())
    with pytest.raises(Refused) as refused:
        check_value(wrap(value), Limits())
    assert refused.value.code == "too_deep"
