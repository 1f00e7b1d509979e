"""The charts in docs/: how the cost grows, and each ratio beside its goal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from app.settings import ROOT
from benchmarks.figures import Figure, Row

FOLDER: Final = ROOT / "docs"
GROWTH: Final = "benchmark-growth.png"
RATIOS: Final = "benchmark-ratios.png"
INK, PUSH, PULL, GOOD, POOR = "#222222", "#1f6f8b", "#d1603d", "#3b7d4f", "#b33951"
_folder = FOLDER


def into(folder: Path) -> None:
    """Where the charts of this run go."""
    global _folder
    _folder = folder
    folder.mkdir(parents=True, exist_ok=True)


def growth(told: Mapping[tuple[str, int], tuple[Figure, Figure]]) -> None:
    """Median and 95th percentile of push and pull by the records in the space."""
    figure, (axes,) = _new(6.4, 3.8)
    for name, colour in (("push", PUSH), ("pull", PULL)):
        sizes = sorted({size for kind, size in told if kind == name})
        medians = [told[name, size][0] for size in sizes]
        slow = [told[name, size][1].median for size in sizes]
        axes.plot(sizes, [m.median for m in medians], "o-", color=colour,
                  label=f"{name} of 20, median")  # fmt: skip
        axes.fill_between(
            sizes, [m.least for m in medians], [m.most for m in medians], color=colour, alpha=0.2
        )
        axes.plot(sizes, slow, ":", color=colour, label=f"{name} of 20, 95th percentile")
    axes.set_xscale("log")
    # Room for the legend above the lines.
    axes.set_ylim(0, 1.4 * axes.get_ylim()[1])
    axes.set_xlabel("records in the space")
    axes.set_ylabel("milliseconds a request")
    axes.set_title("What a request costs as a space grows", loc="left")
    axes.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    _save(figure, GROWTH)


def ratios(rows: list[Row]) -> None:
    """Each ratio that has a goal, with its spread over the runs: rates, and what is to be small."""
    told = [row for row in rows if row.goal is not None and row.ratio is not None]
    parts = [part for least in (False, True) if (part := [r for r in told if r.at_most is least])]
    if not parts:
        return
    heights = [1 + len(part) for part in parts]
    figure, all_axes = _new(7.2, 0.6 + 0.45 * sum(heights), heights)
    for axes, part in zip(all_axes, parts, strict=True):
        _bars(axes, part)
        many = (
            "times the baseline: at most" if part[0].at_most else "of the baseline's rate: at least"
        )
        axes.set_xlabel(f"{many} the black mark")
    all_axes[0].set_title("Rejoin beside its baselines", loc="left")
    _save(figure, RATIOS)


def _bars(axes: Any, rows: list[Row]) -> None:
    for place, row in enumerate(reversed(rows)):
        assert row.ratio is not None
        colour = POOR if row.missed else GOOD
        axes.barh(place, row.ratio.median, color=colour, height=0.55)
        axes.plot([row.ratio.least, row.ratio.most], [place, place], color=INK, linewidth=1)
        axes.plot([row.goal, row.goal], [place - 0.38, place + 0.38], color=INK, linewidth=2)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)], fontsize=8)


def _new(width: float, height: float, heights: Sequence[int] = (1,)) -> tuple[Any, list[Any]]:
    # Not at the top: the other measures don't wait a second for it.
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), dpi=120, layout="constrained")
    all_axes = list(figure.subplots(len(heights), height_ratios=heights, squeeze=False)[:, 0])
    for axes in all_axes:
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.grid(axis="both", alpha=0.2)
    return figure, all_axes


def _save(figure: Any, name: str) -> None:
    # Without the program's version: an equal chart is an equal file.
    figure.savefig(_folder / name, metadata={"Software": None})
