"""Customers of a live server, in the trouble that customers are in: for pages to be looked at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import sin
from typing import Any

from sqlalchemy import Engine, text

from app import passwords
from storage import accounts
from tests.contract.devices import PASSWORD, Phone, add, delete, increment, phone, put

LONG = "Großtante Wilhelmina-Charlotte's second-hand tablet in the kitchen beside the window"


@dataclass
class Town:
    """Some devices by what ails them, and who looks after them."""

    phones: dict[str, Phone]
    healthy: Phone
    user: str
    admin: str


def town(http: Any, engine: Engine) -> Town:
    """Ada's family, with nearly all that can go wrong."""
    ada = _customer(http, "ada.lovelace@example.org")
    phones = {
        "phone": phone(http, ada, name="Ada's Phone", platform="iOS 19.1", app_version="4.2.0")
    }
    first = phones["phone"]
    phones["tablet"] = _another(http, first, LONG, "Android 16", "4.1.3-beta+build.20261122.1")
    phones["laptop"] = _another(http, first, "Laptop", "macOS 26", "4.2.0")
    phones["markup"] = _another(http, first, "<script>alert(1)</script>", "<b>web</b>", "")
    _shopping(phones)
    _an_afternoon(engine)
    with engine.connect() as connection:
        found = text("SELECT user_id FROM devices WHERE id = :id")
        user = str(connection.execute(found, {"id": first.device}).scalar_one())
    admin = new_staff(engine, "admin", "agent@example.org")
    _asked_to_reset(phone(http, admin), phones["laptop"])
    return Town(phones, _notes(http), user, admin)


def _customer(http: Any, email: str) -> str:
    made = http.post("/v1/auth/signup", json={"email": email, "password": PASSWORD})
    assert made.status_code == 201
    return email


def _an_afternoon(engine: Engine) -> None:
    """Traffic of the last three hours: a chart of one minute shows nothing."""
    now = int(time.time() * 1000) // 60_000 * 60_000
    rows = [
        {"minute": now - ago * 60_000, "n": round(60 + 40 * sin(ago / 17) + 20 * sin(ago / 3))}
        for ago in range(2, 180)
    ]
    insert = text(
        "INSERT INTO traffic (minute, requests, changes, bytes, records, refused)"
        " VALUES (:minute, :n, 3 * :n, 700 * :n, 2 * :n, :n / 40)"
    )
    with engine.begin() as connection:
        connection.execute(insert, rows)


def _asked_to_reset(agent: Phone, device: Phone) -> None:
    path = f"/v1/admin/devices/{device.device}/reset"
    assert agent.post(path, {"reason": "Its list looked empty to the customer"}).status_code == 200


def _another(http: Any, first: Phone, name: str, platform: str, version: str) -> Phone:
    return phone(http, first.email, name=name, platform=platform, app_version=version)


def _made(device: Phone, *ops: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A change made a little ago."""
    return device.change(*ops, **{"at": int(time.time() * 1000) - 60_000, **more})


def _shopping(phones: dict[str, Phone]) -> None:
    """Two edit apart and meet in conflict; one sends what can't be applied."""
    one, other, third = phones["phone"], phones["tablet"], phones["laptop"]
    made = [put(f"item-{n}", new=True, title=f"Item {n}", done=False) for n in range(40)]
    one.sync(*[_made(one, op) for op in made])
    one.sync(_made(one, increment("item-1", "votes", 2), add("item-1", "tags", "cold", "white")))
    for device in (other, third):
        device.sync()
        device.sync()
    one.sync(_made(one, put("item-1", title="Oat milk")), _made(one, delete("item-9")))
    other.sync(_made(other, put("item-1", title="Soy milk", note="from the market")))
    one.sync(_made(one, put("item-2", title="Bread")))
    third.sync(_made(third, put("item-2", title="Rye bread")))
    other.sync(
        {**_made(other), "ops": [put("item-3", title="Tea")], "context": {"cursor": 10**9}},
        _made(other, increment("item-1", "title", 1), put("item-1", note="two boxes")),
        _made(other, put("item-4", title="Coffee")),
    )
    third.sync()
    third.sync(_made(third, put("item-1", title="Milk")), _made(third, put("item-1", done=True)))
    one.sync(*[_made(one, put(f"item-{n}", done=True)) for n in range(10, 30)])
    one.sync(_made(one, put(LONG, new=True, **{LONG.replace(" ", ""): LONG * 3})))
    one.post("/v1/sync", {"sent_at": int(time.time() * 1000) - 200_000, "spaces": {}})


def _notes(http: Any) -> Phone:
    """Others, whose devices do what they should; the last of these."""
    for name in ("Grace", "Edsger", "Barbara"):
        email = _customer(http, f"{name.lower()}@example.org")
        made = phone(
            http, email, name=f"{name}'s Phone", platform="Android 16", app_version="4.2.0"
        )
        made.sync(_made(made, put("n1", new=True, collection="notes", title="Hello")))
    return made


def new_staff(engine: Engine, role: str, email: str = "") -> str:
    """The email of a new account with the role."""
    email = email or f"{role}-{time.time_ns()}@example.org"
    with engine.begin() as connection:
        accounts.create_user(connection, email, passwords.hashed(PASSWORD), role)
    return email
