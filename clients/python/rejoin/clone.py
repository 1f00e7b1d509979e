"""A new file from a space: log in, pull, make the published tables, fill them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rejoin import database, spaces
from rejoin.database import Database
from rejoin.errors import RejoinError
from rejoin.loop import Progress


def clone(
    path: str | os.PathLike[str],
    server: str,
    email: str,
    password: str,
    *,
    space: str = spaces.PERSONAL,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Database:
    """A new file with a space's tables, definitions included. RejoinError: there are none."""
    if Path(path).exists() and Path(path).stat().st_size > 0:
        with database.open(path) as there:
            if there.tables():
                raise RejoinError(f"{path} has tables already; clone into a new file.")
    db = database.open(path, server, **options)
    db.login(email, password)
    if space != spaces.PERSONAL:
        db.join(space)
    db.sync(progress)
    db.make_tables(space)
    return db
