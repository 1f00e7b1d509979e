"""How gunicorn serves, whether `python -m app serve` or a platform's Procfile starts it."""

# First of all: what is imported before it is patched would block a worker's every connection.
from gevent import monkey

monkey.patch_all()

import ctypes
import gc
import os
import resource
import signal
import sys

from app.settings import Settings, SettingsError

try:
    settings = Settings.from_environ(os.environ)
except SettingsError as refusal:
    sys.exit(f"rejoin: {refusal}")

if settings.database_url is None:
    sys.exit(
        "rejoin: DATABASE_URL is not set. `python -m app serve` brings a PostgreSQL of its own."
    )

_host = f"[{settings.host}]" if ":" in settings.host else settings.host
bind = f"{_host}:{settings.port}"
workers = settings.web_concurrency
# The gevent worker, with one repair.
worker_class = "app.worker.Worker"
# HTTP connections, most of them kept for a next request or a long poll. Websockets are not among
# them (app/live/sockets.py): they have a limit of their own, and never take these.
worker_connections = 5_000
# Each worker imports the app for itself, after the patch, and makes its own pool.
preload_app = False
# A worker that has not come round to its loop for so long is stuck, and is replaced.
timeout = 60
# How long requests may take to end when the server is told to go; a long poll is cut short.
graceful_timeout = 20
# Behind a proxy a connection is kept for the next request; phones come back within seconds too.
keepalive = 75
backlog = 2_048
limit_request_line = 8_190
limit_request_fields = 100
accesslog = None
errorlog = "-"
loglevel = settings.log_level
# More than a push of a thousand changes makes: else it is interrupted by several collections.
CONTAINERS_BETWEEN_COLLECTIONS = 100_000
# Connections of a worker, its websockets, the database, and some to spare.
FILES_MAX = 200_000
# A socket to steer gunicorn by is one more door, in the home folder, that nobody asked for.
control_socket_disable = True


def _allow_files() -> None:
    """As many descriptors as the system lets us have: shells often give 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        wanted = min(hard, FILES_MAX) if hard != resource.RLIM_INFINITY else FILES_MAX
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))


_allow_files()


def post_worker_init(worker: object) -> None:  # noqa: ARG001 - gunicorn's signature
    """Keep Python's collector from looking at a request's thousands of values while they live.

    None of them is ever in a cycle. What the app itself consists of is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(CONTAINERS_BETWEEN_COLLECTIONS, 10, 10)


def worker_exit(server: object, worker: object) -> None:  # noqa: ARG001 - gunicorn's signature
    """Write what is left of the devices' timelines."""
    app = getattr(worker, "wsgi", None)
    if app is not None:
        app.extensions["rejoin"].recorder.stop()
        app.extensions["rejoin"].unshown.finish()


def on_starting(server: object) -> None:  # noqa: ARG001 - gunicorn's signature
    """Go when `python -m app serve` goes, however it goes: a port must not stay taken."""
    parent = os.environ.get("REJOIN_PARENT")
    if parent is None or not sys.platform.startswith("linux"):
        return
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit("rejoin: the process that started gunicorn is gone")
