"""Bodies in and out: bounded, negotiated, and never read as something else."""

from __future__ import annotations

import gzip
import io
import json
import math
import tracemalloc
from collections.abc import Callable
from contextlib import suppress

import msgpack
import msgspec
import pytest
from backports import zstd
from flask import Flask
from flask.ctx import RequestContext
from flask.testing import EnvironBuilder

from app import wire
from app.schemas import Shape, Whole
from app.wire import Body, Doubled, answer, parse_tree, read_body, read_query
from sync.errors import NotAcceptable, SyncError
from sync.limits import Limits

LIMITS = Limits(body_bytes=100_000)
CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "": bytes,
}


@pytest.fixture(scope="module")
def flask() -> Flask:
    return Flask(__name__)


def _read(
    flask: Flask, data: bytes, coding: str = "", kind: str | None = None, **more: str
) -> Body:
    headers = {"Content-Encoding": coding} if coding else {}
    context = flask.test_request_context(
        "/", method="POST", data=data, content_type=kind, headers={**headers, **more}
    )
    with context:
        return read_body(LIMITS)


def _code(work: Callable[[], object]) -> str:
    with pytest.raises(SyncError) as caught:
        work()
    return caught.value.code


# In -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("size", [0, 1, 65_536, 100_000])
def test_a_body_comes_out_as_it_went_in(flask: Flask, coding: str, size: int) -> None:
    data = bytes(n * 7 % 251 for n in range(size))
    assert _read(flask, CODERS[coding](data), coding).data == data


@pytest.mark.parametrize(
    ("kind", "format_"),
    [
        (None, "json"),
        ("application/json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("application/msgpack", "msgpack"),
        ("application/x-msgpack", "msgpack"),
    ],
)
def test_the_content_type_says_the_format(flask: Flask, kind: str | None, format_: str) -> None:
    assert _read(flask, b"{}", kind=kind).format == format_


@pytest.mark.parametrize("coding", CODERS)
def test_one_byte_too_many_is_too_many(flask: Flask, coding: str) -> None:
    data = CODERS[coding](bytes(100_001))
    assert _code(lambda: _read(flask, data, coding)) == "body_too_large"


class Endless(io.RawIOBase):
    """A body without an end, that counts what was taken."""

    def __init__(self, chunk: bytes) -> None:
        self.chunk = chunk
        self.taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        size = min(len(buffer), len(self.chunk))
        buffer[:size] = self.chunk[:size]
        self.taken += size
        return size


def _request(
    flask: Flask, body: io.IOBase, coding: str, environ: dict[str, object]
) -> RequestContext:
    headers = {"Content-Encoding": coding} if coding else {}
    builder = EnvironBuilder(flask, method="POST", headers=headers)
    return flask.request_context({**builder.get_environ(), "wsgi.input": body, **environ})


@pytest.mark.parametrize("coding", ["", "gzip", "zstd"])
def test_a_body_without_an_end_is_left_soon(flask: Flask, coding: str) -> None:
    # An empty gzip block and an empty zstd block may repeat for ever: no output, no end.
    start = {"gzip": gzip.compress(b"")[:10], "zstd": bytes.fromhex("28b52ffd0058"), "": b""}
    block = {"gzip": b"\x00\x00\x00\xff\xff", "zstd": b"\x00\x00\x00", "": b"a"}
    endless = Endless(start[coding] + block[coding] * 20_000)
    with _request(flask, endless, coding, {"wsgi.input_terminated": True}):
        assert _code(lambda: read_body(LIMITS)) in {"body_too_large", "bad_encoding"}
    assert endless.taken < 10 * LIMITS.body_bytes


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_a_bomb_costs_what_an_honest_body_costs(flask: Flask, coding: str) -> None:
    bomb = CODERS[coding](bytes(64 * 2**20))
    assert len(bomb) < LIMITS.body_bytes
    tracemalloc.start()
    try:
        assert _code(lambda: _read(flask, bomb, coding)) == "body_too_large"
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_a_zstd_window_beyond_8_mib_is_refused(flask: Flask) -> None:
    # Streamed, so that the frame doesn't know its length: else that would be its window.
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    streamed = compressor.compress(b"a" * 90_000) + compressor.flush()
    assert _code(lambda: _read(flask, streamed, "zstd")) == "bad_encoding"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: b"",
        lambda whole: whole[:-1],
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole + b"\0",
        lambda whole: whole + whole,
        lambda _: b"garbage",
        lambda whole: whole[:-6] + bytes(6),
        lambda whole: bytes([whole[0] ^ 1]) + whole[1:],
    ],
)
def test_a_body_that_is_cut_or_garbled_can_not_be_decompressed(
    flask: Flask, coding: str, spoil: Callable[[bytes], bytes]
) -> None:
    options = {zstd.CompressionParameter.checksum_flag: 1}
    data = bytes(n * 7 % 251 for n in range(9_999))
    whole = gzip.compress(data) if coding == "gzip" else zstd.compress(data, options=options)
    assert _code(lambda: _read(flask, spoil(whole), coding)) == "bad_encoding"


