"""What the tests' devices look like."""

from __future__ import annotations

from typing import Protocol

import rejoin

TASKS = (
    "CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT, done INTEGER, body BLOB, anything,"
    " votes INTEGER DEFAULT 0, tags TEXT)"
)
TASK_KINDS = {"votes": "counter", "tags": "set"}


class Maker(Protocol):
    """The fixture `device`: see there."""

    def __call__(
        self,
        name: str = "a",
        sql: str = TASKS,
        table: str = "tasks",
        login: bool = True,
        kinds: dict[str, str] | None = None,
    ) -> rejoin.Database: ...
