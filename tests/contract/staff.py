"""Support staff for tests: an account with a role, logged in."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from tests.contract.people import Person


class Agent(Person):
    """Someone who asks `/v1/admin`."""

    def __init__(self, client: FlaskClient, engine: Engine, role: str) -> None:
        super().__init__(client)
        with engine.begin() as connection:
            connection.execute(
                text("UPDATE users SET role = :role WHERE id = :id"),
                {"role": role, "id": self.user_id},
            )

    def ask(self, path: str, **query: object) -> TestResponse:
        return self.client.get(f"/v1/admin{path}", query_string=query, headers=self.headers)

    def see(self, path: str, **query: object) -> dict[str, Any]:
        answer = self.ask(path, **query)
        assert answer.status_code == 200, answer.text
        seen: dict[str, Any] = answer.json
        return seen

    def do(self, path: str, **body: object) -> TestResponse:
        return self.client.post(f"/v1/admin{path}", json=body, headers=self.headers)

    def findings(self, device: str) -> list[str]:
        return [one["code"] for one in self.see(f"/devices/{device}/diagnosis")["findings"]]
