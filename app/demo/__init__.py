"""`make demo`: three devices of one flight crew, offline and back, against a server of their own.

Promises: the server, its PostgreSQL and the three SQLite files live in a temporary folder and are
gone at the end, also after Ctrl-C. Whatever is shown was asked of the files and of the server. The
exit status is 0 only if all three files are equal.

The client, rich and airportsdata are imported when the demo runs, and never by the server, which
lives without them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] = ()) -> int:
    """Tell the story; `demo 600` does so with about that many airports."""
    if arguments and not arguments[0].isdigit():
        print("rejoin: write how many airports, as in `demo 600`, or nothing", file=sys.stderr)
        return 2
    try:
        from app.demo.server import Interrupts, NotStarted
        from app.demo.story import tell
    except ModuleNotFoundError as missing:
        print(f"rejoin: the demo needs {missing.name}: run it by `make demo`.", file=sys.stderr)
        return 1
    try:
        return tell(int(arguments[0]) if arguments else 0, Interrupts())
    except NotStarted as refusal:
        print(f"rejoin: {refusal}", file=sys.stderr)
        return 1
