"""One user's data: taken along, and erased everywhere.

Promises: an export holds no connection while it is sent; erasing is one transaction with its row
in the audit trail, and says how many rows went from each table; the account that asks is safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import Final
from uuid import UUID

from msgspec import Struct
from sqlalchemy import Connection, Engine

from app.admin.actions import note
from app.admin.users import user as found_user
from app.admin.writing import Desk
from storage import accounts, erasure, holdings
from storage.engine import one_moment
from sync.errors import Conflict, NotFound

CHUNK_BYTES: Final = 64 * 2**10


class Erased(Struct, frozen=True):
    """A user is erased: `rows` that went by table. `kept_changes` of theirs stay with the others
    of shared spaces, under devices that name nobody.
    """

    audit: int
    rows: dict[str, int]
    kept_changes: int


def erase(at: Desk, user: UUID) -> Erased:
    """Erases the user everywhere. Raises NotFound, Conflict (`own_account`)."""
    if user == at.who.user_id:
        raise Conflict("own_account")
    who = erasure.subject(at.connection, user)
    if who is None:
        raise NotFound("not_found", "There is no such user.")
    kept = erasure.kept(at.connection, who)
    rows = erasure.erase(at.connection, who)
    before = {"role": who.role, "spaces": len(who.own), "shared_spaces": len(who.shared)}
    number = note(at, "erase", before, {"rows": rows, "kept_changes": kept}, user=user)
    return Erased(number, rows, kept)


def noted_export(at: Desk, user: UUID) -> None:
    """The export's row in the audit trail, before anything is sent. Raises NotFound."""
    found_user(at.connection, user)
    note(at, "export", None, None, user=user)


def export(engine: Engine, user: UUID) -> Iterator[bytes]:
    """All that is kept of the user at one moment: lines of JSON in chunks, each with its `kind`."""
    with TemporaryFile() as spool:
        with one_moment(engine) as connection:
            for row in holdings.every(connection, user):
                spool.write(row.encode() + b"\n")
        spool.seek(0)
        while chunk := spool.read(CHUNK_BYTES):
            yield chunk


def user_named(connection: Connection, name: str) -> UUID:
    """The user of an email or an id; raises NotFound."""
    try:
        return found_user(connection, UUID(name)).id
    except ValueError:
        user = accounts.user_by_email(connection, name)
    if user is None:
        raise NotFound("not_found", "There is no such user.")
    return user.id
