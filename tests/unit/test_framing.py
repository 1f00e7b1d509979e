"""Updates read strictly: all that Yjs writes, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pycrdt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync import documents, framing, trees
from sync.errors import Refused
from sync.framing import Malformed

LIMIT = 2**20
HELLO = bytes.fromhex("0101 01 00 04 01 01 74 05 48656c6c6f 00")
"""Client 1 inserts "Hello" into the root "t"."""


def _doc(fill: Callable[[Any], None], **options: Any) -> Any:
    document: Any = pycrdt.Doc(client_id=1, **options)
    fill(document)
    return document


def _text(document: Any) -> None:
    text = document.get("t", type=pycrdt.Text)
    text += "Hello, Wörld 😀"
    text.format(0, 5, {"bold": True, "link": {"href": "x"}})
    text.insert_embed(2, {"image": "a.png"})
    del text[3:6]


def _map(document: Any) -> None:
    values = {"s": "x", "i": -(2**40), "f": 0.1, "n": None, "b": True, "l": [1, ["y"]], "d": {}}
    document["m"] = entries = pycrdt.Map({**values, "bytes": b"\0\xff", "inner": pycrdt.Map({})})
    entries["s"] = "again"
    del entries["f"]


def _array(document: Any) -> None:
    document["l"] = items = pycrdt.Array([1, "x", [True, None], {"k": 1.5}, pycrdt.Text("in")])
    items.insert(2, pycrdt.Array([pycrdt.Map({"deep": pycrdt.Array([1])})]))
    del items[0:2]


def _xml(document: Any) -> None:
    hi = pycrdt.XmlText("Hi")
    document["x"] = pycrdt.XmlFragment([pycrdt.XmlElement("p", {"class": "a"}, [hi])])
    hi.insert(1, "e", {"em": {}})


def _verdict(update: bytes) -> str | None:
    try:
        documents.read(update, LIMIT)
    except Refused as refused:
        return refused.code
    return None


ALL = {"text": _text, "map": _map, "array": _array, "xml": _xml}


@pytest.mark.parametrize("fill", ALL.values(), ids=ALL)
@pytest.mark.parametrize("skip_gc", [True, False])
def test_all_that_yjs_writes_is_read(fill: Callable[[Any], None], skip_gc: bool) -> None:
    seen: list[bytes] = []
    document: Any = pycrdt.Doc(client_id=1, skip_gc=skip_gc)
    watch = document.observe(lambda event: seen.append(event.update))
    fill(document)
    del watch
    for update in (*seen, document.get_update(), documents.merge(seen)):
        documents.check_update(update, LIMIT)
    ends = {client: span.end for client, span in framing.read(document.get_update()).spans.items()}
    assert ends == framing.read_clocks(document.get_state())


@pytest.mark.parametrize("fill", ALL.values(), ids=ALL)
def test_an_update_cut_anywhere_is_none(fill: Callable[[Any], None]) -> None:
    update = _doc(fill).get_update()
    for size in range(len(update)):
        with pytest.raises(Malformed):
            framing.read(update[:size])


@pytest.mark.parametrize("fill", ALL.values(), ids=ALL)
def test_an_update_with_a_bit_turned_is_refused_or_another_update(
    fill: Callable[[Any], None],
) -> None:
    update = _doc(fill).get_update()
    refused = 0
    for bit in range(len(update) * 8):
        turned = bytearray(update)
        turned[bit // 8] ^= 1 << bit % 8
        refused += _verdict(bytes(turned)) == "bad_update"
    assert refused > len(update)


@given(st.binary(max_size=200))
@settings(max_examples=500, deadline=None)
def test_garbage_is_refused_or_read(garbage: bytes) -> None:
    assert _verdict(garbage) in {None, "bad_update"}


BAD = {
    "a varint without an end": b"\x80" * 400_000,
    "a varint of nine bytes": b"\x01\x01" + b"\xff" * 8 + b"\x01" + HELLO[3:],
    "a number not in its shortest form": b"\x81\x00" + HELLO[1:],
    "a client above 2^53": b"\x01\x01" + b"\xff" * 7 + b"\x10" + HELLO[3:],
    "a clock above 2^31": b"\x01\x01\x01\xff\xff\xff\xff\x0f" + HELLO[4:],
    "a clock that passes 2^31": b"\x01\x01\x01\xfe\xff\xff\xff\x07" + HELLO[4:],
    "four billion clients": b"\xff\xff\xff\xff\x07",
    "a client with nothing": b"\x01\x00\x01\x00\x00",
    "a client twice": b"\x02" + HELLO[1:-1] + HELLO[1:],
    "text that is no utf-8": HELLO.replace(b"Hello", b"Hel\xff\xfe"),
    "a lone surrogate": HELLO.replace(b"Hello", b"He\xed\xa0\x80"),
    "text that is longer than the update": HELLO.replace(b"\x05Hello", b"\x7fHello"),
    "no text": HELLO.replace(b"\x05Hello", b"\x00"),
    "an unknown struct": HELLO.replace(b"\x04\x01\x01t", b"\x0b\x01\x01t"),
    "flags on what was collected": b"\x01\x01\x01\x00\x80\x01\x00",
    "nothing collected": b"\x01\x01\x01\x00\x00\x00\x00",
    "nothing skipped": b"\x01\x01\x01\x00\x0a\x00\x00",
    "a parent of a third kind": HELLO.replace(b"\x04\x01\x01t", b"\x04\x02\x01t"),
    "a document in a document": b"\x01\x01\x01\x00\x09\x01\x01t\x01g\x76\x00\x00",
    "json of before version 13": b"\x01\x01\x01\x00\x02\x01\x01t\x01\x011\x00",
    "an unknown type": b"\x01\x01\x01\x00\x07\x01\x01t\x09\x00",
    "a hook": b"\x01\x01\x01\x00\x07\x01\x01t\x05\x01h\x00",
    "an item beside itself": b"\x01\x01\x01\x00\x84\x01\x00\x01x\x00",
    "an item beside a later one": b"\x01\x01\x01\x00\x44\x01\x07\x01x\x00",
    "an item within itself": b"\x01\x01\x01\x00\x04\x00\x01\x00\x01x\x00",
    "an unknown value": b"\x01\x01\x01\x00\x08\x01\x01t\x01\x10\x00",
    "a map of a billion": b"\x01\x01\x01\x00\x08\x01\x01t\x01\x76\xff\xff\xff\xff\x03\x00",
    "values without a bottom": b"\x01\x01\x01\x00\x08\x01\x01t\x01" + b"\x75\x01" * 500_000,
    "an integer without an end": b"\x01\x01\x01\x00\x08\x01\x01t\x01\x7d" + b"\xff" * 400_000,
    "a format that is no json": b"\x01\x01\x01\x00\x06\x01\x01t\x01b\x09undefined\x00",
    "deletions of nothing": HELLO[:-1] + b"\x01\x01\x01\x00\x00",
    "deletions past 2^31": HELLO[:-1] + b"\x01\x01\x01\xff\xff\xff\xff\x07\x01",
    "a client twice among deletions": HELLO[:-1] + b"\x02\x01\x01\x00\x01\x01\x01\x00\x01",
    "bytes behind": HELLO + b"\x00",
}


@pytest.mark.parametrize("update", BAD.values(), ids=BAD)
def test_what_yjs_does_not_write_is_refused(update: bytes) -> None:
    assert _verdict(update) == "bad_update"


def test_the_updates_that_the_bad_ones_were_made_from_are_good() -> None:
    assert documents.text_of(HELLO) == "Hello"
    assert framing.read(b"\0\0") == framing.Frame(deletes_at=1)


def test_an_update_has_a_size() -> None:
    documents.check_update(HELLO, len(HELLO))
    with pytest.raises(Refused) as refused:
        documents.check_update(HELLO, len(HELLO) - 1)
    assert refused.value.code == "document_update_too_large"


@given(st.dictionaries(st.integers(0, 2**53 - 1), st.integers(0, 2**31 - 1)))
def test_a_state_vector_comes_back_as_it_was(clocks: Any) -> None:
    assert framing.read_clocks(framing.write_clocks(clocks)) == clocks


@pytest.mark.parametrize("vector", [b"", b"\x01\x01", b"\x00\x00", b"\x02\x01\x00\x01\x00"])
def test_what_is_no_state_vector_is_refused(vector: bytes) -> None:
    with pytest.raises(Refused):
        documents.diff(HELLO, vector)


@pytest.mark.parametrize("levels", [1, 2, 50])
def test_the_depth_of_types_is_told_from_the_update(levels: int) -> None:
    inner: Any = pycrdt.Text("x")
    for _ in range(levels - 1):
        inner = pycrdt.Map({"k": inner})
    update = _doc(lambda document: document.__setitem__("m", pycrdt.Map({"k": inner}))).get_update()
    assert trees.depth(update) == levels


def test_text_in_an_array_is_found_wherever_it_stands() -> None:
    array = b"\x01\x02\x01\x00\x07\x01\x01m\x00\x04\x00\x01\x00\x01x\x00"
    assert trees.has_text_in_arrays(array, set())
    assert trees.has_text_in_arrays(HELLO, {"t"})
    assert not trees.has_text_in_arrays(HELLO, set())
    assert not trees.has_text_in_arrays(_doc(_array).get_update(), {"l"})
