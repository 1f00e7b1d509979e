"""The story, in its order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from app.demo import flight, tables
from app.demo.crew import Leg, Member, Stopwatch, fill
from app.demo.history import Entry, Log, contested
from app.demo.server import Interrupts, fresh_server
from rejoin import Progress

YEAR_MS: Final = 365 * 24 * 3600 * 1000
# Wide enough for every table where the output is no terminal and nothing says how wide it is.
WIDTH: Final = 100


def tell(airports: int, interrupts: Interrupts) -> int:
    """All of it; 0 if the three files end equal. `airports`: how many, 0 for all."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDTH
    watch = Stopwatch()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="rejoin-demo-")))
        with console.status("Starting a server on an empty PostgreSQL …"):
            url = stack.enter_context(fresh_server(folder / "server"))
        console.print(f"A fresh server on {url}, up after {watch.seconds():.1f} s.")
        crew = _gather(folder, url, stack)
        space = _share(crew)
        status = _Story(console, crew, space, Log(url, space, crew[0])).tell(airports)
        # Here end the server, its PostgreSQL and the folder.
        interrupts.ignore()
        with console.status("Stopping the server …"):
            stack.close()
    console.print(f"In all {watch.seconds():.1f} s, the server's start and end included.")
    return status


def _gather(folder: Path, url: str, stack: ExitStack) -> list[Member]:
    crew = [
        Member.join("Ada", "cyan", folder, url),
        Member.join("Ben", "green", folder, url),
        Member.join("Chloe", "magenta", folder, url, skew_ms=YEAR_MS),
    ]
    for member in crew:
        stack.callback(member.close)
    return crew


def _share(crew: Sequence[Member]) -> str:
    """One space for the crew: the first makes it and invites the others."""
    owner, *others = crew
    space = owner.db.create_space("crew")
    for member in others:
        owner.db.share(space, member.email, "editor")
    return space


class _Story:
    def __init__(self, console: Console, crew: Sequence[Member], space: str, log: Log) -> None:
        self._console, self._crew, self._space, self._log = console, crew, space, log
        self._people = {member.device: member for member in crew}
        self._figures: list[tuple[str, int, Leg]] = []

    def tell(self, airports: int) -> int:
        ada, ben, chloe = self._crew
        self._first_sync(airports)
        departed = ada.cursor(self._space)
        self._apart(ada, ben, chloe)
        self._return(ben, chloe)
        self._meet(departed)
        self._settle(departed)
        return self._end()

    def _first_sync(self, airports: int) -> None:
        ada, *others = self._crew
        filled = fill(ada, airports, set(flight.NAMED))
        self._chapter(f"1. The first sync: {filled:,} airports")
        self._say(
            f"{ada.name}, {' and '.join(member.name for member in others)} share a space. Each has"
            f" tables of their own in SQLite; {ada.name}'s are full."
        )
        ada.track(self._space)
        with _bars(self._console) as bars:
            leg = _sync(ada, _push_bar(bars, f"{ada.name} up", filled))
            self._figures.append((f"{ada.name}: first sync", filled, leg))
            for member in others:
                member.track(self._space)
                leg = _sync(member, _pull_bar(bars, f"{member.name} down"))
                self._figures.append((f"{member.name}: first sync", leg.pulled, leg))

    def _apart(self, ada: Member, ben: Member, chloe: Member) -> None:
        self._chapter("2. Apart: two are offline, and one clock is wrong")
        for member in (ben, chloe):
            member.line.reaches = False
        self._write(chloe, flight.CHLOE)
        self._write(ada, flight.ADA)
        self._figures.append((f"{ada.name}: meanwhile", 0, _sync(ada)))
        self._write(ben, flight.BEN)

    def _write(self, member: Member, statements: Sequence[str]) -> None:
        for statement in statements:
            member.db.execute(statement)
        place = "online" if member.line.reaches else "offline"
        self._say(
            f"\n[bold {member.style}]{member.name}[/], {place}, at"
            f" {tables.clock(member.db.now_ms())[:19]} by their own clock;"
            f" {member.db.status().pending} changes wait:"
        )
        for statement in statements:
            self._say(f"  [{member.style}]{escape(statement)}[/]")

    def _return(self, ben: Member, chloe: Member) -> None:
        self._chapter("3. Back: they meet what happened meanwhile")
        for member in (chloe, ben):
            member.line.reaches = True
        ben.line.loses_next_answer = True
        for member in (chloe, ben):
            leg = _sync(member)
            self._figures.append((f"{member.name}: back", 0, leg))
            self._say(
                f"{member.name} is back: {leg.pushed} changes sent, {leg.pulled:,} records"
                f" received, requests: {leg.traffic.requests}."
            )
        _sync_all(self._crew)

    def _meet(self, departed: int) -> None:
        entries = self._log.after(departed)
        self._console.print(tables.log(entries, self._people))
        self._console.print()
        for member in self._crew:
            self._say(_once(member, entries))
        self._console.print(tables.refused(self._crew))
        self._console.print(tables.merged(contested(entries), self._people))

    def _settle(self, departed: int) -> None:
        self._chapter("4. In conflict, and settled")
        ada = self._crew[0]
        found = ada.db.conflicts()
        entries = self._log.after(departed)
        self._console.print(tables.conflicts(found, entries, self._people))
        self._console.print()
        for conflict in found:
            self._say(tables.verdict(conflict, entries, self._people))
        self._say(f"\n[bold {ada.style}]{ada.name}[/] settles them, by plain UPDATEs:")
        for conflict in found:
            quoted = "SELECT quote(?), quote(?)"
            value, key = ada.db.execute(quoted, (conflict.shown, *conflict.key)).fetchone()
            statement = f"UPDATE airports SET {conflict.column} = {value} WHERE icao = {key}"  # noqa: S608
            ada.db.execute(statement)
            self._say(f"  [{ada.style}]{escape(statement)}[/]")
        _sync_all(self._crew)

    def _end(self) -> int:
        self._chapter("5. The end")
        self._console.print(tables.ending(self._crew))
        self._console.print(tables.figures(self._figures))
        first, *others = (member.digests() for member in self._crew)
        waiting = sum(member.db.status().pending for member in self._crew)
        equal = all(each == first for each in others) and not waiting
        self._say(
            "\n[bold green]All three SQLite files are equal.[/]"
            if equal
            else "\n[bold red]The three SQLite files are NOT equal.[/]"
        )
        return 0 if equal else 1

    def _chapter(self, title: str) -> None:
        self._console.print()
        self._console.rule(f"[bold]{title}", align="left", style="dim")

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False)


