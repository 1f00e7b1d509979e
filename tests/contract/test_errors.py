"""Whatever goes wrong is a problem with a stable code, and the server goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest
import sqlalchemy.exc
from flask import Flask, Response, g
from flask.testing import FlaskClient
from sqlalchemy import Engine, text
from werkzeug.exceptions import ImATeapot, RequestTimeout

from app import create_app
from app.errors import TABLE, close_code, problem, row_of, sync_error
from app.runtime import EXTENSION
from app.settings import Settings
from storage.engine import UnusableDatabase
from sync import errors
from sync.errors import Conflict, SyncError, Unauthenticated
from tests.contract.people import Person, told

CLASSES = [
    class_
    for class_ in vars(errors).values()
    if isinstance(class_, type) and issubclass(class_, SyncError) and class_ is not SyncError
]


@pytest.mark.parametrize("class_", CLASSES)
def test_no_error_class_is_without_its_row(class_: type[SyncError]) -> None:
    assert class_ in TABLE
    assert class_.CODES


def test_every_error_becomes_a_problem(app: Flask) -> None:
    with app.test_request_context():
        for class_ in CLASSES:
            for code, sentence in class_.CODES.items():
                response = problem(class_(code, expected=7))
                told_ = told(response, row_of(class_).status, code)  # type: ignore[arg-type]
                assert (told_["detail"], told_["expected"]) == (sentence, 7)
                assert told_["type"] == f"/docs#{code}"


def test_a_socket_is_closed_with_the_protocols_codes() -> None:
    assert close_code(Unauthenticated("token_expired")) == 4401
    assert close_code(Unauthenticated("device_revoked")) == 4403
    assert close_code(Conflict("device_fork")) == 4409
    assert close_code(Conflict("counter_gap")) is None


def test_an_unknown_path_and_a_wrong_method_are_problems(client: FlaskClient) -> None:
    told(client.get("/nowhere"), 404, "not_found")
    told(client.get("/v1/spaces/x/y/z"), 404, "not_found")
    answer = client.delete("/v1/auth/login")
    told(answer, 405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


def test_a_trailing_slash_is_no_redirect(client: FlaskClient) -> None:
    assert client.get("/v1/").status_code == 200
    assert client.get("//v1").status_code in {200, 404}


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "application/x-www-form-urlencoded", "a"]
)
def test_another_content_type_is_unsupported(client: FlaskClient, kind: str) -> None:
    answer = client.post("/v1/auth/login", data=b"{}", content_type=kind)
    told(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, gzip", "gzip;q=1", "\u00fc"])
def test_another_coding_is_unsupported_and_told_which_are_not(
    client: FlaskClient, coding: str
) -> None:
    headers = {"Content-Encoding": coding}
    answer = client.post("/v1/auth/login", json={}, headers=headers)
    told(answer, 415, "unsupported_encoding")
    assert answer.headers["Accept-Encoding"] == "gzip, zstd"


def test_an_answer_that_nobody_could_read_is_refused_before_anything_is_done(
    client: FlaskClient,
) -> None:
    ada = Person(client)
    headers = {**ada.headers, "Accept": "text/csv"}
    told(client.post("/v1/spaces", json={"name": "x"}, headers=headers), 406, "not_acceptable")
    assert len(ada.get("/v1/spaces").json["spaces"]) == 1


# The server's own faults --------------------------------------------------------------------


def _raising(error: BaseException) -> Callable[[], Response]:
    def view() -> Response:
        raise error

    return view


@pytest.fixture
def broken(settings: Settings) -> Iterator[Flask]:
    """An app on a port where no database listens."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    app = create_app(replace(settings, database_url=nowhere))
    yield app
    app.extensions[EXTENSION].close()


def test_a_database_out_of_reach_is_503_and_the_process_is_alive(broken: Flask) -> None:
    client = broken.test_client()
    body = {"email": "a@example.org", "password": "12345678"}
    for answer in (client.get("/readyz"), client.post("/v1/auth/login", json=body)):
        told(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert "127.0.0.1" not in answer.text
    assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        sqlalchemy.exc.TimeoutError("QueuePool limit of size 5 overflow 0 reached"),
        sqlalchemy.exc.OperationalError("SELECT 1", {}, Exception("gone")),
        sqlalchemy.exc.InterfaceError("SELECT 1", {}, Exception("closed")),
        psycopg.OperationalError("the connection is lost"),
        psycopg.errors.DeadlockDetected("deadlock detected"),
    ],
)
def test_a_database_that_fails_meanwhile_is_503(settings: Settings, error: Exception) -> None:
    app = create_app(settings)
    app.add_url_rule("/fails", view_func=_raising(error))
    answer = app.test_client().get("/fails")
    told(answer, 503, "unavailable")


