"""`python -m benchmarks [MEASURE …]`: what Rejoin costs, each measure beside its baseline.

Real HTTP through gunicorn, PostgreSQL with fsync, all on this machine. Without a measure, all of
them, and the charts in docs/.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import charts, machine, page, profile, table
from benchmarks.bench import Bench
from benchmarks.figures import Row
from benchmarks.stage import FOLDER, Stage

MEASURES: Final = {
    "ceiling": "the load generator against a server that does nothing",
    "postgres": "durable commits a second, by the driver alone",
    "push": "one device, 10,000 new records in requests of 1,000",
    "devices": "50 devices, 20 requests of 20 changes, 16 in flight",
    "bootstrap": "10,000 records pulled and decoded",
    "idle": "sync with nothing new, 16 in flight",
    "memory": "each worker before and after 100,000 changes",
    "bytes": "what a phone sends and receives",
    "storage": "bytes in PostgreSQL by table and index",
    "device": "the client's triggers and its applying, against plain SQLite",
    "growth": "push and pull at 1,000, 100,000 and 1,000,000 records",
    "scale": "a million records in one space, and 10,000 spaces",
    "delivery": "a push to its arrival on another device, from worker to worker",
    "fanout": "one change to all the sockets of a space: the last arrival",
    "sockets": "5,000 idle websockets: memory, and HTTP beside them",
    "editing": "a real editing trace, typed by one editor and received by another",
    "support": "what staff ask of 100,000 devices, and what a timeline costs a push",
    "day": "200 devices that connect, push, drop and come back for a minute",
}
# By name only: it takes long, and its figures stand in docs/OPERATIONS.md.
APART: Final = {"sizing": "what workers, pools and PostgreSQL's settings are worth"}
TITLES: Final = {
    **MEASURES,
    **APART,
    "layers": "where the time goes: one request at a time, one worker",
}
ELSEWHERE: Final = {"ceiling": "benchmarks.ceiling", "postgres": "benchmarks.machine"}


def main() -> int:
    """Measure; the exit status is 1 where a goal was missed."""
    asked = _arguments()
    console = Console(width=None if sys.stdout.isatty() else 190)
    wanted = asked.measures or list(MEASURES)
    # `kill` ends what was started, as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    start = time.monotonic()
    told: dict[str, list[Row]] = {}
    functions: dict[str, str] = {}
    with Stage(asked.workers, {}) as stage:
        bench = Bench(
            stage,
            asked.runs,
            asked.size,
            lambda text: console.print(f"[dim]{text}[/]"),
            asked.trace,
        )
        about = machine.described(bench) | {"runs": asked.runs}
        _introduce(console, about, asked)
        # A chart of a part, or of another size, is not for the docs.
        charts.into(charts.FOLDER if asked.charts else FOLDER / "charts")
        for name in wanted:
            if asked.profile and name in profile.KINDS:
                continue
            began = time.monotonic()
            told[name] = importlib.import_module(
                ELSEWHERE.get(name, f"benchmarks.measures.{name}")
            ).run(bench)
            spent = time.monotonic() - began
            sized = f", at size {asked.size:,}" if asked.size else ""
            title = f"{name}: {TITLES[name]}{sized} ({spent:.0f} s)"
            table.show(console, title, told[name])
        if asked.profile or not asked.measures:
            told["layers"], functions = profile.run(bench, asked.measures)
            table.show(console, f"layers: {TITLES['layers']}", told["layers"])
    if asked.profile:
        for kind, text in functions.items():
            console.rule(kind)
            console.print(text, highlight=False, markup=False)
    seconds = time.monotonic() - start
    charts.ratios([row for rows in told.values() for row in rows])
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    if asked.charts:
        page.write(charts.FOLDER / "BENCHMARKS.md", about, told, TITLES)
    data = table.as_json(about, told, seconds)
    asked.json.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return _end(console, told, seconds, asked.json)


def _end(console: Console, told: dict[str, list[Row]], seconds: float, where: Path) -> int:
    missed = [row.name for rows in told.values() for row in rows if row.missed]
    console.print(f"{seconds:.0f} s; figures in {where}.")
    if missed:
        console.print(f"[red]Goals missed: {'; '.join(missed)}[/]")
    return 1 if missed else 0


def _introduce(console: Console, about: dict[str, Any], asked: argparse.Namespace) -> None:
    postgres = about["postgresql"]
    console.print(
        f"{about['cores']} cores, {about['memory_gib']} GiB, PostgreSQL"
        f" {postgres['server_version']} (fsync {postgres['fsync']}, synchronous_commit"
        f" {postgres['synchronous_commit']}), {about['workers']} workers, medians of {asked.runs}"
        f" runs. Load average before: {about['load_average_before']}.\n"
    )


def _arguments() -> argparse.Namespace:
    lines = "\n".join(f"  {name:<10} {text}" for name, text in (MEASURES | APART).items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\nmeasures:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help="all, when none is named")
    parser.add_argument("--runs", type=_positive, default=5, help="of each measure (5)")
    parser.add_argument("--size", type=_positive, help="the measure's count, in place of its own")
    parser.add_argument("--workers", type=_positive, default=2, help="of gunicorn (2)")
    parser.add_argument("--profile", action="store_true",
                        help="where the time goes, in place of the rate, for"
                        f" {', '.join(profile.KINDS)}")  # fmt: skip
    parser.add_argument("--trace", type=Path, default=os.environ.get("EDITING_TRACE") or None,
                        help="for `editing`: a JSON file in gzip with `txns` of `patches`, such as"
                        " automerge-paper.json.gz (the variable EDITING_TRACE)")  # fmt: skip
    parser.add_argument("--json", type=Path, help="where the figures go")
    asked = parser.parse_args()
    unknown = set(asked.measures) - set(MEASURES) - set(APART)
    if asked.trace and not asked.trace.is_file():
        parser.error(f"there is no file {asked.trace}")
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}; see --help")
    asked.charts = not asked.measures and asked.size is None
    if asked.json is None:
        asked.json = (
            charts.FOLDER / "benchmarks.json" if asked.charts else FOLDER / "benchmarks.json"
        )
    return asked


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("write a whole number from 1 on")
    return number


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
