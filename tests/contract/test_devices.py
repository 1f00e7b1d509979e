"""One's own devices: seen, and revoked at once."""

from __future__ import annotations

from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.auth import require_principal
from app.runtime import EXTENSION, Runtime
from tests.contract.people import Person, told


@pytest.fixture
def ada(client: FlaskClient) -> Person:
    return Person(client)


@pytest.fixture
def bob(client: FlaskClient) -> Person:
    return Person(client)


def test_the_list_shows_all_of_ones_own_devices_and_which_one_asks(
    ada: Person, bob: Person
) -> None:
    other = ada.log_in(device={"name": "tablet"}).json["device_id"]
    devices = ada.get("/v1/devices").json["devices"]
    assert {device["id"]: device["current"] for device in devices} == {
        ada.device_id: True,
        other: False,
    }
    assert len(bob.get("/v1/devices").json["devices"]) == 1


def test_times_are_milliseconds_of_the_servers_clock(
    app: Flask, ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime: Runtime = app.extensions[EXTENSION]
    monkeypatch.setattr(runtime, "clock", lambda: 1_900_000_000.123)
    ada.log_in()
    newest = ada.get("/v1/devices").json["devices"][-1]
    assert (newest["created_at"], newest["seen_at"]) == (1_900_000_000_123, 1_900_000_000_123)


def test_a_revoked_device_is_out_with_its_next_request(ada: Person) -> None:
    other = ada.log_in().json
    assert ada.delete(f"/v1/devices/{other['device_id']}").status_code == 204
    header = {"Authorization": f"Bearer {other['access_token']}"}
    told(ada.client.get("/v1/devices", headers=header), 401, "device_revoked")
    told(ada.client.post("/v1/spaces", headers=header, json={"name": "x"}), 401, "device_revoked")
    told(ada.refresh(other["refresh_token"]), 401, "device_revoked")
    assert ada.get("/v1/devices").json["devices"][-1]["revoked_at"] is not None


def test_revoking_may_be_repeated_and_keeps_its_first_time(ada: Person) -> None:
    other = ada.log_in().json["device_id"]
    seen = set()
    for _ in range(2):
        assert ada.delete(f"/v1/devices/{other}").status_code == 204
        seen.add(ada.get("/v1/devices").json["devices"][-1]["revoked_at"])
    assert len(seen) == 1


def test_a_device_may_revoke_itself(ada: Person) -> None:
    assert ada.delete(f"/v1/devices/{ada.device_id}").status_code == 204
    told(ada.get("/v1/devices"), 401, "device_revoked")


def test_another_users_device_can_not_be_told_from_none(ada: Person, bob: Person) -> None:
    others = told(bob.delete(f"/v1/devices/{ada.device_id}"), 404, "not_found")
    assert others == told(bob.delete(f"/v1/devices/{uuid4()}"), 404, "not_found")
    assert ada.get("/v1/devices").status_code == 200


@pytest.mark.parametrize("path", ["me", "1", "%00", "{}", "\ud7ff", "a" * 5_000, "..", "%2e%2e%2f"])
def test_what_is_no_id_is_not_found(ada: Person, path: str) -> None:
    assert ada.delete(f"/v1/devices/{path}").status_code in {404, 405}


def test_a_changed_role_is_in_force_at_once(app: Flask, ada: Person, engine: Engine) -> None:
    with (
        app.test_request_context(headers=ada.headers),
        engine.begin() as connection,
    ):
        assert require_principal(connection).role == "user"
        connection.execute(
            text("UPDATE users SET role = 'admin' WHERE id = :id"), {"id": ada.user_id}
        )
        assert require_principal(connection).role == "admin"