def test_a_schema_that_is_behind_is_not_ready(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.get("/readyz").status_code == 200
    info = sys.modules["app.routes.info"]
    monkeypatch.setattr(info, "newest_revision", lambda: "a later one")
    told(client.get("/readyz"), 503, "unavailable")


def test_an_unforeseen_error_is_logged_and_tells_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings)
    app.add_url_rule("/fails", view_func=_raising(ZeroDivisionError("of the inside")))
    answer = app.test_client().get("/fails")
    told(answer, 500, "internal")
    assert "of the inside" not in answer.text
    assert "ZeroDivisionError: of the inside" in caplog.text


SECRET_TEXT = "what a user wrote"


def _copy_that(engine: Engine, statement: str, value: str) -> Exception:
    """What psycopg raises where the COPY of a row fails."""
    with engine.begin() as connection:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        cursor = driver.cursor()
        cursor.execute(statement)
        try:
            with cursor.copy("COPY pg_temp.t FROM STDIN") as copy:
                copy.write_row([value])
        except psycopg.Error as error:
            return error
        finally:
            driver.rollback()
    raise AssertionError("nothing was raised")


SLOW_COPY = (
    "CREATE TEMP TABLE t (v text);"
    "CREATE FUNCTION pg_temp.slow() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN PERFORM pg_sleep(9); RETURN NEW; END';"
    "CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION pg_temp.slow();"
    "SET LOCAL statement_timeout = 100"
)


def test_what_users_wrote_is_not_logged_of_a_statement_that_takes_too_long(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    error = _copy_that(engine, SLOW_COPY, SECRET_TEXT)
    assert SECRET_TEXT in str(error), "PostgreSQL quotes the row"
    assert sync_error(error).code == "unavailable"
    assert SECRET_TEXT not in caplog.text
    assert "a statement took too long: QueryCanceled 57014: canceling statement" in caplog.text
    assert "can't be reached" not in caplog.text


def test_what_users_wrote_is_not_logged_of_an_unforeseen_error(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    checked = "CREATE TEMP TABLE t (v text CHECK (v = ''))"
    error = _copy_that(engine, checked, SECRET_TEXT)
    assert SECRET_TEXT in str(error)
    assert sync_error(error).code == "internal"
    with engine.connect() as connection, pytest.raises(sqlalchemy.exc.DBAPIError) as wrapped:
        connection.execute(text("SELECT 1 / 0, CAST(:told AS text)"), {"told": SECRET_TEXT})
    try:
        raise ValueError("after it") from wrapped.value
    except ValueError as last:
        sync_error(last)
    long = ValueError("x" * 10_000)
    sync_error(long)
    assert SECRET_TEXT not in caplog.text
    assert "CheckViolation 23514: new row for relation" in caplog.text
    assert "DivisionByZero 22012: division by zero\nand then:\n" in caplog.text
    assert "ValueError: after it" in caplog.text
    assert "test_errors.py" in caplog.text
    assert "x" * 300 not in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (sqlalchemy.exc.TimeoutError("QueuePool limit"), "no connection to the database was free"),
        (psycopg.OperationalError("lost\nCONTEXT: a row"), "the database can't be reached: Op"),
        (psycopg.errors.AdminShutdown("bye"), "the database can't be reached: AdminShutdown 57P01"),
        (psycopg.errors.DeadlockDetected("x"), "the database gave up a statement: DeadlockDetect"),
        (UnusableDatabase("This is PostgreSQL 9"), "This is PostgreSQL 9"),
    ],
)
def test_the_log_tells_what_failed_of_the_database(
    caplog: pytest.LogCaptureFixture, error: Exception, words: str
) -> None:
    sync_error(error)
    assert words in caplog.text
    assert "CONTEXT" not in caplog.text


def test_other_http_errors_keep_a_code_that_has_a_row() -> None:
    for error in (ImATeapot(), RequestTimeout()):
        assert sync_error(error).code == "malformed_request"


# Headers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1", "/nowhere", "/docs", "/static/docs.css"])
def test_every_answer_carries_the_security_headers(client: FlaskClient, path: str) -> None:
    with client.get(path) as answer:
        headers = answer.headers
    assert len(headers) == len({name.lower() for name, _ in headers}), "one is there twice"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Strict-Transport-Security" not in headers
    with client.get(path, base_url="https://localhost") as secure:
        assert "Strict-Transport-Security" in secure.headers


@pytest.mark.parametrize(("hops", "seen"), [(0, "192.0.2.1"), (1, "203.0.113.7")])
def test_a_proxy_is_believed_only_where_one_is_named(
    settings: Settings, hops: int, seen: str
) -> None:
    app = create_app(replace(settings, trusted_proxies=hops))
    app.add_url_rule("/address", view_func=lambda: {"address": _address()})
    answer = app.test_client().get(
        "/address",
        headers={"X-Forwarded-For": "198.51.100.9, 203.0.113.7"},
        environ_base={"REMOTE_ADDR": "192.0.2.1"},
    )
    assert answer.json == {"address": seen}


def _address() -> str | None:
    from flask import request

    return request.remote_addr


def test_a_request_is_stamped_when_its_headers_came_in(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.extensions[EXTENSION], "clock", lambda: 1_763_800_000.5)
    with app.test_request_context("/v1"):
        app.preprocess_request()
        assert g.received_at == 1_763_800_000_500
