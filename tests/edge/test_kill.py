"""kill −9 of whatever serves, in the middle of pushes: what was acknowledged is there, once.

The devices know nothing of it: each sends the same request again until it is answered. The
server is `python -m app serve` with its own durable PostgreSQL; what is killed, it starts again,
and when it is killed itself, an operator's supervisor would, as the test does.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge.test_serve import PASSWORD, Place, arguments, children

DEVICES = 4
# So many more acknowledged changes by each device, before and after each kill.
PROGRESS = 4
PATIENCE_SECONDS = 120
REQUEST_SECONDS = 15
PAUSE_SECONDS = 0.05


class Progress:
    """What the devices have had acknowledged, for a test to wait on."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.acknowledged: dict[str, int] = {}
        self.faults: list[str] = []
        self.lost_answers = 0
        self.stopping = threading.Event()

    def note(self, device: str, accepted: int) -> None:
        with self.changed:
            self.acknowledged[device] = accepted
            self.changed.notify_all()

    def fault(self, text: str) -> None:
        with self.changed:
            self.faults.append(text)
            self.changed.notify_all()

    def await_more(self, changes: int) -> None:
        """Until every device has had so many more acknowledged."""
        with self.changed:
            goal = {name: count + changes for name, count in self.acknowledged.items()}

            def reached() -> bool:
                more = all(self.acknowledged[name] >= count for name, count in goal.items())
                return bool(self.faults) or more

            assert self.changed.wait_for(reached, PATIENCE_SECONDS), "the devices are stuck"
        assert not self.faults


class Device(threading.Thread):
    """A loop that pushes one small request after the other, each until it is answered."""

    def __init__(self, name: str, port: int, token: str, progress: Progress) -> None:
        super().__init__(daemon=True, name=name)
        self.port, self.token, self.progress = port, token, progress
        self.counter = self.cursor = 0
        self.chance = random.Random(name)
        progress.note(name, 0)

    def run(self) -> None:
        while not self.progress.stopping.is_set() and not self.progress.faults:
            changes = [self.change() for _ in range(self.chance.randint(1, 3))]
            part = {"cursor": self.cursor, "counter": self.counter, "changes": changes}
            answer = self.until_answered({"spaces": {"me": part}})
            if answer is None:
                return
            space = answer["spaces"]["me"]
            if space.get("accepted") != self.counter or space.get("rejected"):
                self.progress.fault(f"{self.name} at {self.counter} was told {space}")
                return
            if space["page"] is None:
                self.cursor = space["cursor"]
            self.progress.note(self.name, self.counter)

    def change(self) -> dict[str, Any]:
        self.counter += 1
        own = {"collection": "own", "id": f"{self.name} {self.counter}"}
        shared = {"collection": "shared", "id": "one", "field": "votes"}
        return {
            "counter": self.counter,
            "context": {"cursor": self.cursor},
            "at": self.counter,
            "ops": [
                {"op": "put", **own, "new": True, "fields": {"n": self.counter}},
                {"op": "increment", **shared, "by": 1},
            ],
        }

    def until_answered(self, body: dict[str, Any]) -> dict[str, Any] | None:
        while True:
            status, answer = ask(self.port, "/v1/sync", body, self.token)
            if status == 200:
                return answer
            if status not in {0, 503}:
                self.progress.fault(f"{self.name} was answered {status}: {answer}")
                return None
            self.progress.lost_answers += 1
            self.progress.stopping.wait(PAUSE_SECONDS)


