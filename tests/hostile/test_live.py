"""Websockets that mean harm: an error or a close code, and nobody else notices."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import msgpack
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import LiveServer
from tests.contract.devices import Phone, put
from tests.edge.sockets import Closed, Refused, Websocket
from tests.edge.web import Http, phone_at

# What a worker may have grown by after a storm: garbage that waits for its collector, buffers.
GROWTH_BYTES_MAX = 40 * 2**20


@pytest.fixture(scope="module")
def server(start_server: Callable[..., LiveServer]) -> LiveServer:
    return start_server()


@pytest.fixture(scope="module")
def a(server: LiveServer) -> Phone:
    return phone_at(server.url)


@pytest.fixture
def bystander(server: LiveServer) -> Iterator[None]:
    """Another user's device, which must not notice."""
    phone = phone_at(server.url)
    socket = Websocket(server.url, token=phone.token)
    socket.hello("me")
    yield
    change = phone.change(put("t", x=1))
    socket.send({"type": "push", "ref": 1, "space": "me", "changes": [change]})
    assert socket.until("pushed")["accepted"] == 1
    assert socket.until("delta")["cursor"] == 1
    socket.close()
    # No fault of the server's own, whatever came in.
    assert "unforeseen" not in "".join(server.log)
    assert "Traceback" not in "".join(server.log)


pytestmark = pytest.mark.usefixtures("bystander")


def memory(server: LiveServer) -> int:
    return sum(psutil.Process(pid).memory_info().rss for pid in server.worker_pids())


def greeted(server: LiveServer, a: Phone, **how: Any) -> Websocket:
    made = Websocket(server.url, token=a.token, **how)
    made.hello("me")
    return made


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed_body"),
        ("nonsense", "malformed_body"),
        ("[]", "malformed_request"),
        ("{}", "malformed_request"),
        ('{"type": 7}', "malformed_request"),
        ('{"type": "dance"}', "unknown_message"),
        ('{"type": "hello"}', "malformed_request"),
        ('{"type": "hello", "spaces": []}', "malformed_request"),
        ('{"type": "hello", "spaces": {"me": 7}}', "malformed_request"),
        ('{"type": "hello", "spaces": {"me": {"cursor": -1}}}', "malformed_request"),
        ('{"type": "hello", "spaces": {"me": {}, "me": {}}}', "duplicate_key"),
        ('{"type": "hello", "type": "hello", "spaces": {}}', "duplicate_key"),
        ('{"type": "hello", "spaces": {"\\u0000": {}}}', "invalid_text"),
        ('{"type": "hello", "spaces": {"\\ud800": {}}}', "invalid_text"),
        ('{"type": "ack", "space": "me", "cursor": 1e99}', "malformed_request"),
        ('{"type": "presence", "space": "me", "state": 7}', "malformed_request"),
        ('{"type": "presence", "space": "me", "state": {"a": NaN}}', "malformed_request"),
        ('{"type": "presence", "space": "me", "state": {"a": "\\ud800"}}', "invalid_text"),
        ('{"type": "token", "token": "x"}', "token_invalid"),
        ('{"type": "token"}', "malformed_request"),
        ('{"type": "push", "space": "me", "changes": {}}', "malformed_request"),
        ('{"type": "push", "changes": []}', "malformed_request"),
        ('{"type": "push", "space": "me", "ref": {}}', "malformed_request"),
        ("[" * 100_000, "too_deep"),
        ('{"type":"ping","x":' + "[" * 60_000, "too_deep"),
    ],
)
def test_what_is_no_message_is_told_so_and_closed(
    server: LiveServer, a: Phone, text: str, code: str
) -> None:
    socket_ = greeted(server, a)
    socket_.send_data(text)
    assert socket_.until("error")["code"] == code
    assert socket_.closed().code == (4401 if code == "token_invalid" else 4400)


def test_who_hangs_up_in_the_handshake_is_no_fault_of_the_servers(
    server: LiveServer, a: Phone
) -> None:
    port = int(server.url.rpartition(":")[2])
    asked = (
        "GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {a.token}\r\n\r\n"
    )
    for _ in range(50):
        with socket.create_connection(("127.0.0.1", port)) as tcp:
            tcp.sendall(asked.encode())
            # Closed by a reset: the server finds out when it answers.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    greeted(server, a).close()


def test_an_error_carries_the_ref_of_what_could_not_be_taken(server: LiveServer, a: Phone) -> None:
    socket_ = greeted(server, a)
    socket_.send({"type": "push", "ref": 7, "space": "me", "changes": {}})
    error = socket_.until("error")
    assert (error["code"], error["ref"], error["space"]) == ("malformed_request", 7, "me")
    assert socket_.closed() == Closed(4400, "malformed_request")


