"""The doctor's look at what stays open: the websocket, idle or not, and the long poll."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rejoin import spaces
from rejoin.answers import as_int
from rejoin.bell import Bell
from rejoin.conversation import READY_TIMEOUT_S
from rejoin.finding import Finding, Found, get, ms, read_object
from rejoin.line import ABNORMAL, PING_EVERY_S, Ended, Line, NoSocket, dial
from rejoin.polling import WAIT_S
from rejoin.transport import HttpAnswer
from rejoin.values import JsonObject, compact

if TYPE_CHECKING:
    from rejoin.database import Database

ANSWER_TIMEOUT_S = 10.0
STRIPPED = frozenset({"malformed_request"})
"""What our server says to a handshake that does not ask for a websocket any more."""
OK, BUSY = 200, 503


# ---- the websocket


def websocket(device: Database, server: str, idle_s: float) -> Found:
    start = time.monotonic()
    try:
        line = Line(dial(server, device.session().token(), pings=False), Bell())
    except NoSocket as refused:
        yield _refused(refused)
        return False
    except OSError as error:
        yield Finding(
            "bad",
            f"No websocket: the handshake got no answer after {ms(time.monotonic() - start)}"
            f" ({str(error) or type(error).__name__}).",
            "Something in between holds what it does not know; have it pass `Upgrade` requests.",
        )
        return False
    try:
        return (yield from _spoken(device, line, start, idle_s))
    finally:
        line.close()


def _refused(refused: NoSocket) -> Finding:
    problem = refused.problem
    ask_proxy = (
        "Have the proxy pass the headers `Upgrade` and `Connection` (nginx: proxy_http_version 1.1"
        " and proxy_set_header for both); until then long poll does."
    )
    if problem.code in STRIPPED:
        return Finding(
            "bad",
            f"No websocket: the server answered {refused.status} {problem.code}, so the request"
            " reached it without `Upgrade`.",
            ask_proxy,
        )
    if refused.status == BUSY and problem.code:
        return Finding(
            "bad",
            f"No websocket now: the server answered {BUSY} {problem.code}.",
            "It has as many sockets as it may (REJOIN_LIVE_SOCKETS); the device comes back by"
            " itself.",
        )
    if refused.status is not None:
        who = problem.code or "which is not our server's"
        return Finding("bad", f"No websocket: the answer was {refused.status}, {who}.", ask_proxy)
    return Finding("bad", f"No websocket: {refused}.", ask_proxy)


def _spoken(device: Database, line: Line, start: float, idle_s: float) -> Found:
    hello: JsonObject = {"type": "hello", "token": device.session().token(), "spaces": {}}
    try:
        line.send(compact(hello))
        if _hear(line, "ready", READY_TIMEOUT_S) is None:
            yield Finding(
                "bad",
                f"The websocket opens, but what the server says on it did not come through in"
                f" {READY_TIMEOUT_S:.0f} s: something in between buffers.",
                "Turn buffering off for /v1/live in the proxy (nginx: proxy_buffering off).",
            )
            return False
        yield Finding("ok", f"The websocket works, {ms(time.monotonic() - start)} after the start.")
        asked = time.monotonic()
        line.send('{"type":"ping"}')
        if _hear(line, "pong", READY_TIMEOUT_S) is not None:
            yield Finding("ok", f"A message goes there and back in {ms(time.monotonic() - asked)}.")
    except Ended as end:
        yield Finding(
            "bad",
            f"The websocket opened and was closed before it could be used: {end}.",
            "A code of 4400 or more is the server's own; 1006 is somebody in between.",
        )
        return False
    return (yield from _idle(line, idle_s))


def _idle(line: Line, idle_s: float) -> Found:
    start = time.monotonic()
    try:
        while (left := start + idle_s - time.monotonic()) > 0:
            line.take(left)
        line.send('{"type":"ping"}')
        if _hear(line, "pong", ANSWER_TIMEOUT_S) is None:
            raise Ended(ABNORMAL, "no answer any more")
    except Ended as end:
        lasted = time.monotonic() - start
        harmless = lasted > PING_EVERY_S
        yield Finding(
            "note" if harmless else "bad",
            f"An idle websocket was cut after {lasted:.0f} s ({end}).",
            f"The device's pings, one each {PING_EVERY_S:.0f} s, keep it open: nothing to do."
            if harmless
            else f"The device pings each {PING_EVERY_S:.0f} s, which is too late: raise the proxy's"
            " idle timeout (nginx: proxy_read_timeout).",
        )
        return True
    yield Finding("ok", f"A websocket that is idle for {idle_s:.0f} s stays open.")
    return True


def _hear(line: Line, kind: str, timeout_s: float) -> JsonObject | None:
    end = time.monotonic() + timeout_s
    while (left := end - time.monotonic()) > 0:
        message = line.take(left)
        if message is not None and message.get("type") == kind:
            return message
    return None


# ---- long poll


@dataclass(frozen=True)
class Waited:
    """What came of a long poll: after how long, and what."""

    seconds: float
    answer: HttpAnswer | None
    error: str = ""


def long_poll(device: Database, server: str, token: str, wait_s: float) -> Waited:
    """Where the space stands, and then a wait for what is new there. Uses no database."""
    pull = f"{server}/v1/spaces/{spaces.PERSONAL}/pull"
    start = time.monotonic()
    try:
        now = read_object(get(device.http, f"{pull}?limit=1", ANSWER_TIMEOUT_S, token))
        url = (
            f"{pull}?cursor={as_int(now.get('head')) or 0}"
            f"&epoch={as_int(now.get('epoch')) or 1}&limit=1&wait={max(1, int(wait_s))}"
        )
        start = time.monotonic()
        answer = get(device.http, url, wait_s + ANSWER_TIMEOUT_S, token)
    except OSError as error:
        return Waited(time.monotonic() - start, None, str(error) or type(error).__name__)
    return Waited(time.monotonic() - start, answer)


def polled(poll: Future[Waited], wait_s: float) -> Found:
    waited = poll.result()
    answer = waited.answer
    if answer is not None and answer.status == OK:
        if waited.seconds >= max(1, int(wait_s)) - 1:
            yield Finding("ok", f"Long poll works: a request may wait for {waited.seconds:.0f} s.")
            return True
        yield Finding(
            "note",
            f"A long poll of {wait_s:.0f} s was answered after {waited.seconds:.1f} s: something"
            " new came, or somebody in between answers from memory.",
            "Run the doctor once more while nobody writes.",
        )
        return True
    what = f"status {answer.status}" if answer is not None else waited.error
    yield Finding(
        "bad",
        f"Long poll does not work: a request that waits was ended after {waited.seconds:.0f} s"
        f" ({what}).",
        f"Raise the proxy's timeout for answers above {WAIT_S} s (nginx: proxy_read_timeout 60s).",
    )
    return False
