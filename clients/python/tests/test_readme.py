"""The README is the model for other devices: its SQL is the code's."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from rejoin.schema import LOCAL_TABLES
from rejoin.shape import read_shape
from rejoin.triggers import Place, build

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
