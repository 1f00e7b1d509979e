"""The command line, on a real database where one is given."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

import rejoin
from rejoin.cli import main
from rejoin_testing.fake_server import FakeServer

CHINOOK = os.environ.get("REJOIN_TEST_CHINOOK", "")


@pytest.fixture(autouse=True)
def _faked(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rejoin.database.Urllib3", lambda: server)


def run(capsys: pytest.CaptureFixture[str], *args: str, status: int = 0) -> str:
    assert main(args) == status
    out, err = capsys.readouterr()
    return out + err


def account(*more: str) -> tuple[str, ...]:
    return ("--server", "http://fake", "--email", "ada@example.org", "--password", "x", *more)


def test_a_file_is_attached_synced_and_cloned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = str(tmp_path / "a.sqlite"), str(tmp_path / "b.sqlite")
    plain = sqlite3.connect(a)
    plain.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, x); INSERT INTO t VALUES (1, 'y')")
    plain.close()
    assert "1  rows of 1 tables" in run(capsys, "attach", a, *account("--signup"))
    assert "Pushed 2 changes" in run(capsys, "sync", a)
    assert "1  t" in run(capsys, "clone", b, *account())
    assert run(capsys, "sql", b, "SELECT * FROM t") == "1|y\n"
    run(capsys, "sql", b, "UPDATE t SET x = 'z'")
    assert "1 change waiting" in run(capsys, "status", b)
    assert '"fields": {"x": "z"}' in run(capsys, "log", b)
    run(capsys, "sync", b)
    run(capsys, "sync", a)
    assert run(capsys, "sql", a, "SELECT x FROM t") == "z\n"
    assert run(capsys, "conflicts", a) == "No conflicts.\n"


def test_mistakes_are_answered_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.sqlite")
    assert "There is no file" in run(capsys, "sync", missing, status=1)
    assert not Path(missing).exists()
    assert "--email" in run(capsys, "login", missing, status=1)
    keyless = str(tmp_path / "k.sqlite")
    plain = sqlite3.connect(keyless)
    plain.execute("CREATE TABLE t (x)")
    plain.close()
    assert "no primary key" in run(capsys, "attach", keyless, *account(), status=1)
    assert "no such table" in run(capsys, "sql", keyless, "SELECT * FROM nowhere", status=1)


@pytest.mark.skipif(not CHINOOK, reason="REJOIN_TEST_CHINOOK names no chinook.sqlite")
def test_all_of_chinook_arrives_on_a_second_device(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = tmp_path / "a.sqlite", tmp_path / "b.sqlite"
    shutil.copyfile(CHINOOK, a)
    assert "15,607  rows of 11 tables" in run(capsys, "attach", str(a), *account("--signup"))
    run(capsys, "sync", str(a))
    run(capsys, "clone", str(b), *account())
    with rejoin.open(a) as one, rejoin.open(b) as other:
        assert one.tables() != []
        for table in one.tables():
            query = f'SELECT * FROM "{table}" ORDER BY 1, 2'
            assert one.execute(query).fetchall() == other.execute(query).fetchall(), table
        assert other.execute("PRAGMA foreign_key_check").fetchall() == []
