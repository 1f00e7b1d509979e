"""The API's description: whole, valid, and readable without another host."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from app import create_app, docs
from app.errors import TABLE
from app.openapi import VERSION, described_routes, path_of
from app.settings import Settings
from storage import migrate
from tests.contract.people import Person

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    made: dict[str, Any] = client.get("/v1/openapi.json").json
    return made


def test_the_document_is_valid_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_route_is_described(app: Flask, document: dict[str, Any]) -> None:
    for rule, method, description in described_routes(app):
        assert description is not None, f"{method} {rule.rule} has no @describe"
        operation = document["paths"][path_of(rule)][method.lower()]
        assert operation["summary"]
        assert [one["name"] for one in operation["parameters"] if one["in"] == "path"] == sorted(
            rule.arguments, key=rule.rule.index
        )


def test_every_error_code_is_in_the_document(document: dict[str, Any]) -> None:
    problem = document["components"]["schemas"]["Problem"]["properties"]
    listed = {one["const"]: one["description"] for one in problem["code"]["oneOf"]}
    for class_ in TABLE:
        for code in class_.CODES:
            assert listed[code]


def test_every_operation_says_what_can_go_wrong(document: dict[str, Any]) -> None:
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"500", "503"} <= operation["responses"].keys()
            asks_token = operation.get("security") != []
            assert not asks_token or "401" in operation["responses"]
            assert "requestBody" not in operation or "413" in operation["responses"]
            in_path = [one for one in operation["parameters"] if one["in"] == "path"]
            assert not in_path or "`not_found`" in operation["responses"]["404"]["description"]


def test_what_the_server_answers_is_what_the_document_says(
    client: FlaskClient, document: dict[str, Any]
) -> None:
    ada = Person(client)
    space = ada.post("/v1/spaces", name="Crew")
    answers = {
        ("/v1", "get"): client.get("/v1"),
        ("/healthz", "get"): client.get("/healthz"),
        ("/readyz", "get"): client.get("/readyz"),
        ("/v1/auth/login", "post"): ada.log_in(),
        ("/v1/auth/refresh", "post"): ada.refresh(),
        ("/v1/devices", "get"): ada.get("/v1/devices"),
        ("/v1/spaces", "post"): space,
        ("/v1/spaces", "get"): ada.get("/v1/spaces"),
        ("/v1/spaces/{space}/members", "get"): ada.get("/v1/spaces/me/members"),
        ("/v1/spaces/{space}/members/{email}", "put"): ada.put(
            f"/v1/spaces/{space.json['id']}/members/{ada.email}", role="owner"
        ),
    }
    for (path, method), answer in answers.items():
        said = document["paths"][path][method]["responses"][str(answer.status_code)]
        _validate(document, said["content"]["application/json"]["schema"], answer.json)


def test_a_problem_is_what_the_document_says(client: FlaskClient, document: dict[str, Any]) -> None:
    answer = client.get("/v1/devices")
    said = document["paths"]["/v1/devices"]["get"]["responses"]["401"]
    _validate(document, said["content"]["application/problem+json"]["schema"], answer.json)


def _validate(document: dict[str, Any], schema: dict[str, Any], value: object) -> None:
    whole = {**schema, "components": document["components"]}
    Draft202012Validator(whole).validate(value)


def test_the_version_is_the_packages(client: FlaskClient) -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert package["project"]["version"] == VERSION == client.get("/v1").json["version"]


# The page -----------------------------------------------------------------------------------


class Links(HTMLParser):
    """What a page refers to, and the ids it has."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in {"href", "src"}:
                self.links.append(value or "")
            elif name == "id":
                self.ids.append(value or "")
            elif name == "style" or name.startswith("on"):
                self.inline.append(f"{tag} {name}")


@pytest.fixture
def page(client: FlaskClient) -> Links:
    parsed = Links()
    parsed.feed(client.get("/docs").text)
    return parsed


def test_the_page_needs_nothing_from_another_host(client: FlaskClient, page: Links) -> None:
    for link in page.links:
        assert link.startswith(("/", "#", "data:,")), link
        assert not link.startswith("//")
        if link.startswith("/"):
            with client.get(link) as answer:
                assert answer.status_code == 200, link
                assert answer.is_json or not re.search(r"https?://|@import|url\(", answer.text)


def test_the_pages_policy_lets_in_only_its_own(client: FlaskClient, page: Links) -> None:
    policy = client.get("/docs").headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
    assert "unsafe" not in policy
    assert page.inline == []


def test_every_link_within_the_page_leads_somewhere_and_every_id_is_one(page: Links) -> None:
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_the_page_shows_every_operation_and_a_line_to_try_it(
    client: FlaskClient, document: dict[str, Any]
) -> None:
    shown = client.get("/docs").text
    operations = [one for path in document["paths"].values() for one in path.values()]
    for operation in operations:
        assert f'id="{operation["operationId"]}"' in shown
    assert shown.count("curl -sS") == len(operations)
    assert "http://localhost/v1/auth/signup" in shown


def test_the_page_is_made_once_whatever_the_server_is_called(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = create_app(settings).test_client()
    first = client.get("/docs").text
    monkeypatch.setattr(docs, "render_template", None)
    for host in ("a.example", "b.example:8080"):
        shown = client.get("/docs", headers={"Host": host}).text
        assert f"http://{host}/v1/auth/signup" in shown
        assert shown == first.replace("http://localhost/", f"http://{host}/")
        assert docs.BASE not in shown


def test_the_newest_revision_is_read_once(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").status_code == 200
    monkeypatch.setattr(migrate, "ScriptDirectory", None)
    assert client.get("/readyz").status_code == 200


def test_what_a_client_sends_can_not_get_into_the_page(client: FlaskClient) -> None:
    shown = client.get("/docs", headers={"Host": "a'\"><script>alert(1)</script>"})
    assert "<script>alert" not in shown.text
