"""Yjs documents: which updates one takes, how they merge, and how it is shown.

The only module that opens pycrdt, and never with what `sync.framing` has not read first. Laws:
* a document takes an update only when all that it refers to is there, so what it holds can be
  integrated from left to right: libraries integrate anything else at their own risk (Yrs 0.28
  ends the process where pending updates refer to each other in a circle);
* an update that comes before what it depends on waits beside the document, whole, until that
  has come; how many may wait is limited;
* what is in a document already is not kept twice, so that updates never contradict each other.
No document lives longer than the call that opened it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush
from typing import Any, NamedTuple

import pycrdt
from msgspec import Struct, msgpack
from msgspec.structs import replace

from sync import framing
from sync.errors import Refused
from sync.framing import IS_ARRAY, IS_MAP, IS_TEXT, IS_XML, Client, Clocks, Frame, Gate
from sync.limits import Limits
from sync.values import Value, canonical
from sync.work import work_of_edit

FieldKey = tuple[str, str, str]
"""(collection, id, field): a document in its space."""
MERGED_AT_ONCE = 32
NOTHING = b"\0\0"
"""The update that says nothing."""


# Updates as bytes ---------------------------------------------------------------------------


def check_update(update: bytes, limit: int) -> None:
    """Raises `Refused`: `document_update_too_large`, `bad_update`."""
    _read(update, limit)


def merge(updates: Sequence[bytes]) -> bytes:
    """One update that says what all of them say.

    Some at a time: for thousands at once the library takes the square of their number.
    """
    while len(updates) > 1:
        parts = range(0, len(updates), MERGED_AT_ONCE)
        updates = [pycrdt.merge_updates(*updates[at : at + MERGED_AT_ONCE]) for at in parts]
    return updates[0] if updates else NOTHING


def holds(update: bytes, more: bytes) -> bool:
    """Whether the document of `update` has all that `more`, which has been checked, says."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(skip_gc=True)
    document.apply_update(update)
    before = document.get_update()
    _attempt(lambda: document.apply_update(more))
    return document.get_update() == before


def state_vector(update: bytes) -> bytes:
    """What one who has taken the update has."""
    return pycrdt.get_state(update)


def diff(update: bytes, state_vector: bytes) -> bytes:
    """What of the update one with this state vector lacks. Raises `Refused` (`bad_update`)."""
    try:
        framing.read_clocks(state_vector)
    except framing.Malformed as malformed:
        raise Refused("bad_update", str(malformed)) from None
    return pycrdt.get_update(update, state_vector)


def squash(update: bytes) -> bytes:
    """The document that the update holds from its beginning, each run of typing as one piece.
    What was deleted stays: somebody may still refer to it.
    """
    document: pycrdt.Doc[Any] = pycrdt.Doc(skip_gc=True)
    document.apply_update(update)
    return document.get_update()


def _read(update: bytes, limit: int) -> Frame:
    if len(update) > limit:
        most = f"{len(update)} bytes; {limit} at most"
        raise Refused("document_update_too_large", most)
    try:
        frame = framing.read(update)
    except framing.Malformed as malformed:
        raise Refused("bad_update", str(malformed)) from None
    _attempt(lambda: pycrdt.get_state(update))
    return frame


def _attempt(work: Callable[[], object]) -> None:
    """Raises `Refused` (`bad_update`) where pycrdt gives up: by an error, or by a panic of Rust,
    which is no `Exception`.
    """
    try:
        work()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise Refused("bad_update", f"it can't be integrated: {error}"[:200]) from None