def _sync_all(crew: Iterable[Member]) -> None:
    """Twice round: what the last one brings, the first has yet to see."""
    for _ in range(2):
        for member in crew:
            _sync(member)


def _sync(member: Member, progress: Callable[[Progress], None] | None = None) -> Leg:
    before, watch = member.line.traffic(), Stopwatch()
    result = member.db.sync(progress)
    seconds = watch.seconds()
    traffic = member.line.traffic().since(before)
    return Leg(result.pushed, result.pulled, result.rejected, seconds, traffic)


def _once(member: Member, entries: Iterable[Entry]) -> str:
    """What the log says of the member's changes: each is there once, though some came twice."""
    counters = [entry.counter for entry in entries if entry.device == member.device]
    aside = [each.counter for each in member.db.status().refused]
    twice = len(counters) - len(set(counters))
    lost = member.line.answers_lost
    return (
        f"{member.name}'s changes {min(counters)} to {max(counters)}: {len(counters)} in the log,"
        f" {twice or 'none'} of them twice"
        + (f", though {lost} answer was lost and the request sent again" if lost else "")
        + (f"; {len(aside)} put aside" if aside else "")
        + "."
    )


def _bars(console: Console) -> Bars:
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn())
    return Bars(*columns, TextColumn("records"), TimeElapsedColumn(), console=console)


def _push_bar(bars: Bars, text: str, records: int) -> Callable[[Progress], None]:
    """Shows the share of the changes that were accepted, in records."""
    task = bars.add_task(text, total=records)
    most = 0

    def show(progress: Progress) -> None:
        nonlocal most
        if progress.phase == "push" and progress.total:
            most = max(most, progress.total)
            waiting = progress.total - progress.done
            bars.update(task, completed=records - round(records * waiting / most))

    return show


def _pull_bar(bars: Bars, text: str) -> Callable[[Progress], None]:
    """Counts what has arrived; it is full when all of it stands in the table."""
    task = bars.add_task(text, total=None)

    def show(progress: Progress) -> None:
        here = progress.phase == "apply"
        arrived = progress.done == progress.total and not here
        total = None if arrived else progress.total
        bars.update(task, completed=progress.done, total=total)

    return show
