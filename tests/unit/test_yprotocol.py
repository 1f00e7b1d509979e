"""The frames of Yjs editors: byte for byte what the stock packages write, and bounded."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync import yprotocol
from sync.errors import BadRequest
from sync.yprotocol import Addressed, Awareness, Message, Presence

FRAMES = json.loads((Path(__file__).parent / "frames.json").read_text())
VECTOR, UPDATE = bytes.fromhex(FRAMES["vector"]), bytes.fromhex(FRAMES["update"])
TYPED = bytes.fromhex("0101ac020284ac0201016300")
NAME = "space/notes/n1/body"
SERVER = {name: bytes.fromhex(frame) for name, frame in FRAMES["server"].items()}
SHOWN = [
    Presence(1, 1, '{"user":"é"}'.encode()),
    Presence(300, 6, b"{}"),
    Presence(2**32 - 1, 3, b'{"a":[1]}'),
]


def named(frame: bytes) -> bytes:
    return yprotocol.addressed(NAME, frame)


def test_what_a_y_websocket_provider_sends_is_understood() -> None:
    read = [yprotocol.read(bytes.fromhex(frame)) for frame in FRAMES["y-websocket sends"]]
    assert read == [
        yprotocol.Step1(VECTOR),
        Awareness([Presence(300, 0, b"{}")]),
        yprotocol.Update(TYPED),
    ]


def test_what_a_hocuspocus_provider_sends_is_understood() -> None:
    read = [yprotocol.read_addressed(bytes.fromhex(frame)) for frame in FRAMES["hocuspocus sends"]]
    assert read == [
        Addressed(NAME, yprotocol.Token("a.b.c")),
        Addressed(NAME, yprotocol.Step1(VECTOR)),
        Addressed(NAME, Awareness([Presence(300, 0, b"{}")])),
        Addressed(NAME, yprotocol.Update(TYPED)),
        Addressed(NAME, yprotocol.Ignored()),
        Addressed(NAME, yprotocol.Detach()),
    ]
    assert all(each is not None and each.document == NAME for each in read)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("step 1", yprotocol.write_step_1(VECTOR)),
        ("step 2", yprotocol.write_step_2(UPDATE)),
        ("update", yprotocol.write_update(UPDATE)),
        ("awareness", yprotocol.write_awareness(SHOWN)),
        ("denied", yprotocol.write_denied("not you")),
        ("authenticated", named(yprotocol.write_authenticated(may_write=True))),
        ("readonly", named(yprotocol.write_authenticated(may_write=False))),
        ("refused", named(yprotocol.write_refused("not you"))),
        ("token wanted", named(yprotocol.write_token_wanted())),
        ("saved", named(yprotocol.write_sync_status(saved=True))),
        ("close", named(yprotocol.write_close("bye"))),
    ],
)
def test_what_the_server_writes_is_what_the_stock_packages_write(name: str, written: bytes) -> None:
    assert written == SERVER[name]


def test_a_provider_that_shares_its_document_is_answered_under_its_own_number() -> None:
    frame = yprotocol.addressed(f"{NAME}\0x7f", yprotocol.write_step_1(VECTOR))
    read = yprotocol.read_addressed(frame)
    assert read == Addressed(f"{NAME}\0x7f", yprotocol.Step1(VECTOR))
    assert read.document == NAME


def test_an_answer_to_a_ping_is_for_no_document() -> None:
    assert yprotocol.read_addressed(b"\x0a") is None


def test_an_answer_to_a_step_1_wants_none_itself() -> None:
    read = yprotocol.read_addressed(named(b"\x04\x00\x01\x00"))
    assert read == Addressed(NAME, yprotocol.Step1(b"\0", asks=False))


BROKEN = {
    "nothing": b"",
    "unknown type": b"\x0b",
    "unknown sync message": b"\0\3\0",
    "a length without its bytes": b"\0\2\5abc",
    "a length of 2^53": b"\0\2" + b"\xff" * 7 + b"\x10",
    "a varint of 400 kB": b"\0\2" + b"\xff" * 400_000,
    "a varint of 400 kB at once": b"\xff" * 400_000,
    "a number above 2^53": b"\1\x0b\1" + b"\xff" * 7 + b"\x7f\0\1{",
    "bytes that follow": SERVER["update"] + b"\0",
    "a cut awareness update": b"\1\2\1\1",
    "a million states": b"\1\3" + b"\xc0\x84\x3d",
    "a state of 5 kB": b"\1\x88\x27" + b"\1\1\1" + b"\x80\x28" + b"x" * 5_000,
    "a token from a server": named(SERVER["authenticated"]),
    "a name that is not UTF-8": b"\2\xff\xfe\0",
    "a name without a message": b"\1a",
    "a name of 3 kB": yprotocol.addressed("x" * 3_000, b"\3"),
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_frame_is_an_error_and_nothing_else(frame: bytes) -> None:
    for read in (yprotocol.read, yprotocol.read_addressed):
        with pytest.raises(BadRequest) as error:
            read(frame)
        assert error.value.code == "malformed_frame"


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_an_error(frame: bytes) -> None:
    for read in (yprotocol.read, yprotocol.read_addressed):
        with suppress(BadRequest):
            read(frame)


INTEGERS = st.integers(0, yprotocol.INTEGER_MAX)
STATES = st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5)).map(
    lambda tree: json.dumps(tree).encode()
)


@given(st.lists(st.builds(Presence, INTEGERS, INTEGERS, st.none() | STATES), max_size=5))
def test_presences_come_out_as_they_went_in(presences: list[Presence]) -> None:
    frame = yprotocol.write_awareness(presences)
    read: Message = yprotocol.read(frame)
    assert read == Awareness(presences)


@pytest.mark.parametrize(
    "state",
    [
        b"{",
        b"1",
        b'"text"',
        b" null",
        b"[]",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
        b'{"a":' * 17 + b"1" + b"}" * 17,
        b'{"a":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
        b"[" * 4_000,
    ],
)
def test_a_state_that_would_break_an_editor_is_refused(state: bytes) -> None:
    with pytest.raises(BadRequest):
        yprotocol.check_state(state)


def test_a_state_may_hold_what_javascript_writes() -> None:
    yprotocol.check_state(b'{"user":{"name":"\\ud83d"},"at":[1.5e300,null,true]}')
