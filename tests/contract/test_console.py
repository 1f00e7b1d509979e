"""The console's door and pages, as any browser, or somebody with bad intent, asks for them."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import pytest
from flask import Flask, url_for
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
        answer = self.client.get(path, headers={"Accept-Encoding": "gzip, zstd"})
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
def another(settings: Settings) -> Iterator[Callable[..., FlaskClient]]:
    """A client of an app like this one, but with other settings."""
    made: list[Flask] = []

    def make(**changed: object) -> FlaskClient:
        made.append(create_app(dataclasses.replace(settings, **changed)))
        return made[-1].test_client()

    yield make
    for app in made:
        app.extensions[EXTENSION].recorder.stop()
        app.extensions[EXTENSION].close()


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
    another: Callable[..., FlaskClient], engine: Engine
) -> None:
    desk = Desk(another(rate_limits=True), engine)
    answers = [desk.log_in("guess") for _ in range(12)]
    assert [answers[0].status_code, answers[-1].status_code] == [401, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0
    assert desk.log_in().status_code == 429


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
        assert "Content-Encoding" not in answer.headers
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


# Logs, records, desks -----------------------------------------------------------------------


@pytest.fixture
def admin(client: FlaskClient, engine: Engine) -> Desk:
    made = Desk(client.application.test_client(), engine, "admin")
    assert made.log_in().status_code == 303
    return made


@dataclass
class Trouble:
    """A user's space with a conflict, a deleted record and a change put aside."""

    a: Phone
    b: Phone
    space: str

    def path(self, part: str = "") -> str:
        return f"/admin/spaces/{self.space}{part}"

    def item(self) -> str:
        return f"/admin/quarantine/{self.space}/{self.b.device}/2"

    def pages(self) -> list[str]:
        record = self.path(f"/record?{urlencode({'collection': 'tasks', 'id': MARKUP})}")
        return [
            self.path(),
            self.path("/log"),
            record,
            f"{record}&at=1",
            f"/admin/conflicts?space={self.space}",
            f"/admin/conflicts/settled?space={self.space}",
            f"/admin/quarantine?space={self.space}",
            self.item(),
            f"/admin/devices/{self.b.device}",
        ]

    def shown(self) -> list[Any]:
        """What both devices show of the record, once they have pulled."""
        return [one.pull_all()["tasks", MARKUP]["fields"].get("title") for one in (self.a, self.b)]


SECRET_VALUE = "Milk that nobody may read <b>"


@pytest.fixture
def trouble(client: FlaskClient) -> Trouble:
    a = phone(client, name=MARKUP)
    b = phone(client, a.email, name="Second")
    a.sync(a.change(put(MARKUP, new=True, title=SECRET_VALUE, **{MARKUP: MARKUP})))
    b.sync()
    b.sync()
    a.sync(a.change(put(MARKUP, title="Oat")), a.change(put("gone", new=True, title=SECRET_VALUE)))
    wrong = {"op": "increment", "collection": "tasks", "id": MARKUP, "field": "title", "by": 1}
    b.sync(b.change(put(MARKUP, title="Soy")), b.change(wrong, put(MARKUP, note=SECRET_VALUE)))
    a.sync(a.change({"op": "delete", "collection": "tasks", "id": "gone"}))
    return Trouble(a, b, a.get("/v1/spaces").json["spaces"][0]["id"])


def settle_form(desk: Desk, trouble: Trouble) -> dict[str, str]:
    """The hidden fields of the settle form, with the side of the phone `a`."""
    shown = desk.see(f"/admin/conflicts?space={trouble.space}")
    dot = re.search(rf'name="sibling" value="({trouble.a.device}:\d+)"', shown.text)
    assert dot is not None
    return {**Page(shown).hidden, "sibling": dot[1]}


