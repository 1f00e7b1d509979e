"""The command line: `rejoin` or `python -m rejoin`. Every command takes the file first."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import rejoin
from rejoin import doctor as doctors
from rejoin.errors import RejoinError
from rejoin.loop import Progress
from rejoin.report import Conflict, when
from rejoin.rowwatch import RowChange
from rejoin.shape import quote
from rejoin.spaces import PERSONAL
from rejoin.values import to_json

BAR_WIDTH = 30
PASSWORD_VARIABLE = "REJOIN_PASSWORD"  # noqa: S105  # the name of a variable, no secret


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 1 refused or failed, in words."""
    asked = parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = asked.run
    try:
        if run not in (_login, _clone) and not Path(asked.file).exists():
            raise RejoinError(f"There is no file {asked.file}.")
        return run(asked)
    except (RejoinError, sqlite3.Error, OSError) as error:
        print(f"rejoin: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    made = argparse.ArgumentParser(prog="rejoin", description=rejoin.__doc__.split("\n")[0])
    commands = made.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], words: str
    ) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=words, description=words)
        one.set_defaults(run=run)
        one.add_argument("file", help="the app's SQLite file")
        return one

    def account(one: argparse.ArgumentParser) -> None:
        one.add_argument("--server", help="its address; remembered in the file")
        one.add_argument("--email")
        one.add_argument("--password", help=f"else {PASSWORD_VARIABLE}, else it is asked for")
        one.add_argument("--signup", action="store_true", help="make the account first")

    account(command("login", _login, "log this file's device in"))
    attach = command(
        "attach",
        _attach,
        "track all tables of an existing file; its rows become changes, sent with the next sync",
    )
    account(attach)
    attach.add_argument("--space", default=PERSONAL, help="a shared space's id")
    clone = command("clone", _clone, "a new file with a space's tables, definitions included")
    account(clone)
    clone.add_argument("--space", default=PERSONAL)
    command("sync", _sync, "push what is pending, pull what is new")
    live = command("live", _live, "stay connected; print changes as they are made and as they come")
    live.add_argument("--seconds", type=float, help="end by itself after so long")
    doctor = command("doctor", _doctor, "which ways to the server work here, and what is between")
    doctor.add_argument(
        "--idle", type=float, default=doctors.IDLE_S, help="seconds to keep connections idle"
    )
    command("status", _status, "what is pending and what went wrong, in words")
    command("conflicts", _conflicts, "cells with concurrent values; a plain UPDATE settles one")
    log = command("log", _log, "this device's own changes and what became of them")
    log.add_argument("--limit", type=int, default=20)
    sql = command("sql", _sql, "run one statement; a write is one change")
    sql.add_argument("statement")
    command("spaces", _spaces, "the spaces that the account may read")
    return made


def _password(asked: argparse.Namespace) -> str:
    given = asked.password or os.environ.get(PASSWORD_VARIABLE)
    return given or getpass.getpass(f"Password of {asked.email}: ")


def _enter(db: rejoin.Database, asked: argparse.Namespace) -> None:
    enter = db.signup if asked.signup else db.login
    enter(asked.email, _password(asked))


def _login(asked: argparse.Namespace) -> int:
    if not asked.email:
        raise RejoinError("Say who logs in: --email ada@example.org")
    with rejoin.open(asked.file, asked.server) as db:
        _enter(db, asked)
        print(f"Logged in as {asked.email}, device {db.status().device_id}.")
    return 0


def _attach(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file, asked.server) as db:
        if asked.email:
            _enter(db, asked)
        made = db.attach(space=asked.space)
        for table, rows in made.items():
            print(f"{rows:>9,}  {table}")
        print(
            f"{sum(made.values()):>9,}  rows of {len(made)} tables, to be sent with `rejoin sync`"
        )
    return 0


