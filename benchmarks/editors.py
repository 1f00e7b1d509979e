"""Text editors under Node: stock y-websocket providers, and the server that npm has for them.

What they need is installed by the package-lock.json of the tests, in the folder of the tests'
own editors.
"""

from __future__ import annotations

import hashlib
import json
import os
import selectors
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from app.settings import ROOT
from benchmarks.stage import FOLDER

PACKAGES: Final = ROOT / "tests" / "edge" / "node"
SCRIPT: Final = Path(__file__).with_name("typing.mjs")
SERVER: Final = "node_modules/y-websocket-1/bin/server.js"
INSTALL_SECONDS, ANSWER_SECONDS = 180, 300.0


class Missing(Exception):
    """What is missing, in a sentence."""


def installed() -> Path:
    """The folder with the packages and the script. Raises Missing."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise Missing("Node 20 and npm are not there")
    lock = (PACKAGES / "package-lock.json").read_bytes()
    folder = FOLDER / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in (PACKAGES / "package.json", PACKAGES / "package-lock.json", SCRIPT):
        shutil.copyfile(path, folder / path.name)
    if not (folder / "installed").exists():
        _install(npm, folder)
        (folder / "installed").touch()
    return folder


def _install(npm: str, folder: Path) -> None:
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    done = subprocess.run(
        [npm, "ci", *quiet], cwd=folder, capture_output=True, text=True, check=False,
        timeout=INSTALL_SECONDS,
    )  # fmt: skip
    if done.returncode:
        raise Missing(f"npm ci could not install the providers: {done.stderr[-500:]}")


class Editor:
    """A Node process with one provider."""

    def __init__(self, folder: Path, trace: Path) -> None:
        self.process = subprocess.Popen(
            ["node", SCRIPT.name, str(trace)],
            cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ask(self, command: str, **about: Any) -> dict[str, Any]:
        """Do it, and wait for its answer. Raises TimeoutError, ConnectionError."""
        self.begin(command, **about)
        return self.answer()

    def begin(self, command: str, **about: Any) -> None:
        """Do it; the answer is asked for later."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"command": command, **about}).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """The answer to what was begun. Raises TimeoutError, ConnectionError."""
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            if not selector.select(ANSWER_SECONDS):
                raise TimeoutError("an editor waits in vain")
        line = self.process.stdout.readline()
        if not line:
            raise ConnectionError("an editor has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        _end(self.process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


@contextmanager
def y_websocket(folder: Path) -> Iterator[str]:
    """npm's server of y-websocket 1.5, which keeps documents in memory; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        ["node", SERVER],
        cwd=folder, env=os.environ | {"HOST": "127.0.0.1", "PORT": str(port)},
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        # It says so when it listens.
        if not process.stdout.readline():
            raise RuntimeError("the y-websocket server did not start")
        yield f"ws://127.0.0.1:{port}"
    finally:
        _end(process)
