"""The console's door and pages, as any browser, or somebody with bad intent, asks for them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.test import TestResponse

from app import create_app
from app.console.entry import own_path
from app.console.session import SESSION_HOURS
from app.runtime import EXTENSION, Runtime
from app.settings import Settings
from tests.contract.devices import Phone, phone, put
from tests.contract.people import PASSWORD, Person
from tests.contract.staff import Agent

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
PAGES = ("/admin", "/admin/devices", "/admin/search?q=a")


class Page(HTMLParser):
    """What a page refers to, its forms' hidden fields, and what a strict policy forbids."""

    def __init__(self, answer: TestResponse) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.hidden: dict[str, str] = {}
        self.forbidden: list[str] = []
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "input" and found.get("type") == "hidden":
            self.hidden[found["name"]] = found["value"]
        for name, value in found.items():
            if name in {"href", "src", "action"}:
                self.links.append(value)
            elif name == "id":
                self.ids.append(value)
            elif name == "style" or name.startswith("on"):
                self.forbidden.append(f"{tag} {name}")
        if tag == "style" or (tag == "script" and "src" not in found):
            self.forbidden.append(tag)


class Desk:
    """A browser with an account of support staff."""

    def __init__(self, client: FlaskClient, engine: Engine, role: str = "support") -> None:
        self.client, self.engine = client, engine
        self.agent = Agent(client, engine, role)

    def log_in(self, password: str = PASSWORD, wanted: str = "", **more: Any) -> TestResponse:
        form = Page(self.client.get("/admin/login", query_string={"next": wanted}, **more)).hidden
        data = {**form, "email": self.agent.email, "password": password}
        return self.client.post("/admin/login", data=data, **more)

    def see(self, path: str, status: int = 200) -> TestResponse:
        answer = self.client.get(path)
        assert answer.status_code == status, (path, answer.status_code, answer.text[-500:])
        return answer

    def post(self, path: str, **fields: str) -> TestResponse:
        fields = {"csrf": Page(self.see("/admin/devices")).hidden["csrf"], **fields}
        return self.client.post(path, data=fields)

    def sql(self, statement: str) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(statement), {"id": self.agent.user_id})

    def is_in(self) -> bool:
        return self.client.get("/admin/devices").status_code == 200


@pytest.fixture
def desk(client: FlaskClient, engine: Engine) -> Desk:
    made = Desk(client, engine)
    assert made.log_in().status_code == 303
    return made


@pytest.fixture
def runtime(app: Flask) -> Runtime:
    found: Runtime = app.extensions[EXTENSION]
    return found


# Logging in and out -------------------------------------------------------------------------


def test_who_is_not_logged_in_is_led_to_the_login_and_back(
    client: FlaskClient, engine: Engine
) -> None:
    for path in PAGES:
        answer = client.get(path)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/admin/login?next=/admin"), path
    back = Desk(client, engine).log_in(wanted="/admin/devices?state=stuck")
    assert (back.status_code, back.headers["Location"]) == (303, "/admin/devices?state=stuck")


def test_the_cookie_is_out_of_scripts_reach_and_over_tls_of_networks(
    client: FlaskClient, engine: Engine
) -> None:
    desk = Desk(client, engine)
    plain = desk.log_in().headers.getlist("Set-Cookie")[0]
    safe = desk.log_in(base_url="https://localhost").headers.getlist("Set-Cookie")[0]
    assert re.match(r"rejoin-console=[\w-]{43}; .*HttpOnly; Path=/admin; SameSite=Lax", plain)
    assert re.match(r"__Host-rejoin-console=[\w-]{43}; .*Secure; HttpOnly; Path=/; SameS", safe)
    assert f"Max-Age={SESSION_HOURS * 3600}" in plain
    assert "Domain" not in plain + safe


def test_a_wrong_password_says_so_and_opens_nothing(client: FlaskClient, engine: Engine) -> None:
    desk = Desk(client, engine)
    answer = desk.log_in("not the password")
    assert answer.status_code == 401
    assert "The email or the password is wrong." in answer.text
    assert "not the password" not in answer.text
    assert not desk.is_in()
    nobody = {**Page(client.get("/admin/login")).hidden, "password": "x"}
    for email, status in (("nobody@example.org", 401), ("no address", 400), ("", 400)):
        assert client.post("/admin/login", data={**nobody, "email": email}).status_code == status


