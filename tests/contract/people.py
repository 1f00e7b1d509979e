"""Accounts for tests: someone who has signed up and logged in, and speaks JSON."""

from __future__ import annotations

import itertools
import os
import time
from typing import Any
from uuid import UUID

from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

PASSWORD = "correct horse battery staple"
_number = itertools.count()


def new_email() -> str:
    return f"person-{os.getpid()}-{next(_number)}@example.org"


class Person:
    """One account with one device that is logged in."""

    def __init__(self, client: FlaskClient, email: str | None = None) -> None:
        self.client = client
        self.email = email or new_email()
        made = self.call("POST", "/v1/auth/signup", email=self.email, password=PASSWORD)
        assert made.status_code == 201, made.text
        self.user_id = UUID(made.json["user_id"])
        self.session: dict[str, Any] = self.log_in().json

    def log_in(self, *, password: str = PASSWORD, **members: object) -> TestResponse:
        return self.call("POST", "/v1/auth/login", email=self.email, password=password, **members)

    @property
    def device_id(self) -> str:
        return str(self.session["device_id"])

    def refresh(self, token: str | None = None) -> TestResponse:
        token = token or str(self.session["refresh_token"])
        return self.call("POST", "/v1/auth/refresh", refresh_token=token)

    def get(self, path: str) -> TestResponse:
        return self.client.get(path, headers=self.headers)

    def delete(self, path: str) -> TestResponse:
        return self.client.delete(path, headers=self.headers)

    def post(self, path: str, **members: object) -> TestResponse:
        return self.client.post(path, headers=self.headers, json=members)

    def put(self, path: str, **members: object) -> TestResponse:
        return self.client.put(path, headers=self.headers, json=members)

    def call(self, method: str, path: str, **members: object) -> TestResponse:
        """Without a token."""
        return self.client.open(path, method=method, json=members)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.session['access_token']}"}


def until_someone_waits(engine: Engine) -> None:
    """Return when a statement in this database waits for another's lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    deadline = time.monotonic() + 20
    with engine.connect() as connection:
        # What the database shows of its sessions stands still within a transaction.
        while not connection.scalar(waiting):
            connection.rollback()
            assert time.monotonic() < deadline, "nobody waits"


def told(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Assert that the answer is this problem; return it."""
    assert (response.status_code, response.content_type) == (status, "application/problem+json")
    problem: dict[str, Any] = response.json
    assert (problem["code"], problem["status"]) == (code, status)
    assert problem["title"]
    assert problem["detail"]
    return problem
