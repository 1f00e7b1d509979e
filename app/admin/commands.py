"""The same from the shell, for operators without a browser.

Whoever has the shell has the database: there is no role to ask for. Actions take a reason, and
stand in the audit trail without an actor.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
from sqlalchemy import Connection, Engine

from app.admin import devices, farewell
from app.admin.answers import DeviceFound, DevicesFound, FindingShown
from app.settings import Settings
from storage import audit, erasure
from storage.search import DeviceQuery
from storage.states import sweep
from sync.errors import NotFound

LISTED_MAX: Final = 50


def device_command(options: argparse.Namespace, engine: Engine, _settings: Settings) -> int:
    """`device WHO`: the devices of an email, a user's or a device's id, or a device's name."""
    now = _now()
    with engine.begin() as connection:
        sweep(connection, now)
        query = DeviceQuery(q=options.who)
        found = devices.devices(connection, query, now, None, LISTED_MAX)
    if options.json:
        _print_json(found)
    else:
        _print_devices(found, now)
    return 0 if found.devices else _refuse("There is no such device.")


def diagnose_command(options: argparse.Namespace, engine: Engine, settings: Settings) -> int:
    """`diagnose DEVICE`: why it is stuck; the exit status is 1 where there is a finding."""
    try:
        with engine.begin() as connection:
            device = UUID(options.device)
            found = devices.diagnosis(connection, device, _now(), settings.min_app_version)
    except (ValueError, NotFound):
        return _refuse(f"There is no device {options.device}. Find it: python -m app device EMAIL")
    if options.json:
        _print_json(found)
    elif found.healthy:
        print("Nothing is wrong with this device.")
    for finding in () if options.json else found.findings:
        _print_finding(finding)
    return 0 if found.healthy else 1


def export_command(options: argparse.Namespace, engine: Engine, _settings: Settings) -> int:
    """`export WHO --reason …`: all that is kept of a user, as lines of JSON."""
    try:
        with engine.begin() as connection:
            user = farewell.user_named(connection, options.who)
            _note(connection, "export", user, options.reason, None)
    except NotFound:
        return _refuse(f"There is no user {options.who}.")
    for chunk in farewell.export(engine, user):
        sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()
    return 0


def erase_command(options: argparse.Namespace, engine: Engine, _settings: Settings) -> int:
    """`erase WHO --reason … --yes`: erases a user everywhere, and says what went."""
    try:
        with engine.begin() as connection:
            user = farewell.user_named(connection, options.who)
            if not options.yes:
                return _refuse(f"This erases {options.who} for good: say --yes.")
            who = erasure.subject(connection, user)
            if who is None:
                raise NotFound("not_found")
            kept = erasure.kept(connection, who)
            rows = erasure.erase(connection, who)
            after = {"rows": rows, "kept_changes": kept}
            _note(connection, "erase", user, options.reason, after)
    except NotFound:
        return _refuse(f"There is no user {options.who}.")
    for table, count in rows.items():
        print(f"{count:>10}  {table}")
    print(f"{kept} changes stay with the others of shared spaces, under devices that name nobody.")
    return 0


def _note(
    connection: Connection, action: str, user: UUID, reason: str, after: dict[str, object] | None
) -> None:
    entry = audit.Entry(_now(), None, action, user, None, None, reason, None, after)
    audit.add(connection, entry)


def _print_devices(found: DevicesFound, now: int) -> None:
    for one in found.devices:
        print(f"{one.id}  {one.state:<12} {_ago(now, one.seen_at):>9}  {_named(one)}")
    if found.page is not None:
        print(f"The first {LISTED_MAX}: be more precise.")


def _named(one: DeviceFound) -> str:
    about = " ".join(part for part in (one.name, one.platform, one.app_version) if part)
    lag = f", {one.behind} behind" if one.behind else ""
    return f"{one.email}  {about}{lag}"


def _ago(now: int, then: int) -> str:
    seconds = max(now - then, 0) // 1000
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def _print_finding(finding: FindingShown) -> None:
    print(f"{finding.code}: {finding.sentence}")
    for name, value in finding.evidence.items():
        print(f"    {name}: {value}")
    print(f"  next: {finding.next_step}")


def _print_json(value: msgspec.Struct) -> None:
    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def _refuse(sentence: str) -> int:
    print(f"rejoin: {sentence}", file=sys.stderr)
    return 1


def _now() -> int:
    return int(datetime.now(UTC).timestamp() * 1000)
