"""`rejoin doctor`: which of websocket, long poll and plain requests work here, and what is between.

Each check asks the real server and gives findings: one sentence with what was seen, and what to do
about it. Nothing is written to the app's tables, and nothing pushed.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rejoin.answers import as_int
from rejoin.doctor_live import long_poll, polled, websocket
from rejoin.errors import RejoinError
from rejoin.finding import Finding, Found, get, ms, read_object
from rejoin.polling import WAIT_S
from rejoin.transport import HttpAnswer

if TYPE_CHECKING:
    from rejoin.database import Database

CONNECT_TIMEOUT_S = 10.0
CLOCK_OFFSET_MS = 5_000
"""The server corrects what is more than this; less is the network's."""
SLOW_S = 2.0
IDLE_S = 40.0
"""Longer than the pauses of a quiet connection (a ping each 20 s) and than a long poll (25 s)."""
PROXY_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")
BETWEEN_HEADERS = ("via", "x-cache", "cf-ray", "x-squid-error", "x-amz-cf-id", "x-varnish")


def examine(device: Database, idle_s: float = IDLE_S) -> Iterator[Finding]:
    """All findings, each as it is made; the last says what `live()` will use.

    idle_s: how long connections are kept idle, to see who cuts them. Raises NotLoggedIn where the
    file knows no server.
    """
    server = device.server().rstrip("/")
    yield from _environment()
    reached = yield from _reach(server)
    if not reached:
        yield Finding("bad", "Nothing works from here: the device keeps its changes and waits.")
        return
    ours = yield from _plain(device, server)
    if not ours:
        yield Finding("bad", "No Rejoin server answers here: the device keeps its changes.")
        return
    if not (yield from _login(device)):
        return
    token = device.session().token()
    with ThreadPoolExecutor(1, "rejoin-doctor") as pool:
        poll = pool.submit(long_poll, device, server, token, min(idle_s, WAIT_S))
        works = yield from websocket(device, server, idle_s)
        polls = yield from polled(poll, min(idle_s, WAIT_S))
    way = "the websocket" if works else "long poll" if polls else "a plain sync every half a minute"
    yield Finding("ok" if works else "note", f"`live` goes by {way} here.")


def _environment() -> Iterator[Finding]:
    named = [n for name in PROXY_VARIABLES for n in (name, name.lower()) if os.environ.get(n)]
    if named:
        yield Finding(
            "note",
            f"{' and '.join(named)} is set, and the device does not use it: it connects directly.",
            "If only the proxy lets requests out, have the network admit the server's address.",
        )


# ---- the way there


def _reach(server: str) -> Found:
    parts = urlsplit(server)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    start = time.monotonic()
    try:
        made = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
    except OSError as error:
        yield _unreachable(host, port, error)
        return False
    took = time.monotonic() - start
    with made:
        slow = took > SLOW_S
        yield Finding(
            "note" if slow else "ok",
            f"{host}:{port} takes connections, after {ms(took)}.",
            "That is slow: expect each reconnect to take several times as long." if slow else "",
        )
        if parts.scheme != "https":
            return True
        try:
            with ssl.create_default_context().wrap_socket(made, server_hostname=host) as secure:
                yield Finding("ok", f"TLS works ({secure.version()}); the certificate is {host}'s.")
                return True
        except ssl.SSLCertVerificationError as error:
            yield Finding(
                "bad",
                f"The certificate of {host} was refused: {error.verify_message}.",
                "Somebody may be reading along (a company's proxy, a hotel's portal), or it has run"
                " out: look at it in a browser, and never turn the check off.",
            )
        except OSError as error:
            yield Finding(
                "bad",
                f"TLS with {host}:{port} failed: {error}.",
                "Something there does not speak TLS: check the port, or write http:// for a server"
                " on this machine.",
            )
    return False


def _unreachable(host: str, port: int, error: OSError) -> Finding:
    if isinstance(error, socket.gaierror):
        return Finding(
            "bad",
            f"The name {host!r} has no address here ({error.strerror}).",
            "Check the spelling with `rejoin status`, and whether this machine is online at all.",
        )
    if isinstance(error, ConnectionRefusedError):
        return Finding(
            "bad",
            f"{host}:{port} refuses connections: the machine is there, the server is not.",
            "Start the server, or check the port.",
        )
    return Finding(
        "bad",
        f"{host}:{port} can't be reached: {error}.",
        "A firewall may be dropping it: try from another network.",
    )


# ---- plain requests


def _plain(device: Database, server: str) -> Found:
    asked_ms, start = device.now_ms(), time.monotonic()
    try:
        answer = get(device.http, f"{server}/v1", CONNECT_TIMEOUT_S, None)
    except OSError as error:
        yield Finding(
            "bad",
            f"GET {server}/v1 got no answer: {error}.",
            "Connections open but requests are dropped: look at the proxy in front of the server.",
        )
        return False
    took = time.monotonic() - start
    told = read_object(answer)
    if told.get("name") != "Rejoin":
        yield _not_ours(server, answer)
        return False
    yield Finding("ok", f"Plain requests work: {server}/v1 answered in {ms(took)}.")
    yield from _between(answer)
    server_ms = as_int(told.get("server_time"))
    offset = 0 if server_ms is None else asked_ms + round(took * 500) - server_ms
    if abs(offset) > CLOCK_OFFSET_MS:
        yield Finding(
            "note",
            f"This device's clock is {abs(offset) / 1000:,.0f} s"
            f" {'ahead of' if offset > 0 else 'behind'} the server's.",
            "The server corrects it, so nothing is lost; set the clock all the same.",
        )
    return True


def _not_ours(server: str, answer: HttpAnswer) -> Finding:
    kind = answer.headers.get("content-type", "nothing").split(";")[0]
    target = answer.headers.get("location")
    if target or kind == "text/html":
        return Finding(
            "bad",
            f"{server}/v1 was answered {answer.status} with"
            f" {f'a redirect to {target}' if target else 'a page of HTML'}: not by Rejoin.",
            "That looks like a login page of this network (a captive portal): open a browser, log"
            " in, and try again. Else the server's address is wrong.",
        )
    return Finding(
        "bad",
        f"{server}/v1 was answered {answer.status} with {kind}: not by Rejoin.",
        "Check the server's address and port; behind a gateway, look at its log.",
    )


def _between(answer: HttpAnswer) -> Iterator[Finding]:
    seen = [f"{n}: {answer.headers[n]}" for n in BETWEEN_HEADERS if n in answer.headers]
    if seen:
        yield Finding("note", f"A proxy is in between; it says {'; '.join(seen)}.")


def _login(device: Database) -> Found:
    try:
        device.session().get("/v1/spaces")
    except RejoinError as error:
        yield Finding(
            "bad",
            f"The login does not work: {error}",
            "Log in again with `rejoin login`; long poll and websocket can't be tried without.",
        )
        return False
    yield Finding("ok", "The login works.")
    return True
