"""HTTP, tokens and retries. One request in flight, JSON bodies, gzip above a kilobyte.

`Http` is all that a test or another stack has to bring: one blocking request. `Session` adds what a
phone needs: backoff with jitter, a renewed token in the middle of it, and errors in words.
"""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import urllib3
from urllib3.util.request import ACCEPT_ENCODING

from rejoin.answers import Problem, as_object, as_text, read_problem
from rejoin.errors import NotLoggedIn, Offline, RejoinError, ServerRefused
from rejoin.schema import get_meta, set_meta
from rejoin.values import Json, JsonObject, compact, parse

COMPRESS_ABOVE = 1024
"""Bytes. Below it gzip saves less than a packet."""
TRIES = 6
BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.5, 30.0
RETRY_AFTER_MAX_S = 120.0
"""A server that asks for more is one for the next sync, not for this one."""
TIMEOUT_S = 60.0
RENEW_LEASE_S = 90
"""How long one process may take to renew before another tries."""
RENEW_WAITS = 120
AGENT = "rejoin-python/0.1"
RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
REVOKED = frozenset({"device_revoked"})


@dataclass(frozen=True)
class HttpAnswer:
    """A response, its body decoded from its content encoding. Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Http(Protocol):
    """One blocking request. Raises OSError where no answer came."""

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpAnswer: ...


class Urllib3:
    """The usual Http. It keeps the connection open between requests."""

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(num_pools=2, maxsize=2, retries=False)
        self.bytes_up = 0
        self.bytes_down = 0
        self.round_trips = 0

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpAnswer:
        self.round_trips += 1
        self.bytes_up += len(body or b"")
        try:
            answer = self._pool.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                redirect=False,
                timeout=urllib3.Timeout(connect=10.0, read=timeout_s),
            )
        except urllib3.exceptions.HTTPError as error:
            raise ConnectionError(str(error)) from error
        named = {name.lower(): value for name, value in answer.headers.items()}
        sent = named.get("content-length", "")
        self.bytes_down += int(sent) if sent.isdigit() else len(answer.data)
        return HttpAnswer(answer.status, named, answer.data)

    def close(self) -> None:
        self._pool.clear()


class Session:
    """Requests in the name of this device. Tokens live in the app's file, nowhere else."""

    def __init__(
        self,
        db: sqlite3.Connection,
        server: str,
        http: Http,
        sleep: Callable[[float], None],
        rand: Callable[[], float],
    ) -> None:
        self._db = db
        self._server = server.rstrip("/")
        self._http = http
        self._sleep = sleep
        self._rand = rand
        self.password: str | None = None
        """Of this process's login(), if there was one: a lost renewal needs no one's help then."""

    def get(self, path: str, token: str | None = None) -> JsonObject:
        """A GET with the device's token, or with one that is not stored yet."""
        if token is not None:
            return as_object(self._read(self._tried("GET", path, None, token)))
        return as_object(self._with_token("GET", path, None))

    def send(self, path: str, text: str, method: str = "POST") -> JsonObject:
        """A request with a JSON text as body, with the device's token."""
        return as_object(self._with_token(method, path, text.encode()))

    def anonymous(self, path: str, body: JsonObject) -> JsonObject:
        """A request without a token: signup, login."""
        answer = self._tried("POST", path, compact(body).encode(), None)
        return as_object(self._read(answer))

    def _with_token(self, method: str, path: str, body: bytes | None) -> Json:
        token = self.token()
        answer = self._tried(method, path, body, token)
        if answer.status == 401 and _problem(answer).code not in REVOKED:
            self._renew_once(token)
            answer = self._tried(method, path, body, self.token())
        if answer.status == 401:
            problem = _problem(answer)
            raise NotLoggedIn(
                f"The server no longer knows this login ({problem.code or 401}: {problem.detail})."
                f" Your data and pending changes are kept; log in again."
            )
        return self._read(answer)

    def token(self) -> str:
        """The access token. Raises NotLoggedIn."""
        token = get_meta(self._db, "access_token")
        if token is None:
            raise NotLoggedIn("This device is not logged in; log in first.")
        return token

    def renew_stored(self) -> None:
        """A fresh pair for the one that is stored; waits where another process is at it."""
        self._renew_once(self.token())

    def prepared(self, path: str) -> tuple[str, dict[str, str]]:
        """The address and the headers of a GET, for a thread that has no connection of its own."""
        headers = {"Accept": "application/json", "User-Agent": AGENT}
        return self._server + path, {**headers, "Authorization": f"Bearer {self.token()}"}

    def _renew_once(self, token: str) -> None:
        """Renews unless another process has. A refresh token is good once, and two uses end it."""
        for _ in range(RENEW_WAITS):
            if get_meta(self._db, "access_token") != token:
                return
            now = int(self._db.execute("SELECT strftime('%s', 'now')").fetchone()[0])
            if (
                self._db.execute(
                    "INSERT INTO rejoin_meta VALUES ('renewing_until', ?) ON CONFLICT (key)"
                    " DO UPDATE SET value = excluded.value WHERE value < ?",
                    (now + RENEW_LEASE_S, now),
                ).rowcount
                > 0
            ):
                break
            self._sleep(1.0)
        try:
            if get_meta(self._db, "access_token") == token:
                self._renew_or_log_in()
        finally:
            set_meta(self._db, "renewing_until", None)

    def _renew_or_log_in(self) -> None:
        try:
            self.renew()
        except NotLoggedIn:
            email, device_id = get_meta(self._db, "email"), get_meta(self._db, "device_id")
            if not (self.password and email and device_id):
                raise
            answer = self._tried(
                "POST",
                "/v1/auth/login",
                compact(
                    {"email": email, "password": self.password, "device_id": device_id}
                ).encode(),
                None,
            )
            if answer.status >= 400:
                raise
            self.keep(as_object(self._read(answer)))

    def renew(self) -> None:
        """A new pair of tokens for the refresh token, stored at once: the old one is used up."""
        refresh = get_meta(self._db, "refresh_token")
        if refresh is None:
            raise NotLoggedIn("This device is not logged in; log in first.")
        answer = self._tried(
            "POST", "/v1/auth/refresh", compact({"refresh_token": refresh}).encode(), None
        )
        if answer.status in (400, 401, 403, 409, 422):
            problem = _problem(answer)
            raise NotLoggedIn(
                f"The login of this device has ended ({problem.code or answer.status}:"
                f" {problem.detail}). Your data and pending changes are kept; log in again."
            )
        self.keep(as_object(self._read(answer)))

    def keep(self, tokens: JsonObject) -> None:
        """Stores a pair of tokens in one statement."""
        self._db.executemany(
            "INSERT OR REPLACE INTO rejoin_meta VALUES (?, ?)",
            [
                (name, as_text(tokens[name]))
                for name in ("access_token", "refresh_token")
                if tokens.get(name)
            ],
        )

    def forget(self) -> None:
        """Drops the tokens; data and pending changes stay."""
        set_meta(self._db, "access_token", None)
        set_meta(self._db, "refresh_token", None)

    def _tried(self, method: str, path: str, body: bytes | None, token: str | None) -> HttpAnswer:
        headers = {
            "Accept": "application/json",
            "Accept-Encoding": _encodings(),
            "User-Agent": AGENT,
        }
        if token:
            headers["Authorization"] = f"Bearer {token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
            if len(body) > COMPRESS_ABOVE:
                body = gzip.compress(body, 5, mtime=0)
                headers["Content-Encoding"] = "gzip"
        trouble = ""
        for attempt in range(TRIES):
            asked = 0.0
            try:
                answer = self._http.request(method, self._server + path, headers, body, TIMEOUT_S)
            except OSError as error:
                trouble = str(error) or type(error).__name__
            else:
                if answer.status not in RETRIED:
                    return answer
                asked = _retry_after(answer.headers.get("retry-after", ""))
                trouble = f"the server answered {answer.status} {_problem(answer).detail}".rstrip()
            if attempt == TRIES - 1 or asked > RETRY_AFTER_MAX_S:
                break
            bound = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2**attempt)
            self._sleep(max(asked, bound * self._rand()))
        raise Offline(
            f"No answer from {self._server}: {trouble}. Nothing is lost; try again later."
        )

    def _read(self, answer: HttpAnswer) -> Json:
        if answer.status >= 400:
            problem = _problem(answer)
            raise ServerRefused(answer.status, problem.code, problem.detail)
        if not answer.body:
            return {}
        try:
            return parse(answer.body)
        except (ValueError, RecursionError) as error:
            raise RejoinError(
                f"{self._server} did not answer in JSON; is it a Rejoin server?"
            ) from error


def _encodings() -> str:
    """zstd where urllib3 can read it here, gzip always."""
    return "zstd, gzip" if "zstd" in ACCEPT_ENCODING else "gzip"


def _retry_after(text: str) -> float:
    """Seconds; dates are not worth parsing for a pause."""
    return float(text) if text.isdigit() else 0.0


def _problem(answer: HttpAnswer) -> Problem:
    try:
        return read_problem(parse(answer.body))
    except (ValueError, RecursionError):
        return Problem("", "")
