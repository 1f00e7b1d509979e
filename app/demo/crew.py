"""The crew: one account, one device and one SQLite file for each, and the line to the server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Final, Self

import airportsdata

import rejoin
from rejoin.transport import HttpAnswer, Urllib3

PASSWORD: Final = "correct horse battery"  # noqa: S105 - of three accounts that end with the demo
TABLES: Final = ("airports", "notes")
SCHEMA: Final = (
    """CREATE TABLE airports (
         icao TEXT PRIMARY KEY, iata TEXT, name TEXT, city TEXT, subd TEXT, country TEXT,
         elevation REAL, lat REAL, lon REAL, tz TEXT,
         votes INTEGER NOT NULL DEFAULT 0, tags TEXT NOT NULL DEFAULT '[]')""",
    "CREATE TABLE notes (id TEXT PRIMARY KEY, icao TEXT, author TEXT, body TEXT)",
)
FACTS: Final = ("icao", "iata", "name", "city", "subd", "country", "elevation", "lat", "lon", "tz")


@dataclass(frozen=True)
class Traffic:
    """What went over a line: bodies as they travelled, compressed, and requests."""

    up: int = 0
    down: int = 0
    requests: int = 0

    def since(self, before: Traffic) -> Traffic:
        """What has gone over the line since then."""
        return Traffic(
            self.up - before.up, self.down - before.down, self.requests - before.requests
        )


@dataclass
class Line:
    """A device's way to the server: it can be out of reach, and lose an answer on the way."""

    reaches: bool = True
    loses_next_answer: bool = False
    answers_lost: int = 0
    _http: Urllib3 = field(default_factory=Urllib3)

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpAnswer:
        """One request, as the client asks for it."""
        if not self.reaches:
            raise ConnectionError("in flight mode")
        answer = self._http.request(method, url, headers, body, timeout_s)
        if self.loses_next_answer:
            self.loses_next_answer = False
            self.answers_lost += 1
            raise ConnectionError("the answer was lost")
        return answer

    def traffic(self) -> Traffic:
        """All of it so far."""
        return Traffic(self._http.bytes_up, self._http.bytes_down, self._http.round_trips)

    def close(self) -> None:
        """End the connections."""
        self._http.close()


@dataclass(frozen=True)
class Leg:
    """One sync, measured."""

    pushed: int
    pulled: int
    refused: int
    seconds: float
    traffic: Traffic


@dataclass
class Member:
    """One of the crew, with their device."""

    name: str
    style: str
    db: rejoin.Database
    line: Line
    legs: list[Leg] = field(default_factory=list)

    @classmethod
    def join(cls, name: str, style: str, folder: Path, url: str, skew_ms: int = 0) -> Self:
        """Make the account, and log its device in with an empty file."""
        line = Line()
        file = folder / f"{name.lower()}.sqlite"
        db = rejoin.open(file, server=url, http=line, clock_skew_ms=skew_ms)
        for statement in SCHEMA:
            db.execute(statement)
        member = cls(name, style, db, line)
        db.signup(member.email, PASSWORD, name=f"{name}'s tablet", app_version="1.0")
        return member

    @property
    def email(self) -> str:
        """Also the account's name."""
        return f"{self.name.lower()}@crew.example"

    @property
    def device(self) -> str:
        """The id that the server gave to the device."""
        return self.db.status().device_id or ""

    def track(self, space: str) -> int:
        """Put the tables in the space; how many rows became changes."""
        self.db.track("airports", space=space, votes="counter", tags="set")
        self.db.track("notes", space=space)
        return self.count("airports")

    def count(self, table: str) -> int:
        """The rows of a table."""
        return int(self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608

    def cursor(self, space: str) -> int:
        """Up to where in the space's log this device has come."""
        return next(each.cursor for each in self.db.status().spaces if each.id == space)

    def digests(self) -> dict[str, str]:
        """Of each table, one digest of all its rows, every value with its type."""
        return {table: self._digest(table) for table in TABLES}

    def _digest(self, table: str) -> str:
        sha = hashlib.sha256()
        for row in self.db.execute(f"SELECT * FROM {table} ORDER BY 1"):  # noqa: S608
            sha.update(repr(row).encode())
        return sha.hexdigest()

    def close(self) -> None:
        """Close file and line."""
        self.db.close()
        self.line.close()


def fill(member: Member, at_most: int, wanted: set[str]) -> int:
    """The world's airports into the member's own table; the wanted ones always. How many."""
    world = airportsdata.load()
    codes = [code for code in world if code in wanted]
    codes += [code for code in world if code not in wanted]
    rows = [tuple(world[code][fact] for fact in FACTS) for code in codes[: at_most or None]]
    names, places = ", ".join(FACTS), ", ".join("?" * len(FACTS))
    insert = f"INSERT INTO airports ({names}) VALUES ({places})"  # noqa: S608
    with member.db.transaction() as db:
        db.executemany(insert, rows)
        db.execute("UPDATE airports SET tags = '[\"mountain\"]' WHERE elevation > 7000")
    return len(rows)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = perf_counter()

    def seconds(self) -> float:
        """Since then."""
        return perf_counter() - self._start
