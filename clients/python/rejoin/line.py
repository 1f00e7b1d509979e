"""One websocket of `/v1/live`: text out, objects in, and an end with a code.

The library reads the socket in a thread of its own; one more thread hands what came to the worker,
so that the worker waits for a message and for a local change at once. Both queues are short: a
worker that is busy stops the reading, and TCP tells the server.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response
from websockets.sync.client import ClientConnection, connect

from rejoin.answers import Problem, as_object, read_problem
from rejoin.bell import Bell, Stopping
from rejoin.errors import RejoinError
from rejoin.transport import AGENT
from rejoin.values import JsonObject, parse

PATH = "/v1/live"
CONNECT_TIMEOUT_S = 10.0
"""For TCP, TLS and the handshake together."""
PING_EVERY_S = 20.0
"""Under the 30 s after which the hastiest proxies cut an idle connection."""
PING_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 1.0
"""A goodbye is not worth waiting for: the server notices anyway."""
MESSAGE_BYTES_MAX = 64 << 20
"""A page is 1 MiB, but one record may exceed it: with its documents, and base64 around them."""
QUEUE_MAX = 16
"""Messages read and not yet applied."""

ABNORMAL = 1006
"""What the end is called where no close code came."""


class Ended(Exception):
    """The websocket is over. `code`: the close code, ABNORMAL where there was none."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(f"{words or 'the connection ended'} ({code})")
        self.code = code


class NoSocket(Exception):
    """There was no handshake. `status`: HTTP's, None where nothing (or no HTTP) answered."""

    def __init__(self, words: str, response: Response | None = None) -> None:
        super().__init__(words)
        headers = response.headers if response else {}
        asked = headers.get("Retry-After", "")
        self.status = response.status_code if response else None
        self.retry_after_s = float(asked) if asked.isdigit() else 0.0
        self.problem = _problem(response.body if response else b"")


def _problem(body: bytes | bytearray | None) -> Problem:
    try:
        return read_problem(parse(bytes(body or b"")))
    except (ValueError, RecursionError):
        return Problem("", "")


def address(server: str) -> str:
    """Where the websocket of a server is."""
    base = server.rstrip("/")
    return "ws" + base.removeprefix("http") + PATH if base.startswith("http") else base + PATH


def dial(server: str, token: str | None, *, pings: bool = True) -> ClientConnection:
    """A handshake. Raises NoSocket, and OSError where nobody answers.

    Like the rest of the device it takes no proxy from the environment.
    """
    try:
        return connect(
            address(server),
            additional_headers={"Authorization": f"Bearer {token}"} if token else None,
            user_agent_header=AGENT,
            proxy=None,
            open_timeout=CONNECT_TIMEOUT_S,
            ping_interval=PING_EVERY_S if pings else None,
            ping_timeout=PING_TIMEOUT_S,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=MESSAGE_BYTES_MAX,
            max_queue=QUEUE_MAX,
        )
    except InvalidStatus as error:
        raise NoSocket(
            f"the server answered the websocket handshake with HTTP {error.response.status_code}",
            error.response,
        ) from error
    except (InvalidHandshake, EOFError) as error:
        words = str(error) or type(error).__name__
        raise NoSocket(f"the websocket handshake failed: {words}") from error
    except ssl.SSLError as error:
        raise NoSocket(f"TLS failed: {error}") from error


class Line:
    """An open websocket, for one worker."""

    def __init__(self, made: ClientConnection, bell: Bell) -> None:
        # From 17.1 on the library wants to be entered; before, that changes nothing.
        self._entered = ExitStack()
        self._socket = self._entered.enter_context(made)
        self._bell = bell
        self._inbox: deque[str | bytes] = deque()
        self._end: Ended | None = None
        self._reader = Thread(target=self._read, name="rejoin-live-reader", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while True:
                message = self._socket.recv()
                with self._bell.changed:
                    self._bell.changed.wait_for(
                        lambda: len(self._inbox) < QUEUE_MAX or self._end is not None
                    )
                    if self._end is not None:
                        return
                    self._inbox.append(message)
                    self._bell.changed.notify_all()
        except ConnectionClosed as error:
            told = error.rcvd
            self._over(Ended(told.code, told.reason) if told else Ended(ABNORMAL, ""))
        except Exception as error:  # noqa: BLE001  # a reader that dies silently would hang the worker
            self._over(Ended(ABNORMAL, str(error)))

    def _over(self, end: Ended) -> None:
        with self._bell.changed:
            self._end = self._end or end
            self._bell.changed.notify_all()

    def take(self, timeout_s: float) -> JsonObject | None:
        """The next message; None after a ring, or where none came in time.

        Raises Ended once all that came before the end is taken, and Stopping.
        """
        with self._bell.changed:
            self._bell.changed.wait_for(
                lambda: self._inbox or self._end or self._bell.stopped or self._bell.answered(),
                timeout_s,
            )
            if self._bell.stopped:
                raise Stopping
            if not self._inbox:
                if self._end:
                    raise self._end
                return None
            message = self._inbox.popleft()
            self._bell.changed.notify_all()
        try:
            return as_object(parse(message))
        except (ValueError, RecursionError) as error:
            raise RejoinError(
                "The server sent a message on the live socket that is no JSON."
            ) from error

    def send(self, text: str) -> None:
        """Raises Ended."""
        try:
            self._socket.send(text)
        except ConnectionClosed as error:
            told = error.rcvd
            raise Ended(told.code if told else ABNORMAL, told.reason if told else "") from error

    def close(self, code: int = 1000) -> None:
        """Says goodbye, and waits a moment at most."""
        self._over(Ended(code, "closed here"))
        self._socket.close(code)
        self._entered.close()
        self._reader.join(CLOSE_TIMEOUT_S)


Dial = Callable[[str, str | None], ClientConnection]
