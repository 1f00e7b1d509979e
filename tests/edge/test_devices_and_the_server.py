"""What happens to the server and to accounts, as devices with real files live through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.engine import make_url

import rejoin
from app import create_app
from app.runtime import EXTENSION
from app.settings import Settings
from storage.engine import make_engine
from storage.upkeep import start_next_epoch
from tests.conftest import _environment, _execute
from tests.edge.fleet import PASSWORD, Fleet, Network, rows
from tests.edge.test_devices_meet import prepare


@pytest.fixture
def fleet(client: FlaskClient, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(client, tmp_path)
    yield made
    made.close()


class Servers:
    """Servers one after the other, each on a database of its own."""

    def __init__(self, server: str, data: Path) -> None:
        self.server, self.data = server, data
        self.apps: list[Flask] = []
        self.copies: list[str] = []

    def on(self, database: str, **more: str) -> FlaskClient:
        app = create_app(Settings.from_environ(_environment(database, self.data) | more))
        self.apps.append(app)
        return app.test_client()

    def stop(self) -> None:
        for app in self.apps:
            app.extensions[EXTENSION].close()

    def backup(self, database: str) -> str:
        """A copy of the database as it is now; the servers on it pause."""
        self.stop()
        url = make_url(database)
        name = f"{url.database}_backup_{len(self.copies)}"
        _execute(self.server, f"CREATE DATABASE {name} TEMPLATE {url.database}")
        self.copies.append(name)
        return url.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def servers(postgres_server: str, tmp_path: Path) -> Iterator[Servers]:
    made = Servers(postgres_server, tmp_path / "data")
    yield made
    made.stop()
    for name in made.copies:
        _execute(postgres_server, f"DROP DATABASE {name} WITH (FORCE)")


def test_devices_give_back_what_a_restored_backup_does_not_have(
    servers: Servers, fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    database = fresh_database()
    fleet = Fleet(servers.on(database), tmp_path)
    a, b = prepare(fleet.device()), prepare(fleet.device())
    a.execute("INSERT INTO tasks (id, title, votes) VALUES ('t1', 'Milk', 1)")
    fleet.settle()
    backup = servers.backup(database)
    a.execute("UPDATE tasks SET votes = votes + 10")
    a.execute("INSERT INTO tasks (id, title) VALUES ('t2', 'after the backup')")
    fleet.settle()
    b.execute("UPDATE tasks SET title = 'Oat milk' WHERE id = 't1'")
    b.execute("DELETE FROM tasks WHERE id = 't2'")
    b.sync()
    late = prepare(fleet.device())
    late.execute("INSERT INTO lists VALUES (1, 'by a device that the backup never met')")
    late.sync()
    a.execute("UPDATE tasks SET votes = votes + 100")

    engine = make_engine(backup, 1)
    with engine.begin() as connection:
        start_next_epoch(connection)
    engine.dispose()
    restored = servers.on(backup)
    for device in fleet.devices:
        device.http.client = restored
        device.login(fleet.email, PASSWORD)
    fleet.settle()

    assert rows(a) == rows(b) == rows(late)
    assert a.execute("SELECT title, votes FROM tasks WHERE id = 't1'").fetchall() == [
        ("Oat milk", 111)
    ]
    assert a.execute("SELECT count(*) FROM lists").fetchone() == (1,)
    assert [device.status().refused for device in fleet.devices] == [[], [], []]
    fleet.close()


def test_what_is_too_much_work_for_one_request_goes_with_the_next(
    servers: Servers, fresh_database: Callable[[], str], tmp_path: Path
) -> None:
    fleet = Fleet(servers.on(fresh_database(), REJOIN_LIMIT_WORK_PER_REQUEST="20"), tmp_path)
    a, b = prepare(fleet.device()), prepare(fleet.device())
    for number in range(100):
        a.execute("INSERT INTO lists VALUES (?, 'x')", (number,))
    a.sync()
    assert a.status().pending == 0
    b.sync()
    assert rows(a) == rows(b)
    fleet.close()


def test_a_withdrawn_space_goes_from_the_device_and_its_refused_edits_are_listed(
    fleet: Fleet, client: FlaskClient, tmp_path: Path
) -> None:
    owner = prepare(fleet.device())
    crew = owner.create_space("Crew")
    guests = Fleet(client, tmp_path / "guests")
    guests.folder.mkdir()
    guest = guests.device()
    owner.share(crew, guests.email, "editor")
    for device in (owner, guest):
        device.connection.execute("CREATE TABLE plans (id TEXT PRIMARY KEY, text TEXT)")
        device.track("plans", space=crew)
    owner.execute("INSERT INTO plans VALUES ('p1', 'secret')")
    owner.sync()
    guest.sync()
    assert rows(guest)["plans"] != []
    http = guest.http
    assert isinstance(http, Network)
    token = _token(owner)
    gone = client.delete(f"/v1/spaces/{crew}/members/{guests.email}", headers=token)
    assert gone.status_code == 204
    guest.execute("UPDATE plans SET text = 'too late'")
    guest.sync()
    assert rows(guest)["plans"] == []
    assert "withdrawn" in str(guest.status())
    guests.close()


def test_a_revoked_device_keeps_its_data_and_goes_on_when_it_logs_in_again(
    fleet: Fleet, client: FlaskClient
) -> None:
    a, b = prepare(fleet.device()), prepare(fleet.device())
    b.execute("INSERT INTO tasks (id, title) VALUES ('t1', 'written before')")
    b.sync()
    lost = b.status().device_id
    assert client.delete(f"/v1/devices/{lost}", headers=_token(a)).status_code == 204
    b.execute("UPDATE tasks SET title = 'written after'")
    with pytest.raises(rejoin.NotLoggedIn):
        b.sync()
    assert b.status().pending == 1
    b.login(fleet.email, PASSWORD)
    fleet.settle()
    assert b.status().device_id != lost
    assert rows(a) == rows(b)
    assert a.execute("SELECT title FROM tasks").fetchall() == [("written after",)]


def test_an_expired_token_is_renewed_on_the_way(
    fleet: Fleet, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = prepare(fleet.device())
    monkeypatch.setitem(app.config, "JWT_ACCESS_TOKEN_EXPIRES", timedelta(seconds=-60))
    a.login(fleet.email, PASSWORD)
    monkeypatch.undo()
    a.execute("INSERT INTO lists VALUES (1, 'x')")
    expired = _token(a)
    a.sync()
    assert a.status().pending == 0
    assert _token(a) != expired


def _token(device: rejoin.Database) -> dict[str, str]:
    from rejoin.schema import get_meta

    return {"Authorization": f"Bearer {get_meta(device._db, 'access_token')}"}