def test_text_where_binary_is_due_and_the_reverse(server: LiveServer, a: Phone) -> None:
    text, binary = greeted(server, a), greeted(server, a, packed=True)
    text.send_data(msgpack.packb({"type": "ping"}))
    assert text.closed().code == 4400
    binary.send_data('{"type": "ping"}')
    assert binary.closed().code == 4400


def test_messages_before_hello(server: LiveServer, a: Phone) -> None:
    for message in (
        {"type": "push", "space": "me", "changes": []},
        {"type": "ack", "space": "me", "cursor": 1},
        {"type": "presence", "space": "me", "state": {}},
    ):
        known = Websocket(server.url, token=a.token)
        known.send(message)
        assert known.closed() == Closed(4400, "hello_first")
        stranger = Websocket(server.url)
        stranger.send(message)
        assert stranger.closed() == Closed(4401, "token_missing")


def test_a_foreign_space_is_as_if_it_were_not_there(server: LiveServer, a: Phone) -> None:
    other = phone_at(server.url)
    space = other.post("/v1/spaces", {"name": "theirs"}).json["id"]
    for name in (space, str(uuid4()), "nonsense", ""):
        socket_ = Websocket(server.url, token=a.token)
        assert socket_.hello(name)["spaces"][name]["error"]["code"] == "not_found"
        socket_.send({"type": "push", "ref": 1, "space": name, "changes": []})
        assert socket_.until("error")["code"] == "not_found"
        socket_.send({"type": "presence", "space": name, "state": {}})
        assert socket_.until("error")["code"] == "bad_parameter"
        socket_.close()


def test_thousands_of_subscriptions(server: LiveServer, a: Phone) -> None:
    socket_ = Websocket(server.url, token=a.token)
    spaces: dict[str, Any] = {str(uuid4()): {} for _ in range(101)}
    socket_.send({"type": "hello", "spaces": spaces})
    assert socket_.closed() == Closed(4400, "too_many_spaces")
    socket_ = Websocket(server.url, token=a.token)
    socket_.send({"type": "hello", "spaces": {str(uuid4()): {} for _ in range(5_000)}})
    assert socket_.closed() == Closed(4400, "message_too_large")


def test_a_presence_that_is_too_large(server: LiveServer, a: Phone) -> None:
    socket_ = greeted(server, a)
    socket_.send({"type": "presence", "space": "me", "state": {"x": "y" * 4_096}})
    assert socket_.closed() == Closed(4400, "message_too_large")


def _frame(opcode: int, payload: bytes, *, fin: bool = True, masked: bool = True) -> bytes:
    first = opcode | (0x80 if fin else 0)
    mask = 0x80 if masked else 0
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 2**16:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (bytes(4) if masked else b"") + payload


@pytest.mark.parametrize("opcode", [1, 2])
def test_a_frame_of_64_mib_is_refused_long_before_its_end(
    server: LiveServer, a: Phone, opcode: int
) -> None:
    before = memory(server)
    for _ in range(4):
        socket_ = greeted(server, a, packed=opcode == 2)
        head = struct.pack("!BBQ", 0x80 | opcode, 0x80 | 127, 64 * 2**20) + bytes(4)
        socket_.send_bytes(head)
        with suppress(OSError):
            for _ in range(1_024):
                socket_.send_bytes(b" " * 65_536)
        assert socket_.closed().code in {4400, 1006}  # 1006: reset while we still sent
    assert memory(server) - before < GROWTH_BYTES_MAX


def test_a_stranger_may_send_less(server: LiveServer) -> None:
    socket_ = Websocket(server.url)
    socket_.send_data(json.dumps({"type": "hello", "spaces": {}, "x": "y" * 70_000}))
    assert socket_.closed() == Closed(4400, "message_too_large")


@pytest.mark.parametrize("payload", [b"", b"x", b"x" * 1_000])
def test_fragments_without_end(server: LiveServer, a: Phone, payload: bytes) -> None:
    before = memory(server)
    socket_ = greeted(server, a)
    one = _frame(0, payload, fin=False)
    socket_.send_bytes(_frame(1, payload, fin=False))
    with suppress(OSError):
        for _ in range(400):
            socket_.send_bytes(one * 100)
    assert socket_.closed().code in {4400, 1006}
    assert memory(server) - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize(
    "data",
    [
        _frame(1, b"{}", masked=False),  # a client must mask
        _frame(3, b""),  # no such opcode
        _frame(0, b"x"),  # the rest of nothing
        _frame(1, b"\xff"),  # no UTF-8
        _frame(9, b"x" * 126),  # a ping is small
        _frame(8, b"x"),  # half a close code
        _frame(8, struct.pack("!H", 1005)),  # a code that nobody may send
        b"GET / HTTP/1.1\r\n\r\n",
        os.urandom(4_096),
    ],
    ids=["unmasked", "opcode", "continuation", "utf8", "ping", "half", "code", "http", "noise"],
)
def test_bytes_that_are_no_frames(server: LiveServer, a: Phone, data: bytes) -> None:
    socket_ = greeted(server, a)
    socket_.send_bytes(data)
    with suppress(OSError):
        socket_.tcp.shutdown(socket.SHUT_WR)
    assert socket_.closed().code in {1002, 1006, 1007, 1005, 4400}