def _clone(asked: argparse.Namespace) -> int:
    if not (asked.server and asked.email):
        raise RejoinError("Say from where and as whom: --server http://… --email ada@example.org")
    with rejoin.clone(
        asked.file, asked.server, asked.email, _password(asked), space=asked.space, progress=bar
    ) as db:
        for table in db.tables():
            count = db.execute(f"SELECT count(*) FROM {quote(table)}").fetchone()[0]
            print(f"{count:>9,}  {table}")
    return 0


def bar(progress: Progress) -> None:
    """A progress bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return
    total = max(progress.total or 0, progress.done)
    filled = BAR_WIDTH * progress.done // total if total else 0
    print(
        f"\r{progress.phase:<6}[{'#' * filled}{'.' * (BAR_WIDTH - filled)}]"
        f" {progress.done:,}/{total:,}",
        end="\n" if progress.phase == "apply" else "",
        file=sys.stderr,
        flush=True,
    )


def _sync(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        done = db.sync(bar)
        print(
            f"Pushed {done.pushed:,} changes, pulled {done.pulled:,} records"
            f" in {done.rounds:,} round trip{'' if done.rounds == 1 else 's'}."
        )
        if done.rejected or done.errors:
            print(db.status())
    return 1 if done.errors else 0


def _live(asked: argparse.Namespace) -> int:
    """`>` is written on this device, `<` came from others. Ends with Ctrl-C."""
    with rejoin.open(asked.file) as db:
        live = db.live(
            lambda rows: print(*(_row_said(db, row) for row in rows), sep="\n", flush=True),
            on_presence=lambda _space, device, state: print(
                f"  {device} {'left' if state is None else json.dumps(state)}", flush=True
            ),
            on_state=lambda state, words: print(
                f"- {state}{f': {words}' if words else ''}", file=sys.stderr, flush=True
            ),
        )
        with suppress(KeyboardInterrupt):
            live.wait_until("stopped", timeout_s=asked.seconds or threading.TIMEOUT_MAX)
        if live.state == "stopped":
            raise RejoinError(live.words)
    return 0


def _doctor(asked: argparse.Namespace) -> int:
    bad = False
    with rejoin.open(asked.file) as db:
        for finding in doctors.examine(db, asked.idle):
            print(finding, flush=True)
            bad |= finding.mark == "bad"
    return 1 if bad else 0


def _row_said(db: rejoin.Database, row: RowChange) -> str:
    mark = "<" if row.by_others else ">"
    if row.key is None:
        return f"{mark} {row.table}: any row may be another one"
    name = f"{mark} {row.table} {', '.join(map(str, row.key))}"
    values = db.read(row.table, row.key)
    if row.gone or values is None:
        return f"{name}: gone"
    return f"{name}: " + " ".join(
        f"{column}={values[column]!r}" for column in values if column in row.columns
    )


def _status(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        print(db.status())
    return 0


def _conflicts(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        found = db.conflicts()
    for one in found:
        print(_said(one))
    print("No conflicts." if not found else f"{len(found):,} in conflict.")
    return 0


def _said(one: Conflict) -> str:
    key = ", ".join(map(repr, one.key))
    lines = [f"{one.table} ({key}) {one.column}"]
    for sibling in one.siblings:
        mark = "*" if sibling is one.siblings[0] else " "
        lines.append(f"  {mark} {sibling.value!r}  by {sibling.device}, {when(sibling.at)}")
    return "\n".join(lines)


def _log(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        for change in db.log(asked.limit):
            at = change["at"]
            print(
                f"{change['counter']:>6}  {change['state']:<8}"
                f" {when(at if isinstance(at, int) else None)}"
                f"  {json.dumps(change['ops'], ensure_ascii=False)[:160]}"
            )
    return 0


def _sql(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        found = db.execute(asked.statement)
        for row in found:
            print(
                "|".join(
                    "" if v is None else v if isinstance(v, str) else json.dumps(to_json(v))
                    for v in row
                )
            )
    return 0


def _spaces(asked: argparse.Namespace) -> int:
    with rejoin.open(asked.file) as db:
        for one in db.spaces():
            print(f"{one.get('id')}  {one.get('role'):<7} {one.get('name')}")
    return 0
