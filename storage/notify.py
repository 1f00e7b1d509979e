"""The way of hints between processes: PostgreSQL's LISTEN/NOTIFY, or Redis where there is one.

Promises: what is sent arrives at every process that listens, the sender's own included, or is
lost; it is never waited for by a push. A channel that has failed says so by `ChannelDown`, and
begins anew with the next call. Nothing here is data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol
from uuid import UUID

import psycopg
import redis

from storage.engine import CONNECT_TIMEOUT_SECONDS, psycopg_url
from storage.sql import Cursor

NAME: Final = "rejoin"
# PostgreSQL takes less than 8,000 bytes.
PAYLOAD_BYTES_MAX: Final = 7_900
# So long a listener is silent at most: then it says that nothing came.
SILENCE_SECONDS: Final = 1.0


# Redis answers within a millisecond, or is gone.
SEND_SECONDS: Final = 5.0


class ChannelDown(Exception):
    """The hints of the moment are lost. Remedy: look yourself, and try the channel again."""


class Channel(Protocol):
    """Text to all processes that listen."""

    def send(self, payloads: Sequence[str]) -> None:
        """All at once, each of at most PAYLOAD_BYTES_MAX bytes. Raises ChannelDown."""

    def listen(self) -> Iterator[str]:
        """ "" when it listens and every second from then on, and each payload. Raises
        ChannelDown.
        """


# Its own transaction: inside the data's, NOTIFY takes a lock on the whole server at the commit.
_NOTIFY: Final = "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload"


class PostgresChannel:
    """Two connections of its own: one listens all the time."""

    def __init__(self, url: str) -> None:
        self._url = psycopg_url(url).set(drivername="postgresql")
        self._sender: psycopg.Connection[Any] | None = None

    def send(self, payloads: Sequence[str]) -> None:
        """See Channel."""
        try:
            if self._sender is None or self._sender.closed:
                self._sender = self._connect()
            self._sender.execute(_NOTIFY, (NAME, list(payloads)))
        except psycopg.Error as error:
            self._drop()
            raise ChannelDown(str(error)) from error

    def _drop(self) -> None:
        if self._sender is not None:
            self._sender.close()
            self._sender = None

    def listen(self) -> Iterator[str]:
        """See Channel."""
        try:
            with self._connect() as connection:
                connection.execute(f"LISTEN {NAME}")
                yield ""
                while True:
                    for told in connection.notifies(timeout=SILENCE_SECONDS):
                        yield told.payload
                    yield ""
        except psycopg.Error as error:
            raise ChannelDown(str(error)) from error

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._url.render_as_string(hide_password=False),
            autocommit=True,
            application_name="rejoin hints",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            # A hint may be lost: nobody waits for the disk. A network that is cut is noticed.
            options="-c synchronous_commit=off -c statement_timeout=10000",
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
        )


class RedisChannel:
    """Redis' publish and subscribe, which keep nothing."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_TIMEOUT_SECONDS,
            socket_timeout=SEND_SECONDS,
            socket_keepalive=True,
        )

    def send(self, payloads: Sequence[str]) -> None:
        """See Channel."""
        try:
            pipe = self._client.pipeline(transaction=False)
            for payload in payloads:
                pipe.publish(NAME, payload)
            pipe.execute()
        except (redis.RedisError, OSError) as error:
            raise ChannelDown(str(error)) from error

    def listen(self) -> Iterator[str]:
        """See Channel."""
        try:
            with self._client.pubsub() as subscription:  # type: ignore[no-untyped-call]
                subscription.subscribe(NAME)
                while True:
                    got = subscription.get_message(timeout=SILENCE_SECONDS)
                    payload = got["data"] if got and got["type"] == "message" else b""
                    yield payload.decode(errors="replace")
        except (redis.RedisError, OSError) as error:
            raise ChannelDown(str(error)) from error


_STANDS: Final = "SELECT id, epoch, head FROM spaces WHERE id = ANY(%s)"


def stands(cur: Cursor, spaces: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """(epoch, head) of each of the spaces: what a lost hint would have told."""
    cur.execute(_STANDS, (list(spaces),))
    return {space: (epoch, head) for space, epoch, head in cur}