def test_a_body_shorter_than_announced_is_malformed(flask: Flask) -> None:
    with _request(flask, io.BytesIO(b"{}"), "", {"CONTENT_LENGTH": "9"}):
        assert _code(lambda: read_body(LIMITS)) == "malformed_body"


def test_a_length_past_the_limit_is_refused_unread(flask: Flask) -> None:
    endless = Endless(b"a" * 1_000)
    with _request(flask, endless, "", {"CONTENT_LENGTH": str(10**12)}):
        assert _code(lambda: read_body(LIMITS)) == "body_too_large"
    assert endless.taken == 0


# Trees --------------------------------------------------------------------------------------


def _json(text: bytes) -> object:
    return parse_tree(Body(text, "json"))


def _msgpack(data: bytes) -> object:
    return parse_tree(Body(data, "msgpack"))


def test_a_doubled_key_is_noticed_and_nothing_is_lost() -> None:
    for tree in (_json(b'{"a": {"b": 1, "b": 2}}'), _msgpack(b"\x81\xa1a\x82\xa1b\x01\xa1b\x02")):
        assert isinstance(tree, dict)
        assert not isinstance(tree, Doubled)
        assert isinstance(tree["a"], Doubled)
        assert tree["a"] == {"b": 2}
        assert tree["a"].pairs == [("b", 1), ("b", 2)]


def test_a_tree_still_shows_what_json_can_not_have() -> None:
    tree = _json(
        b'[NaN, -Infinity, 1e999, "\\ud800", "\xed\xa0\x80", "\\u0000", -1%s]' % (b"0" * 5_000)
    )
    assert isinstance(tree, list)
    assert math.isnan(tree[0])
    assert tree[1:] == [-math.inf, math.inf, "\ud800", "\ud800", "\0", -math.inf]
    packed = _msgpack(msgpack.packb([math.inf, b"x", {1: 2}]) + b"")
    assert packed == [math.inf, b"x", {1: 2}]
    assert _msgpack(b"\xa3\xed\xa0\x80") == "\ud800"


def test_integers_past_64_bits_stay_exact() -> None:
    assert _json(b"18446744073709551617") == 2**64 + 1


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"nul",
        b"01",
        '{"a": 1}'.encode("utf-16"),
        b'"\x01"',
        b"\x00",
        b'{"a"}',
        b'"\\x"',
    ],
)
def test_what_is_no_json_is_malformed(text: bytes) -> None:
    assert _code(lambda: _json(text)) == "malformed_body"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x91",
        b"\x01\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff\x01",
        b"\xdb\xff\xff\xff\xffa",
        b"\xa2\xff\xfe",
        b"\x81\x90\x01",
        b"\x81\x80\x01",
        b"\xd6\xff\x00",
        b"\xc7\x03\xff\x00\x00\x00",
        b"\xc9\xff\xff\xff\xff\x01",
    ],
)
def test_what_is_no_messagepack_is_malformed(data: bytes) -> None:
    assert _code(lambda: _msgpack(data)) == "malformed_body"


@pytest.mark.parametrize("size", [2_000, 100_000, 2_000_000])
def test_depth_is_refused_not_suffered(size: int) -> None:
    for text in (b"[" * size, b'{"a":' * size, b"[" * size + b"]" * size):
        assert _code(lambda text=text: _json(text)) == "too_deep"
    for data in (b"\x91" * size + b"\x01", b"\x81\xa1a" * size + b"\x01"):
        assert _code(lambda data=data: _msgpack(data)) == "too_deep"


def test_claimed_elements_cost_nothing_before_they_are_there() -> None:
    # Each header claims eight million elements, all of them the same bytes.
    data = b"\xdd\x00\x7a\x12\x00" * 20 + bytes(8_000_000)
    tracemalloc.start()
    try:
        assert _code(lambda: _msgpack(data)) == "malformed_body"
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data)
    finally:
        tracemalloc.stop()


# Out ----------------------------------------------------------------------------------------