def test_guesses_have_to_wait_as_with_any_login(
    settings: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    app = create_app(dataclasses.replace(settings, rate_limits=True))
    desk = Desk(app.test_client(), engine)
    answers = [desk.log_in("guess") for _ in range(12)]
    assert [answers[0].status_code, answers[-1].status_code] == [401, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert desk.log_in().status_code == 429
    app.extensions[EXTENSION].engine.dispose()


def test_users_are_told_that_they_have_no_part_in_it(client: FlaskClient) -> None:
    ada = Person(client)
    form = Page(client.get("/admin/login")).hidden
    answer = client.post("/admin/login", data={**form, "email": ada.email, "password": PASSWORD})
    assert answer.status_code == 403
    assert client.get("/admin").status_code == 303


def test_logging_out_ends_the_session_in_the_database_too(desk: Desk) -> None:
    stolen = desk.client.get_cookie("rejoin-console", path="/admin")
    assert stolen is not None
    assert desk.post("/admin/logout").status_code == 303
    assert not desk.is_in()
    desk.client.set_cookie("rejoin-console", stolen.value, path="/admin")
    assert not desk.is_in()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET role = 'user' WHERE id = :id",
        "UPDATE users SET password_hash = password_hash || '=' WHERE id = :id",
    ],
)
def test_a_session_ends_with_its_role_or_password_and_does_not_come_back(
    desk: Desk, statement: str
) -> None:
    desk.sql(statement)
    assert not desk.is_in()
    back = "role = 'support', password_hash = rtrim(password_hash, '=')"
    desk.sql(f"UPDATE users SET {back} WHERE id = :id")  # noqa: S608
    assert not desk.is_in()


def test_a_session_ends_after_a_working_day(
    desk: Desk, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = runtime.clock()
    monkeypatch.setattr(runtime, "clock", lambda: now + SESSION_HOURS * 3600 - 60)
    assert desk.is_in()
    monkeypatch.setattr(runtime, "clock", lambda: now + SESSION_HOURS * 3600)
    assert not desk.is_in()


def test_a_made_up_cookie_opens_nothing_and_breaks_nothing(client: FlaskClient) -> None:
    for value in ("x", "", "a" * 5_000, "é", "%00", "' OR 1=1 --"):
        cookie = {"Cookie": f"rejoin-console={value}".encode().decode("latin-1")}
        assert client.get("/admin/devices", headers=cookie).status_code == 303


def test_a_session_is_of_no_use_at_the_api_nor_a_token_at_the_console(desk: Desk) -> None:
    assert desk.client.get("/v1/admin/devices").status_code == 401
    stranger = desk.client.application.test_client()
    assert stranger.get("/admin/devices", headers=desk.agent.headers).status_code == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example/admin",
        "/\\evil.example",
        "/admin\\@evil.example",
        "/administrator",
        "/admin/\r\nSet-Cookie: a=b",
        "javascript:alert(1)",
        "/admin/<script>",
        "/demo",
    ],
)
def test_a_login_leads_nowhere_but_to_the_console(
    client: FlaskClient, engine: Engine, wanted: str
) -> None:
    answer = Desk(client, engine).log_in(wanted=wanted)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin")


# Forms --------------------------------------------------------------------------------------


def test_a_form_without_this_sessions_token_is_refused(desk: Desk, engine: Engine) -> None:
    other = Desk(desk.client.application.test_client(), engine)
    other.log_in()
    foreign = Page(other.see("/admin/devices")).hidden["csrf"]
    for token in ("", "x", foreign, "é", "\0"):
        answer = desk.post("/admin/logout", csrf=token)
        assert answer.status_code == 403
        assert "not from this session" in answer.text
    assert desk.client.post("/admin/logout").status_code == 403
    assert desk.is_in()


def test_another_site_can_not_log_somebody_in(client: FlaskClient, engine: Engine) -> None:
    desk = Desk(client, engine)
    data = {"email": desk.agent.email, "password": PASSWORD}
    own = Page(client.get("/admin/login")).hidden["csrf"]
    strange = client.application.test_client()
    assert strange.post("/admin/login", data={**data, "csrf": own}).status_code == 403
    assert client.post("/admin/login", data=data).status_code == 403
    assert not desk.is_in()


def test_a_form_too_large_is_refused(desk: Desk) -> None:
    assert desk.post("/admin/logout", reason="a" * 2**21).status_code == 413
    assert desk.is_in()


# Pages --------------------------------------------------------------------------------------


def pages_of(a: Phone, desk: Desk) -> list[str]:
    user = desk.agent.see("/devices", id=a.device)["devices"][0]["user_id"]
    return [*PAGES, f"/admin/devices/{a.device}", f"/admin/users/{user}"]


def test_every_page_has_a_strict_policy_and_nothing_in_it_that_breaks_it(
    desk: Desk, client: FlaskClient
) -> None:
    a = phone(client)
    a.sync(a.change(put("t", new=True, n=1)), {**a.change(), "ops": 7})
    strange = client.application.test_client()
    answers = [desk.see(path) for path in pages_of(a, desk)]
    answers += [strange.get("/admin/login"), desk.see("/admin/nowhere", 404)]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["Cache-Control"] == "no-store"
        page = Page(answer)
        assert page.forbidden == []
        assert len(page.ids) == len(set(page.ids))
        assert all(link.startswith(("/", "#", "data:,")) for link in page.links)
        assert not any(link.startswith("//") for link in page.links)


def test_the_pages_own_parts_need_nothing_from_another_host(client: FlaskClient) -> None:
    for name in ("console.css", "console.js"):
        with client.get(f"/admin/static/{name}") as answer:
            assert answer.status_code == 200
            assert not re.search(r"https?://|@import|url\(|eval\(", answer.text)
    for name in ("../door.py", "..%2fdoor.py", "%2e%2e/door.py", "nothing.js"):
        assert client.get(f"/admin/static/{name}").status_code in {303, 404}