def test_every_page_of_a_space_keeps_the_policy_and_shows_markup_as_text(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    for path in trouble.pages():
        for answer in (desk.see(path), admin.see(path)):
            page = Page(answer)
            assert page.forbidden == [], path
            assert len(page.ids) == len(set(page.ids)), path
            assert "<script>alert" not in answer.text
            assert "<img" not in answer.text


def test_values_stay_hidden_until_one_who_may_opens_them_for_a_reason(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    value = "Milk that nobody may read"
    for path in trouble.pages():
        assert value not in desk.see(path).text + admin.see(f"{path}").text, path
    log = trouble.path("/log")
    assert desk.post(log, reason="I am curious").status_code == 403
    assert admin.post(log, reason=" ").status_code == 400
    assert value not in admin.see(f"{log}?values=true&reason=x").text
    opened = admin.post(log, reason="The customer asked")
    assert f"{value} &lt;b&gt;" in opened.text
    assert "data-live" not in opened.text
    trail = admin.see(f"/admin/audit?subject={trouble.space}").text
    assert "opened values" in trail
    assert "The customer asked" in trail
    assert trail.count('class="why') == 1


def test_the_support_role_opens_values_where_the_setting_allows_it(
    another: Callable[..., FlaskClient], engine: Engine, trouble: Trouble
) -> None:
    desk = Desk(another(support_sees_values=True), engine)
    desk.log_in()
    assert "Open values" in desk.see(trouble.item()).text
    opened = desk.post(trouble.item(), reason="The customer asked")
    assert "Milk that nobody may read" in opened.text


def test_a_conflict_is_settled_with_one_click_and_all_devices_converge(
    desk: Desk, trouble: Trouble
) -> None:
    form = settle_form(desk, trouble)
    path = trouble.path("/settle")
    answer = desk.client.post(path, data={**form, "reason": "Agreed on the phone"})
    assert answer.status_code == 303
    assert "The conflict is settled" in desk.see(answer.headers["Location"]).text
    trouble.a.sync()
    trouble.b.sync()
    assert trouble.shown() == ["Oat", "Oat"]
    assert "Nothing is in conflict." in desk.see(f"/admin/conflicts?space={trouble.space}").text
    settled = desk.see(f"/admin/conflicts/settled?space={trouble.space}").text
    assert "&lt;script&gt;" in settled


def test_of_two_agents_who_settle_the_same_conflict_the_second_is_told_so(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    forms = [settle_form(one, trouble) for one in (desk, admin)]
    path, reason = trouble.path("/settle"), {"reason": "Agreed"}
    answers = [
        one.client.post(path, data={**form, **reason})
        for one, form in zip((desk, admin), forms, strict=True)
    ]
    assert [answer.status_code for answer in answers] == [303, 409]


def test_a_conflict_is_settled_on_a_value_that_neither_wrote(desk: Desk, trouble: Trouble) -> None:
    form = settle_form(desk, trouble)
    del form["sibling"]
    for bad in ("", "{", "NaN", '"a', "[" * 5_000):
        data = {**form, "reason": "x", "value": bad}
        assert desk.client.post(trouble.path("/settle"), data=data).status_code == 400, bad
    data = {**form, "reason": "x", "value": '"Rice"'}
    assert desk.client.post(trouble.path("/settle"), data=data).status_code == 303
    assert trouble.shown() == ["Rice", "Rice"]


def test_a_change_put_aside_is_repaired_and_replayed_once(desk: Desk, trouble: Trouble) -> None:
    shown = desk.see(trouble.item())
    assert "the field is a register, the operation is for a counter" in shown.text
    again = desk.post(f"{trouble.item()}/replay", reason="As it is")
    assert again.status_code == 422
    done = desk.post(f"{trouble.item()}/replay", reason="Without the vote", drop="0")
    assert done.status_code == 303
    assert "is replayed" in desk.see(done.headers["Location"]).text
    assert desk.post(f"{trouble.item()}/replay", reason="Twice", drop="0").status_code == 409
    fields = trouble.b.pull_all()["tasks", MARKUP]["fields"]
    assert fields["note"] == SECRET_VALUE


def test_a_change_put_aside_is_replayed_with_operations_written_anew(
    desk: Desk, trouble: Trouble
) -> None:
    path = f"{trouble.item()}/replay"
    for bad in ("{", "3", '[{"op": "nonsense"}]', "[1]"):
        assert desk.post(path, reason="x", ops=bad).status_code in {400, 422}, bad
    ops = json.dumps([put(MARKUP, note="Tea")])
    assert desk.post(path, reason="x", ops=ops).status_code == 303
    assert trouble.b.pull_all()["tasks", MARKUP]["fields"]["note"] == "Tea"


def test_what_was_sent_can_be_edited_once_its_values_are_open(
    admin: Desk, trouble: Trouble
) -> None:
    assert SECRET_VALUE not in html.unescape(admin.see(trouble.item()).text)
    shown = admin.post(trouble.item(), reason="To repair it").text
    text = html.unescape(shown[shown.index("<textarea") : shown.index("</textarea>")])
    ops = json.loads(text[text.index(">") + 1 :])
    assert [op["op"] for op in ops] == ["increment", "put"]
    assert ops[1] == put(MARKUP, note=SECRET_VALUE)
    path = f"{trouble.item()}/replay"
    assert admin.post(path, reason="Mended", ops=json.dumps(ops[1:])).status_code == 303


def test_what_only_admins_may_is_refused_and_not_offered_to_others(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    device = f"/admin/devices/{trouble.b.device}"
    for path in (f"{device}/revoke", f"{trouble.item()}/discard", trouble.path("/compact")):
        assert desk.post(path, reason="x").status_code == 403
    assert desk.see("/admin/audit", 403)
    for path, word in ((device, "Revoke it"), (trouble.item(), "Discard it")):
        assert word not in desk.see(path).text
        assert word in admin.see(path).text
    assert ">Audit<" not in desk.see("/admin").text
    assert admin.post(f"{trouble.item()}/discard", reason="Of no use").status_code == 303
    assert admin.post(f"{device}/revoke", reason="Lost").status_code == 303
    assert trouble.b.get("/v1/devices").status_code == 401
    assert admin.post(trouble.path("/compact"), reason="Tidy").status_code == 303
    trail = admin.see("/admin/audit").text
    assert re.findall(r"“(\w[\w ]+)”", trail)[:3] == ["Tidy", "Lost", "Of no use"]


def test_no_action_without_a_reason(desk: Desk, trouble: Trouble) -> None:
    form = settle_form(desk, trouble)
    for path, fields in (
        (trouble.path("/settle"), form),
        (f"{trouble.item()}/replay", {"drop": "0"}),
        (f"/admin/devices/{trouble.b.device}/reset", {}),
    ):
        for reason in ("", "   ", "a" * 2_000, "\0"):
            assert desk.post(path, **{**fields, "reason": reason}).status_code == 400
    assert len(desk.agent.see("/quarantine", space=trouble.space)["quarantine"]) == 1


def test_forms_with_nonsense_are_told_so_on_a_page(desk: Desk, trouble: Trouble) -> None:
    form = {**settle_form(desk, trouble), "reason": "x"}
    for name, value in (
        ("seen", "x"), ("seen", "9" * 40), ("seen", "-1"), ("sibling", "x:1"), ("sibling", ":"),
        ("sibling", f"{trouble.a.device}:"), ("sibling", f"{uuid4()}:1"), ("field", "\0"),
        ("collection", "a" * 5_000), ("id", "nothing"), ("field", "nothing"),
        ("back", "//x.example"),
    ):  # fmt: skip
        answer = desk.client.post(trouble.path("/settle"), data={**form, name: value})
        if name == "back":
            assert answer.headers["Location"].startswith("/admin?done=settle")
        elif (name, value) != ("seen", "9" * 40):
            assert answer.status_code in {400, 404}, (name, value)
            assert 'role="alert"' in answer.text
    for drop in ("x", "-1", "99", "9" * 40):
        answer = desk.post(f"{trouble.item()}/replay", reason="x", drop=drop)
        assert answer.status_code == 400


def test_a_deleted_record_comes_back_as_it_was(desk: Desk, trouble: Trouble) -> None:
    record = trouble.path("/record?collection=tasks&id=gone")
    shown = desk.see(record).text
    assert "It is deleted" in shown
    position = re.findall(r"at=(\d+)", shown)[-1]
    form = Page(desk.see(f"{record}&at={position}")).hidden
    assert (form["position"], form["id"]) == (position, "gone")
    done = desk.client.post(trouble.path("/restore"), data={**form, "reason": "By mistake"})
    assert done.status_code == 303
    trouble.b.sync()
    assert trouble.b.pull_all()["tasks", "gone"]["fields"] == {"title": SECRET_VALUE}


def test_a_device_is_asked_to_reset_and_the_page_says_so(desk: Desk, trouble: Trouble) -> None:
    path = f"/admin/devices/{trouble.b.device}"
    done = desk.post(f"{path}/reset", reason="Its copy looks wrong")
    assert "asked to reset" in desk.see(done.headers["Location"]).text
    assert "Support asked the device to reset, and it has not done so yet." in desk.see(path).text
    trouble.b.sync()
    trouble.b.sync()
    assert "has not done so yet" not in desk.see(path).text


def test_logs_and_histories_go_on_page_by_page_and_end(desk: Desk, trouble: Trouble) -> None:
    for path in (trouble.path("/log?limit=2"), f"{trouble.pages()[2]}&limit=1"):
        seen: list[str] = []
        following: str | None = path
        while following:
            shown = desk.see(following).text
            seen += re.findall(r'id="change-(\d+)"', shown)
            found = re.search(r'href="([^"]+)" rel="next"', shown)
            following = found[1].replace("&amp;", "&") if found else None
        assert seen == sorted(seen, key=int, reverse=True)
        assert len(seen) == len(set(seen)) >= 3
    assert "Nothing stands before that." in desk.see(trouble.path("/log?before=1")).text


def test_what_was_just_done_is_told_in_the_consoles_own_words_only(desk: Desk) -> None:
    for query in ("done=<script>", "done=settle&position=<b>&audit=<b>", "done=settle&position=١٢"):
        shown = desk.see(f"/admin/devices?{query}").text
        assert "<b>" not in shown.split("<main")[1].split("<h1")[0]
        assert "١٢" not in shown


def test_the_causal_history_is_a_picture_with_the_fork_in_it(desk: Desk, trouble: Trouble) -> None:
    shown = desk.see(trouble.pages()[2]).text
    picture = shown[shown.index("<figure") : shown.index("</figure>")]
    assert picture.count('class="node') == 3
    assert picture.count('class="node met"') == 1
    assert picture.count('class="seen"') == 2
    assert picture.count('class="unseen"') == 1


def test_where_nothing_is_there_the_page_says_so(desk: Desk, trouble: Trouble) -> None:
    nowhere = uuid4()
    for path in (
        f"/admin/spaces/{nowhere}",
        f"/admin/spaces/{nowhere}/log",
        f"/admin/spaces/{nowhere}/record?collection=a&id=b",
        trouble.path("/record?collection=a&id=b"),
        f"/admin/quarantine/{nowhere}/{nowhere}/1",
    ):
        desk.see(path, 404)
    assert "No change is put aside." in desk.see(f"/admin/quarantine?space={nowhere}").text
    assert "Nothing is in conflict." in desk.see(f"/admin/conflicts?space={nowhere}").text
    assert desk.see(trouble.path("/record"), 400)


# A user's data ------------------------------------------------------------------------------


def test_an_admin_takes_a_users_data_along_as_a_file(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    user = admin.agent.see("/devices", id=trouble.a.device)["devices"][0]["user_id"]
    assert desk.post(f"/admin/users/{user}/export", reason="x").status_code == 403
    assert admin.post(f"/admin/users/{user}/export", reason="").status_code == 400
    file = admin.post(f"/admin/users/{user}/export", reason="Asked for by letter")
    assert file.headers["Content-Disposition"] == f'attachment; filename="user-{user}.ndjson"'
    kinds = [json.loads(line)["kind"] for line in file.text.splitlines()]
    assert {"user", "device", "change", "quarantined"} <= set(kinds)
    assert "exported a user" in admin.see(f"/admin/audit?subject={user}").text


def test_an_admin_erases_a_user_who_was_named_and_sees_the_counts(
    desk: Desk, admin: Desk, trouble: Trouble
) -> None:
    user = admin.agent.see("/devices", id=trouble.a.device)["devices"][0]["user_id"]
    path, reason = f"/admin/users/{user}/erase", {"reason": "Asked for by letter"}
    assert desk.post(path, email=trouble.a.email, **reason).status_code == 403
    for email in ("", "x", admin.agent.email):
        assert admin.post(path, email=email, **reason).status_code == 400
    own = f"/admin/users/{admin.agent.user_id}"
    assert "Erase the user" not in admin.see(own).text
    assert admin.post(f"{own}/erase", email=admin.agent.email, **reason).status_code == 409
    assert admin.see(f"/admin/users/{user}")
    done = admin.post(path, email=trouble.a.email.upper(), **reason)
    assert done.status_code == 200
    assert re.search(r"<code>changes</code><td class=\"number\">[1-9]", done.text)
    admin.see(f"/admin/users/{user}", 404)
    assert trouble.a.get("/v1/devices").status_code == 401


# Whatever comes -----------------------------------------------------------------------------

NONSENSE = ("", "\0", "x", "-1", "9" * 40, MARKUP, "\u202e", "é" * 999, "{", "[[[", "' OR 1=1 --")


def every_address(app: Flask, trouble: Trouble) -> Iterator[tuple[str, str]]:
    """(method, path) of every route of the console's, on what is there."""
    known = {"space": trouble.space, "device": trouble.b.device, "counter": 2, "user": uuid4()}
    for rule in app.url_map.iter_rules():
        if rule.endpoint.startswith("console."):
            values = {name: known.get(name, "x") for name in rule.arguments}
            with app.test_request_context():
                path = url_for(rule.endpoint, **values)
            for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
                yield method, path


def test_a_stranger_gets_no_page_but_the_login(
    app: Flask, client: FlaskClient, trouble: Trouble
) -> None:
    addresses = list(every_address(app, trouble))
    assert len(addresses) > 30
    for method, path in addresses:
        answer = client.open(path, method=method, data={"reason": "x"})
        if path.startswith(("/admin/login", "/admin/static")):
            continue
        assert answer.status_code == 303, (method, path)
        assert answer.headers["Location"].startswith("/admin/login")


def test_no_page_answers_500_or_leaves_the_console_whatever_it_is_sent(
    app: Flask, admin: Desk, trouble: Trouble
) -> None:
    csrf = Page(admin.see("/admin/devices")).hidden["csrf"]
    names = ("reason", "collection", "id", "field", "seen", "sibling", "value", "ops", "drop",
             "position", "email", "space", "back", "page", "limit", "q", "state", "before", "at",
             "device", "behind", "done", "audit", "values", "next")  # fmt: skip
    for method, path in every_address(app, trouble):
        if path in {"/admin/logout", "/admin/login"}:
            continue
        for nonsense in NONSENSE:
            sent = dict.fromkeys(names, nonsense)
            forms = [{"csrf": csrf, **sent}, {"csrf": csrf, **sent, "reason": "x", "drop": "0"}]
            for data in forms if method == "POST" else [None]:
                answer = admin.client.open(path, method=method, query_string=sent, data=data)
                assert answer.status_code < 500, (method, path, nonsense)
                assert answer.headers.get("Location", "/admin").startswith("/admin")
                assert "<script>alert" not in answer.text
    for raw in (b"csrf=%ff&reason=%fe", b"--x\r\n", b"\xff" * 100):
        for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "a/b"):
            answer = admin.client.post("/admin/logout", data=raw, content_type=kind)
            assert answer.status_code == 403
    assert admin.is_in()
