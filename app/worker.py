"""gunicorn's gevent worker, with three repairs.

Promises: a stop waits for requests, never for connections that are kept for a next one, or every
restart would last gunicorn's whole graceful timeout, as phones and proxies keep theirs; a client
that neither reads nor writes is given up; websockets, which are no requests for gunicorn, are
told to go elsewhere.
"""

from __future__ import annotations

from socket import socket
from types import TracebackType
from typing import Self

import gevent
from gevent import Greenlet, Timeout, getcurrent
from gunicorn.workers.ggevent import GeventWorker

from app.live.hub import Hub
from app.live.routes import EXTENSION as HUB
from app.live.sockets import EXTENSION, Sockets
from app.runtime import EXTENSION as RUNTIME
from app.runtime import Runtime

# For websockets to be told 1001 and to answer: less than gunicorn.conf.py's graceful_timeout.
DRAIN_SECONDS = 10
# A client that takes nothing of its answer, or gives nothing of its body, for so long is gone.
# Longer than gunicorn.conf.py's keepalive, which ends the wait for a next request.
SILENCE_SECONDS = 120


class _Pause(Timeout):  # type: ignore[misc]
    """A connection's wait for its next request: it ends by request, by time or by `cut`."""

    def __init__(self, seconds: float, all_pauses: set[_Pause]) -> None:
        super().__init__(seconds, False)
        self._all = all_pauses
        self._waiter: Greenlet = getcurrent()

    def __enter__(self) -> Self:
        self._all.add(self)
        super().__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        self._all.discard(self)
        ended: bool | None = super().__exit__(kind, error, trace)
        return ended

    def cut(self) -> None:
        """End the wait as if the time were up."""
        gevent.kill(self._waiter, self, block=False)


class Worker(GeventWorker):  # type: ignore[misc]
    """See the module. `notify` is what gunicorn calls every second, also while it stops."""

    _draining: Greenlet | None = None

    def handle(self, listener: object, client: socket, address: object) -> None:
        # In place of GeventWorker's own, which lets a socket wait for ever.
        client.settimeout(SILENCE_SECONDS)
        super(GeventWorker, self).handle(listener, client, address)

    def timeout_ctx(self) -> _Pause:
        return _Pause(self.cfg.keepalive, self._pauses())

    def notify(self) -> None:
        super().notify()
        if not self.alive:
            self._drain()
            for pause in tuple(self._pauses()):
                pause.cut()

    def run(self) -> None:
        runtime: Runtime = self.wsgi.extensions[RUNTIME]
        hub: Hub = self.wsgi.extensions[HUB]
        hub.presences.join(runtime.join_the_others())
        super().run()
        # Requests have ended; the websockets may still say goodbye.
        self._drain().join(DRAIN_SECONDS)

    def _drain(self) -> Greenlet:
        if self._draining is None:
            sockets: Sockets = self.wsgi.extensions[EXTENSION]
            self._draining = gevent.spawn(sockets.drain, DRAIN_SECONDS)
        return self._draining

    def _pauses(self) -> set[_Pause]:
        pauses: set[_Pause] = self.__dict__.setdefault("_waiting", set())
        return pauses
