"""Counters, cursors, epochs and page tokens that no honest device would send."""

from __future__ import annotations

import base64
from hashlib import blake2b
from typing import Any

import msgspec
import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from tests.contract.devices import Phone, phone, put
from tests.hostile.doors import FORMATS, Ledger, good, ledger, send, sync, written

GREATEST = 2**53 - 1


def _change(counter: int) -> dict[str, Any]:
    return {"counter": counter, "context": {"cursor": 0}, "at": 1, "ops": [put("t")]}


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize(
    ("part", "code"),
    [
        ({"changes": [_change(4), _change(6)]}, "bad_counter"),
        ({"changes": [_change(4), _change(4)]}, "bad_counter"),
        ({"changes": [_change(5), _change(4)]}, "bad_counter"),
        ({"changes": [_change(4)], "counter": 3}, "bad_counter"),
        ({"changes": [_change(4)], "discarded": 4, "counter": 4}, "bad_counter"),
        ({"changes": [_change(4)], "discarded": GREATEST}, "bad_counter"),
        ({"discarded": 9, "counter": 8}, "bad_counter"),
        ({"changes": [_change(5)]}, "counter_gap"),
        ({"changes": [_change(GREATEST)]}, "counter_gap"),
        ({"changes": [_change(3)]}, "device_fork"),
        ({"changes": [_change(n) for n in (1, 2, 3, 4)]}, "device_fork"),
        ({"counter": 2, "changes": []}, "device_fork"),
        ({"counter": 0}, "device_fork"),
    ],
)
def test_counters_out_of_order_change_nothing(
    part: dict[str, Any], code: str, format_: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    assert sync(a, part, format_)["error"]["code"] == code
    pushed = send(a, "/v1/spaces/me/push", written(part, format_), format_)
    if part.get("changes") or part.get("discarded"):
        assert pushed.json["code"] == code
    assert ledger(engine, a) == kept


def test_a_device_that_gives_up_all_its_counters_harms_itself_alone(
    client: FlaskClient, a: Phone, kept: Ledger, engine: Engine
) -> None:
    assert sync(a, {"discarded": GREATEST})["accepted"] == GREATEST
    assert sync(a, {"changes": [_change(4)]})["error"]["code"] == "device_fork"
    other = phone(client, a.email)
    assert sync(other, {"changes": [good(other)]})["head"] == 4


@pytest.mark.parametrize("epoch", [1, 2, 2**31, GREATEST, None])
@pytest.mark.parametrize("cursor", [5, 2**31, GREATEST])
def test_a_cursor_past_the_head_is_reset_and_not_remembered(
    cursor: int, epoch: int | None, a: Phone, kept: Ledger, engine: Engine
) -> None:
    part = {"cursor": cursor, "epoch": epoch}
    answer = sync(a, part)
    assert (answer["reset"], answer["cursor"], len(answer["records"])) == (True, 3, 3)
    query = {name: value for name, value in part.items() if value is not None}
    pulled = a.get("/v1/spaces/me/pull", **query).json
    assert (pulled["reset"], pulled["cursor"]) == (True, 3)
    answer = sync(a, {**part, "changes": [good(a)]})
    assert (answer["accepted"], answer["reset"], answer["cursor"]) == (4, True, 4)


@pytest.mark.parametrize("epoch", [2, 2**31, GREATEST])
def test_an_epoch_to_come_is_reset(epoch: int, a: Phone, kept: Ledger) -> None:
    for cursor in (1, 3):
        assert sync(a, {"cursor": cursor, "epoch": epoch})["reset"] is True
    body = written({"cursor": 1, "epoch": epoch, "changes": [good(a)]}, FORMATS[0])
    assert send(a, "/v1/spaces/me/push", body).json["accepted"] == 4


BAD_QUERIES = [
    *[
        (p, "cursor", v)
        for p in ("pull",)
        for v in ("-1", "1.5", "x", "", "2e3", "9007199254740992")
    ],
    *[("pull", "epoch", v) for v in ("0", "-1", "x", "9" * 400, "９" * 3 + "x")],
    *[(p, "limit", v) for p in ("pull", "log", "outcomes") for v in ("0", "-1", "x", "1" * 5000)],
    *[(p, "after", v) for p in ("log", "outcomes") for v in ("-1", "1.0", "NaN", "\0", "1" * 5000)],
    *[("pull", "wait", v) for v in ("-1", "x", "inf", "1" * 5000)],
    ("pull", "page", "x" * 5000),
    ("pull", "cursors", "1"),
]


@pytest.mark.parametrize(("path", "name", "value"), BAD_QUERIES)
def test_a_bad_parameter_is_named(
    path: str, name: str, value: str, a: Phone, kept: Ledger, engine: Engine
) -> None:
    answer = a.get(f"/v1/spaces/me/{path}", **{name: value})
    assert (answer.status_code, answer.json["code"]) == (400, "bad_parameter")
    assert name in answer.json["errors"]
    twice = a.http.get(f"/v1/spaces/me/{path}?{name}=1&{name}=2", headers=a.headers)
    assert (twice.status_code, twice.json["code"]) == (400, "bad_parameter")
    assert ledger(engine, a) == kept


@pytest.mark.parametrize("path", ["pull", "log", "outcomes"])
def test_the_greatest_numbers_are_numbers(path: str, a: Phone, kept: Ledger) -> None:
    name = "cursor" if path == "pull" else "after"
    for value in (0, 3, 2**31, 2**32, GREATEST):
        answer = a.get(f"/v1/spaces/me/{path}", **{name: value, "limit": GREATEST})
        assert answer.status_code == 200


def _forged(*token: Any) -> str:
    """A token with a right checksum: whoever reads the code can make one."""
    packed = msgspec.msgpack.encode([*token])
    return _text(blake2b(packed, digest_size=8).digest() + packed)


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _page(a: Phone) -> tuple[str, str]:
    """(a good token from cursor 0, the space that it names)"""
    page = sync(a, {"cursor": 0, "limit": 1})["page"]
    packed = base64.urlsafe_b64decode(page + "=" * (-len(page) % 4))[8:]
    return page, msgspec.msgpack.decode(packed)[0]


def test_a_page_token_that_is_damaged_or_forged_is_a_bad_page(a: Phone, kept: Ledger) -> None:
    page, space = _page(a)
    place = [1, "c", "r0"]
    bad = [
        "", "x", "=", "%00", "\0", "\ud800", "é" * 100, page[:-1], page[1:], page + "A", page * 2,
        page.swapcase(), "A" * 4000, _text(b""), _text(b"12345678"), _forged(), _forged(1, 2),
        _forged("another", 1, 0, 3, False, place), _forged(space, 2, 0, 3, False, place),
        _forged(space, 1, 1, 3, False, place), _forged(space, 1, 0, -1, False, place),
        _forged(space, 1, 0, 3, None, place), _forged(space, 1, 0, 3, False, None),
        _forged(space, 1, 0, 3, False, [-1, "c", "r0"]), _forged(space, 1, 0, 3, False, [1, 2, 3]),
        _forged(space, 1, 0, 3, False, [2**53, "c", "r0"]),
        _forged(space, 1, 0, 3, False, [1, "c\0", "r0"]),
        _forged(space, 1, 0, 3, False, [1, "c", "r\0"]),
        _forged(space, 1, 2**64 - 1, 3, False, place),
    ]  # fmt: skip
    for token in bad:
        answer = sync(a, {"cursor": 0, "page": token})
        assert answer["error"]["code"] == "bad_page", token
        if token.isprintable() and token:
            pulled = a.get("/v1/spaces/me/pull", cursor=0, page=token)
            assert (pulled.status_code, pulled.json["code"]) == (400, "bad_page"), token
    answer = sync(a, {"cursor": 0, "page": bad[-1], "changes": [good(a)]})
    assert (answer["error"]["code"], answer["accepted"]) == ("bad_page", 4)


def test_a_well_forged_page_token_fools_nobody_but_the_forger(a: Phone, kept: Ledger) -> None:
    _, space = _page(a)
    for place in ([GREATEST, "", ""], [0, "", ""], [2, "\U0010ffff" * 1000, ""]):
        for head in (0, 3, GREATEST):
            for reset in (False, True):
                token = _forged(space, 1, 0, head, reset, place)
                answer = sync(a, {"cursor": 0, "page": token})
                assert len(answer["records"]) <= 3


def test_a_page_token_opens_no_other_space(client: FlaskClient, a: Phone, kept: Ledger) -> None:
    page, _ = _page(a)
    stranger = phone(client)
    stranger.sync(stranger.change(put("t")))
    assert sync(stranger, {"cursor": 0, "page": page})["error"]["code"] == "bad_page"
