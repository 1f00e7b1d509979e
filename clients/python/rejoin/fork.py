"""A device id used twice: a phone restored from a backup, or a cloned installation.

Under the old id all pending changes of all spaces are sent once more, to learn which of them the
server already has. Those are dropped; the rest are renumbered under a new id, with the old id's
counter in their contexts, and the copy is fetched anew. Both lines' writes survive.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator

from rejoin import document_rows, documents, limits, settle, spaces
from rejoin.answers import as_int, as_object, as_text, read_space
from rejoin.apply import writing
from rejoin.errors import NotLoggedIn, ServerRefused
from rejoin.outbox import renumbered, seal
from rejoin.request import part_text
from rejoin.schema import get_meta, set_meta
from rejoin.spaces import Space
from rejoin.transport import Session
from rejoin.values import JsonObject, compact, parse


def resolve(
    db: sqlite3.Connection, session: Session, now_ms: int, credentials: tuple[str, str] | None
) -> None:
    """Asks what is known, then registers anew. Raises NotLoggedIn where no password is at hand."""
    ask_known(db, session, now_ms)
    if credentials is None:
        raise NotLoggedIn(
            "This app was restored from a backup or cloned: another installation uses its device"
            " id. Log in again, and it gets an id of its own; nothing is lost."
        )
    register_anew(db, session, *credentials)


def ask_known(db: sqlite3.Connection, session: Session, now_ms: int) -> None:
    """Drops the pending changes that the server has in exactly this form."""
    settle.sealed(db)
    with writing(db):
        seal(db)
        set_meta(db, "forked", 1)
    for asked in _questions(db):
        text = (
            compact({"sent_at": now_ms})[:-1]
            + ',"spaces":{'
            + ",".join(f"{compact(space.id)}:{text}" for space, text, _ in asked)
            + "}}"
        )
        answered = as_object(session.send("/v1/sync", text).get("spaces"))
        with writing(db):
            for space, _, held in asked:
                _drop_known(db, space, answered.get(space.id), now_ms, held)


def _questions(db: sqlite3.Connection) -> Iterator[list[tuple[Space, str, set[int]]]]:
    """All pending changes in one go; more than a request holds in several."""
    rest = [(space, _bodies(db, space)) for space in spaces.read_all(db)]
    most = limits.read(db)
    first = True
    while first or any(bodies for _, bodies in rest):
        room, size = most.changes, most.bytes
        asked: list[tuple[Space, str, set[int]]] = []
        for space, bodies in rest:
            taken: list[tuple[int, str]] = []
            if len(asked) == most.spaces:
                break
            while bodies and room and (size > 0 or room == most.changes):
                taken.append(bodies.pop(0))
                room -= 1
                size -= len(taken[-1][1].encode())
            if taken or first:
                text = part_text(space, [body for _, body in taken])
                asked.append((space, text, {counter for counter, _ in taken}))
        first = False
        yield asked


def _bodies(db: sqlite3.Connection, space: Space) -> list[tuple[int, str]]:
    return [
        (int(row[0]), str(row[1]))
        for row in db.execute(
            "SELECT counter, body FROM rejoin_changes WHERE space = ? AND state = 'pending'"
            " ORDER BY counter",
            (space.no,),
        )
    ]


def _drop_known(
    db: sqlite3.Connection, space: Space, answer: object, now_ms: int, held: set[int]
) -> None:
    mine = read_space(answer)  # type: ignore[arg-type]  # a JSON value, or None where it is absent
    known: set[int] = set()
    if mine.error:
        listed = mine.error.whole.get("known")
        known = {
            c for c in map(as_int, listed if isinstance(listed, list) else []) if c is not None
        }
    elif mine.accepted is not None:
        known = {c for c in held if c <= mine.accepted}  # of the others it says nothing
        for counter, problem in mine.rejected:
            if counter in held:
                settle.refuse(db, space.no, counter, problem, now_ms)
    db.executemany(
        "UPDATE rejoin_changes SET state = 'accepted', decided_at = ? WHERE space = ?"
        " AND counter = ? AND state = 'pending'",
        [(now_ms, space.no, counter) for counter in known],
    )


def register_anew(db: sqlite3.Connection, session: Session, email: str, password: str) -> None:
    """A new id in place of the old one, and the rest renumbered, in one local transaction."""
    old = get_meta(db, "device_id") or ""
    described: JsonObject = {
        "name": get_meta(db, "device_name") or "python",
        "platform": get_meta(db, "platform") or "python",
        "app_version": get_meta(db, "app_version") or "0",
        "replaces": old,
    }
    answer = session.anonymous(
        "/v1/auth/login", {"email": email, "password": password, "device": described}
    )
    settle.sealed(db)
    for space in spaces.read_all(db):
        _drop_logged(db, session, as_text(answer.get("access_token")), space, old)
    with writing(db):
        seal(db)
        session.keep(answer)
        set_meta(db, "device_id", as_text(answer.get("device_id")))
        set_meta(db, "forked", None)
        for space in spaces.read_all(db):
            _renumber(db, space, old)


def _drop_logged(
    db: sqlite3.Connection, session: Session, token: str, space: Space, old: str
) -> None:
    """Looks the old id's changes up in the log, now that no late request can add one.

    Where the old id may no longer ask (it was revoked, or its tokens have ended), this is the only
    way to tell what had arrived of the changes whose answer was lost.
    """
    waiting = {
        counter: (at, json.loads(body)["ops"])
        for counter, at, body in db.execute(
            "SELECT counter, at, body FROM rejoin_changes WHERE space = ? AND state = 'pending'",
            (space.no,),
        )
    }
    after = space.pull_cursor
    while waiting:
        try:
            answer = session.get(f"/v1/spaces/{space.id}/log?after={after}", token)
        except ServerRefused:
            return  # the space is not ours any more; its own answer will say so
        found = answer.get("changes")
        entries = [as_object(e) for e in (found if isinstance(found, list) else [])]
        for entry in entries:
            counter = as_int(entry.get("counter")) or 0
            if entry.get("device") == old and waiting.get(counter) == (
                entry.get("at"),
                entry.get("ops"),
            ):
                db.execute(
                    "UPDATE rejoin_changes SET state = 'accepted' WHERE space = ? AND counter = ?",
                    (space.no, counter),
                )
            after = max(after, as_int(entry.get("position")) or 0)
        if not entries or after >= (as_int(answer.get("head")) or 0):
            return


def _renumber(db: sqlite3.Connection, space: Space, old: str) -> None:
    rows = db.execute(
        "SELECT counter, at, body, state FROM rejoin_changes WHERE space = ? ORDER BY counter",
        (space.no,),
    ).fetchall()
    done = _done(space, [(int(r[0]), str(r[3])) for r in rows])
    clock: JsonObject = {old: done} if done else {}
    db.execute("DELETE FROM rejoin_changes WHERE space = ?", (space.no,))
    rest = [(at, body) for _, at, body, state in rows if state == "pending"]
    db.executemany(
        "INSERT INTO rejoin_changes (space, counter, at, body) VALUES (?, ?, ?, ?)",
        [(space.no, n, at, renumbered(body, n, clock)) for n, (at, body) in enumerate(rest, 1)],
    )
    document_rows.reindex(db, space.no)
    documents.renew_client(db)
    db.execute("DELETE FROM rejoin_staged WHERE space = ?", (space.no,))
    for no, record_id, text in db.execute(
        "SELECT d.collection, d.id, d.context FROM rejoin_deletes AS d JOIN rejoin_collections"
        " AS c ON c.no = d.collection WHERE c.space = ?",
        (space.no,),
    ).fetchall():
        context = as_object(_parsed(text))
        context["clock"] = {**as_object(context.get("clock")), **clock}
        db.execute(
            "UPDATE rejoin_deletes SET context = ? WHERE collection = ? AND id = ?",
            (compact(context), no, record_id),
        )
    kept = db.execute("SELECT clock FROM rejoin_spaces WHERE no = ?", (space.no,)).fetchone()[0]
    named = {**as_object(_parsed(kept)), **clock}
    db.execute(
        "UPDATE rejoin_spaces SET counter = ?, discarded = NULL, page = NULL, pull_cursor = 0,"
        " replacing = 1, clock = ? WHERE no = ?",
        (len(rest), compact(named) if named else None, space.no),
    )


def _parsed(text: str | None) -> JsonObject:
    return as_object(parse(text)) if text else {}


def _done(space: Space, states: list[tuple[int, str]]) -> int:
    """The old id's counter up to which its changes are this device's own, and decided."""
    counter = space.counter
    for number, state in states:
        if state == "pending":
            counter = number - 1
            break
    return counter
