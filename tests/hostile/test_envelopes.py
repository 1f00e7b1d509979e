"""A broken envelope: a problem with a stable code, and nothing of it is done."""

from __future__ import annotations

import copy
import gzip
import io
import json
import zlib
from typing import Any

import msgpack
import pytest
from backports import zstd
from sqlalchemy import Engine

from tests.contract.devices import Phone, put
from tests.hostile.doors import (
    CODINGS,
    FORMATS,
    JSON,
    MSGPACK,
    Ledger,
    good,
    ledger,
    send,
    squeezed,
    written,
)

PATHS = ("/v1/sync", "/v1/spaces/me/push")
NAN = float("nan")

# Not of the format at all, or not an object.
BYTES: dict[str, dict[str, bytes]] = {
    JSON: {
        "nothing": b"",
        "a brace": b"{",
        "half an object": b'{"spaces": {"me"',
        "no UTF-8": b'{"\xff": 1}',
        "half a word": b"nul",
        "two values": b"{} {}",
        "a byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": '{"spaces": {}}'.encode("utf-16"),
        "single quotes": b"{'spaces': {}}",
        "a comment": b"{} // spaces",
        "a bad escape": b'{"spaces": "\\x"}',
        "a raw newline in a text": b'{"spaces": "a\nb"}',
        "NUL bytes": b"\0" * 100,
        "MessagePack": msgpack.packb({"spaces": {}}),
        "null": b"null",
        "a number": b"7",
        "a text": b'"spaces"',
        "an array": b'[{"spaces": {}}]',
    },
    MSGPACK: {
        "nothing": b"",
        "a map that ends early": b"\x81\xa6spaces",
        "a map that claims four billion": b"\xdf\xff\xff\xff\xff",
        "an array that claims four billion": b"\x81\xa6spaces\xdd\xff\xff\xff\xff",
        "a text that claims four gigabytes": b"\x81\xa6spaces\xdb\xff\xff\xff\xff",
        "a code that is none": b"\xc1",
        "no UTF-8": b"\x81\xa1\xff\x01",
        "two values": b"\x80\x80",
        "a key that is an array": b"\x81\x90\x01",
        "a key that is a map": b"\x81\x80\x01",
        "JSON": b'{"spaces": {}}',
        "nil": b"\xc0",
        "an array": b"\x91\x80",
        "an extension": b"\xd4\x05\x00",
    },
}


@pytest.mark.parametrize(
    ("format_", "what"), [(f, what) for f in FORMATS for what in BYTES[f]], ids=str
)
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("path", PATHS)
def test_what_is_not_of_the_format_is_a_malformed_body(
    format_: str, what: str, coding: str, path: str, a: Phone
) -> None:
    answer = send(a, path, squeezed(BYTES[format_][what], coding), format_, coding)
    assert answer.status_code == 400
    assert answer.json["code"] in {"malformed_body", "malformed_request"}


NO_COUNT: list[Any] = [-1, 1.5, "1", "\ud800", True, [], {}, 2**53, 10**4299, NAN]
NO_INT64: list[Any] = [1.5, "1", "\ud800", True, [], {}, 2**63, -(2**63) - 1, NAN]
NO_OBJECT: list[Any] = [None, 1, 1.5, "x", "\ud800", True, [1]]

