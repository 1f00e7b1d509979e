"""Rejoin's device: your app's own SQLite tables, in plain SQL, in sync.

import rejoin
db = rejoin.open("app.sqlite", server="https://sync.example.org")
db.login("ada@example.org", "…")
db.track("tasks", votes="counter", tags="set")
db.execute("UPDATE tasks SET votes = votes + 1 WHERE id = ?", ("t1",))
db.sync()
"""

from rejoin.clone import clone
from rejoin.database import Database, open  # noqa: A004  # rejoin.open, as in dbm.open
from rejoin.document import Document
from rejoin.errors import (
    Busy,
    NotLoggedIn,
    Offline,
    RejoinError,
    ServerRefused,
    Stuck,
    TrackingError,
)
from rejoin.live import Live
from rejoin.loop import Progress, SyncResult
from rejoin.report import Aside, Conflict, Refused, Sibling, SpaceStatus, Status
from rejoin.rowwatch import RowChange
from rejoin.transport import Http, HttpAnswer

__all__ = [
    "Aside",
    "Busy",
    "Conflict",
    "Database",
    "Document",
    "Http",
    "HttpAnswer",
    "Live",
    "NotLoggedIn",
    "Offline",
    "Progress",
    "Refused",
    "RejoinError",
    "RowChange",
    "ServerRefused",
    "Sibling",
    "SpaceStatus",
    "Status",
    "Stuck",
    "SyncResult",
    "TrackingError",
    "clone",
    "open",
]
