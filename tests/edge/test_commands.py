"""`python -m app …`: the commands that tend a server, against a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from app.__main__ import main

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
