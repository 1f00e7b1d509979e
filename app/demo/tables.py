"""What the terminal shows. Everything comes as an argument: these functions know no story."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from rich import box
from rich.markup import escape
from rich.table import Table

import rejoin
from app.demo.crew import TABLES, Leg, Member
from app.demo.history import Cell, Entry, outcome, shown, summary

DIGITS: Final = 8
MEGABYTE: Final = 1_000_000
People = Mapping[str, Member]
"""The crew by their devices' ids."""


def who(people: People, device: str) -> str:
    """A device's owner, in their colour."""
    member = people.get(device)
    return f"[{member.style}]{member.name}[/]" if member else device[:8]


def clock(at_ms: int | None) -> str:
    """A moment, in UTC, to the millisecond."""
    if at_ms is None:
        return "-"
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S.%f}"[:-3]


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1_000:,.1f} kB" if count < MEGABYTE else f"{count / MEGABYTE:,.2f} MB"


def _table(title: str, *columns: str) -> Table:
    table = Table(
        title=f"\n{title}",
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, column in enumerate(columns):
        table.add_column(column, overflow="fold", no_wrap=number == 0)
    return table


def log(entries: Iterable[Entry], people: People) -> Table:
    """Who wrote what, in the log's order."""
    table = _table(
        "Who wrote what: the space's log, in the order of arrival",
        "#", "who", "by their own clock", "arrived", "what",
    )  # fmt: skip
    for entry in entries:
        table.add_row(
            str(entry.position),
            who(people, entry.device),
            clock(entry.at)[:19],
            clock(entry.received_at)[11:19],
            escape(summary(entry)),
        )
    return table


def merged(cells: Sequence[Cell], people: People) -> Table:
    """Rows that several wrote to: each one's writes, what holds now, and why."""
    crew = list(people.values())
    conflicts = crew[0].db.conflicts()
    table = _table(
        "What was merged: the rows that several wrote to",
        "cell", *(who(people, member.device) for member in crew), "now", "why",
    )  # fmt: skip
    last_of_row = {cell.id: cell for cell in cells}
    for cell in cells:
        values = {member.name: _value(member, cell) for member in crew}
        lives = any(value is not None for value in values.values())
        table.add_row(
            f"{cell.id} {cell.field}",
            *(escape(", ".join(cell.texts(member.device))) for member in crew),
            # A space after each element, where a line may end.
            escape(_agreed(values).replace('","', '", "')),
            outcome(cell, conflicts, lives),
            end_section=last_of_row[cell.id] is cell,
        )
    return table


def _value(member: Member, cell: Cell) -> str | None:
    """What the member's own table shows; None: the row is not there."""
    column = "'there'" if cell.field.startswith("(") else f'"{cell.field}"'
    key = "id" if cell.collection == "notes" else "icao"
    row = member.db.execute(
        f"SELECT {column} FROM {cell.collection} WHERE {key} = ?",  # noqa: S608 - our own names
        (cell.id,),
    ).fetchone()
    return None if row is None else shown(row[0])


def _agreed(values: Mapping[str, str | None]) -> str:
    """The one value on all devices; else each device's own."""
    if len(set(values.values())) == 1:
        return next(iter(values.values())) or "gone"
    return "; ".join(f"{name}: {value or 'gone'}" for name, value in values.items())


def cell_name(conflict: rejoin.Conflict) -> str:
    """Row and column."""
    return f"{shown(conflict.key[0])} {conflict.column}"


def conflicts(found: Iterable[rejoin.Conflict], entries: Iterable[Entry], people: People) -> Table:
    """Each concurrent value: whose, from when, and which one is shown."""
    written = {entry.position: entry.at for entry in entries}
    table = _table(
        "In conflict: written by devices that had not seen each other's value; all are kept",
        "cell", "value", "who", "by their own clock", "corrected", "shown",
    )  # fmt: skip
    for conflict in found:
        for sibling in conflict.siblings:
            own = written.get(sibling.position or 0)
            table.add_row(
                cell_name(conflict),
                escape(shown(sibling.value)),
                who(people, sibling.device),
                clock(own),
                clock(sibling.at),
                "yes" if sibling.value == conflict.shown else "",
                end_section=sibling is conflict.siblings[-1],
            )
    return table


def verdict(conflict: rejoin.Conflict, entries: Iterable[Entry], people: People) -> str:
    """Whose value is shown, and whose would be if the devices' own clocks were believed."""
    written = {entry.position: entry.at for entry in entries}
    by_server = max(conflict.siblings, key=lambda one: (one.at or 0, one.device))
    by_device = max(conflict.siblings, key=lambda one: written.get(one.position or 0, 0))
    shown_is = "shown" if by_server.value == conflict.shown else "NOT shown"
    return (
        f"{cell_name(conflict)}: the latest by corrected clocks is"
        f" {who(people, by_server.device)}'s ({shown_is}); by their own, "
        f"{who(people, by_device.device)}'s."
    )


def refused(crew: Iterable[Member]) -> Table:
    """What the server put aside."""
    table = _table(
        "Put aside: kept whole for support, and the changes behind it went on",
        "who", "change", "what", "why",
    )  # fmt: skip
    for member in crew:
        for each in member.db.status().refused:
            ops = Entry(0, each.device, each.counter, each.at, 0, [dict(op) for op in each.ops])
            table.add_row(
                f"[{member.style}]{member.name}[/]",
                str(each.counter),
                escape(summary(ops)),
                f"{each.code}: {escape(each.detail)}",
            )
    return table


def ending(crew: Iterable[Member]) -> Table:
    """The three files, side by side."""
    columns = [f"{word} {table}" for table in TABLES for word in ("rows of", "digest of")]
    table = _table("The three files", "device", *columns, "pending", "in conflict")
    for member in crew:
        status, digests = member.db.status(), member.digests()
        cells = [
            cell for name in TABLES for cell in (f"{member.count(name):,}", digests[name][:DIGITS])
        ]
        table.add_row(
            f"[{member.style}]{member.db.path.name}[/]",
            *cells,
            str(status.pending),
            str(status.conflicts),
        )
    return table


def figures(legs: Iterable[tuple[str, int, Leg]]) -> Table:
    """What it cost. With each leg go its name and the rows that its rate counts; 0: no rate."""
    table = _table(
        "What it cost: bodies as they travelled, compressed",
        "", "changes up", "records down", "sec", "records /s", "sent", "received", "trips",
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    for name, rows, leg in legs:
        table.add_row(
            name,
            f"{leg.pushed:,}",
            f"{leg.pulled:,}",
            f"{leg.seconds:.2f}",
            f"{rows / leg.seconds:,.0f}" if rows else "",
            size(leg.traffic.up),
            size(leg.traffic.down),
            str(leg.traffic.requests),
        )
    return table
