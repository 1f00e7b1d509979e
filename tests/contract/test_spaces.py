"""Shared spaces: who is in, who may do what, and who learns nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from uuid import UUID, uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine
from werkzeug.test import TestResponse

from app.rights import RIGHTS
from app.runtime import EXTENSION, Runtime
from storage import memberships
from storage.attempts import FREE_MISSES
from tests.contract.people import Person, new_email, told, until_someone_waits


@pytest.fixture
def ada(client: FlaskClient) -> Person:
    return Person(client)


@pytest.fixture
def bob(client: FlaskClient) -> Person:
    return Person(client)


@pytest.fixture
def eve(client: FlaskClient) -> Person:
    return Person(client)


@pytest.fixture
def crew(ada: Person) -> str:
    """A space of Ada's, by its path."""
    return f"/v1/spaces/{ada.post('/v1/spaces', name='Crew').json['id']}"


def _roles(person: Person, space: str) -> dict[str, str]:
    members = person.get(f"{space}/members").json["members"]
    return {member["email"]: member["role"] for member in members}


def test_who_makes_a_space_owns_it(ada: Person) -> None:
    made = ada.post("/v1/spaces", name="Crew")
    assert made.status_code == 201
    assert (made.json["name"], made.json["role"]) == ("Crew", "owner")
    personal, shared = ada.get("/v1/spaces").json["spaces"]
    assert personal["personal"]
    assert (shared["id"], shared["personal"], shared["head"]) == (made.json["id"], False, 0)


def test_the_rights_of_the_roles_are_these() -> None:
    assert {role: sorted(actions) for role, actions in RIGHTS.items()} == {
        "owner": ["manage", "read", "write"],
        "editor": ["read", "write"],
        "viewer": ["read"],
    }


def test_an_owner_adds_members_and_changes_their_roles(ada: Person, bob: Person, crew: str) -> None:
    for role in ("viewer", "editor", "owner", "viewer"):
        answer = ada.put(f"{crew}/members/{bob.email.upper()}", role=role)
        assert answer.json == {"user_id": str(bob.user_id), "email": bob.email, "role": role}
        assert _roles(bob, crew) == {ada.email: "owner", bob.email: role}
    assert bob.get("/v1/spaces").json["spaces"][1]["role"] == "viewer"


@pytest.mark.parametrize("role", ["editor", "viewer"])
def test_only_owners_manage(ada: Person, bob: Person, eve: Person, crew: str, role: str) -> None:
    ada.put(f"{crew}/members/{bob.email}", role=role)
    told(bob.put(f"{crew}/members/{eve.email}", role="viewer"), 403, "forbidden")
    told(bob.put(f"{crew}/members/{bob.email}", role="owner"), 403, "forbidden")
    told(bob.delete(f"{crew}/members/{ada.email}"), 403, "forbidden")
    assert _roles(ada, crew) == {ada.email: "owner", bob.email: role}


def test_who_is_no_owner_learns_of_no_account(ada: Person, bob: Person, crew: str) -> None:
    ada.put(f"{crew}/members/{bob.email}", role="editor")
    known = told(bob.delete(f"{crew}/members/{ada.email}"), 403, "forbidden")
    assert known == told(bob.delete(f"{crew}/members/{new_email()}"), 403, "forbidden")


def test_a_stranger_can_not_tell_a_space_from_none(ada: Person, eve: Person, crew: str) -> None:
    nowhere = f"/v1/spaces/{uuid4()}"
    mine = f"/v1/spaces/{ada.session['personal_space']}"
    for space in (crew, mine, nowhere):
        told(eve.get(f"{space}/members"), 404, "not_found")
        told(eve.put(f"{space}/members/{eve.email}", role="owner"), 404, "not_found")
        told(eve.delete(f"{space}/members/{ada.email}"), 404, "not_found")


