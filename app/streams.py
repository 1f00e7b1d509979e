"""Answers that take long to send: so many at once in a worker, and no more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Final

from sync.errors import Unavailable

# Each holds a file on the disk, and a greenlet, until its reader has it or is given up.
STREAMS_MAX: Final = 32
RETRY_SECONDS: Final = 5


class Streams:
    """Counts the streams that are being sent."""

    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore(STREAMS_MAX)

    def counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The chunks; the stream counts from the first one until it is exhausted or closed.

        Raises `Unavailable` (`too_busy`) at the first chunk where there are too many.
        """
        if not self._free.acquire(blocking=False):
            raise Unavailable("too_busy", retry_after=RETRY_SECONDS)
        try:
            yield from chunks
        finally:
            self._free.release()
