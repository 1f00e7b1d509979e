"""What an independent review of the device proved wrong, each as a device lives through it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from flask.testing import FlaskClient

import rejoin
from rejoin import HttpAnswer
from tests.edge.fleet import Fleet, Network, rows
from tests.edge.test_devices_and_the_server import Servers, servers
from tests.edge.test_devices_meet import prepare

__all__ = ["servers"]


@pytest.fixture
def fleet(client: FlaskClient, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(client, tmp_path)
    yield made
    made.close()


class Losing(Network):
    """Loses the answers to the next sync, as often as it is told to."""

    lose = 0

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpAnswer:
        answer = super().request(method, url, headers, body, timeout_s)
        if self.lose and url.endswith("/v1/sync"):
            self.lose -= 1
            raise ConnectionResetError("the answer was lost")
        return answer


def losing(device: rejoin.Database) -> Losing:
    assert isinstance(device.http, Network)
    device.http = Losing(device.http.client)
    return device.http


def offline(device: rejoin.Database) -> None:
    """A sync that arrives, and whose answer never does."""
    http = losing(device)
    http.lose = 100
    with pytest.raises(rejoin.Offline):
        device.sync()
    http.lose = 0


def test_a_copied_file_loses_no_row_that_a_request_had_no_room_for(
    fleet: Fleet, tmp_path: Path
) -> None:
    a = prepare(fleet.device(file="a.sqlite"))
    crew = a.create_space("Crew")
    a.connection.execute("CREATE TABLE plans (id TEXT PRIMARY KEY, text TEXT)")
    a.track("plans", space=crew)
    a.sync()
    a.connection.execute("PRAGMA wal_checkpoint")
    shutil.copy(tmp_path / "a.sqlite", tmp_path / "b.sqlite")
    b = fleet.device(file="b.sqlite")

    a.execute("INSERT INTO plans VALUES ('a', 'of the first')")
    a.sync()
    for number in range(1001):
        b.execute("INSERT INTO lists VALUES (?, 'x')", (number,))
    b.execute("INSERT INTO plans VALUES ('b', 'of its twin')")
    fleet.settle()

    assert a.execute("SELECT id FROM plans ORDER BY id").fetchall() == [("a",), ("b",)]
    assert rows(a) == rows(b)
    assert a.status().device_id != b.status().device_id


def test_own_changes_whose_answer_was_lost_count_once_though_they_wait_for_room(
    fleet: Fleet,
) -> None:
    a = prepare(fleet.device())
    crew = a.create_space("Crew")
    a.connection.execute("CREATE TABLE plans (id TEXT PRIMARY KEY, n INTEGER)")
    a.track("plans", space=crew, n="counter")
    a.execute("INSERT INTO plans VALUES ('p', 0)")
    a.sync()
    a.execute("UPDATE plans SET n = n + 1")
    offline(a)
    for number in range(1001):
        a.execute("INSERT INTO lists VALUES (?, 'x')", (number,))
    a.sync()
    a.execute("UPDATE plans SET n = n + 10")
    a.sync()
    assert a.execute("SELECT n FROM plans").fetchall() == [(11,)]
    assert a.status().pending == 0


def test_a_first_transfer_leaves_no_row_that_another_has_deleted_meanwhile(fleet: Fleet) -> None:
    x, y = prepare(fleet.device()), prepare(fleet.device())
    x.execute("INSERT INTO lists VALUES (1, 'of the first'), (2, 'stays')")
    offline(x)
    y.sync()
    y.execute("DELETE FROM lists WHERE id = 1")
    y.sync()
    x.execute("INSERT INTO lists VALUES (3, 'not sent yet')")
    fleet.settle()
    assert rows(x) == rows(y)
    assert x.execute("SELECT id FROM lists ORDER BY id").fetchall() == [(2,), (3,)]


def test_the_first_device_of_a_space_keeps_what_it_alone_has_written(fleet: Fleet) -> None:
    x, y = prepare(fleet.device()), prepare(fleet.device())
    x.execute("INSERT INTO tasks (id, title, votes, tags) VALUES ('t', 'x', 3, '[\"a\"]')")
    x.execute("UPDATE tasks SET votes = votes + 4")
    x.execute("INSERT INTO lists VALUES (1, 'x')")
    x.execute("DELETE FROM lists")
    x.sync()
    x.execute("UPDATE tasks SET votes = votes + 10")
    fleet.settle()
    assert rows(x) == rows(y)
    assert x.execute("SELECT title, votes, tags FROM tasks").fetchall() == [("x", 17, '["a"]')]
    assert x.execute("SELECT count(*) FROM lists").fetchone() == (0,)


def test_another_process_on_the_file_is_no_fork(fleet: Fleet, tmp_path: Path) -> None:
    a = prepare(fleet.device(file="a.sqlite"))
    a.sync()
    other = rejoin.open(tmp_path / "a.sqlite", http=a.http)
    fleet.devices.append(other)
    before = a.status().device_id

    class Slow(Network):
        """The other process syncs while the first request is on its way."""

        late = True

        def request(
            self,
            method: str,
            url: str,
            headers: Mapping[str, str],
            body: bytes | None,
            timeout_s: float,
        ) -> HttpAnswer:
            if url.endswith("/v1/sync") and self.late:
                self.late = False
                other.execute("INSERT INTO lists VALUES (2, 'of the second')")
                other.sync()
            return super().request(method, url, headers, body, timeout_s)

    assert isinstance(a.http, Network)
    a.http = Slow(a.http.client)
    a.execute("INSERT INTO lists VALUES (1, 'of the first')")
    a.sync()
    assert a.status().device_id == before
    assert a.status().pending == 0
    b = prepare(fleet.device())
    b.sync()
    assert b.execute("SELECT id FROM lists ORDER BY id").fetchall() == [(1,), (2,)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("REJOIN_LIMIT_CHANGES_PER_REQUEST", "7"),
        ("REJOIN_LIMIT_SPACES_PER_REQUEST", "1"),
        ("REJOIN_LIMIT_BODY_BYTES", "20000"),
        ("REJOIN_LIMIT_WORK_PER_REQUEST", "5"),
    ],
)
def test_a_server_with_lower_limits_gets_as_much_as_it_takes(
    servers: Servers, fresh_database: Callable[[], str], tmp_path: Path, setting: str, value: str
) -> None:
    fleet = Fleet(servers.on(fresh_database(), **{setting: value}), tmp_path)
    a, b = prepare(fleet.device()), prepare(fleet.device())
    crew = a.create_space("Crew")
    for device in (a, b):
        device.connection.execute("CREATE TABLE plans (id INTEGER PRIMARY KEY, text TEXT)")
        device.track("plans", space=crew)
    for number in range(60):
        a.execute("INSERT INTO lists VALUES (?, ?)", (number, "x" * 500))
        a.execute("INSERT INTO plans VALUES (?, ?)", (number, "y" * 100))
    a.sync()
    assert a.status().pending == 0
    b.sync()
    assert rows(a) == rows(b)
    assert len(rows(b)["plans"]) == 60
    fleet.close()


def test_an_insert_over_a_row_kept_aside_clears_nothing_that_nobody_here_saw(fleet: Fleet) -> None:
    a, b = fleet.device(), fleet.device()
    for device, unique in ((a, ""), (b, "UNIQUE")):
        device.connection.execute(
            f"CREATE TABLE people (id TEXT PRIMARY KEY, mail TEXT {unique}, note TEXT)"
        )
        device.track("people")
    b.execute("INSERT INTO people VALUES ('b', 'ada@example.org', NULL)")
    b.sync()
    a.execute("INSERT INTO people VALUES ('a', 'ada@example.org', 'acknowledged')")
    a.sync()
    a.execute("UPDATE people SET mail = 'ada@example.org' WHERE id = 'b'")
    b.sync()
    assert [one.id for one in b.status().aside] == ["a"]
    b.execute("INSERT INTO people VALUES ('a', 'bob@example.org', 'of the second')")
    b.sync()
    a.sync()
    notes = {s.value for c in a.conflicts() if c.column == "note" for s in c.siblings}
    assert notes == {"acknowledged", "of the second"}


def test_the_author_shows_sets_and_zeros_as_all_others_do(fleet: Fleet) -> None:
    a, b = prepare(fleet.device()), prepare(fleet.device())
    sets = [
        "[1.0]",
        "[-0.0]",
        '[1e2, {"b": 2.0, "a": [-0.0]}]',
        "[1e16, 0.5, 1e300]",
        '["\\u00e9"]',
    ]
    for number, text in enumerate(sets):
        a.execute("INSERT INTO tasks (id, tags) VALUES (?, ?)", (str(number), text))
    a.execute("INSERT INTO marks VALUES ('zero', 1, -0.0), ('none', 1, 0), ('real', 1, 0.0)")
    a.execute("UPDATE marks SET mark = -0.0 WHERE task = 'real'")
    fleet.settle()
    a.execute("UPDATE tasks SET tags = '[2.0,1]' WHERE id = '0'")
    fleet.settle()
    assert repr(rows(a)) == repr(rows(b))
    assert a.execute("SELECT tags FROM tasks WHERE id = '0'").fetchone() == ("[1,2]",)
    assert {repr(r[0]) for r in a.execute("SELECT mark FROM marks")} == {"0", "0.0"}
