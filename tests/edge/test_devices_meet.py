"""The main job, end to end: SQLite files that change offline meet through the real server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from flask.testing import FlaskClient

import rejoin
from tests.edge.fleet import PASSWORD, Fleet, rows, sync

YEAR_MS = 365 * 86_400_000
TABLES = """
    CREATE TABLE lists (id INTEGER PRIMARY KEY, name TEXT);
    CREATE TABLE tasks (
        id TEXT PRIMARY KEY, title TEXT, done INTEGER, weight REAL, photo BLOB,
        votes INTEGER DEFAULT 0, tags TEXT DEFAULT '[]',
        list INTEGER REFERENCES lists (id) ON DELETE CASCADE
    );
    CREATE TABLE marks (task TEXT, who INTEGER, mark, PRIMARY KEY (task, who)) WITHOUT ROWID;
"""


@pytest.fixture
def fleet(client: FlaskClient, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(client, tmp_path)
    yield made
    made.close()


def prepare(device: rejoin.Database) -> rejoin.Database:
    device.connection.executescript(TABLES)
    device.track("lists")
    device.track("tasks", votes="counter", tags="set")
    device.track("marks")
    return device


def test_two_devices_edit_offline_and_end_equal(fleet: Fleet) -> None:
    a, b = prepare(fleet.device()), prepare(fleet.device(skew_ms=YEAR_MS))
    a.execute("INSERT INTO tasks (id, title, votes, tags) VALUES ('t1', 'Milk', 1, '[\"home\"]')")
    a.sync()
    b.sync()
    a.execute("UPDATE tasks SET votes = votes + 2, title = 'Oat milk' WHERE id = 't1'")
    b.execute("UPDATE tasks SET votes = votes - 5, title = 'Tea', tags = '[\"home\",\"urgent\"]'")
    a.sync()
    b.sync()
    a.sync()
    assert rows(a) == rows(b)
    assert a.execute("SELECT votes, tags FROM tasks").fetchone() == (-2, '["home","urgent"]')
    (conflict,) = a.conflicts()
    assert {s.value for s in conflict.siblings} == {"Oat milk", "Tea"}
    b.execute("UPDATE tasks SET title = 'Tea' WHERE id = 't1'")
    b.sync()
    a.sync()
    assert a.conflicts() == b.conflicts() == []
    assert a.execute("SELECT title FROM tasks").fetchone() == ("Tea",)


def test_every_kind_of_value_comes_back_as_it_was(fleet: Fleet) -> None:
    a, b = prepare(fleet.device()), prepare(fleet.device())
    values = [
        None,
        0,
        -(2**63),
        2**63 - 1,
        1.0,
        0.1,
        1e300,
        5e-324,
        "",
        "é\u2028'\"",
        b"",
        b"\0\xff",
    ]
    values += ['{"$blob": "AA=="}', "null", "1.0", 1e16, -1e18]
    for number, value in enumerate(values):
        a.execute("INSERT INTO marks VALUES (?, ?, ?)", (f"k'{number}\n", number, value))
    a.sync()
    b.sync()
    assert rows(a) == rows(b)
    assert len(rows(b)["marks"]) == len(values)


def _random_step(random: Random, device: rejoin.Database) -> None:
    """One statement of an app that knows nothing of sync."""
    id_, number = random.choice("abcde"), random.randrange(4)
    statement, params = random.choice(
        [
            (
                "INSERT OR IGNORE INTO tasks (id, title, votes) VALUES (?, ?, 1)",
                (id_, f"n{number}"),
            ),
            ("INSERT OR REPLACE INTO tasks (id, title) VALUES (?, ?)", (id_, f"r{number}")),
            ("UPDATE tasks SET title = ? WHERE id = ?", (f"u{number}", id_)),
            ("UPDATE tasks SET votes = votes + ? WHERE id = ?", (number - 1, id_)),
            ("UPDATE tasks SET done = ?, weight = ? WHERE id = ?", (number, number / 3, id_)),
            ("UPDATE tasks SET tags = ? WHERE id = ?", (_tags(random), id_)),
            ("DELETE FROM tasks WHERE id = ?", (id_,)),
            ("INSERT OR IGNORE INTO lists VALUES (?, ?)", (number, f"list {id_}")),
            (
                "UPDATE tasks SET list = ? WHERE id = ? AND ? IN (SELECT id FROM lists)",
                (number, id_, number),
            ),
            ("DELETE FROM lists WHERE id = ?", (number,)),
            (
                "INSERT INTO marks VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET mark = excluded.mark",
                (id_, number, random.choice([None, 1, 1.5, "x", b"y"])),
            ),
            ("DELETE FROM marks WHERE task = ?", (id_,)),
        ]
    )
    device.execute(statement, params)


def _tags(random: Random) -> str:
    return json.dumps(sorted(random.sample(["home", "work", "b", "c"], random.randrange(4))))


def _live_for_a_while(fleet: Fleet, random: Random, steps: int) -> None:
    for _ in range(steps):
        device = random.choice(fleet.devices)
        if random.random() < 0.2:
            sync(device)
        elif random.random() < 0.3:
            with device.transaction():
                for _ in range(3):
                    _random_step(random, device)
        else:
            _random_step(random, device)


def _random_history(client: FlaskClient, folder: Path, seed: int) -> None:
    random = Random(seed)
    folder.mkdir()
    fleet = Fleet(client, folder, seed)
    for skew in (0, YEAR_MS, -3_600_000):
        prepare(fleet.device(skew_ms=skew, lossy=True))
    _live_for_a_while(fleet, random, steps=80)
    fleet.settle()
    first, *others = fleet.devices
    for other in others:
        assert rows(other) == rows(first), f"seed {seed}"
        assert len(other.conflicts()) == len(first.conflicts()), f"seed {seed}"
    for device in fleet.devices:
        status = device.status()
        assert (status.pending, status.refused) == (0, []), f"seed {seed}"
        # A list deleted by one, and given a task by another meanwhile: the task has no place to be.
        assert all("FOREIGN KEY" in row.reason for row in status.aside), f"seed {seed}"
    fleet.close()


@pytest.mark.parametrize("seed", range(6))
def test_random_lives_on_a_bad_network_end_equal(
    client: FlaskClient, tmp_path: Path, seed: int
) -> None:
    _random_history(client, tmp_path / "lives", seed)


@pytest.mark.soak
@pytest.mark.parametrize("first", range(1000, 4000, 100))
def test_many_random_lives_on_a_bad_network_end_equal(
    client: FlaskClient, tmp_path: Path, first: int
) -> None:
    for seed in range(first, first + 20):
        _random_history(client, tmp_path / str(seed), seed)


def test_a_phone_restored_from_a_backup_and_its_twin_both_keep_what_they_wrote(
    fleet: Fleet, tmp_path: Path
) -> None:
    a = prepare(fleet.device())
    a.execute("INSERT INTO tasks (id, title, votes) VALUES ('t1', 'Milk', 1)")
    a.sync()
    a.close()
    shutil.copy(tmp_path / "device0.sqlite", tmp_path / "twin.sqlite")
    a = fleet.devices[0] = _opened_again(fleet, "device0.sqlite")
    twin = _opened_again(fleet, "twin.sqlite")
    fleet.devices.append(twin)
    a.execute("UPDATE tasks SET votes = votes + 10, title = 'of a'")
    twin.execute("UPDATE tasks SET votes = votes + 100, title = 'of twin'")
    twin.execute("INSERT INTO tasks (id, title) VALUES ('t2', 'twin only')")
    a.sync()
    twin.login(fleet.email, PASSWORD)
    twin.sync()
    a.login(fleet.email, PASSWORD)
    fleet.settle()
    assert rows(a) == rows(twin)
    assert a.execute("SELECT votes FROM tasks WHERE id = 't1'").fetchone() == (111,)
    (conflict,) = a.conflicts()
    assert {s.value for s in conflict.siblings} == {"of a", "of twin"}


def _opened_again(fleet: Fleet, file: str) -> rejoin.Database:
    from tests.edge.fleet import Network

    return rejoin.open(
        fleet.folder / file,
        http=Network(fleet.client),
        sleep=lambda _seconds: None,
        rand=fleet.random.random,
    )


def _chinook() -> Path | None:
    named = os.environ.get("REJOIN_TEST_CHINOOK")
    beside = Path(__file__).parents[3] / "shared" / "data" / "chinook.sqlite"
    return Path(named) if named else beside if beside.exists() else None


@pytest.mark.skipif(_chinook() is None, reason="REJOIN_TEST_CHINOOK names no database")
def test_a_real_database_goes_up_and_comes_down_whole_and_both_copies_meet(
    fleet: Fleet, tmp_path: Path
) -> None:
    source = _chinook()
    assert source is not None
    shutil.copy(source, tmp_path / "device0.sqlite")
    a = fleet.device()
    a.attach()
    a.sync()
    b = rejoin.clone(
        tmp_path / "clone.sqlite", "http://server.test", fleet.email, PASSWORD, http=a.http
    )
    fleet.devices.append(b)
    original = sqlite3.connect(source)
    count = sum(
        original.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608
        for name in rows(a)
    )
    original.close()
    assert sum(map(len, rows(a).values())) == count
    assert rows(a) == rows(b)
    a.execute("UPDATE Track SET UnitPrice = 1.29 WHERE Milliseconds > 300000")
    a.execute("DELETE FROM InvoiceLine WHERE InvoiceId < 20")
    a.execute("DELETE FROM Invoice WHERE InvoiceId < 20")
    b.execute("UPDATE Customer SET Company = NULL, City = upper(City) WHERE Country = 'Brazil'")
    b.execute("UPDATE Track SET Composer = 'unknown' WHERE Composer IS NULL")
    b.execute(
        "INSERT INTO PlaylistTrack SELECT 17, TrackId FROM Track WHERE TrackId > 3400"
        " ON CONFLICT DO NOTHING"
    )
    b.execute("DELETE FROM PlaylistTrack WHERE PlaylistId = 8")
    fleet.settle()
    assert rows(a) == rows(b)
    assert a.execute("PRAGMA foreign_key_check").fetchall() == []
