"""The app with a clock in every layer, served by a worker of the real gunicorn.

    gunicorn --config gunicorn.conf.py "benchmarks.layers:create_app()"

A layer's time is its own: what it spends inside another layer counts there. The clocks are put
around functions wherever the app's modules name them, so the code under test knows nothing of
them; one request at a time, or the layers of two would mix. `GET /bench/layers` gives what has
been spent since it was last asked, `GET /bench/functions` what cProfile saw since then.
"""

from __future__ import annotations

import cProfile
import functools
import importlib
import io
import pstats
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import psycopg
from flask import Flask, Response, jsonify

from app import create_app as real_app

# Layer → the functions that begin it. One that is no longer there is told, not guessed.
LAYERS: Final = {
    "token": ["app.auth:token_principal"],
    "exchange": ["app.exchange:Exchange.sync"],
    "decode": ["sync.requests:read_sync", "sync.requests:read_push", "app.wire:read_body"],
    "unpack": ["sync.stored:unpack"],
    "plan": ["sync.plan:plan_push"],
    "pack": ["sync.stored:pack"],
    "delta": ["sync.deltas:delta"],
    "answer": ["app.wire:answer"],
}
READS: Final = ("SELECT", "WITH PAGE", "SHOW")
ORDER: Final = (
    "HTTP (gunicorn, sockets)", "Flask", "token", "decode", "exchange", "begin", "read", "unpack",
    "plan", "pack", "delta", "write", "commit", "answer",
)  # fmt: skip


class Clocks:
    """The time of each layer, exclusive."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}
        self.calls: dict[str, int] = {}
        self._stack: list[str] = []
        self._since = 0.0

    def enter(self, layer: str) -> None:
        """Until the matching `leave`, time is this layer's."""
        self._switch()
        self._stack.append(layer)
        self.calls[layer] = self.calls.get(layer, 0) + 1

    def leave(self) -> None:
        self._switch()
        self._stack.pop()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._stack:
            layer = self._stack[-1]
            self.spent[layer] = self.spent.get(layer, 0.0) + now - self._since
        self._since = now

    def clear(self) -> dict[str, Any]:
        """What was told until now."""
        told = {"seconds": self.spent, "calls": self.calls}
        self.spent, self.calls = {}, {}
        return told

    def around(self, function: Callable[..., Any], layer: Any) -> Callable[..., Any]:
        """The function with a clock; `layer` is a name, or chooses one by the arguments."""

        @functools.wraps(function)
        def timed(*values: Any, **more: Any) -> Any:
            self.enter(layer if isinstance(layer, str) else layer(*values))
            try:
                return function(*values, **more)
            finally:
                self.leave()

        return timed


def create_app() -> Flask:
    """The app with its clocks; gunicorn calls it in each worker."""
    app = real_app()
    clocks = Clocks()
    missing: list[str] = []
    for layer, names in LAYERS.items():
        missing += [name for name in names if not _replace(name, clocks, layer)]
    _watch_the_driver(clocks)
    _add_endpoints(app, clocks, missing)
    app.wsgi_app = clocks.around(app.wsgi_app, "Flask")  # type: ignore[method-assign]
    return app


def _replace(name: str, clocks: Clocks, layer: str) -> bool:
    """Put the clock wherever a module of ours holds the function; whether it was found."""
    module, _, path = name.partition(":")
    owner, _, attribute = path.rpartition(".")
    loaded = importlib.import_module(module)
    holder: Any = getattr(loaded, owner, None) if owner else loaded
    original = getattr(holder, attribute, None)
    if original is None:
        return False
    timed = clocks.around(original, layer)
    if owner:
        setattr(holder, attribute, timed)
        return True
    for holder in list(sys.modules.values()):
        if holder.__name__.partition(".")[0] in {"app", "storage", "sync"}:
            for key, value in list(vars(holder).items()):
                if value is original:
                    setattr(holder, key, timed)
    return True


def _watch_the_driver(clocks: Clocks) -> None:
    """Reading, writing and committing, whoever asks for it."""
    driver: Any = psycopg
    driver.Cursor.execute = clocks.around(driver.Cursor.execute, _of_statement)
    driver.Cursor.executemany = clocks.around(driver.Cursor.executemany, "write")
    driver.Connection.commit = clocks.around(driver.Connection.commit, "commit")
    driver.Connection.rollback = clocks.around(driver.Connection.rollback, "commit")
    from sqlalchemy.pool import Pool

    pool: Any = Pool
    pool.connect = clocks.around(pool.connect, "begin")
    copy: Any = driver.Copy
    # A COPY is a block: its time is all that passes inside, the making of its rows too.
    enter, leave = copy.__enter__, copy.__exit__

    def entered(self: Any) -> Any:
        clocks.enter("write")
        return enter(self)

    def left(self: Any, *error: Any) -> Any:
        try:
            return leave(self, *error)
        finally:
            clocks.leave()

    copy.__enter__, copy.__exit__ = entered, left


def _of_statement(_cursor: object, query: object, *_: object) -> str:
    text = " ".join(str(query).split(maxsplit=3)[:3]).upper()
    return "read" if text.startswith(READS) else "write"


def _add_endpoints(app: Flask, clocks: Clocks, missing: list[str]) -> None:
    profile = cProfile.Profile()

    @app.get("/bench/layers")
    def layers() -> Response:
        return jsonify(clocks.clear() | {"missing": missing})

    @app.get("/bench/functions/start")
    def start() -> Response:
        profile.clear()
        profile.enable()
        return jsonify({})

    @app.get("/bench/functions")
    def functions() -> Response:
        profile.disable()
        text = io.StringIO()
        pstats.Stats(profile, stream=text).strip_dirs().sort_stats("tottime").print_stats(25)
        return Response(text.getvalue(), content_type="text/plain")