@given(st.binary(max_size=300))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_at_all(server: LiveServer, a: Phone, data: bytes) -> None:
    socket_ = Websocket(server.url, token=a.token)
    socket_.send_bytes(data)
    socket_.tcp.shutdown(socket.SHUT_WR)
    socket_.closed()


@given(
    st.dictionaries(
        st.sampled_from(["type", "space", "spaces", "token", "ref", "changes", "state", "cursor"]),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=9)
            | st.sampled_from(["hello", "push", "ack", "me", "presence", "token", "ping"]),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    ),
    st.booleans(),
)
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_message_at_all(
    server: LiveServer, a: Phone, message: dict[str, Any], packed: bool
) -> None:
    socket_ = greeted(server, a, packed=packed)
    with suppress(UnicodeEncodeError, OverflowError):
        socket_.send(message)
    try:
        socket_.send({"type": "ping"})
        socket_.until("pong")
        socket_.close()
    except Closed as closed:
        assert closed.code in {4400, 4401, 4409}  # noqa: PT017 - one of two good ends


def test_a_flood_of_messages_is_told_to_come_back_later(server: LiveServer, a: Phone) -> None:
    socket_ = greeted(server, a)
    socket_.tcp.settimeout(60)
    flood = _frame(9, b"") * 1_000
    with suppress(OSError):
        for _ in range(60):
            socket_.send_bytes(flood)
    assert socket_.closed(60).code in {1013, 1006}


def test_sockets_that_never_read_cost_no_growing_memory(server: LiveServer) -> None:
    writer = phone_at(server.url)
    sockets = [Websocket(server.url, token=writer.token, receive_buffer=4_096) for _ in range(20)]
    for one in sockets:
        one.hello("me")
    writer.sync(writer.change(put("r", text="x" * 200_000)))
    before = memory(server)
    for n in range(60):
        writer.sync(writer.change(put("r", text=str(n) + "x" * 200_000)))
    assert memory(server) - before < GROWTH_BYTES_MAX
    for one in sockets:
        one.drop()


def test_who_sends_and_never_reads_is_not_listened_to(server: LiveServer, a: Phone) -> None:
    before = memory(server)
    socket_ = greeted(server, a, receive_buffer=4_096)
    socket_.tcp.settimeout(1)
    big = json.dumps({"type": "push", "space": "me", "ref": "x" * 60_000, "changes": []}).encode()
    sent = 0
    with suppress(OSError):
        for _ in range(2_000):
            socket_.send_bytes(_frame(1, big))
            sent += 1
    assert memory(server) - before < GROWTH_BYTES_MAX
    assert sent < 2_000, "everything was taken, and nothing read"
    socket_.drop()


def test_a_thousand_connects_at_once_leave_nothing_behind(server: LiveServer, a: Phone) -> None:
    files = sum(psutil.Process(pid).num_fds() for pid in server.worker_pids())
    before = memory(server)
    for _ in range(5):
        made = []
        for _ in range(200):
            with suppress(Refused):
                made.append(Websocket(server.url))
        for one in made:
            one.drop()
    deadline = time.monotonic() + 30
    while sum(psutil.Process(pid).num_fds() for pid in server.worker_pids()) > files + 10:
        assert time.monotonic() < deadline, "descriptors leak"
    assert memory(server) - before < GROWTH_BYTES_MAX


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, 400),
        ({"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}, 400),
        (
            {
                "Upgrade": "websocket",
                "Connection": "Upgrade",
                "Sec-WebSocket-Version": "12",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            },
            400,
        ),
        ({"Upgrade": "h2c", "Connection": "Upgrade"}, 400),
    ],
)
def test_a_request_that_is_no_handshake_is_a_problem(
    server: LiveServer, headers: dict[str, str], status: int
) -> None:
    answer = Http(server.url).get("/v1/live", headers=headers)
    assert (answer.status_code, answer.headers["Content-Type"]) == (
        status,
        "application/problem+json",
    )
