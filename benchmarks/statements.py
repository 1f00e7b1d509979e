"""The statements that a request runs, and what PostgreSQL says of each.

The app runs in this process; the driver's cursor is watched while it answers one request. Each
statement is then explained with the same values, in a transaction that is rolled back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg

from app import create_app
from app.runtime import EXTENSION
from app.settings import Settings
from benchmarks.stage import Stage
from storage.engine import BEGIN_PUSH
from storage.tables import metadata

EXPLAIN: Final = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "
EXPLAINABLE: Final = ("SELECT", "WITH", "UPDATE", "INSERT", "DELETE")
EXECUTE: Final = "; EXECUTE "
# What a push has put down is taken away before its writing is explained.
_TAKE_AWAY: Final = """
    WITH log AS (
        DELETE FROM changes WHERE (space_id::text, position::text) IN
            (SELECT r->>0, r->>1 FROM jsonb_array_elements(%(logged)s::jsonb) r)
    )
    DELETE FROM records WHERE (space_id::text, collection, id) IN
        (SELECT r->>0, r->>1, r->>2 FROM jsonb_array_elements(%(made)s::jsonb) r)
"""
NAME_CHARS: Final = 40


@dataclass(frozen=True)
class Explained:
    """`pages`: of 8 kB that were touched, in memory or not. `nodes`: the plan's scans."""

    statement: str
    milliseconds: float
    pages: int
    nodes: str

    @property
    def name(self) -> str:
        """The statement's beginning: its verb and what it is about."""
        flat = " ".join(self.statement.split())
        verb = flat.split(maxsplit=1)[0]
        tables = re.findall(r"\b(?:FROM|INTO|UPDATE|JOIN) ([a-z_]+)\b(?!\()", flat)
        return f"{verb} {', '.join(dict.fromkeys(tables))}"[:NAME_CHARS]


def explained(settings: Settings, token: str, body: object) -> list[Explained]:
    """What a `POST /v1/sync` with this body runs. The request itself is carried out."""
    app = create_app(settings)
    headers = {"Authorization": f"Bearer {token}"}
    with _watched() as seen:
        answer = app.test_client().post("/v1/sync", json=body, headers=headers)
    if answer.status_code != 200:
        raise RuntimeError(f"answered {answer.status_code}: {answer.text[:300]}")
    app.extensions[EXTENSION].engine.dispose()
    # Each once: what the driver and the pool ask for themselves is none of ours.
    ours = {text: values for text, values in seen if _is_ours(text)}
    prepared = [text for text, _ in seen if text.startswith("PREPARE")]
    calls = [call for text, _ in seen for call in text.split(EXECUTE)[1:]]
    with Stage.connect(str(settings.database_url)) as connection:
        told = [_explained(connection, text, text, values) for text, values in ours.items()]
        for text in prepared:
            connection.execute(text)
        connection.commit()
        told += [
            _explained(connection, _text_of(call, prepared), f"EXECUTE {call}") for call in calls
        ]
    return [one for one in told if one is not None]


def _text_of(call: str, prepared: list[str]) -> str:
    """The statement that is called, without its PREPARE."""
    name = call.split(maxsplit=1)[0]
    (found,) = {text for text in prepared if text.startswith(f"PREPARE {name} AS")}
    return found.split(" AS", 1)[1].strip()


def _is_ours(statement: str) -> bool:
    """Whether it is about a table of the schema."""
    of_table = any(re.search(rf"\b{name}\b", statement) for name in metadata.tables)
    return of_table and statement.lstrip().upper().startswith(EXPLAINABLE)


@contextmanager
def _watched() -> Iterator[list[tuple[str, Any]]]:
    """The statements and their values, of all of psycopg's cursors in this process."""
    seen: list[tuple[str, Any]] = []
    original: Any = psycopg.Cursor.execute

    def execute(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        text = query.as_string(self) if hasattr(query, "as_string") else query
        seen.append((text if isinstance(text, str) else bytes(text).decode(), params))
        return original(self, query, params, **more)

    psycopg.Cursor.execute = execute  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        psycopg.Cursor.execute = original  # type: ignore[method-assign]


def _explained(
    connection: psycopg.Connection, statement: str, run: str, values: Any = None
) -> Explained | None:
    """What `run` does: the statement, or an EXECUTE of it. None: it can't be run again, such as the
    registering of a device that is there by now.
    """
    row: Any = None
    # Twice: the first time it finds its pages.
    for _ in range(2):
        try:
            writes = isinstance(values, dict) and "logged" in values
            # As a push runs what is its own; a pull's plans are PostgreSQL's free choice.
            if writes or run != statement:
                connection.execute(BEGIN_PUSH.removeprefix("BEGIN; "))
            if writes:
                connection.execute(_TAKE_AWAY, values)
            row = connection.execute(EXPLAIN + run, values).fetchone()
        except psycopg.errors.UniqueViolation:
            return None
        finally:
            connection.rollback()
    (told,) = row[0]
    plan = told["Plan"]
    pages = plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0)
    nodes = ", ".join(dict.fromkeys(_scans(plan)))
    spent = told["Planning Time"] + told["Execution Time"]
    return Explained(statement, spent, pages, nodes)


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    """The scans of a plan: the index, or the table where all of it is read."""
    if index := plan.get("Index Name"):
        yield index
    elif plan["Node Type"] == "Seq Scan":
        yield f"all of {plan['Relation Name']}"
    for inner in plan.get("Plans", ()):
        yield from _scans(inner)
