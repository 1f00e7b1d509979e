"""Long polls: requests that the server answers when there is something new. Hints, never data.

Each runs in a thread that touches no database; what an answer holds is thrown away (it asks for one
record at most), and a plain sync fetches it. So nothing is merged in two places.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import quote as escape

from rejoin.answers import as_int, as_object, as_text
from rejoin.bell import Bell
from rejoin.spaces import Space
from rejoin.values import JsonObject, parse

if TYPE_CHECKING:
    from rejoin.database import Database

WAIT_S = 25
"""Under the 30 s after which the hastiest proxies give a request up."""
TIMEOUT_S = 40.0
POLLS_MAX = 4
"""Spaces waited for at once; others are seen with the next sync."""
FAILS_MAX = 3
"""Failures in a row after which long poll counts as cut off here."""
AT_ONCE_S = 1.0
"""An answer without news that came sooner did not wait: somebody in between doesn't let it."""
OK = 200


class Polls:
    """The polls in flight, at most one a space."""

    def __init__(self, device: Database, bell: Bell) -> None:
        self._device = device
        self._bell = bell
        self._fails = 0
        self._running: set[int] = set()
        self.over = False
        """Whether one has ended since `start`."""

    def start(self, wanted: Sequence[Space]) -> bool:
        """Polls for these spaces, where none is running. False: it does not work here."""
        with self._bell.changed:
            self.over = False
            if self._fails >= FAILS_MAX:
                return False
            ask = [s for s in wanted[:POLLS_MAX] if s.no not in self._running]
            self._running |= {s.no for s in ask}
        for space in ask:
            url, headers = self._device.session().prepared(_path(space))
            Thread(
                target=self._poll, args=(space, url, headers), name="rejoin-poll", daemon=True
            ).start()
        return bool(wanted)

    def _poll(self, space: Space, url: str, headers: dict[str, str]) -> None:
        start = time.monotonic()
        try:
            answer = self._device.http.request("GET", url, headers, None, TIMEOUT_S)
            fine = answer.status == OK
            told = as_object(parse(answer.body)) if fine else {}
        except (OSError, ValueError, RecursionError):
            fine, told = False, {}
        news = fine and _news(space, told)
        with self._bell.changed:
            self._running.discard(space.no)
            if news or (fine and time.monotonic() - start >= AT_ONCE_S):
                self._fails = 0
            else:
                self._fails += 1
            self.over = True
            self._bell.changed.notify_all()
        self._bell.ring()


def _path(space: Space) -> str:
    epoch = "" if space.epoch is None else f"&epoch={space.epoch}"
    return (
        f"/v1/spaces/{escape(as_text(space.id))}/pull"
        f"?cursor={space.pull_cursor}{epoch}&limit=1&wait={WAIT_S}"
    )


def _news(space: Space, told: JsonObject) -> bool:
    return as_int(told.get("cursor")) != space.pull_cursor or told.get("page") is not None