def test_a_withdrawn_member_is_told_so_and_may_come_back(
    ada: Person, bob: Person, crew: str
) -> None:
    ada.put(f"{crew}/members/{bob.email}", role="editor")
    for _ in range(2):
        assert ada.delete(f"{crew}/members/{bob.email}").status_code == 204
    told(bob.get(f"{crew}/members"), 403, "forbidden")
    told(bob.delete(f"{crew}/members/{bob.email}"), 403, "forbidden")
    assert len(bob.get("/v1/spaces").json["spaces"]) == 1
    assert _roles(ada, crew) == {ada.email: "owner"}
    ada.put(f"{crew}/members/{bob.email}", role="viewer")
    assert _roles(bob, crew)[bob.email] == "viewer"


@pytest.mark.parametrize("role", ["owner", "editor", "viewer"])
def test_every_member_may_leave(ada: Person, bob: Person, crew: str, role: str) -> None:
    ada.put(f"{crew}/members/{bob.email}", role=role)
    assert bob.delete(f"{crew}/members/{bob.email}").status_code == 204
    assert _roles(ada, crew) == {ada.email: "owner"}


def test_the_last_owner_stays(ada: Person, bob: Person, crew: str) -> None:
    ada.put(f"{crew}/members/{bob.email}", role="editor")
    told(ada.put(f"{crew}/members/{ada.email}", role="editor"), 409, "last_owner")
    told(ada.delete(f"{crew}/members/{ada.email}"), 409, "last_owner")
    assert ada.put(f"{crew}/members/{ada.email}", role="owner").status_code == 200
    assert _roles(ada, crew)[ada.email] == "owner"


def test_two_owners_who_remove_each_other_at_once_leave_one(
    app: Flask, ada: Person, bob: Person
) -> None:
    for method in 6 * ["DELETE", "PUT"]:
        space = f"/v1/spaces/{ada.post('/v1/spaces', name='Crew').json['id']}"
        ada.put(f"{space}/members/{bob.email}", role="owner")

        def remove(pair: tuple[Person, Person], method: str = method, space: str = space) -> int:
            asker, other = pair
            path = f"{space}/members/{other.email}"
            body = {"role": "viewer"} if method == "PUT" else None
            client = app.test_client()
            return client.open(path, method=method, headers=asker.headers, json=body).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(remove, [(ada, bob), (bob, ada)]))
        assert statuses[0] in {200, 204}
        assert statuses[1] in {403, 409}
        lists = [person.get(f"{space}/members") for person in (ada, bob)]
        roles = next(answer.json["members"] for answer in lists if answer.status_code == 200)
        assert [one["role"] for one in roles].count("owner") == 1


@pytest.mark.parametrize("method", ["DELETE", "PUT"])
def test_who_is_no_owner_any_more_when_it_is_their_turn_changes_nothing(
    app: Flask, engine: Engine, ada: Person, bob: Person, eve: Person, crew: str, method: str
) -> None:
    for person in (bob, eve):
        ada.put(f"{crew}/members/{person.email}", role="owner")
    space_id = UUID(crew.rpartition("/")[2])
    path, body = f"{crew}/members/{eve.email}", {"role": "viewer"}

    def remove_eve() -> TestResponse:
        json = body if method == "PUT" else None
        return app.test_client().open(path, method=method, headers=bob.headers, json=json)

    with ThreadPoolExecutor(1) as pool, engine.connect() as first:
        memberships.lock_owners(first, space_id)
        answer = pool.submit(remove_eve)
        until_someone_waits(engine)
        memberships.set_member(first, space_id, bob.user_id, "viewer")
        first.commit()
        told(answer.result(), 403, "forbidden")
    assert _roles(ada, crew)[eve.email] == "owner"


def test_who_names_many_emails_that_have_no_account_has_to_wait(
    app: Flask, monkeypatch: pytest.MonkeyPatch, ada: Person, bob: Person, eve: Person, crew: str
) -> None:
    runtime: Runtime = app.extensions[EXTENSION]
    monkeypatch.setattr(runtime, "settings", replace(runtime.settings, rate_limits=True))
    monkeypatch.setattr(runtime, "clock", lambda: 1_800_000_000.0)

    def put(email: str, person: Person = ada) -> TestResponse:
        return person.put(f"{crew}/members/{email}", role="owner")

    for _ in range(FREE_MISSES + 5):
        assert put(bob.email).status_code == 200, "who is there is no guess"
        told(put(new_email(), eve), 404, "not_found")
    for number in range(FREE_MISSES):
        told(put(new_email() if number % 2 else "no email"), 404, "not_found")
    for email in (new_email(), bob.email):
        problem = told(put(email), 429, "too_many_attempts")
        assert problem["retry_after"] == 2
    assert put(eve.email, bob).status_code == 200
    told(put(new_email(), eve), 404, "not_found")