# Members of a space's part, or of the body of a push.
PARTS: list[tuple[str, Any]] = [
    *[("cursor", v) for v in [None, *NO_COUNT]],
    *[("epoch", v) for v in [0, *NO_COUNT]],
    *[("limit", v) for v in [0, *NO_COUNT]],
    *[("counter", v) for v in NO_COUNT],
    *[("discarded", v) for v in NO_COUNT],
    *[("page", v) for v in (1, 1.5, True, [], {})],
    *[("changes", v) for v in (None, 1, "x", {}, [None], [1], ["x"], [[]], [{}])],
    *[("changes", [{"counter": v}]) for v in [None, 0, *NO_COUNT]],
    ("\ud800", 1),
]
WHOLES: list[tuple[str, Any]] = [
    *[("spaces", v) for v in NO_OBJECT],
    *[("spaces", {"me": v}) for v in NO_OBJECT],
    *[("spaces", {v: {}}) for v in ("\0", "a\0", "\ud800", "me\udfff")],
    *[("client", v) for v in NO_OBJECT if v is not None],
    *[("client", {"app_version": v}) for v in (1, None, [], "a\0b", "\ud800")],
    *[("client", {"pending": v}) for v in NO_COUNT],
    *[("client", {"oldest_pending_at": v}) for v in NO_INT64],
    ("\ud800", 1),
]
MEMBERS = [
    *[("/v1/sync", {"spaces": {"me": {name: v}}}) for name, v in PARTS],
    *[("/v1/spaces/me/push", {name: v}) for name, v in PARTS],
    *[("/v1/sync", {name: v}) for name, v in WHOLES],
    *[(path, {"sent_at": v}) for path in PATHS for v in NO_INT64],
]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_member_of_another_type_is_a_malformed_request(
    format_: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    change = good(a)
    for path, tree in MEMBERS:
        body = json.loads(json.dumps(tree))
        part = body.setdefault("spaces", {}) if path == "/v1/sync" else body
        if isinstance(part, dict) and "sent_at" in tree:
            part = part.setdefault("me", {}) if path == "/v1/sync" else part
            part["changes"] = [change]
        try:
            data = written(body, format_)
        except OverflowError:
            continue
        answer = send(a, path, data, format_)
        assert answer.status_code == 400, (tree, answer.text)
        assert answer.json["code"] in {"malformed_request", "invalid_text"}, tree
    assert ledger(engine, a) == kept


TWICE = {
    "the body": (b'{"sent_at": 1, "sent_at": 2, "spaces": {}}', PATHS[0]),
    "the spaces": (b'{"spaces": {"me": {}, "me": {}}}', PATHS[0]),
    "a space": (b'{"spaces": {"me": {"cursor": 0, "cursor": 1}}}', PATHS[0]),
    "the client": (b'{"client": {"pending": 0, "pending": 1}}', PATHS[0]),
    "the body of a push": (b'{"cursor": 0, "cursor": 1}', PATHS[1]),
    "an escaped key": (b'{"cursor": 0, "\\u0063ursor": 1}', PATHS[1]),
    "a member that nobody knows": (b'{"x": 0, "x": 1}', PATHS[1]),
}


@pytest.mark.parametrize("where", TWICE)
def test_a_key_named_twice_in_the_envelope_is_named(where: str, a: Phone) -> None:
    data, path = TWICE[where]
    answer = send(a, path, data)
    assert (answer.status_code, answer.json["code"]) == (400, "duplicate_key")


def test_messagepack_too_may_name_a_key_once(a: Phone) -> None:
    answer = send(a, PATHS[1], b"\x82\xa6cursor\x00\xa6cursor\x01", MSGPACK)
    assert answer.json["code"] == "duplicate_key"


NESTED = {
    (JSON, "arrays"): lambda n: b"[" * n + b"]" * n,
    (JSON, "objects"): lambda n: b'{"a":' * n + b"1" + b"}" * n,
    (JSON, "brackets left open"): lambda n: b"[" * n,
    (MSGPACK, "arrays"): lambda n: b"\x91" * n + b"\xc0",
    (MSGPACK, "objects"): lambda n: b"\x81\xa1a" * n + b"\xc0",
    (MSGPACK, "brackets left open"): lambda n: b"\x91" * n,
}


def _change(**members: Any) -> dict[str, Any]:
    change = {"counter": 4, "context": {"cursor": 0}, "at": 1, "ops": [], **members}
    return {"spaces": {"me": {"changes": [change]}}}


PLACES: dict[str, Any] = {
    "body": "@",
    "spaces": {"spaces": "@"},
    "space": {"spaces": {"me": "@"}},
    "client": {"client": "@"},
    "changes": {"spaces": {"me": {"changes": "@"}}},
    "operations": _change(ops="@"),
    "context": _change(context="@"),
    "clock": _change(context={"cursor": 0, "clock": "@"}),
    "fields": _change(ops=[{**put("deep"), "fields": "@"}]),
    "value": _change(ops=[put("deep", f="@")]),
}


def _changes(tree: Any) -> list[dict[str, Any]]:
    part = tree["spaces"]["me"] if isinstance(tree, dict) and "me" in tree.get("spaces", "") else {}
    changes = part.get("changes", []) if isinstance(part, dict) else []
    return changes if isinstance(changes, list) else []


DEEP = {"too_deep", "malformed_body", "malformed_request", "malformed_change", "not_found"}


@pytest.mark.parametrize(("format_", "kind"), NESTED, ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_nesting_of_any_depth_anywhere_is_refused_at_once(
    place: str, format_: str, kind: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    mark = b'"@"' if format_ == JSON else b"\xa1@"
    for depth in (100, 330, 500, 900, 950, 1_000, 1_100, 10_000, 1_000_000):
        tree = copy.deepcopy(PLACES[place])
        for change in _changes(tree):
            change["counter"] = ledger(engine, a).counters[1] + 1
        data = written(tree, format_).replace(mark, NESTED[format_, kind](depth))
        answer = send(a, "/v1/sync", data, format_, Accept=JSON)
        if answer.status_code != 200:
            assert answer.json["code"] in DEEP
            continue
        # Shallow enough to be looked at: the verdict is that of the change, or of the space.
        for part in answer.json["spaces"].values():
            errors = [rejected["error"] for rejected in part.get("rejected", [part])]
            assert {error.get("code") or error["error"]["code"] for error in errors} <= DEEP
    found = ledger(engine, a)
    found.require_consistent()
    assert (found.changes, found.records) == (kept.changes, kept.records)


@pytest.mark.parametrize(
    ("path", "tree", "code"),
    [
        (PATHS[1], {"changes": [{"counter": n + 1} for n in range(1001)]}, "too_many_changes"),
        (
            PATHS[0],
            {"spaces": {s: {"changes": [{"counter": n + 1} for n in range(501)]} for s in "ab"}},
            "too_many_changes",
        ),
        (PATHS[0], {"spaces": {f"{n}": {} for n in range(101)}}, "too_many_spaces"),
    ],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_oversized_batches_name_the_limit(
    path: str, tree: object, code: str, format_: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    answer = send(a, path, written(tree, format_), format_)
    assert (answer.status_code, answer.json["code"]) == (400, code)
    assert ledger(engine, a) == kept


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("tree", [{}, {"spaces": {}}, {"spaces": {"me": {}}}])
def test_empty_batches_are_no_error(
    tree: object, format_: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    assert send(a, "/v1/sync", written(tree, format_), format_).status_code == 200
    empty = {"changes": [], "page": None, "epoch": None, "limit": None}
    assert send(a, "/v1/spaces/me/push", written(empty, format_), format_).status_code == 200
    assert ledger(engine, a) == kept


@pytest.mark.parametrize("coding", CODINGS)
def test_more_than_the_limit_is_not_read_on(
    coding: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    body = b'{"spaces": {}, "x": "' + b"y" * 2**23 + b'"}'
    answer = send(a, "/v1/sync", squeezed(body, coding), JSON, coding)
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")
    assert answer.json["limit"] == 2**23
    assert ledger(engine, a) == kept


def _bomb(coding: str, size: int) -> bytes:
    out = io.BytesIO()
    with gzip.open(out, "wb", 9) if coding == "gzip" else zstd.open(out, "wb") as file:
        for _ in range(size // 2**20):
            file.write(bytes(2**20))
    return out.getvalue()


@pytest.mark.parametrize("coding", CODINGS[1:])
def test_a_bomb_costs_what_an_honest_body_costs(coding: str, a: Phone) -> None:
    answer = send(a, "/v1/sync", _bomb(coding, 2**29), JSON, coding)
    assert (answer.status_code, answer.json["code"]) == (413, "body_too_large")


def _spoilt(coding: str) -> dict[str, bytes]:
    whole = squeezed(b'{"spaces": {}}' + b" " * 5000, coding)
    return {
        "nothing": b"",
        "half of it": whole[: len(whole) // 2],
        "all but the last byte": whole[:-1],
        "only its beginning": whole[:4],
        "trailing bytes": whole + b"\0",
        "a second stream": whole + whole,
        "a bit turned": whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:],
        "no stream at all": b'{"spaces": {}}',
        "the other coding": squeezed(b"{}", "zstd" if coding == "gzip" else "gzip"),
        "bare deflate": zlib.compress(b"{}"),
    }


@pytest.mark.parametrize("coding", CODINGS[1:])
def test_a_spoilt_stream_is_a_bad_encoding(coding: str, a: Phone) -> None:
    for what, data in _spoilt(coding).items():
        answer = send(a, "/v1/sync", data, JSON, coding)
        # zstd leaves its checksum out, so that a turned bit may read as another text.
        codes = {"bad_encoding", "malformed_body"} if "bit" in what else {"bad_encoding"}
        assert answer.status_code == 400, what
        assert answer.json["code"] in codes, what


def test_a_window_of_128_megabytes_is_not_opened(a: Phone) -> None:
    options = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    data = compressor.compress(b'{"spaces": {}}') + compressor.flush()
    answer = send(a, "/v1/sync", data, JSON, "zstd")
    assert answer.json["code"] == "bad_encoding"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415, "unsupported_media_type"),
        ({"Content-Type": "application/json;\x7f"}, 200, ""),
        ({"Content-Type": "application/msgpack"}, 400, "malformed_body"),
        ({"Content-Type": "application/json; charset=utf-16"}, 200, ""),
        ({"Content-Encoding": "br"}, 415, "unsupported_encoding"),
        ({"Content-Encoding": "gzip, gzip"}, 415, "unsupported_encoding"),
        ({"Content-Encoding": "\xff"}, 415, "unsupported_encoding"),
        ({"Accept": "text/html"}, 406, "not_acceptable"),
        ({"Accept": "application/json;q=0"}, 406, "not_acceptable"),
        ({"Accept": ";;;=,\xff"}, 406, "not_acceptable"),
        ({"Accept-Encoding": "gzip;q=x, zstd;q=9e999, \xff"}, 200, ""),
        ({"X-" + "y" * 5000: "z" * 5000}, 200, ""),
    ],
)
def test_odd_headers_are_answered_by_name(
    headers: dict[str, str], status: int, code: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    answer = send(a, "/v1/sync", b'{"spaces": {}}', **headers)
    assert answer.status_code == status, answer.text
    if code:
        assert answer.json["code"] == code
    assert ledger(engine, a) == kept
