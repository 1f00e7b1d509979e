"""What an edit does to a document: it joins, or it waits.

Laws:
* a document takes an update only when all that it refers to is there, so what it holds can be
  integrated from left to right: libraries integrate anything else at their own risk (Yrs 0.28
  ends the process where pending updates refer to each other in a circle);
* an update that comes before what it depends on waits beside the document, whole, until that
  has come; how many may wait is limited;
* what is in a document already is not kept twice, so that updates never contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from msgspec import Struct, msgpack
from msgspec.structs import replace

from sync import framing, gates, trees
from sync.documents import attempt, diff, ends, integrate, merge, read, squash, text_of
from sync.errors import Refused
from sync.framing import Clocks, Frame
from sync.limits import Limits
from sync.values import Value
from sync.work import work_of_edit

FieldKey = tuple[str, str, str]
"""(collection, id, field): a document in its space."""


class About(Struct, frozen=True, array_like=True):
    """What is known of updates without reading them. `roots`: see `Frame`; `depth`: no type is
    nested deeper.
    """

    clocks: Clocks = {}
    roots: dict[str, int] = {}
    depth: int = 0

    def pack(self) -> bytes:
        return msgpack.encode(self)


_ABOUT = msgpack.Decoder(About)


def unpack_about(packed: bytes) -> About:
    return _ABOUT.decode(packed)


def about_all(parts: Iterable[About]) -> About:
    """Of updates in their order: the newest bound on the depth is the one that holds."""
    clocks: Clocks = {}
    roots: dict[str, int] = {}
    depth = 0
    for part in parts:
        for client, clock in part.clocks.items():
            clocks[client] = max(clock, clocks.get(client, 0))
        for name, bits in part.roots.items():
            roots[name] = roots.get(name, 0) | bits
        depth = part.depth
    return About(clocks, roots, depth)


class Stored(NamedTuple):
    """An update, and where in the log it stands. Of many: where the newest stands."""

    update: bytes
    position: int


class Piece(NamedTuple):
    """An update as it is to be kept."""

    update: bytes
    position: int
    about: About
    waits: bool


class Held(Struct, frozen=True):
    """A document as a push meets it, and what the push adds. `position`: of its newest update, 0
    while it has none; `size`: bytes of all that is kept; `taken`: the positions of updates that
    wait no longer; `folded`: `pieces` stand in place of all that was there; `rows`: how many were
    never folded; `loose`: bytes of those that were never squashed, as it is met.
    """

    about: About = About()
    position: int = 0
    size: int = 0
    waiting: tuple[Stored, ...] = ()
    pieces: tuple[Piece, ...] = ()
    taken: tuple[int, ...] = ()
    folded: bool = False
    rows: int = 0
    loose: int = 0


def joined(held: Held) -> dict[int, bytes]:
    """What of the push joined the document, by position: the edit itself, and what it freed."""
    found: dict[int, list[bytes]] = {}
    for piece in held.pieces:
        if not piece.waits:
            found.setdefault(piece.position, []).append(piece.update)
    return {position: merge(updates) for position, updates in found.items()}


Load = Callable[[], bytes]
"""→ all that was there before the push, merged."""


def whole(held: Held, load: Load) -> bytes:
    """All that the document holds now, as one update."""
    fresh = [piece.update for piece in held.pieces if not piece.waits]
    return merge(fresh if held.folded else [load(), *fresh])


class Edited(NamedTuple):
    """A document after an edit, and how much work that was. `freed`: other updates, that had
    waited for this one, came with it.
    """

    held: Held
    work: int
    freed: bool


def edit(held: Held, update: bytes, position: int, load: Load, limits: Limits) -> Edited:
    """Takes the update, or lets it wait. Raises `Refused`."""
    frame = read(update, limits.document_update_bytes)
    work = work_of_edit(frame.structs, held.size if frame.parents else 0)
    if not gates.is_complete(frame, held.about.clocks):
        return Edited(_let_wait(held, update, position, limits), work, False)
    after = _take(held, update, frame, position, load, limits)
    after, freed = _take_waiting(after, position, load, limits)
    return Edited(_bounded(after, load, limits), work, freed)


def _let_wait(held: Held, update: bytes, position: int, limits: Limits) -> Held:
    if len(held.waiting) >= limits.document_waiting:
        most = limits.document_waiting
        raise Refused("too_many_missing", f"{most} updates wait for missing ones already")
    after = replace(
        held,
        size=held.size + len(update),
        waiting=(*held.waiting, Stored(update, position)),
        pieces=(*held.pieces, Piece(update, position, About(), True)),
    )
    if after.size > limits.document_bytes:
        raise _too_large(after.size, limits)
    return after


def _take(
    held: Held, update: bytes, frame: Frame, position: int, load: Load, limits: Limits
) -> Held:
    update = _news(update, frame, held.about.clocks)
    if frame.parents:
        integrate(merge([whole(held, load), update]))
    about = About(ends(frame), frame.roots, _depth(held, update, frame, load, limits))
    return replace(
        held,
        about=about_all([held.about, about]),
        position=position,
        size=held.size + len(update),
        rows=held.rows + 1,
        pieces=(*held.pieces, Piece(update, position, about, False)),
    )


def _news(update: bytes, frame: Frame, clocks: Clocks) -> bytes:
    """The update less what is there: no clock is kept twice, whatever stood under it."""
    if all(span.start >= clocks.get(client, 0) for client, span in frame.spans.items()):
        return update
    news = diff(update, framing.write_clocks(clocks))
    try:
        spans = framing.read(news).spans
    except framing.Malformed:
        raise Refused("bad_update", "it contradicts what is there") from None
    there = {client: max(clocks.get(client, 0), span.start) for client, span in frame.spans.items()}
    left = {(c, there[c], span.end) for c, span in frame.spans.items() if there[c] < span.end}
    if left != {(client, span.start, span.end) for client, span in spans.items()}:
        raise Refused("bad_update", "it contradicts what is there")
    return news


def _depth(held: Held, update: bytes, frame: Frame, load: Load, limits: Limits) -> int:
    """A bound, and the true depth only where the bound has grown too large."""
    depth = held.about.depth + frame.types
    if depth > limits.document_depth:
        depth = trees.depth(merge([whole(held, load), update]))
        if depth > limits.document_depth:
            raise Refused("too_deep", f"types are nested more than {limits.document_depth} deep")
    return depth


def _take_waiting(held: Held, position: int, load: Load, limits: Limits) -> tuple[Held, bool]:
    """Those that have waited for what is there now: others may have waited for these."""
    freed = False
    again = bool(held.waiting)
    while again:
        again = False
        for stored in held.waiting:
            frame = framing.read(stored.update)
            if gates.is_complete(frame, held.about.clocks):
                held = _take_one(held, stored, frame, position, load, limits)
                again = freed = True
    return held, freed


def _take_one(
    held: Held, stored: Stored, frame: Frame, position: int, load: Load, limits: Limits
) -> Held:
    """It stands from now on where it became complete: cursors before that have not got it."""
    held = replace(
        held,
        size=held.size - len(stored.update),
        waiting=tuple(other for other in held.waiting if other is not stored),
        pieces=tuple(p for p in held.pieces if not (p.waits and p.update is stored.update)),
        taken=(*held.taken, stored.position),
    )
    try:
        return _take(held, stored.update, frame, position, load, limits)
    except Refused:
        # It fits no more. Its change was applied, and the log keeps it.
        return held


def _bounded(held: Held, load: Load, limits: Limits) -> Held:
    """Folded where it may have grown too large: thousands of small updates take many times the
    bytes of what they come to.
    """
    if held.size <= limits.document_bytes:
        return held
    update = squash(whole(held, load))
    size = len(update) + sum(len(stored.update) for stored in held.waiting)
    if size > limits.document_bytes:
        raise _too_large(size, limits)
    waiting = [piece for piece in held.pieces if piece.waits]
    one = Piece(update, held.position, held.about, False)
    return replace(held, size=size, pieces=(*waiting, one), folded=True)


def _too_large(size: int, limits: Limits) -> Refused:
    most = limits.document_bytes
    return Refused("document_too_large", f"the document would take {size} of {most} bytes")


# To read and to show so much takes about as long as to commit an edit.
SHOWN_AT_ONCE_BYTES = 32 * 2**10
SHOWN_BYTES_PER_MS = 100


def is_due(held: Held, age_ms: int) -> bool:
    """Whether its record is to show the document anew: a large one, the larger the more seldom."""
    return held.size <= SHOWN_AT_ONCE_BYTES or not 0 <= age_ms * SHOWN_BYTES_PER_MS < held.size


def shown(held: Held, load: Load, limits: Limits) -> Value:
    """What a record shows of it; None while all of it waits, and where it can't be shown."""
    if not held.position:
        return None
    update, roots = whole(held, load), held.about.roots
    try:
        return attempt(lambda: text_of(update, roots, limits.document_shown_chars))
    except Refused:
        return None
