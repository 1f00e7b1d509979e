"""A database restored from a backup: what it lost, the devices give back; nobody starts anew
who need not, and nobody's context claims what is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy.engine import make_url

from app import create_app
from app.runtime import EXTENSION
from app.settings import Settings
from storage.engine import make_engine, one_statement
from storage.sql import cursor
from storage.upkeep import start_next_epoch
from tests.conftest import DatabaseMaker
from tests.contract.devices import PASSWORD, Phone, delete, increment, phone, put

Copier = Callable[[str], str]


@pytest.fixture
def copied(postgres_server: str) -> Iterator[Copier]:
    """A function that copies a database that nobody uses: a backup, or a restored one."""
    engine = make_engine(postgres_server, 1, statement_timeout_ms=0)
    made: list[str] = []

    def execute(statement: str) -> None:
        with one_statement(engine) as connection:
            cursor(connection).execute(statement.encode())

    def copy(url: str) -> str:
        name = make_url(url).database
        made.append(f"{name}_kept_{len(made)}")
        execute(f"CREATE DATABASE {made[-1]} TEMPLATE {name}")
        return make_url(url).set(database=made[-1]).render_as_string(hide_password=False)

    yield copy
    for name in made:
        execute(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


class Site:
    """One service, whose database may be put back to an older state under its devices."""

    def __init__(self, settings: Settings, url: str, copy: Copier) -> None:
        self._settings, self._url, self._copy = settings, url, copy
        self.phones: list[Phone] = []

    @contextmanager
    def serving(self) -> Iterator[FlaskClient]:
        app = create_app(replace(self._settings, database_url=self._url))
        client = app.test_client()
        for each in self.phones:
            each.http = client
        yield client
        app.extensions[EXTENSION].close()

    def backup(self) -> str:
        return self._copy(self._url)

    def restore(self, backup: str, at_least: int = 1) -> int:
        """As an operator does it: put the backup in place, `python -m app restored`, serve."""
        self._url = self._copy(backup)
        engine = make_engine(self._url, 1)
        with engine.begin() as connection:
            spaces = start_next_epoch(connection, at_least)
        engine.dispose()
        return spaces


@pytest.fixture
def site(settings: Settings, fresh_database: DatabaseMaker, copied: Copier) -> Site:
    return Site(settings, fresh_database(), copied)


class Crew:
    """Two devices of one user, a backup, and what came after it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        with site.serving() as client:
            self.a = phone(client)
            self.b = phone(client, self.a.email)
            site.phones += [self.a, self.b]
            self.kept = [
                self.a.change(put("t", new=True, title="kept", note="kept")),
                self.a.change(increment("t", "votes", 1)),
            ]
            self.a.sync(*self.kept)
            self.b.sync()
        self.backup = site.backup()
        with site.serving():
            self.lost = [
                self.a.change(put("t", title="lost")),
                self.a.change(increment("t", "votes", 10)),
                self.a.change(put("u", new=True, title="lost")),
            ]
            self.a.sync(*self.lost)

    def records(self) -> dict[str, Any]:
        return {key[1]: record for key, record in self.a.pull_all().items()}


@pytest.fixture
def crew(site: Site) -> Crew:
    return Crew(site)


def test_devices_give_back_what_the_server_lost(crew: Crew) -> None:
    a = crew.a
    assert crew.site.restore(crew.backup) == 1
    with crew.site.serving():
        mine = a.change(increment("t", "votes", 100))
        gap = a.sync(mine)["error"]
        assert (gap["code"], gap["expected"]) == ("counter_gap", 3)
        answer = a.sync(*crew.lost, mine)
        assert (answer["accepted"], answer["epoch"], answer["head"]) == (6, 2, 6)
        again = a.sync(*crew.lost, mine)
        assert (again["accepted"], again["head"]) == (6, 6), "and once is enough"
        fields = {id_: record["fields"] for id_, record in crew.records().items()}
        assert fields == {
            "t": {"title": "lost", "note": "kept", "votes": 111},
            "u": {"title": "lost"},
        }


def test_a_device_with_nothing_to_push_learns_it_from_accepted(crew: Crew) -> None:
    crew.site.restore(crew.backup)
    with crew.site.serving():
        assert crew.a.sync()["accepted"] == 2
        assert crew.a.sync(*crew.lost)["accepted"] == 5


def test_a_cursor_above_the_head_is_reset_and_one_below_goes_on(crew: Crew) -> None:
    a, b = crew.a, crew.b
    assert (a.cursor, b.cursor) == (5, 2)
    crew.site.restore(crew.backup)
    with crew.site.serving():
        went_on = b.sync(b.change(put("v", new=True)))
        assert (went_on["reset"], went_on["epoch"]) == (False, 2)
        assert {r["id"] for r in went_on["records"]} <= {"v"}, "what it has is not sent again"
        reset = a.sync()
        assert (reset["reset"], reset["cursor"]) == (True, 3)
        assert [r["id"] for r in reset["records"]] == ["t", "v"]
        assert a.sync()["reset"] is False


def test_a_lost_cursor_is_reset_even_when_the_new_head_has_passed_it(crew: Crew) -> None:
    crew.site.restore(crew.backup)
    with crew.site.serving():
        crew.b.sync(*[crew.b.change(put(f"v{n}", new=True)) for n in range(9)])
        pulled = crew.a.get("/v1/spaces/me/pull", cursor=5, epoch=1).json
        assert (pulled["reset"], len(pulled["records"])) == (True, 10)
        answer = crew.a.sync(*crew.lost)
        assert (answer["reset"], len(answer["records"])) == (True, 11)