def _answer(flask: Flask, value: object, **headers: str) -> tuple[dict[str, str], bytes]:
    names = {name.replace("_", "-"): text for name, text in headers.items()}
    with flask.test_request_context("/", headers=names):
        response = answer(value)
    return dict(response.headers), response.get_data()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/*", "application/json"),
        ("application/msgpack", "application/msgpack"),
        ("application/x-msgpack", "application/x-msgpack"),
        ("application/json;q=0.5, application/msgpack", "application/msgpack"),
        ("application/msgpack;q=0.5, application/json;q=0.9", "application/json"),
        ("text/html, application/msgpack;q=0.1", "application/msgpack"),
        ("text/html, */*;q=0.1", "application/json"),
        ("application/json;q=0, */*", "application/msgpack"),
    ],
)
def test_the_answer_comes_as_it_is_accepted(flask: Flask, accept: str | None, kind: str) -> None:
    headers, data = _answer(flask, {"a": b"\xff"}, **({"Accept": accept} if accept else {}))
    assert headers["Content-Type"] == kind
    assert "Accept" in headers["Vary"]
    if kind == "application/json":
        assert json.loads(data) == {"a": "/w=="}
    else:
        assert msgpack.unpackb(data) == {"a": b"\xff"}


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", "x", "image/*", "*/*;q=0"])
def test_what_can_not_be_answered_is_not_acceptable(flask: Flask, accept: str) -> None:
    with pytest.raises(NotAcceptable):
        _answer(flask, {}, Accept=accept)
    with pytest.raises(NotAcceptable):
        _read(flask, b"{}", Accept=accept)


@pytest.mark.parametrize(
    "accept", [";", "a/b;q=x", "application/json;q=nan", ",,,", "*" * 9_000, "é"]
)
def test_a_strange_accept_header_is_answered_or_refused(flask: Flask, accept: str) -> None:
    with suppress(NotAcceptable):
        assert _answer(flask, {}, Accept=accept, Accept_Encoding=accept)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip", "gzip"),
        ("zstd", "zstd"),
        ("*", "zstd"),
        ("gzip, zstd;q=0", "gzip"),
        ("gzip;q=1, zstd;q=0.5", "gzip"),
        ("identity", None),
        ("br", None),
        ("gzip;q=0", None),
        ("", None),
    ],
)
def test_a_large_answer_is_compressed_as_accepted(
    flask: Flask, accepted: str, coding: str | None
) -> None:
    value = {"text": "to and fro " * 500}
    headers, data = _answer(flask, value, Accept_Encoding=accepted)
    assert headers.get("Content-Encoding") == coding
    assert "Accept-Encoding" in headers["Vary"]
    assert int(headers["Content-Length"]) == len(data)
    undo = {"zstd": zstd.decompress, "gzip": gzip.decompress, None: bytes}[coding]
    assert json.loads(undo(data)) == value
    assert coding is None or len(data) < 500


def test_a_small_answer_is_sent_as_it_is(flask: Flask) -> None:
    headers, _ = _answer(flask, {"text": "hello"}, Accept_Encoding="zstd")
    assert "Content-Encoding" not in headers


def test_an_answer_may_hold_structs_and_text_encoded_before(flask: Flask) -> None:
    class Page(msgspec.Struct):
        records: msgspec.Raw

    _, data = _answer(flask, {"page": Page(msgspec.Raw(b'[{"id": "t1"}]'))})
    assert json.loads(data) == {"page": {"records": [{"id": "t1"}]}}


# Queries ------------------------------------------------------------------------------------


class _Cursor:
    def __init__(self, cursor: int = 0) -> None:
        self.cursor = cursor


class _CursorQuery(Shape[_Cursor]):
    MADE = _Cursor
    cursor = Whole()


def _query(flask: Flask, query: str) -> int:
    with flask.test_request_context(f"/?{query}"):
        return read_query(_CursorQuery()).cursor


def test_a_query_is_read_into_numbers(flask: Flask) -> None:
    assert _query(flask, "") == 0
    assert _query(flask, "cursor=9223372036854775807") == 2**63 - 1


@pytest.mark.parametrize(
    "query",
    [
        "cursor=",
        "cursor=x",
        "cursor=-1",
        "cursor=9223372036854775808",
        "cursor=1e3",
        "cursor=1_0",
        "cursor=%2B1",
        "cursor=%D9%A1",
        "cursor=1&cursor=1",
        "cursor=%00",
        f"cursor={'9' * 6000}",
        "other=1",
        "cursor=1.0",
        "cursor=True",
        "cursor=%ff",
        "cursor= 1",
    ],
)
def test_a_query_of_a_wrong_form_is_a_bad_parameter(flask: Flask, query: str) -> None:
    assert _code(lambda: _query(flask, query)) == "bad_parameter"


def test_messages_about_errors_are_bounded() -> None:
    messages: object = {f"{n}" * 500: ["wrong"] for n in range(1_000)}
    shown = wire.shown_errors(messages)
    assert len(json.dumps(shown)) < 5_000
    assert wire.shown_errors({"a": {"b": ["x", "y"]}, 7: ["z"]}) == {"a.b": "x y", "7": "z"}
