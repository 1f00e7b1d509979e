"""`python -m app …`: start the server, and tend it."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.errors import UndefinedTable
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError, ProgrammingError

from app import faults
from app.settings import Settings, SettingsError, described
from storage import embedded
from storage.cluster import EmbeddedError
from storage.engine import UnusableDatabase, make_engine
from storage.migrate import current_revision, migrate


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] = os.environ) -> int:
    """Run one command; the exit status is 0, or 1 with a sentence on stderr."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options, Settings.from_environ(environ)) or 0)
    except (SettingsError, EmbeddedError, UnusableDatabase) as refusal:
        print(f"rejoin: {refusal}", file=sys.stderr)
    except ProgrammingError as failure:
        if not isinstance(failure.orig, UndefinedTable):
            raise
        print("rejoin: the database has no schema: python -m app migrate", file=sys.stderr)
    except OperationalError as failure:
        print(f"rejoin: PostgreSQL can't be reached: {faults.said(failure)}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace, Settings], int | None], text: str
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("serve", _serve, "Migrate and serve, with a PostgreSQL of its own if none is named.")
    to = command("migrate", _migrate, "Bring the database's schema to this program's.")
    to.add_argument("--to", default="head", metavar="REVISION", help="or back to: -1, base, an id")
    command("settings", _settings, "Print the settings in force, secrets hidden.")
    command("postgres", _postgres, "Run the embedded PostgreSQL alone until interrupted.")
    restored = command(
        "restored", _restored, "Once after a backup was restored: start each space's next epoch."
    )
    restored.add_argument(
        "--epoch", type=int, default=1, metavar="N", help="at least N: above all that devices know"
    )
    command(
        "compact",
        _compact,
        "Drop the tombstones, tokens and counts that nobody needs any more.",
    )
    account = command("account", _account, "Make an account, or set its password or role.")
    account.add_argument("email")
    account.add_argument("--role", choices=["user", "support", "admin"])
    account.add_argument("--password", help="without it, one is made and printed")
    _add_support(command)
    demo = command("demo", _demo, "Three devices against a fresh server, in under a minute.")
    demo.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_support(command: Callable[..., argparse.ArgumentParser]) -> None:
    """What support staff ask and do, for those without a browser."""
    device = command("device", _support("device_command"), "List devices with their states.")
    device.add_argument("who", help="how an email or a device's name begins, or an id")
    diagnose = command("diagnose", _support("diagnose_command"), "Say why a device is stuck.")
    diagnose.add_argument("device", help="its id")
    for asked in (device, diagnose):
        asked.add_argument("--json", action="store_true", help="as JSON")
    export = command("export", _support("export_command"), "Write down all that is kept of a user.")
    erase = command("erase", _support("erase_command"), "Erase a user everywhere.")
    for named in (export, erase):
        named.add_argument("who", help="an email or a user's id")
        named.add_argument("--reason", required=True, help="it stands in the audit trail")
    erase.add_argument("--yes", action="store_true", help="do it")


def _support(name: str) -> Callable[[argparse.Namespace, Settings], int]:
    def run(options: argparse.Namespace, settings: Settings) -> int:
        from app.admin import commands

        with _engine(settings) as engine:
            return int(getattr(commands, name)(options, engine, settings))

    return run


def _serve(_options: argparse.Namespace, settings: Settings) -> int:
    from app.serve import serve

    return serve(settings)


def _migrate(options: argparse.Namespace, settings: Settings) -> None:
    with _engine(settings, statement_timeout_ms=0) as engine:
        migrate(engine, options.to)
        with engine.connect() as connection:
            print(f"The schema is at revision {current_revision(connection) or 'base: empty'}.")


def _settings(_options: argparse.Namespace, settings: Settings) -> None:
    rows = described(settings)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


def _postgres(_options: argparse.Namespace, settings: Settings) -> int:
    from app.serve import wait_for_the_end

    with embedded.start(settings.data, settings.postgres_bin) as server:
        print(server.url, flush=True)
        return wait_for_the_end(server)


def _compact(_options: argparse.Namespace, settings: Settings) -> None:
    from storage import attempts, events, tokens
    from storage.upkeep import drop_tombstones, every_space

    now = datetime.now(UTC)
    before = now - timedelta(days=settings.tombstone_days)
    dropped = 0
    with _engine(settings) as engine:
        with engine.connect() as connection:
            spaces = every_space(connection)
        for space in spaces:
            with engine.begin() as connection:
                dropped += drop_tombstones(connection, space, int(before.timestamp() * 1000))
        with engine.begin() as connection:
            expired = tokens.forget(connection, now)
            past = events.forget(connection, int(now.timestamp() * 1000))
        counts, batch = 0, attempts.FORGET_AT_ONCE
        while batch == attempts.FORGET_AT_ONCE:
            with engine.begin() as connection:
                batch = attempts.forget(connection, now)
            counts += batch
    print(f"Dropped {dropped} tombstones in {len(spaces)} spaces.")
    print(f"Dropped {expired} expired refresh tokens and {counts} counts of old attempts.")
    print(f"Dropped {past} rows of timelines.")


def _restored(options: argparse.Namespace, settings: Settings) -> None:
    from storage.upkeep import start_next_epoch

    with _engine(settings) as engine, engine.begin() as connection:
        spaces = start_next_epoch(connection, options.epoch)
    print(f"The next epoch has begun in {spaces} spaces. Devices give back what was lost.")


def _account(options: argparse.Namespace, settings: Settings) -> int:
    from app.bootstrap import account_command

    with _engine(settings) as engine:
        return account_command(options, engine, settings)


def _demo(options: argparse.Namespace, _settings: Settings) -> int:
    demo: Any = importlib.import_module("app.demo")
    return int(demo.main(options.rest) or 0)


@contextmanager
def _engine(settings: Settings, *, statement_timeout_ms: int | None = None) -> Iterator[Engine]:
    """An engine of one command, on the database named or on the embedded one."""
    timeout = {} if statement_timeout_ms is None else {"statement_timeout_ms": statement_timeout_ms}
    if settings.database_url is not None:
        server = None
        url = settings.database_url
    else:
        server = embedded.start(settings.data, settings.postgres_bin)
        url = server.url
    engine = make_engine(url, 1, **timeout)
    try:
        yield engine
    finally:
        engine.dispose()
        if server is not None:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
