"""Yjs documents: how updates merge, and how a document is shown.

The only module that opens pycrdt, and never with what `sync.framing` has not read first. No
document lives longer than the call that opened it, and nobody observes one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pycrdt

from sync import framing, gates, trees
from sync.errors import Refused
from sync.framing import IS_ARRAY, IS_MAP, IS_TEXT, IS_XML, Clocks, Frame
from sync.pace import pace
from sync.pieces import pieces
from sync.values import Value, canonical

T = TypeVar("T")
MERGED_AT_ONCE = 32
NOTHING = b"\0\0"
"""The update that says nothing."""


# Updates as bytes ---------------------------------------------------------------------------


def check_update(update: bytes, limit: int) -> None:
    """That it may be merged: raises `Refused`: `document_update_too_large`, `bad_update`."""
    if not is_one_letter(update):
        read(update, limit)


# What nearly all updates are, as they come: one ASCII letter beside another, or one run deleted.
_NUMBER = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,3}[\x01-\x7f])"
_CLIENT = rb"(?:[\x00-\x7f]|[\x80-\xff]{1,6}[\x01-\x7f]|[\x80-\xff]{7}[\x01-\x0f])"
_ID = _CLIENT + _NUMBER
ONE_LETTER = re.compile(
    rb"\x01\x01%b(?:[\x84\x44]%b|\xc4%b%b)\x01[\x00-\x7f]\x00" % (_ID, _ID, _ID, _ID)
    + rb"|\x00\x01%b\x01%b[\x01-\x7f]" % (_CLIENT, _NUMBER),
    re.DOTALL,
)


def is_one_letter(update: bytes) -> bool:
    """A look in place of `read`, which takes ten times as long; what is merged is read again."""
    return ONE_LETTER.fullmatch(update) is not None


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
    frame, clocks = framing.read(more), _clocks(update)
    if any(end > clocks.get(client, 0) for client, end in ends(frame).items()):
        return False
    if not gates.is_complete(frame, clocks):
        return False
    document = _opened(update)
    before = document.get_update()
    attempt(lambda: _integrate(document, more, clocks))
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
    squashed = _opened(update).get_update()
    # Yrs loses count where somebody refers to one half of a character that takes two clocks.
    return squashed if _clocks(squashed) == _clocks(update) else update


def _clocks(update: bytes) -> Clocks:
    return framing.read_clocks(state_vector(update))


def ends(frame: Frame) -> Clocks:
    """By client, the clock after the last that the update holds."""
    return {client: span.end for client, span in frame.spans.items()}


def read(update: bytes, limit: int) -> Frame:
    """The frame of an update from outside; raises as `check_update` does."""
    if len(update) > limit:
        most = f"{len(update)} bytes; {limit} at most"
        raise Refused("document_update_too_large", most)
    try:
        frame = framing.read(update)
    except framing.Malformed as malformed:
        raise Refused("bad_update", str(malformed)) from None
    attempt(lambda: pycrdt.get_state(update))
    return frame


def integrate(update: bytes) -> None:
    """Raises `Refused` (`bad_update`) where a document that begins with this update does not
    take all of it.
    """
    attempt(lambda: _opened(update, skip_gc=False))


# An update of fewer bytes holds few structs, and is integrated as it is.
PIECEMEAL_BYTES = 8 * 2**10


def _opened(update: bytes, *, skip_gc: bool = True) -> pycrdt.Doc[Any]:
    """The document that begins with this update. `skip_gc`: it keeps what was deleted."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(skip_gc=skip_gc)
    _integrate(document, update, {})
    return document


def _integrate(document: pycrdt.Doc[Any], update: bytes, clocks: Clocks) -> None:
    if len(update) <= PIECEMEAL_BYTES:
        document.apply_update(update)
        return
    for piece in pieces(update, clocks):
        document.apply_update(piece)
        pace.give_way()


def attempt(work: Callable[[], T]) -> T:
    """Raises `Refused` (`bad_update`) where pycrdt gives up: by an error, or by a panic of Rust,
    which is no `Exception`.
    """
    try:
        return work()
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise Refused("bad_update", f"it can't be integrated: {error}"[:200]) from None


# As people and SQL see it -------------------------------------------------------------------


def text_of(update: bytes, roots: dict[str, int] | None = None, chars: int = 0) -> Value:
    """A document's text where it is one text; else JSON: of its one root, or of all by name.

    A root has no type until somebody asks for it by one, so it is shown as what was put in it
    first: text or formatting as plain text, elements as XML, else entries with keys as an object,
    else an array. `roots` says so where it is known. More than `chars` (0: no bound) are cut.
    """
    found = framing.read(update).roots if roots is None else roots
    arrays = {name for name, bits in found.items() if bits == IS_ARRAY}
    only_text = all(bits & IS_TEXT for bits in found.values())
    if not only_text and trees.has_text_in_arrays(update, arrays):
        return None
    document = _opened(update, skip_gc=False)
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