def test_what_users_wrote_is_text_on_every_page(desk: Desk, client: FlaskClient) -> None:
    a = phone(client, name=MARKUP, platform=MARKUP, app_version=MARKUP)
    paths = [*pages_of(a, desk), f"/admin/search?q={MARKUP[:20]}", f"/admin/devices?q={MARKUP}"]
    for path in paths:
        shown = desk.see(path).text
        assert "<script>alert" not in shown, path
        assert "<img" not in shown, path
    assert "&lt;script&gt;alert(1)" in desk.see(f"/admin/devices/{a.device}").text


def test_a_search_takes_every_character_as_itself(desk: Desk, client: FlaskClient) -> None:
    a = phone(client, name="100%_of 'it'; DROP TABLE users --")
    for q in ("100%_of 'it'", "100%_of 'it'; DROP TABLE users --"):
        assert a.device in desk.client.get("/admin/search", query_string={"q": q}).text
    for q in ("%", "_", "'", "\\", "100\\", "*", "\u202e", "a" * 5_000, "é" * 300):
        answer = desk.client.get("/admin/search", query_string={"q": q})
        assert answer.status_code == 200
        assert a.device not in answer.text
    assert desk.client.get("/admin/search?q=%00").status_code == 400
    assert desk.client.get("/admin/search?q=%ff%fe").status_code == 200


def test_a_search_finds_by_the_beginning_and_by_id(desk: Desk, client: FlaskClient) -> None:
    a = phone(client, name="Ada's Phone")
    user = desk.agent.see("/devices", id=a.device)["devices"][0]["user_id"]
    for q in (a.email, a.email[:-3].upper(), a.device, user):
        assert f"/admin/devices/{a.device}" in desk.client.get(f"/admin/search?q={q}").text
    assert "no id is equal" in desk.see(f"/admin/search?q={uuid4()}").text


def test_pages_go_on_where_the_last_one_ended_and_past_the_end_are_empty(
    desk: Desk, client: FlaskClient
) -> None:
    a = phone(client)
    mine = {a.device} | {phone(client, a.email).device for _ in range(4)}
    path, seen = f"/admin/devices?email={a.email}&limit=2", []
    while path:
        shown = desk.see(path).text
        seen += re.findall(r"<th scope=\"row\"><a href=\"/admin/devices/([\w-]+)", shown)
        following = re.search(r'href="([^"]+)" rel="next"', shown)
        path = following[1].replace("&amp;", "&") if following else ""
    assert (set(seen), len(seen)) == (mine, 5)
    beyond = desk.agent.see("/devices", limit=1, email=a.email)["page"]
    assert "No device fits." in desk.see(f"/admin/devices?email=zzzz&page={beyond}").text


def test_bad_parameters_are_told_on_a_page(desk: Desk) -> None:
    for query in (
        "page=x",
        "limit=0",
        "limit=1e9",
        "state=lost",
        "nothing=1",
        "behind=-1",
        "q=%00",
    ):
        shown = desk.see(f"/admin/devices?{query}", 400)
        assert 'role="alert"' in shown.text
    assert desk.see("/admin/devices?state=&behind=&q=").status_code == 200


def test_what_is_not_there_is_a_page_that_says_so(desk: Desk) -> None:
    for path in (
        f"/admin/devices/{uuid4()}",
        f"/admin/users/{uuid4()}",
        "/admin/x/y",
        "/admin/devices/1",
    ):
        shown = desk.see(path, 404)
        assert "Not found" in shown.text
        assert shown.content_type.startswith("text/html")


def test_the_device_page_tells_why_it_is_stuck_with_evidence_and_next_step(
    desk: Desk, client: FlaskClient, runtime: Runtime
) -> None:
    a = phone(client, name="Ada's Phone")
    a.sync(a.change(put("t", new=True, n=1)), {**a.change(), "ops": 7})
    runtime.recorder.flush()
    shown = desk.see(f"/admin/devices/{a.device}").text
    assert "Changes of the device can never be applied as they are" in shown
    assert "<code>malformed_change</code>" in shown
    assert "Open the quarantine: repair and replay each" in shown
    assert f"/admin/quarantine?device={a.device}" in shown


def test_a_healthy_device_has_no_finding(desk: Desk, client: FlaskClient) -> None:
    a = phone(client, name="Ada's Phone")
    a.sync(a.change(put("t", new=True, n=1)))
    assert (
        "No finding: the device does what it should." in desk.see(f"/admin/devices/{a.device}").text
    )


def test_a_path_is_the_consoles_own_or_it_is_not_taken(app: Flask) -> None:
    with app.test_request_context("/admin/login"):
        for path in ("/admin", "/admin?a=b", "/admin/devices/x?page=A_-%3D"):
            assert own_path(path) == path
        for path in ("", "/", "/adminx", "http:/admin", "/admin/a\nb", "/admin/\u2028"):
            assert own_path(path) == "/admin"
