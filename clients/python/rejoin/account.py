"""Logging a device in: for the first time, again, or under a new id in place of an old one."""

from __future__ import annotations

import platform as system
import sqlite3
from dataclasses import dataclass

from rejoin import fork
from rejoin.answers import as_text
from rejoin.apply import writing
from rejoin.errors import RejoinError, ServerRefused
from rejoin.schema import get_meta, set_meta
from rejoin.transport import Session
from rejoin.values import JsonObject

REPLACED = frozenset({"device_revoked", "device_fork"})
"""Codes that say: this id is never let in again."""


@dataclass(frozen=True)
class Login:
    """Who logs in, and what the device says of itself ("": as before, or a guess)."""

    email: str
    password: str
    name: str = ""
    platform: str = ""
    app_version: str = ""


def log_in(db: sqlite3.Connection, session: Session, login: Login) -> None:
    """Stores the tokens. Raises ServerRefused, Offline, RejoinError (another account's file).

    An id that the server no longer lets in (revoked, or frozen after a fork) is replaced by a new
    one; nothing pending is lost.
    """
    before = get_meta(db, "email")
    if before is not None and before != login.email.strip().lower():
        raise RejoinError(f"This file belongs to {before}; another account needs its own file.")
    _describe(db, login)
    device_id = get_meta(db, "device_id")
    if device_id and get_meta(db, "forked"):
        fork.register_anew(db, session, login.email, login.password)
    else:
        try:
            _enter(db, session, login, device_id)
        except ServerRefused as refused:
            if device_id is None or refused.code not in REPLACED:
                raise
            fork.register_anew(db, session, login.email, login.password)
    set_meta(db, "email", login.email.strip().lower())


def _describe(db: sqlite3.Connection, login: Login) -> None:
    for key, value, usual in (
        ("device_name", login.name, system.node() or "python"),
        ("platform", login.platform, system.system() or "python"),
        ("app_version", login.app_version, "0"),
    ):
        if value or get_meta(db, key) is None:
            set_meta(db, key, value or usual)


def _enter(db: sqlite3.Connection, session: Session, login: Login, device_id: str | None) -> None:
    device: JsonObject = {
        "name": get_meta(db, "device_name"),
        "platform": get_meta(db, "platform"),
        "app_version": get_meta(db, "app_version"),
    }
    body: JsonObject = {"email": login.email, "password": login.password, "device": device}
    if device_id:
        body["device_id"] = device_id
    answer = session.anonymous("/v1/auth/login", body)
    with writing(db):
        session.keep(answer)
        set_meta(db, "device_id", as_text(answer.get("device_id")))
        db.execute(
            "UPDATE rejoin_spaces SET id = ?, role = 'owner' WHERE no = 1",
            (as_text(answer.get("personal_space")),),
        )
