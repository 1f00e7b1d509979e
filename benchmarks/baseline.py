"""The least that a Flask server can do: what Rejoin's own endpoints are measured against.

Served by the same gunicorn.conf.py, with the same worker class and count, the same token, the
same pool. `/token` checks the token; `/row` also commits one inserted row. `/fan` is a websocket as
flask-sock makes them: what one sends goes to all, one after another.
"""

from __future__ import annotations

import os
import uuid
from typing import Final

import simple_websocket
from flask import Flask, Response, request
from flask_jwt_extended import get_jwt_identity, jwt_required
from flask_sock import Sock

from app import auth, runtime
from app.live import routes as live
from app.live import sockets
from app.settings import Settings
from storage.sql import cursor

TABLE: Final = """
    CREATE TABLE IF NOT EXISTS bare_rows (
        id uuid PRIMARY KEY, owner uuid NOT NULL, body text NOT NULL,
        made_at timestamptz NOT NULL DEFAULT now())
"""
_INSERT: Final = "INSERT INTO bare_rows (id, owner, body) VALUES (%s, %s, %s)"


def create_app() -> Flask:
    """The app; gunicorn calls it in each worker."""
    settings = Settings.from_environ(os.environ)
    app = Flask(__name__)
    engine = runtime.install(app, settings).engine
    auth.install(app, settings)
    # The worker looks after websockets and hints: here there are none.
    sockets.install(app, settings.live_sockets)
    live.install(app)
    # Its websockets are flask-sock's own, with a greenlet or two for each.
    app.config["SOCK_SERVER_OPTIONS"] = {}

    @app.get("/healthz")
    def healthz() -> Response:
        return Response("{}", content_type="application/json")

    @app.post("/token")
    @jwt_required()  # type: ignore[untyped-decorator]
    def token() -> Response:
        request.get_data()
        return Response(b'{"ok":true}', content_type="application/json")

    @app.post("/row")
    @jwt_required()  # type: ignore[untyped-decorator]
    def row() -> Response:
        values = (uuid.uuid4(), get_jwt_identity(), request.get_data(as_text=True))
        with engine.begin() as connection:
            cursor(connection).execute(_INSERT, values)
        return Response(b'{"ok":true}', content_type="application/json")

    everyone: set[simple_websocket.Server] = set()

    @Sock(app).route("/fan")  # type: ignore[untyped-decorator]
    def fan(websocket: simple_websocket.Server) -> None:
        everyone.add(websocket)
        try:
            while True:
                data = websocket.receive()
                for other in tuple(everyone):
                    other.send(data)
        finally:
            everyone.discard(websocket)

    return app
