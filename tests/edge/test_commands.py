"""`python -m app …`: the commands that tend a server, against a real database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from app.__main__ import main
from storage import accounts, attempts, tokens
from storage.engine import make_engine

Command = Callable[..., int]


@pytest.fixture
def command(empty_database: Callable[[], str], tmp_path: Path) -> Command:
    environ = {"DATABASE_URL": empty_database(), "REJOIN_DATA": str(tmp_path)}
    return lambda *arguments: main(arguments, environ)


def test_migrate_goes_to_the_head_and_back(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("migrate") == 0
    assert command("migrate", "--to", "base") == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("The schema is at revision 0")
    assert said[1] == "The schema is at revision base: empty."


def test_an_account_is_made_and_its_role_set(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command("migrate")
    assert command("account", "ada@example.org") == 0
    assert "Its password: " in capsys.readouterr().out
    assert command("account", "ada@example.org", "--role", "admin") == 0
    assert command("account", "no address") == 1


def test_after_a_restore_every_space_begins_its_next_epoch(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    command("migrate")
    command("account", "ada@example.org")
    assert command("restored") == 0
    assert "in 1 spaces" in capsys.readouterr().out


def test_compact_drops_expired_tokens_and_old_counts(
    empty_database: Callable[[], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"DATABASE_URL": empty_database(), "REJOIN_DATA": str(tmp_path)}
    main(["migrate"], environ)
    main(["account", "ada@example.org"], environ)
    engine = make_engine(environ["DATABASE_URL"], 1)
    now = datetime.now(UTC)
    with engine.begin() as connection:
        user_id = connection.scalar(text("SELECT id FROM users"))
        device = accounts.Registration(uuid4(), user_id, "phone", None, None, None)
        accounts.register_device(connection, device, now)
        for days in (-1, 1):
            grant = tokens.Grant(device.id, uuid4(), now, now + timedelta(days=days))
            tokens.issue(connection, grant)
        for hours in (0, 2):
            attempts.count(
                connection, (attempts.logins_from(f"{hours}"),), now - timedelta(hours=hours)
            )
    capsys.readouterr()
    assert main(["compact"], environ) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Dropped 0 tombstones in 1 spaces.",
        "Dropped 1 expired refresh tokens and 1 counts of old attempts.",
        "Dropped 0 rows of timelines.",
    ]
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM refresh_tokens")) == 1
        assert connection.scalar(text("SELECT count(*) FROM login_failures")) == 1
    engine.dispose()


def test_a_database_that_is_not_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"DATABASE_URL": "postgresql://127.0.0.1:1/x", "REJOIN_DATA": str(tmp_path)}
    assert main(["migrate"], environ) == 1
    assert capsys.readouterr().err.startswith("rejoin: PostgreSQL can't be reached")


@pytest.mark.parametrize("name", ["serve", "migrate", "settings", "postgres", "restored", "demo"])
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"], {})
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 3


def test_an_operator_finds_a_device_and_hears_why_it_is_stuck(
    empty_database: Callable[[], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"DATABASE_URL": empty_database(), "REJOIN_DATA": str(tmp_path)}
    main(["migrate"], environ)
    main(["account", "ada@example.org"], environ)
    engine = make_engine(environ["DATABASE_URL"], 1)
    device, now = uuid4(), datetime.now(UTC)
    with engine.begin() as connection:
        user = accounts.user_by_email(connection, "ada@example.org")
        assert user is not None
        made = accounts.Registration(device, user.id, "Ada's phone", "iOS", "4.2", None)
        accounts.register_device(connection, made, now)
    assert main(["device", "ada@"], environ) == 0
    assert str(device) in capsys.readouterr().out
    assert main(["diagnose", str(device)], environ) == 0
    assert "Nothing is wrong" in capsys.readouterr().out
    with engine.begin() as connection:
        accounts.revoke_device(connection, user.id, device, now)
    assert main(["diagnose", str(device)], environ) == 1
    said = capsys.readouterr().out
    assert "device_revoked: " in said
    assert "next: " in said
    assert main(["diagnose", str(device), "--json"], environ) == 1
    assert json.loads(capsys.readouterr().out)["findings"][0]["code"] == "device_revoked"
    for unknown in (str(uuid4()), "no id"):
        assert main(["diagnose", unknown], environ) == 1
    assert main(["device", "nobody"], environ) == 1
    engine.dispose()


def test_an_operator_takes_a_users_data_along_and_erases_them(
    empty_database: Callable[[], str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    environ = {"DATABASE_URL": empty_database(), "REJOIN_DATA": str(tmp_path)}
    main(["migrate"], environ)
    main(["account", "ada@example.org"], environ)
    capfd.readouterr()
    assert main(["export", "ada@example.org", "--reason", "a letter"], environ) == 0
    kinds = [json.loads(line)["kind"] for line in capfd.readouterr().out.splitlines()]
    assert kinds == ["user", "membership"]
    assert main(["erase", "ada@example.org", "--reason", "a letter"], environ) == 1
    assert "--yes" in capfd.readouterr().err
    assert main(["erase", "ada@example.org", "--reason", "a letter", "--yes"], environ) == 0
    assert "1  users" in capfd.readouterr().out
    assert main(["erase", "ada@example.org", "--reason", "a letter", "--yes"], environ) == 1
    engine = make_engine(environ["DATABASE_URL"], 1)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT action, reason FROM audit ORDER BY id")).all()
    assert [tuple(row) for row in rows] == [("export", "a letter"), ("erase", "a letter")]
    engine.dispose()
