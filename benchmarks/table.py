"""The results in the terminal, and as JSON."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Row, number

COLOURS = {"ok": "green", "below": "red", "above": "red", "": "white"}


def show(console: Console, title: str, rows: list[Row]) -> None:
    """A table of one measure: medians, and the least and the most in brackets."""
    console.print(f"[bold]{title}[/]")
    table = Table(box=None, pad_edge=False)
    for name in ("what", "median (min…max)", "baseline", "ratio", "goal", ""):
        table.add_column(name, no_wrap=name != "", overflow="fold")
    for row in rows:
        ratio = row.ratio
        spread = f" ({number(ratio.least)}…{number(ratio.most)})" if ratio else ""
        colour = COLOURS[row.verdict]
        table.add_row(
            row.name,
            str(row.figure),
            str(row.baseline or ""),
            f"{number(ratio.median)}{spread}" if ratio else "",
            f"[{colour}]{row.wanted} {row.verdict}[/]" if row.wanted else "",
            row.note,
        )
    console.print(table)
    console.print()


def as_json(machine: dict[str, Any], told: dict[str, list[Row]], seconds: float) -> dict[str, Any]:
    """All that was measured."""
    return {
        "machine": machine,
        "seconds": round(seconds, 1),
        "measures": {name: [row.as_dict() for row in rows] for name, rows in told.items()},
    }
