"""`make demo`: it ends with three equal files, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE_SECONDS = 120
AIRPORTS = 400


@pytest.fixture
def place() -> Iterator[Path]:
    """The folder that the demo makes its own folder in. Short: sockets have short paths."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def demo(place: Path, binaries: Path | None, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "TMPDIR": str(place),
        "REJOIN_POSTGRES_BIN": str(binaries or ""),
        "PYTHONPATH": str(ROOT / "clients" / "python"),
        "PYTHONUNBUFFERED": "1",
        # What another server on this machine may be set to is none of the demo's business.
        "REJOIN_DATA": "/nowhere",
        "DATABASE_URL": "postgresql://nobody@localhost:1/nothing",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "app", "demo", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def left_behind(place: Path) -> list[str]:
    """Files in the folder, and processes that know of it."""
    left = [str(each) for each in place.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            known = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
        except OSError:
            continue
        if str(place).encode() in known:
            left.append(known.split(b"\0\0")[0].decode(errors="replace"))
    return left


@pytest.fixture(scope="module")
def said(postgres_binaries: Path | None) -> str:
    """All that one demo says, without its tables' lines."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        running = demo(Path(name), postgres_binaries, str(AIRPORTS))
        text, _ = running.communicate(timeout=PATIENCE_SECONDS)
        assert running.returncode == 0, text
        assert left_behind(Path(name)) == []
    return re.sub(" +", " ", text)


def test_the_demo_ends_with_three_equal_files(said: str) -> None:
    assert "All three SQLite files are equal." in said
    files = re.findall(r"^(\w+)\.sqlite (\d+) (\w+) (\d+) (\w+) 0 0 ?$", said, re.MULTILINE)
    assert [name for name, *_ in files] == ["ada", "ben", "chloe"], said
    assert len({tuple(rest) for _, *rest in files}) == 1
    # Of all that were sent, one was deleted for good and one was inserted.
    assert {rows for _, rows, *_ in files} == {str(AIRPORTS)}
    assert {notes for _, _, _, notes, _ in files} == {"2"}


@pytest.mark.parametrize("who", ["Ada", "Ben", "Chloe"])
def test_the_figures_fit_each_other(who: str, said: str) -> None:
    found = re.search(rf"{who}: first sync (\d+) (\d+) ([\d.]+) ([\d,]+) [\d.,]+ kB", said)
    assert found is not None, said
    rows = int(found[2]) or AIRPORTS
    assert rows >= AIRPORTS
    rounding = 0.005 / float(found[3])
    assert float(found[4].replace(",", "")) == pytest.approx(
        rows / float(found[3]), rel=rounding + 0.01
    )


@pytest.mark.parametrize(
    "line",
    [
        "CYVR name Vancouver Vancouver no other",
        r"LPMA votes \+1 \+1, \+1 \+3 6 each counts",
        "EGLC name .* in conflict",
        "SPZO city Cuzco Cuzco Cuzco equal",
        r"LSZS \(row\) deleted there alive wins",
        r"NZQN votes \+1 1 each counts",
        r"10 in the log, none of them twice, though 1 answer was lost",
        r"LFMN\.votes \+0\.5 malformed_change",
    ],
)
def test_the_demo_shows_what_became_of_concurrent_edits(line: str, said: str) -> None:
    assert re.search(line, said), said


def test_the_demo_leaves_nothing_behind_when_an_impatient_user_ends_it(
    place: Path, postgres_binaries: Path | None
) -> None:
    running = demo(place, postgres_binaries, str(AIRPORTS))
    assert running.stdout is not None
    with running.stdout:
        for line in running.stdout:
            if line.startswith("2. Apart"):
                break
        assert left_behind(place)
        running.send_signal(signal.SIGINT)
        running.send_signal(signal.SIGTERM)
        running.stdout.read()
    assert running.wait(PATIENCE_SECONDS) == 130
    assert left_behind(place) == []


def test_the_demo_refuses_a_word_where_a_number_belongs() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "app", "demo", "many"], cwd=ROOT, capture_output=True, text=True
    )
    assert told.returncode == 2
    assert "demo 600" in told.stderr