def test_a_removal_does_not_tell_who_has_an_account(ada: Person, bob: Person, crew: str) -> None:
    known = told(ada.delete(f"{crew}/members/{bob.email}"), 404, "not_found")
    assert known == told(ada.delete(f"{crew}/members/{new_email()}"), 404, "not_found")


def test_a_personal_space_has_its_owner_alone(ada: Person, bob: Person) -> None:
    by_id = f"/v1/spaces/{ada.session['personal_space']}"
    for space in ("/v1/spaces/me", by_id):
        assert _roles(ada, space) == {ada.email: "owner"}
        told(ada.put(f"{space}/members/{bob.email}", role="viewer"), 409, "personal_space")
        told(ada.put(f"{space}/members/{ada.email}", role="viewer"), 409, "personal_space")
        told(ada.delete(f"{space}/members/{ada.email}"), 409, "personal_space")


def test_an_email_without_an_account_is_not_found(ada: Person, bob: Person, crew: str) -> None:
    unknown = [new_email(), "nobody", "%00", "a%00@example.org", "%ff%fe", "a" * 2_000, "a/b@c.de"]
    for email in unknown:
        told(ada.put(f"{crew}/members/{email}", role="viewer"), 404, "not_found")
        told(ada.delete(f"{crew}/members/{email}"), 404, "not_found")
    told(ada.delete(f"{crew}/members/{bob.email}"), 404, "not_found")


def test_an_email_may_hold_what_a_path_has_to_escape(
    ada: Person, crew: str, client: FlaskClient
) -> None:
    odd = Person(client, new_email().replace("@", "/?#%+'@"))
    path = odd.email.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    assert ada.put(f"{crew}/members/{path}", role="viewer").status_code == 200
    assert odd.email in _roles(ada, crew)


@pytest.mark.parametrize("space", ["1", "ME", "None", "%00", "a" * 40, "00000000-0000-0000-0000"])
def test_a_space_that_is_no_id_is_not_found(ada: Person, space: str) -> None:
    told(ada.get(f"/v1/spaces/{space}/members"), 404, "not_found")


NAMES = ["", None, 7, [], {}, "x" * 201, True]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_has_1_to_200_characters(ada: Person, name: object) -> None:
    told(ada.post("/v1/spaces", name=name), 400, "malformed_request")
    assert len(ada.get("/v1/spaces").json["spaces"]) == 1


@pytest.mark.parametrize("name", ["\0", "a\ud800"])
def test_a_name_that_the_database_can_not_hold_is_refused(ada: Person, name: str) -> None:
    told(ada.post("/v1/spaces", name=name), 400, "invalid_text")
    assert len(ada.get("/v1/spaces").json["spaces"]) == 1


@pytest.mark.parametrize("role", ["admin", "", None, 1, ["owner"], {"a": 1}, "owner\0", "\ud800"])
def test_a_role_is_one_of_three(ada: Person, bob: Person, crew: str, role: object) -> None:
    told(ada.put(f"{crew}/members/{bob.email}", role=role), 400, "malformed_request")
    assert _roles(ada, crew) == {ada.email: "owner"}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *product(["GET", "POST"], ["/v1/spaces"]),
        ("GET", "/v1/spaces/me/members"),
        ("PUT", "/v1/spaces/me/members/a@b.de"),
        ("DELETE", "/v1/spaces/me/members/a@b.de"),
        ("GET", "/v1/devices"),
        ("DELETE", f"/v1/devices/{uuid4()}"),
    ],
)
def test_every_door_asks_for_a_token(client: FlaskClient, method: str, path: str) -> None:
    body = {"role": "owner"} if method == "PUT" else {"name": "x"}
    answer = client.open(path, method=method, json=body if method in {"PUT", "POST"} else None)
    told(answer, 401, "token_missing")
