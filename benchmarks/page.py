"""The last full run in docs/BENCHMARKS.md, between two marks; what is around it stays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.figures import Row, number

FIRST: Final = "<!-- The last run, written by `make bench`: -->"
LAST: Final = "<!-- The end of the last run. -->"


def write(
    page: Path, about: Mapping[str, Any], told: Mapping[str, list[Row]], titles: Mapping[str, str]
) -> None:
    """Put the run in the place of the one before it. Raises ValueError where the marks are gone."""
    before, first, rest = page.read_text().partition(FIRST)
    _, last, after = rest.partition(LAST)
    if not (first and last):
        raise ValueError(f"{page.name} has lost the marks of the last run")
    text = "\n".join([*_machine(about), *_tables(told, titles)])
    page.write_text(f"{before}{FIRST}\n\n{text}\n{LAST}{after}")


def _machine(about: Mapping[str, Any]) -> Iterator[str]:
    settings = ", ".join(f"{name} {value}" for name, value in about["postgresql"].items())
    yield (
        f"{about['cores']} cores, {about['memory_gib']} GiB, {about['system']}, Python"
        f" {about['python']}, {about['workers']} workers; load average before the run:"
        f" {about['load_average_before']}."
    )
    yield f"PostgreSQL: {settings}."
    yield f"Medians of {about['runs']} runs, the least and the most in brackets."
    yield ""


def _tables(told: Mapping[str, list[Row]], titles: Mapping[str, str]) -> Iterator[str]:
    for name, rows in told.items():
        if not rows:
            continue
        compared = any(row.baseline or row.goal is not None for row in rows)
        yield f"### {name}: {titles[name]}"
        yield ""
        heads = ["", "measured", *(["baseline", "ratio", "goal"] if compared else []), ""]
        yield f"| {' | '.join(heads)} |"
        yield f"| {' | '.join('---' for _ in heads)} |"
        for row in rows:
            yield f"| {' | '.join(_cells(row, compared))} |"
        yield ""


def _cells(row: Row, compared: bool) -> Iterator[str]:
    indent = len(row.name) - len(row.name.lstrip())
    yield "&nbsp;" * indent + row.name.lstrip()
    yield str(row.figure)
    if compared:
        yield str(row.baseline or "")
        ratio = row.ratio
        yield (
            f"{number(ratio.median)} ({number(ratio.least)}…{number(ratio.most)})" if ratio else ""
        )
        yield f"{row.wanted}: {row.verdict}" if row.wanted else ""
    yield row.note
