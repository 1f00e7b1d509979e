"""The edge: Flask, websockets, pages. Nothing else imports it.

`create_app()` is what gunicorn calls. Every answer carries the security headers below, every
error is a problem (app/errors.py), and `g.received_at` is when the request's headers came in.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Flask, g
from werkzeug.middleware.proxy_fix import ProxyFix

from app import auth, console, errors, playground, recording, routes, runtime
from app.live import rooms, sockets
from app.live import routes as live
from app.settings import Settings
from app.turns import give_way
from sync.pace import pace

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# An answer of the API is data: a browser that is led to one may do nothing with it.
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
# Two years: what browsers ask for. Sent over TLS only (RFC 6797 §7.2).
TRANSPORT: Final = {"Strict-Transport-Security": "max-age=63072000"}


def create_app(settings: Settings | None = None) -> Flask:
    """The app. It makes no connection yet; raises SettingsError where the environment is bad."""
    settings = settings or Settings.from_environ(os.environ)
    app = Flask(__name__)
    # A redirect would lose a phone a round trip, and a POST its body.
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    # A large document is read and merged between other requests, not before them.
    pace.give_way = give_way
    made = runtime.install(app, settings)
    auth.install(app, settings)
    errors.install(app)
    sockets.install(app, settings.live_sockets)
    routes.install(app)
    live.install(app)
    app.extensions[live.EXTENSION].on_change = made.moved
    rooms.install(app)
    playground.install(app, settings)
    console.install(app)
    app.before_request(_stamp)
    recording.install(app, lambda: made.recorder, auth.device_of_token)
    app.wsgi_app = _secured(app.wsgi_app)  # type: ignore[method-assign, assignment]
    _trust_proxies(app, settings.trusted_proxies)
    return app


def _stamp() -> None:
    g.received_at = runtime.runtime().now_ms()


def _secured(app: WSGIApplication) -> WSGIApplication:
    """The app, whose answers carry HEADERS, but for those of which they say something else."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        wanted = HEADERS | TRANSPORT if environ["wsgi.url_scheme"] == "https" else HEADERS

        def start(
            status: str, headers: list[tuple[str, str]], *error: Any
        ) -> Callable[[bytes], object]:
            said = {name.lower() for name, _ in headers}
            ours = [header for header in wanted.items() if header[0].lower() not in said]
            return start_response(status, headers + ours, *error)

        return app(environ, start)

    return answer


def _trust_proxies(app: Flask, hops: int) -> None:
    # Without a proxy in front, anyone could claim any address: only as many as are named.
    if hops:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=hops, x_proto=hops, x_host=hops
        )
