"""`python -m app serve`: PostgreSQL and gunicorn as children, watched.

Promises: what is killed is started again; when this process is told to go, gunicorn ends its
requests first and PostgreSQL stops last. Killed outright, it takes gunicorn along (on Linux); a
PostgreSQL left running is found by the next start.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from types import FrameType
from typing import Final

from app.bootstrap import ensure_support_account
from app.settings import ROOT, Settings, SettingsError
from storage import embedded
from storage.engine import make_engine
from storage.migrate import migrate

WATCH_SECONDS: Final = 0.25
# Longer than gunicorn's own graceful_timeout, after which it kills its workers.
STOP_SECONDS: Final = 30


class _Ending:
    """Remembers the signal to go. Waiting for it is what the parent does all day."""

    def __init__(self) -> None:
        self._told = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._tell)

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        self._told.set()

    def told(self) -> bool:
        """Wait a moment; whether the signal has come."""
        return self._told.wait(WATCH_SECONDS)


def serve(settings: Settings) -> int:
    """Serve until told to go; the exit status is 0, or gunicorn's if it can't start."""
    ending = _Ending()
    _refuse_taken_port(settings)
    if settings.database_url is not None:
        return _serve_on(settings, settings.database_url, None, ending)
    server = embedded.start(settings.data, settings.postgres_bin)
    try:
        return _serve_on(settings, server.url, server, ending)
    finally:
        server.stop()


def wait_for_the_end(server: embedded.Server) -> int:
    """Until told to go (0) or until the server ends by itself (1)."""
    ending = _Ending()
    while not ending.told():
        if not server.alive():
            return 1
    return 0


def _serve_on(settings: Settings, url: str, server: embedded.Server | None, ending: _Ending) -> int:
    engine = make_engine(url, 1, statement_timeout_ms=0)
    try:
        migrate(engine)
        login = ensure_support_account(engine, settings)
    finally:
        engine.dispose()
    print(_welcome(settings, login), flush=True)
    return _Watch(settings, url, server).until(ending)


class _Watch:
    """The children, and their starting again."""

    def __init__(self, settings: Settings, url: str, server: embedded.Server | None) -> None:
        self._settings = settings
        self._url = url
        self._server = server
        self._gunicorn = self._start_gunicorn()

    def until(self, ending: _Ending) -> int:
        try:
            while not ending.told():
                self._mend_postgres()
                status = self._mend_gunicorn()
                if status is not None:
                    return status
            return 0
        finally:
            self._stop_gunicorn()

    def _mend_postgres(self) -> None:
        if self._server is not None and not self._server.alive():
            print("rejoin: PostgreSQL has ended; starting it again", file=sys.stderr, flush=True)
            self._server.revive()
            print("rejoin: PostgreSQL serves again", file=sys.stderr, flush=True)

    def _mend_gunicorn(self) -> int | None:
        """None: it runs, again. Otherwise its own exit status: it was told to go, or can't run."""
        status = self._gunicorn.poll()
        killed = status is not None and status < 0
        if not killed:
            return status
        print(
            f"rejoin: gunicorn has ended ({status}); starting it again", file=sys.stderr, flush=True
        )
        self._gunicorn = self._start_gunicorn()
        return None

    def _start_gunicorn(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"DATABASE_URL": self._url, "REJOIN_PARENT": str(os.getpid())}
        return subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--config", "gunicorn.conf.py", "app:create_app()"],
            cwd=ROOT,
            env=environment,
            # Ctrl-C in a terminal reaches us alone; gunicorn would drop its requests at once.
            start_new_session=True,
        )

    def _stop_gunicorn(self) -> None:
        if self._gunicorn.poll() is None:
            self._gunicorn.terminate()
        try:
            self._gunicorn.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._gunicorn.kill()
            self._gunicorn.wait()


def _refuse_taken_port(settings: Settings) -> None:
    # gunicorn would say so too, after five tries and among a lot of other text.
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise SettingsError(
                f"The address {settings.host}:{settings.port} can't be used"
                f" ({error.strerror}): stop what listens there, or set PORT to another."
            ) from None


def _welcome(settings: Settings, login: tuple[str, str]) -> str:
    host = "localhost" if settings.host in {"127.0.0.1", "0.0.0.0", "::"} else settings.host  # noqa: S104
    address = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    return f"""
Rejoin serves on {address}
{_login_line(settings, login)}
{_pages(settings, address, login)}Next, in another shell, from this folder:

  1. Make an account:
     curl -s {address}/v1/auth/signup -H 'Content-Type: application/json' \\
       -d '{{"email": "ada@example.org", "password": "correct horse battery"}}'
  2. Log in as a device of that account:
     curl -s {address}/v1/auth/login -H 'Content-Type: application/json' \\
       -d '{{"email": "ada@example.org", "password": "correct horse battery",
            "device": {{"name": "curl", "platform": "shell", "app_version": "1"}}}}'
  3. Read every endpoint, and try them: {address}/docs

Ctrl-C stops it; the data stays.
"""


def _pages(settings: Settings, address: str, login: tuple[str, str]) -> str:
    console = f"With it, see why a device is stuck: {address}/admin\n" if login[0] else ""
    demo = f"Two devices side by side, in a browser: {address}/demo\n" if settings.demo else ""
    return f"{console}\n" + (f"{demo}\n" if demo else "")


def _login_line(settings: Settings, login: tuple[str, str]) -> str:
    email, password = login
    if not email:
        return "No support account: set REJOIN_SUPPORT_PASSWORD to have one made."
    shown = "the password in REJOIN_SUPPORT_PASSWORD" if settings.production else password
    return f"Support login: {email} / {shown}"