# A document and its updates -----------------------------------------------------------------


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
    never folded.
    """

    about: About = About()
    position: int = 0
    size: int = 0
    waiting: tuple[Stored, ...] = ()
    pieces: tuple[Piece, ...] = ()
    taken: tuple[int, ...] = ()
    folded: bool = False
    rows: int = 0


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
    frame = _read(update, limits.document_update_bytes)
    work = work_of_edit(frame.structs, held.size if frame.parents else 0)
    if not is_complete(frame, held.about.clocks):
        return Edited(_let_wait(held, update, position, limits), work, False)
    after = _take(held, update, frame, position, load, limits)
    after, freed = _take_waiting(after, position, load, limits)
    return Edited(_bounded(after, load, limits), work, freed)


def is_complete(frame: Frame, clocks: Clocks) -> bool:
    """Whether everything that the update refers to is there or in it, in an order in which each
    comes after what it needs.
    """
    there = {client: clocks.get(client, 0) for client in frame.spans}
    gates = {
        client: [gate for gate in reversed(span.gates) if gate.end > there[client]]
        for client, span in frame.spans.items()
    }
    waiting: dict[Client, list[tuple[int, Client]]] = {}
    ready = list(frame.spans)
    while ready:
        client = ready.pop()
        gate = _next_gate(gates[client], there, clocks)
        if gate is not None and gate.needs[0] == client:
            return False  # what it skips, nothing else in the update brings
        if gate is not None:
            heappush(waiting.setdefault(gate.needs[0], []), (gate.needs[1], client))
            there[client] = max(there[client], gate.clock)
        else:
            there[client] = max(there[client], frame.spans[client].end)
        others = waiting.get(client, [])
        while others and others[0][0] < there[client]:
            ready.append(heappop(others)[1])
    return not any(gates.values()) and all(
        end <= there.get(client, clocks.get(client, 0)) for client, end in frame.deletes.items()
    )


def _next_gate(gates: list[Gate], there: Clocks, clocks: Clocks) -> Gate | None:
    """The first that is still shut; those before it are dropped."""
    while gates:
        client, clock = gates[-1].needs
        if clock >= there.get(client, clocks.get(client, 0)):
            return gates[-1]
        gates.pop()
    return None


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
    clocks = held.about.clocks
    if any(span.start < clocks.get(client, 0) for client, span in frame.spans.items()):
        update = pycrdt.get_update(update, framing.write_clocks(clocks))
    if frame.parents:
        together = merge([whole(held, load), update])
        _attempt(lambda: pycrdt.Doc().apply_update(together))
    ends = {client: span.end for client, span in frame.spans.items()}
    about = About(ends, frame.roots, _depth(held, update, frame, load, limits))
    return replace(
        held,
        about=about_all([held.about, about]),
        position=position,
        size=held.size + len(update),
        rows=held.rows + 1,
        pieces=(*held.pieces, Piece(update, position, about, False)),
    )


def _depth(held: Held, update: bytes, frame: Frame, load: Load, limits: Limits) -> int:
    """A bound, and the true depth only where the bound has grown too large."""
    depth = held.about.depth + frame.types
    if depth > limits.document_depth:
        depth = framing.depth(merge([whole(held, load), update]))
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
            if is_complete(frame, held.about.clocks):
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


# As people and SQL see it -------------------------------------------------------------------


def shown(held: Held, load: Load, limits: Limits) -> Value:
    """What a record shows of it; None while all of it waits."""
    if not held.position:
        return None
    return text_of(whole(held, load), held.about.roots, limits.document_shown_chars)


def text_of(update: bytes, roots: dict[str, int] | None = None, chars: int = 0) -> Value:
    """A document's text where it is one text; else JSON: of its one root, or of all by name.

    A root has no type until somebody asks for it by one, so it is shown as what was put in it
    first: text or formatting as plain text, elements as XML, else entries with keys as an object,
    else an array. `roots` says so where it is known. More than `chars` (0: no bound) are cut.
    """
    found = framing.read(update).roots if roots is None else roots
    document: pycrdt.Doc[Any] = pycrdt.Doc()
    document.apply_update(update)
    shown = {name: _shown_root(document, name, found[name]) for name in sorted(found)}
    if not shown:
        return ""
    return _cut(next(iter(shown.values())) if len(shown) == 1 else shown, chars)


def _shown_root(document: pycrdt.Doc[Any], name: str, bits: int) -> Value:
    # An empty root of which nothing is known is most often a text whose beginning was deleted.
    if bits & IS_TEXT or not bits:
        return _plain(document.get(name, type=pycrdt.Text))
    if bits & IS_XML:
        return _plain(document.get(name, type=pycrdt.XmlFragment))
    if bits & IS_MAP:
        return _plain(document.get(name, type=pycrdt.Map))
    return _plain(document.get(name, type=pycrdt.Array)) if bits & IS_ARRAY else None


def _plain(value: Any) -> Value:
    """As jsonb can hold it: no NUL, nothing that JSON has not."""
    if isinstance(value, pycrdt.Map):
        return {_plain(str(key)): _plain(value[key]) for key in value.keys()}  # noqa: SIM118
    if isinstance(value, dict):
        return {_plain(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, pycrdt.Array | list):
        return [_plain(item) for item in value]
    if isinstance(value, pycrdt.Text | pycrdt.XmlFragment | pycrdt.XmlElement | pycrdt.XmlText):
        value = str(value)
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, float):
        return value if value - value == 0 else None
    return value if isinstance(value, bool | int) else None


def _cut(shown: Value, chars: int) -> Value:
    if isinstance(shown, str):
        return shown if not chars or len(shown) <= chars else shown[: chars - 1] + "…"
    return shown if not chars or len(canonical(shown)) <= chars else None
