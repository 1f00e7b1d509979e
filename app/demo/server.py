"""A server of the demo's own: `python -m app serve` as everybody starts it, in an empty folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Final

from app.settings import ROOT

ANSWER_SECONDS: Final = 30
# `serve` gives its requests 30 seconds to end, and PostgreSQL as many.
STOP_SECONDS: Final = 90


class Interrupts:
    """Ctrl-C, `kill` and a closed terminal: one ends the demo, and the next ones can't hurry it.

    Cut short on its way out, it would leave a PostgreSQL behind.
    """

    def __init__(self) -> None:
        self._ending = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._tell)

    def ignore(self) -> None:
        """From now on, the demo ends by itself."""
        self._ending = True

    def _tell(self, _number: int, _frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise KeyboardInterrupt


class NotStarted(RuntimeError):
    """The server ended before it listened."""


@contextmanager
def fresh_server(data: Path) -> Iterator[str]:
    """The address of a new server that keeps its data in the folder. It ends with the block."""
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "app", "serve"],
        cwd=ROOT,
        env=_environment(data, port),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C in a terminal reaches the demo alone, which ends the server in its own time.
        start_new_session=True,
    )
    try:
        _wait_until_it_listens(process.stdout or [])
        url = f"http://127.0.0.1:{port}"
        # The socket listens before a worker serves it: this answer waits for the first one.
        with urllib.request.urlopen(f"{url}/healthz", timeout=ANSWER_SECONDS):  # noqa: S310
            yield url
    finally:
        _stop(process)


def _environment(data: Path, port: int) -> dict[str, str]:
    """Nothing of another server's settings, but for the PostgreSQL to run."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "REJOIN_POSTGRES_BIN" or not name.startswith(("REJOIN_", "DATABASE_URL"))
    }
    return kept | {
        "PORT": str(port),
        "WEB_CONCURRENCY": "2",
        "REJOIN_DATA": str(data),
        "REJOIN_HOST": "127.0.0.1",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_listens(output: Iterable[str]) -> None:
    lines, said = iter(output), []
    for line in lines:
        said.append(line)
        if "Listening at" in line:
            break
    else:
        raise NotStarted("The server did not start:\n" + "".join(said[-20:]))
    # A pipe that nobody reads would hold the server once it is full.
    threading.Thread(target=deque, args=(lines, 0), daemon=True).start()


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
