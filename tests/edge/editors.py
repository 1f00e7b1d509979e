"""Real editors for the tests: the stock npm providers under Node, steered over a pipe."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import httpx
import pytest

from tests.contract.people import PASSWORD, new_email

ROOT: Final = Path(__file__).resolve().parent.parent.parent
SOURCE: Final = Path(__file__).resolve().parent / "node"
INSTALL_SECONDS: Final = 180
# A trace of two hours is typed in minutes where the machine has much to do.
ANSWER_SECONDS: Final = 300
Y_WEBSOCKET: Final = ("y-websocket", "y-websocket-1")
HOCUSPOCUS: Final = "hocuspocus"


def installed() -> Path:
    """The folder with the packages of package-lock.json and the scripts; skips where it can't be.

    Kept between runs in the git-ignored `.rejoin-test`, by the hash of the lock.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node 20 and npm are needed for the stock editors' providers")
    locked = (SOURCE / "package-lock.json").read_bytes()
    folder = ROOT / ".rejoin-test" / f"node-{sha256(locked).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in SOURCE.iterdir():
        if path.is_file():
            shutil.copyfile(path, folder / path.name)
    if not (folder / "installed").exists():
        _install(npm, folder)
        (folder / "installed").touch()
    return folder


def _install(npm: str, folder: Path) -> None:
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    done = subprocess.run(
        [npm, "ci", *quiet], cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    if done.returncode:
        pytest.skip(f"npm ci could not install the editors' providers:\n{done.stderr[-2_000:]}")


class Editors:
    """One Node process with any number of editors."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            ["node", "editors.mjs"],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answers: dict[int, Queue[dict[str, Any]]] = {}
        self._asked = 0
        self._lock = threading.Lock()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def start(self, what: str, **values: object) -> Queue[dict[str, Any]]:
        """Begins it; the queue gets the answer."""
        assert self.process.stdin is not None
        with self._lock:
            self._asked += 1
            answer = self._answers[self._asked] = Queue()
            asked = json.dumps({"id": self._asked, "do": what, **values})
            self.process.stdin.write(asked + "\n")
            self.process.stdin.flush()
        return answer

    def ask(self, what: str, **values: object) -> dict[str, Any]:
        """Does it and returns what it says; an error of the editor's fails the test."""
        return told(self.start(what, **values))

    def editor(self, name: str, kind: str, url: str, room: str, **values: object) -> Editor:
        """Opens an editor of the text `body` of a document."""
        made = Editor(self, name)
        made.ask("open", kind=kind, url=url, room=room, **values)
        return made

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(10)
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            self._answers.pop(answer.pop("id")).put(answer)


def told(answer: Queue[dict[str, Any]]) -> dict[str, Any]:
    try:
        found = answer.get(timeout=ANSWER_SECONDS)
    except Empty:
        pytest.fail("the editors do not answer")
    if "error" in found:
        pytest.fail(found["error"])
    return found


class Editor:
    """One editor, as tests/edge/node/editors.mjs knows it."""

    def __init__(self, editors: Editors, name: str) -> None:
        self.editors, self.name = editors, name

    def ask(self, what: str, **values: object) -> dict[str, Any]:
        return self.editors.ask(what, editor=self.name, **values)

    def start(self, what: str, **values: object) -> Queue[dict[str, Any]]:
        return self.editors.start(what, editor=self.name, **values)

    def insert(self, at: int, text: str) -> None:
        self.ask("insert", at=at, text=text)

    def until(self, **wanted: object) -> dict[str, Any]:
        """Waits until its state has these: text, synced, connected, saved, others, closes."""
        return self.ask("until", **wanted)

    @property
    def state(self) -> dict[str, Any]:
        return self.ask("state")


@contextmanager
def editors() -> Iterator[Editors]:
    """A Node process for a test."""
    made = Editors(installed())
    try:
        yield made
    finally:
        made.stop()


class Author:
    """A user of a running server, with one device that is logged in."""

    def __init__(self, url: str) -> None:
        self.url, self.email = url, new_email()
        made = self.call("POST", "/v1/auth/signup", email=self.email, password=PASSWORD)
        self.personal_space = made["personal_space"]
        login = self.call("POST", "/v1/auth/login", email=self.email, password=PASSWORD)
        self.token, self.device_id = login["access_token"], login["device_id"]
        self.counter = 0

    def logged_in(self, url: str) -> str:
        """A token for the same device from another server of the same database."""
        login = {"email": self.email, "password": PASSWORD, "device_id": self.device_id}
        answer = httpx.post(f"{url}/v1/auth/login", json=login, timeout=30)
        assert answer.status_code == 200, answer.text
        made: str = answer.json()["access_token"]
        return made

    def call(self, method: str, path: str, **body: object) -> Any:
        headers = self.headers if hasattr(self, "token") else {}
        answer = httpx.request(
            method, self.url + path, json=body or None, headers=headers, timeout=30
        )
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def space(self, **members: str) -> str:
        """A new shared space, with members by email and role."""
        made: str = self.call("POST", "/v1/spaces", name="Notes")["id"]
        for email, role in members.items():
            self.call("PUT", f"/v1/spaces/{made}/members/{email}", role=role)
        return made

    def push(self, space: str, *ops: dict[str, Any]) -> Any:
        """As a device does, without having pulled."""
        self.counter += 1
        change = {"counter": self.counter, "context": {"cursor": 0}, "at": 1, "ops": ops}
        path = f"/v1/spaces/{space}/push"
        return self.call("POST", path, counter=self.counter, changes=[change])

    def pull(self, space: str, cursor: int = 0) -> Any:
        return self.call("GET", f"/v1/spaces/{space}/pull?cursor={cursor}")

    def log(self, space: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            after = found[-1]["position"] if found else 0
            page = self.call("GET", f"/v1/spaces/{space}/log?after={after}")["changes"]
            if not page:
                return found
            found += page


def rooms_url(server: str) -> str:
    """What a y-websocket provider takes for its server."""
    return server.replace("http", "ws") + "/v1/spaces"


def hocuspocus_url(server: str) -> str:
    return server.replace("http", "ws") + "/v1/hocuspocus"
