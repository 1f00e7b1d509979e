"""What pushes decided is written the same, few rows or many, and looked up by its keys."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, text

from storage import decisions, sql
from storage.engine import one_push
from storage.sql import as_rows, cursor
from tests.contract.devices import phone, put

STRANGE = 'c\t\\"é\n\\N'
RECORDS = "SELECT id, position, deleted, bytes, conflicts, data, causality FROM records"
LOG = "SELECT position, replica, counter, clock, ops, digest, conflicts FROM changes"


def met(client: FlaskClient, engine: Engine) -> tuple[list[Any], list[Any]]:
    """Two write the same records without having seen each other, and one of them new ones too."""
    mine = phone(client)
    other = phone(client, mine.email)
    rows = [put(f"r{n}", collection=STRANGE, a=n, b=STRANGE) for n in range(6)]
    mine.sync(mine.change(*rows))
    other.sync()
    theirs = [put(f"r{n}", collection=STRANGE, a=-1 - n) for n in range(3)]
    earlier = 1_763_700_000_000
    other.sync(
        other.change(*theirs, at=earlier), other.change(put(STRANGE, collection=STRANGE, a=None))
    )
    changes = [mine.change(put(f"r{n}", collection=STRANGE, a=1 + n)) for n in range(6)]
    got = mine.sync(*changes, mine.change(put("new", collection=STRANGE, a=1.5)))
    assert got["accepted"] == 8
    assert got["rejected"] == []
    of_space = "WHERE space_id = (SELECT space_id FROM replicas WHERE device_id = :device)"
    with engine.connect() as connection:
        return tuple(  # type: ignore[return-value]
            connection.execute(text(f"{what} {of_space} {order}"), {"device": mine.device}).all()
            for what, order in ((RECORDS, "ORDER BY id"), (LOG, "ORDER BY position"))
        )


@pytest.mark.parametrize(("at_once", "part_bytes"), [(0, 10_000), (1_000, 1), (0, 1)])
def test_it_is_the_same_whichever_way_it_is_written(
    client: FlaskClient,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    at_once: int,
    part_bytes: int,
) -> None:
    usual = met(client, engine)
    monkeypatch.setattr(decisions, "ROWS_AT_ONCE", at_once)
    monkeypatch.setattr(sql, "PART_BYTES", part_bytes)
    found = met(client, engine)
    assert [row[:-1] for row in found[0]] == [row[:-1] for row in usual[0]]
    assert sum(row[4] for row in found[0]) == 3, "the conflicts, of which siblings are kept"
    assert found[1] == usual[1]


def test_nothing_is_looked_for_by_reading_all(engine: Engine) -> None:
    none = dict.fromkeys(("logged", "made", "changed", "moved"), as_rows(()))
    with one_push(engine) as connection:
        cur = cursor(connection)
        cur.execute("EXPLAIN " + decisions._WRITE, none)
        plan = "\n".join(line for (line,) in cur)
    assert "Index Scan" in plan
    assert "Seq Scan" not in plan
    assert "Hash" not in plan
