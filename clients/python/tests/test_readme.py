"""The README is the model for other devices: its SQL is the code's."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

import rejoin
from rejoin.schema import LOCAL_TABLES
from rejoin.shape import read_shape
from rejoin.triggers import Place, build
from rejoin_testing.device import TASK_KINDS, TASKS, Maker
from rejoin_testing.fake_server import FakeServer
from rejoin_testing.live_server import serve

BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_trigger_sql_in_the_readme_is_what_is_made() -> None:
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, votes INTEGER, tags TEXT)")
    shape = read_shape(db, "tasks", {"votes": "counter", "tags": "set"})
    db.close()
    text = README.read_text(encoding="utf-8")
    for sql in build(shape, Place(1, 1)).values():
        assert sql + ";" in text


def test_the_readme_names_every_local_table() -> None:
    text = README.read_text(encoding="utf-8")
    names = [line.split()[5] for line in LOCAL_TABLES.splitlines() if "CREATE TABLE" in line]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in text] == []


def said(heading: str) -> str:
    """The Python of one section."""
    section = README.read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(BLOCK.findall(section))


def test_documents_are_used_as_written(
    device: Maker, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    db = device(sql="")
    exec(said("Documents"), {"db": db})  # noqa: S102  # the README's own
    assert capsys.readouterr().out == "Dear all, hello ('Dear all, hello',)\n"
    db.sync()
    assert server.rows["notes", "n1"]["documents"]["body"]


def test_live_is_used_as_written(
    tmp_path: Path, server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(server) as port, rejoin.open(tmp_path / "a.sqlite", port.address) as db:
        db.login("ada@example.org", "secret")
        db.connection.executescript(TASKS)
        db.track("tasks", kinds=TASK_KINDS)
        names = {"db": db, "uuid7": lambda: "t1", "live": None}
        start, stop = said("Live").split("live.stop()")
        exec(start, names)  # noqa: S102  # the README's own
        live = names["live"]
        assert isinstance(live, rejoin.Live)
        assert port.wait_for(lambda: ("tasks", "t1") in server.rows)
        assert port.wait_for(
            lambda: any(m["type"] == "presence" for s in port.sockets for m in s.told)
        )
        live.stop()
        assert stop.strip() == ""
    assert "tasks ('t1',)" in capsys.readouterr().out