def ask(port: int, path: str, body: object, token: str = "") -> tuple[int, dict[str, Any]]:
    """(status, answer); (0, {}) where there is none."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
    method, sent = ("GET", None) if body is None else ("POST", json.dumps(body))
    try:
        link.request(method, path, sent, headers)
        answer = link.getresponse()
        return answer.status, json.loads(answer.read() or b"{}")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, {}
    finally:
        link.close()


class Site:
    """A server, its devices, and what may be killed."""

    def __init__(self, place: Place) -> None:
        self.place, self.progress = place, Progress()
        self.serving = place.start()
        self.serving.wait_for("Listening at")
        assert self.serving.signup("crew@example.org") == 201
        self.devices = [self.device(f"device {n}") for n in range(DEVICES)]
        for device in self.devices:
            device.start()

    @property
    def port(self) -> int:
        return self.serving.port

    def device(self, name: str) -> Device:
        about = {"name": name, "platform": "test", "app_version": "1"}
        body = {"email": "crew@example.org", "password": PASSWORD, "device": about}
        status, login = self.serving.ask("/v1/auth/login", body)
        assert status == 200, login
        return Device(name, self.port, str(login["access_token"]), self.progress)

    def kill_worker(self) -> None:
        kill(children(self.serving.master())[0])
        self.serving.wait_for("Booting worker")

    def kill_master(self) -> None:
        kill(self.serving.master())
        self.serving.wait_for("gunicorn has ended")
        self.serving.wait_for("Listening at")

    def kill_postgres(self) -> None:
        kill(self.serving.postgres())
        self.serving.wait_for("PostgreSQL serves again")

    def kill_backend(self) -> None:
        """One connection's process: PostgreSQL then ends all and recovers by itself."""
        server = self.serving.postgres()
        backends = [pid for pid in children(server) if " rejoin " in arguments(pid)]
        kill(random.Random(len(backends)).choice(backends))

    def kill_all(self) -> None:
        """The parent and PostgreSQL; gunicorn goes with its parent."""
        postgres = self.serving.postgres()
        kill(self.serving.process.pid)
        kill(postgres)
        self.serving.wait_for("")
        self.serving = self.place.start()
        self.serving.wait_for("Listening at")

    def stop_devices(self) -> None:
        self.progress.stopping.set()
        for device in self.devices:
            device.join(PATIENCE_SECONDS)
            assert not device.is_alive()

    def log(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            path = f"/v1/spaces/me/log?after={len(found)}"
            status, answer = ask(self.port, path, None, self.devices[0].token)
            assert status == 200
            found += answer["changes"]
            if len(found) == answer["head"]:
                return found

    def records(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        query = ""
        while True:
            path = f"/v1/spaces/me/pull?cursor=0{query}"
            status, answer = ask(self.port, path, None, self.devices[0].token)
            assert status == 200
            found |= {record["id"]: record["fields"] for record in answer["records"]}
            if answer["page"] is None:
                return found
            query = f"&page={answer['page']}"

    def require_everything_once(self) -> None:
        """All that was acknowledged, and each change once: by the log and by the merged state."""
        log, records = self.log(), self.records()
        assert [change["position"] for change in log] == list(range(1, len(log) + 1))
        for device in self.devices:
            names = [c["ops"][0]["id"] for c in log if c["ops"][0]["id"].startswith(device.name)]
            expected = [f"{device.name} {n}" for n in range(1, device.counter + 1)]
            assert names == expected
            assert self.progress.acknowledged[device.name] == device.counter
            assert [records[name]["n"] for name in names] == list(range(1, len(names) + 1))
        assert records["one"]["votes"] == len(log)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


@pytest.fixture
def site(postgres_binaries: Path | None) -> Iterator[Site]:
    data = Path(tempfile.mkdtemp(prefix="rejoin-test-"))
    data.chmod(0o755)
    place = Place(data, postgres_binaries)
    try:
        made = Site(place)
        yield made
        made.progress.stopping.set()
    finally:
        place.stop()
        shutil.rmtree(data)


KILLS: list[Callable[[Site], None]] = [
    Site.kill_worker,
    Site.kill_postgres,
    Site.kill_master,
    Site.kill_backend,
    Site.kill_all,
]


def test_whatever_is_killed_the_devices_go_on_and_every_acknowledged_change_is_there_once(
    site: Site,
) -> None:
    for kill_one in KILLS:
        site.progress.await_more(PROGRESS)
        kill_one(site)
    site.progress.await_more(PROGRESS)
    site.stop_devices()
    assert site.progress.lost_answers, "the kills met no request"
    site.require_everything_once()


@pytest.mark.soak
def test_killed_again_and_again_in_any_order_it_loses_nothing(site: Site) -> None:
    chance = random.Random(7)
    for _ in range(40):
        site.progress.await_more(chance.randint(0, 30))
        chance.choice(KILLS)(site)
    site.progress.await_more(PROGRESS)
    site.stop_devices()
    site.require_everything_once()


def test_what_was_acknowledged_a_moment_before_the_kill_is_there(site: Site) -> None:
    # PostgreSQL is killed at the very acknowledgement: only what is on the disk survives.
    site.progress.await_more(PROGRESS)
    before = dict(site.progress.acknowledged)
    site.kill_postgres()
    site.stop_devices()
    assert all(site.progress.acknowledged[name] >= count for name, count in before.items())
    site.require_everything_once()
