"""An update in pieces, each of which can be integrated after those before it.

When a transaction ends, Yrs (0.28) joins what stands side by side and was typed in a run, one to
the next, and until then keeps every text or array that this comes to: the square of their number.
160 kB of single values took more than 6 GB. In pieces they take what they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping

from sync.framing import Client, Clocks, Cuts, read, uint
from sync.gates import in_order

STRUCTS_MAX = 1_000
"""In one piece."""
NO_DELETES = b"\0"


def pieces(update: bytes, clocks: Clocks) -> Iterator[bytes]:
    """The update, to be integrated where `clocks` are: it must be complete there
    (`gates.is_complete`). What it deletes comes last.
    """
    cuts: dict[Client, Cuts] = {}
    frame = read(update, cuts=cuts)
    taken = dict.fromkeys(cuts, 0)
    begun: dict[Client, int] = {}
    room = STRUCTS_MAX
    for client, clock in in_order(frame, clocks):
        end = bisect_left(cuts[client].clocks, clock, hi=len(cuts[client].clocks) - 1)
        while taken[client] < end:
            begun.setdefault(client, taken[client])
            more = min(room, end - taken[client])
            taken[client] += more
            room -= more
            if not room:
                yield _piece(update, cuts, begun, taken) + NO_DELETES
                begun, room = {}, STRUCTS_MAX
    yield _piece(update, cuts, begun, taken) + update[frame.deletes_at :]


def _piece(
    update: bytes,
    cuts: Mapping[Client, Cuts],
    begun: Mapping[Client, int],
    ends: Mapping[Client, int],
) -> bytes:
    parts = [uint(len(begun))]
    for client, start in begun.items():
        clocks, offsets = cuts[client]
        parts += [uint(ends[client] - start), uint(client), uint(clocks[start])]
        parts.append(update[offsets[start] : offsets[ends[client]]])
    return b"".join(parts)
