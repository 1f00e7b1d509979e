"""The first account, and accounts made from the shell."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from app.bootstrap import account_command, ensure_support_account
from app.settings import Settings
from tests.contract.people import Person, new_email, told


@pytest.fixture
def staffed(settings: Settings) -> Settings:
    """Settings of a support account that no other test uses."""
    return replace(settings, support_email=new_email(), support_password="made at the start")


def _login(client: FlaskClient, email: str, password: str) -> int:
    body = {"email": email, "password": password}
    return client.post("/v1/auth/login", json=body).status_code


def _role(engine: Engine, email: str) -> str:
    with engine.connect() as connection:
        role: str = connection.execute(
            text("SELECT role FROM users WHERE email = :email"), {"email": email}
        ).scalar_one()
        return role


def _account(engine: Engine, settings: Settings, email: str, **options: str | None) -> int:
    chosen = {"role": None, "password": None, **options}
    return account_command(argparse.Namespace(email=email, **chosen), engine, settings)


def test_what_the_server_prints_at_its_start_logs_in(
    client: FlaskClient, engine: Engine, staffed: Settings
) -> None:
    for _ in range(2):
        email, password = ensure_support_account(engine, staffed)
        assert _login(client, email, password) == 200
    assert _role(engine, email) == "support"


def test_in_development_the_printed_password_is_made_to_work_again(
    client: FlaskClient, engine: Engine, staffed: Settings
) -> None:
    ensure_support_account(engine, staffed)
    _account(engine, staffed, staffed.support_email, password="changed by someone")
    assert _login(client, *ensure_support_account(engine, staffed)) == 200


def test_in_production_a_changed_password_stays(
    client: FlaskClient, engine: Engine, staffed: Settings
) -> None:
    production = replace(staffed, env="production")
    ensure_support_account(engine, production)
    _account(engine, staffed, staffed.support_email, password="changed by staff")
    ensure_support_account(engine, production)
    assert _login(client, staffed.support_email, "changed by staff") == 200


def test_in_production_there_is_no_account_without_a_password(
    engine: Engine, staffed: Settings
) -> None:
    production = replace(staffed, env="production", support_password=None)
    assert ensure_support_account(engine, production) == ("", "")
    with pytest.raises(Exception, match="No row was found"):
        _role(engine, staffed.support_email)


def test_the_shell_makes_an_account_and_prints_its_password(
    client: FlaskClient, engine: Engine, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    email = new_email()
    assert _account(engine, settings, email.upper(), role="admin") == 0
    printed = capsys.readouterr().out
    password = printed.partition("Its password: ")[2].strip()
    assert _login(client, email, password) == 200
    assert _role(engine, email) == "admin"


def test_the_shell_changes_a_role_and_leaves_the_password(
    app: Flask, engine: Engine, settings: Settings
) -> None:
    ada = Person(app.test_client())
    assert _account(engine, settings, ada.email, role="support") == 0
    assert _role(engine, ada.email) == "support"
    assert ada.log_in().status_code == 200


def test_a_password_from_the_shell_ends_the_refresh_tokens(
    app: Flask, engine: Engine, settings: Settings
) -> None:
    ada = Person(app.test_client())
    assert _account(engine, settings, ada.email, password="a new password") == 0
    told(ada.log_in(), 401, "bad_credentials")
    told(ada.refresh(), 401, "token_invalid")
    assert _role(engine, ada.email) == "user"
    assert _login(app.test_client(), ada.email, "a new password") == 200


@pytest.mark.parametrize(
    ("email", "password"),
    [("nobody", "long enough"), ("a@example.org", "short"), ("a@example.org", "nul \0 within")],
)
def test_the_shell_refuses_with_a_sentence(
    engine: Engine,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    email: str,
    password: str,
) -> None:
    assert _account(engine, settings, email, password=password) == 1
    assert capsys.readouterr().err.endswith(".\n")
