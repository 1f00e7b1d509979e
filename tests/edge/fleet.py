"""Devices with real SQLite files and the real server in this process, on a network that fails."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from backports import zstd
from flask.testing import FlaskClient

import rejoin
from rejoin import HttpAnswer
from tests.contract.people import new_email

PASSWORD = "correct horse battery staple"


class Network:
    """Requests to the app. With `chance` set, some are lost on the way, and some answers."""

    def __init__(self, client: FlaskClient, chance: Random | None = None) -> None:
        self.client, self.chance = client, chance
        self.lost = 0

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,  # noqa: ARG002  # nothing waits here
    ) -> HttpAnswer:
        fate = self.chance.random() if self.chance and "/auth/" not in url else 1.0
        if fate < 0.1:
            self._lose()
        parts = urlsplit(url)
        answer = self.client.open(
            parts.path, method=method, query_string=parts.query, headers=dict(headers), data=body
        )
        if fate < 0.25:
            self._lose()
        named = {name.lower(): value for name, value in answer.headers.items()}
        return HttpAnswer(answer.status_code, named, _plain(named, answer.get_data()))

    def _lose(self) -> None:
        self.lost += 1
        raise ConnectionResetError("lost on the way")


def _plain(headers: Mapping[str, str], data: bytes) -> bytes:
    coding = headers.get("content-encoding")
    if coding == "gzip":
        return gzip.decompress(data)
    return zstd.decompress(data) if coding == "zstd" else data


class Fleet:
    """The devices of one user, or of several in one space."""

    def __init__(self, client: FlaskClient, folder: Path, seed: int = 0) -> None:
        self.client, self.folder, self.random = client, folder, Random(seed)
        self.email = new_email()
        self.devices: list[rejoin.Database] = []
        made = client.post("/v1/auth/signup", json={"email": self.email, "password": PASSWORD})
        assert made.status_code == 201, made.text

    def device(self, *, skew_ms: int = 0, lossy: bool = False, file: str = "") -> rejoin.Database:
        path = self.folder / (file or f"device{len(self.devices)}.sqlite")
        network = Network(self.client, self.random if lossy else None)
        made = rejoin.open(
            path,
            server="http://server.test",
            http=network,
            sleep=lambda _seconds: None,
            rand=self.random.random,
            clock_skew_ms=skew_ms,
        )
        self.devices.append(made)
        made.login(self.email, PASSWORD)
        return made

    def settle(self) -> None:
        """Everybody syncs until nobody has anything to tell."""
        for _ in range(3):
            for device in self.devices:
                sync(device)

    def close(self) -> None:
        for device in self.devices:
            device.close()


def sync(device: rejoin.Database) -> None:
    """Until it got through: the network loses a quarter of it all."""
    for _ in range(50):
        try:
            device.sync()
            return
        except rejoin.Offline:
            continue
    raise AssertionError("no way through")


def rows(device: rejoin.Database) -> dict[str, list[tuple[object, ...]]]:
    """All rows of the app's own tables, with the types of their values."""
    db: sqlite3.Connection = device.connection
    names = [
        name
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        if not name.startswith(("sqlite_", "rejoin_"))
    ]
    return {
        name: sorted(
            (tuple((type(v).__name__, v) for v in row) for row in _all(db, name)), key=repr
        )
        for name in names
    }


def _all(db: sqlite3.Connection, name: str) -> list[tuple[object, ...]]:
    return db.execute(f'SELECT * FROM "{name}"').fetchall()  # noqa: S608