def test_a_context_of_the_lost_epoch_is_cut_down_to_what_survived(crew: Crew) -> None:
    a, b = crew.a, crew.b
    with crew.site.serving():
        b.sync()
        # b has seen all: in the history that there was, it overwrites.
        seen_all = b.change(put("t", title="b", note="b"))
        assert seen_all["context"] == {"epoch": 1, "cursor": 5}
    crew.site.restore(crew.backup)
    with crew.site.serving():
        b.sync()
        assert b.sync(seen_all)["accepted"] == 1
        a.sync(*crew.lost)
        record = crew.records()["t"]
        assert record["fields"]["note"] == "b", "it had seen the note, which survived"
        sides = {side["value"] for side in record["conflicts"]["title"]}
        assert sides == {"lost", "b"}, "the title that it had seen was written anew"
        assert "note" not in record["conflicts"]
        logged = b.get("/v1/spaces/me/log", after=2, limit=1).json["changes"][0]
        assert logged["context"]["cursor"] == 2


def test_a_clock_that_names_lost_changes_is_cut_and_not_refused(crew: Crew) -> None:
    a, b = crew.a, crew.b
    context = {"epoch": 1, "cursor": 2, "clock": {a.device: 5}}
    stranger = {"epoch": 1, "cursor": 2, "clock": {"00000000-0000-4000-8000-000000000000": 7}}
    crew.site.restore(crew.backup)
    with crew.site.serving():
        first, second = (
            b.change(put("t", note=n), context=c) for n, c in enumerate((context, stranger))
        )
        answer = b.sync(first, second)
        assert (answer["accepted"], answer["rejected"]) == (2, [])
        a.sync(*crew.lost)
        refused = b.sync(b.change(put("t", note="x"), context={**stranger, "epoch": 2}))
        assert refused["rejected"][0]["error"]["code"] == "bad_context"


def test_what_a_device_has_no_more_it_names_discarded_and_goes_on(crew: Crew) -> None:
    a = crew.a
    crew.site.restore(crew.backup)
    with crew.site.serving():
        mine = a.change(put("w", new=True))
        answer = a.sync(crew.lost[2], mine, discarded=4)
        assert answer["accepted"] == 6
        outcomes = a.get("/v1/spaces/me/outcomes", after=2).json["outcomes"]
        assert outcomes[0] == {"counter": 3, "outcome": "discarded", "last": 4}
        assert [o["counter"] for o in outcomes[1:]] == [5, 6]
        assert a.sync(*crew.lost[:2], crew.lost[2])["error"]["code"] == "device_fork"


def test_a_device_that_the_backup_does_not_know_logs_in_under_its_old_id(crew: Crew) -> None:
    with crew.site.serving() as client:
        c = phone(client, crew.a.email)
        crew.site.phones.append(c)
        c.sync()
        made = c.change(put("c", new=True, by="c"))
        c.sync(made)
    crew.site.restore(crew.backup)
    with crew.site.serving() as client:
        told = c.post("/v1/sync", {"spaces": {"me": {"changes": [made]}}})
        assert (told.status_code, told.json["code"]) == (401, "token_invalid")
        body = {"email": c.email, "password": PASSWORD, "device_id": c.device}
        login = client.post("/v1/auth/login", json=body)
        assert (login.status_code, login.json["device_id"]) == (200, c.device)
        c.token = login.json["access_token"]
        assert c.sync(made)["accepted"] == 1
        assert crew.records()["c"]["fields"] == {"by": "c"}


def test_a_rejection_that_was_lost_is_given_again(site: Site) -> None:
    with site.serving() as client:
        a = phone(client)
        site.phones.append(a)
    backup = site.backup()
    with site.serving():
        bad, fine = a.change({"op": "fly"}), a.change(put("t", new=True))
        before = a.sync(bad, fine)
    site.restore(backup)
    with site.serving():
        after = a.sync(bad, fine)
        assert (after["accepted"], after["rejected"]) == (2, before["rejected"])


def test_a_deletion_given_back_still_deletes_only_what_it_had_seen(crew: Crew) -> None:
    a, b = crew.a, crew.b
    with crew.site.serving():
        a.sync()
        gone = a.change(delete("t"))
        a.sync(gone)
    crew.site.restore(crew.backup)
    with crew.site.serving():
        b.sync(b.change(put("t", note="b, who never heard of it")))
        a.sync(*crew.lost, gone)
        assert crew.records()["t"]["fields"]["note"] == "b, who never heard of it"


def test_a_second_restore_of_the_same_backup_starts_an_epoch_of_its_own(crew: Crew) -> None:
    a, b = crew.a, crew.b
    crew.site.restore(crew.backup)
    with crew.site.serving():
        a.sync(*crew.lost)
        b.sync()
        assert (a.epoch, b.epoch) == (2, 2)
        between = b.change(put("t", note="between"))
        b.sync(between)
    crew.site.restore(crew.backup, at_least=3)
    with crew.site.serving():
        assert b.sync(between)["accepted"] == 1
        assert b.epoch == 3
        a.sync(*crew.lost)
        a.sync()
        b.sync()
        assert (a.epoch, a.cursor) == (b.epoch, b.cursor) == (3, 6)
        assert crew.records()["t"]["fields"] == {"title": "lost", "note": "between", "votes": 11}
