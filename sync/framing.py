"""Yjs updates, version 1, read strictly: before any library sees one.

Libraries trust what they read: a length without a bound is allocated, a varint without an end is
followed, text that is no UTF-8 is undefined behaviour, an item that refers to itself ends the
process. What passes here is what Yjs (13.6) and Yrs (0.28) both write and both read the same way.
Nothing is integrated here; `sync.documents` asks whether all that an update refers to is there.
"""

from __future__ import annotations

from array import array
from typing import NamedTuple, NewType

from msgspec import Struct

from sync.pace import pace

Client = NewType("Client", int)
"""The number that one Yjs document drew for itself: up to 2^53 - 1."""
Clock = int
"""How many characters and elements that document had made before."""
Id = tuple[Client, Clock]
Clocks = dict[Client, Clock]
"""A Yjs state vector: by client, the first clock that is not there."""

CLIENT_MAX = 2**53 - 1
# Yrs counts clocks in 32 bits and gives no error where they wrap.
CLOCK_MAX = 2**31 - 1
# Values in an array or a map; parsers of values recurse.
VALUE_DEPTH = 64

GC, DELETED, _OLD_JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)
_TAKEN = frozenset({DELETED, BINARY, STRING, EMBED, FORMAT, TYPE, ANY})
_WHY_NOT = {
    _OLD_JSON: "Yjs has not written it since version 13, and Yrs reads it wrongly",
    DOC: "a document within a document is not taken, give it a field of its own",
}
XML_ELEMENT = 3
# Y.Array, Y.Map, Y.Text, Y.XmlFragment, Y.XmlText. Not XmlHook, which Yjs and Yrs write each in
# its own way, and not the types that Yrs alone knows.
ARRAY_TYPE = 0
BARE_TYPES = frozenset({0, 1, 2, 4, 6})
XML_TYPES = frozenset({3, 6})
# What stands directly in a root tells how to show it.
IS_MAP, IS_TEXT, IS_ARRAY, IS_XML = 1, 2, 4, 8
_SHOWN_AS = {BINARY: IS_ARRAY, STRING: IS_TEXT}
_SHOWN_AS |= {EMBED: IS_TEXT, FORMAT: IS_TEXT, ANY: IS_ARRAY}


class Malformed(ValueError):
    """It is no update; the text says what is wrong, at which byte."""


class Gate(NamedTuple):
    """Before `clock` of its client can be taken, `needs` must be there. `end`: of the struct."""

    clock: Clock
    end: Clock
    needs: Id


class Span(Struct):
    """What an update holds of one client: clocks `start` to `end`, and what they wait for."""

    start: Clock
    end: Clock
    gates: list[Gate]


class Item(NamedTuple):
    """An item as it stands in the tree: its parent is that of its neighbour where it names none.
    `type`: of a nested type, as it is written; -1 for what is none.
    """

    length: int
    parent: str | Id | None
    neighbour: Id | None
    kind: int
    type: int = -1


class Frame(Struct):
    """What an update says of itself. `deletes`: by client the end of its last deletion.
    `parents`: nested types that items name as their parent. `roots`: by name, how what stands in
    it is to be shown, as bits. `types`: how many nested types it makes. `deletes_at`: the byte at
    which the deletions begin.
    """

    spans: dict[Client, Span] = {}
    deletes: Clocks = {}
    parents: set[Id] = set()
    roots: dict[str, int] = {}
    types: int = 0
    structs: int = 0
    deletes_at: int = 0


class Cuts(NamedTuple):
    """Where the structs of one client begin, and the last ends: by clock, and by byte."""

    clocks: array[int]
    offsets: array[int]


class Reader:
    """Bytes from left to right, after lib0 (github.com/dmonad/lib0)."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1]

    def uint(self, most: int = CLOCK_MAX) -> int:
        """In the shortest form, for the same number must have the same bytes everywhere."""
        number = self.data[self.at]
        self.at += 1
        if number < 0x80:
            return number
        number &= 0x7F
        for shift in range(7, 56, 7):
            byte = self.data[self.at]
            self.at += 1
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 or number > most:
                    break
                return number
        raise Malformed(f"a number at byte {self.at} is too large or not in its shortest form")

    def length(self) -> int:
        """A count of what follows; each takes a byte at least."""
        count = self.uint()
        if count > len(self.data) - self.at:
            raise Malformed(f"a length at byte {self.at} exceeds the update")
        return count

    def bytes(self) -> bytes:
        count = self.length()
        self.at += count
        return self.data[self.at - count : self.at]

    def text(self) -> str:
        return self.bytes().decode()

    def id(self) -> Id:
        return Client(self.uint(CLIENT_MAX)), self.uint()

    def skip(self, count: int) -> None:
        if count > len(self.data) - self.at:
            raise Malformed("the update ends within a number")
        self.at += count

    def value(self, depth: int = 0) -> None:
        """Passes over one of lib0's own values."""
        kind = self.byte()
        if kind in {117, 118}:
            self._values(kind == 118, depth + 1)
        elif kind in {116, 119}:
            self.bytes() if kind == 116 else self.text()
        elif kind == 125:
            self._int()
        elif kind in _FIXED:
            self.skip(_FIXED[kind])
        else:
            raise Malformed(f"a value at byte {self.at} is of the unknown kind {kind}")

    def _values(self, named: bool, depth: int) -> None:
        if depth > VALUE_DEPTH:
            raise Malformed(f"values are nested more than {VALUE_DEPTH} deep")
        for _ in pace.range(self.length()):
            if named:
                self.text()
            self.value(depth)

    def _int(self) -> None:
        if self.byte() >= 0x80:
            for _ in range(7):
                if self.byte() < 0x80:
                    return
            raise Malformed(f"a number at byte {self.at} is too large")


# Of the values with a size of their own: undefined, null, true, false, float32, float64, bigint.
_FIXED = {127: 0, 126: 0, 121: 0, 120: 0, 124: 4, 123: 8, 122: 8}


def read(
    update: bytes,
    items: dict[Client, list[tuple[Clock, Item]]] | None = None,
    cuts: dict[Client, Cuts] | None = None,
) -> Frame:
    """The frame of an update. Raises `Malformed`. `items`, where given, is filled for `depth`, and
    `cuts` for `pieces`.
    """
    reader, frame = Reader(update), Frame()
    try:
        for _ in range(reader.length()):
            _read_client(reader, frame, items, cuts)
        frame.deletes_at = reader.at
        _read_deletes(reader, frame)
    except IndexError:
        raise Malformed("the update ends too early") from None
    except UnicodeDecodeError:
        raise Malformed(f"text before byte {reader.at} is not UTF-8") from None
    if reader.at != len(update):
        raise Malformed("bytes follow the update")
    return frame


def read_clocks(state_vector: bytes) -> Clocks:
    """A Yjs state vector. Raises `Malformed`."""
    reader = Reader(state_vector)
    try:
        pairs = [reader.id() for _ in range(reader.length())]
    except IndexError:
        raise Malformed("the state vector ends too early") from None
    clocks = dict(pairs)
    if reader.at != len(state_vector) or len(clocks) != len(pairs):
        raise Malformed("bytes follow the state vector, or it names a client twice")
    return clocks


def write_clocks(clocks: Clocks) -> bytes:
    """A Yjs state vector."""
    numbers = [len(clocks)]
    for pair in clocks.items():
        numbers += pair
    return b"".join(map(uint, numbers))


def uint(number: int) -> bytes:
    """A number as `Reader.uint` reads it."""
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_client(
    reader: Reader,
    frame: Frame,
    items: dict[Client, list[tuple[Clock, Item]]] | None,
    cuts: dict[Client, Cuts] | None,
) -> None:
    count = reader.length()
    client, clock = reader.id()
    if client in frame.spans or count == 0:
        raise Malformed(f"client {client} comes twice, or with nothing")
    span = frame.spans[client] = Span(clock, clock, [])
    if clock:
        span.gates.append(Gate(clock, CLOCK_MAX, (client, clock - 1)))
    found = items.setdefault(client, []) if items is not None else None
    cut = cuts.setdefault(client, Cuts(array("q"), array("q"))) if cuts is not None else None
    for _ in pace.range(count):
        if cut is not None:
            cut.clocks.append(span.end)
            cut.offsets.append(reader.at)
        item = _read_struct(reader, frame, span, client)
        if found is not None and item is not None:
            found.append((span.end, item))
        # What follows a skip can't be taken before what is skipped.
        if item is None:
            span.gates.append(Gate(span.end, CLOCK_MAX, (client, span.end - 1)))
        else:
            span.end += item.length
        if span.end > CLOCK_MAX:
            raise Malformed(f"the clock of client {client} is too large")
    if cut is not None:
        cut.clocks.append(span.end)
        cut.offsets.append(reader.at)
    frame.structs += count


def _read_struct(reader: Reader, frame: Frame, span: Span, client: Client) -> Item | None:
    """None: a skip, which moves the clock by itself."""
    info = reader.byte()
    if info in {GC, SKIP}:
        length = _positive(reader)
        if info == GC:
            return Item(length, None, None, GC)
        span.end += length
        return None
    kind = info & 0x1F
    if kind not in _TAKEN:
        why = _WHY_NOT.get(kind, "unknown")
        raise Malformed(f"a struct before byte {reader.at} is of the kind {kind}: {why}")
    left = reader.id() if info & 0x80 else None
    right = reader.id() if info & 0x40 else None
    alone = left is None and right is None
    parent = _read_parent(reader, keyed=bool(info & 0x20)) if alone else None
    at = reader.at
    length = _read_content(reader, frame, kind)
    if isinstance(parent, str):
        shown = IS_MAP if info & 0x20 else _shown_as(reader.data, kind, at)
        frame.roots[parent] = frame.roots.get(parent, 0) | shown
    elif parent is not None:
        frame.parents.add(parent)
    for id_ in (left, right, parent):
        if isinstance(id_, tuple):
            _require(span, client, length, id_)
    return Item(length, parent, left or right, kind, reader.data[at] if kind == TYPE else -1)


def _read_parent(reader: Reader, *, keyed: bool) -> str | Id:
    """Only an item without neighbours names its parent, and the key that it stands under."""
    flag = reader.uint()
    if flag > 1:
        raise Malformed(f"a parent before byte {reader.at} is neither a root nor nested")
    parent = reader.text() if flag else reader.id()
    if keyed:
        reader.text()
    return parent


def _require(span: Span, client: Client, length: int, id_: Id) -> None:
    if id_[0] != client:
        span.gates.append(Gate(span.end, span.end + length, id_))
    elif id_[1] >= span.end:
        raise Malformed(f"client {client} refers at clock {span.end} to what it made later")


def _read_content(reader: Reader, frame: Frame, kind: int) -> int:
    """Passes over an item's content, and returns how many clocks it takes."""
    if kind == STRING:
        text = reader.text()
        if not text:
            raise Malformed("an item holds no text")
        return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2
    if kind == DELETED:
        return _positive(reader)
    if kind == ANY:
        count = _positive(reader)
        for _ in pace.range(count):
            reader.value()
        return count
    _read_single(reader, frame, kind)
    return 1


def _read_single(reader: Reader, frame: Frame, kind: int) -> None:
    if kind == BINARY:
        reader.bytes()
    elif kind == TYPE:
        _read_type(reader)
        frame.types += 1
    else:
        reader.text()
        if kind == FORMAT:
            reader.text()


def _read_type(reader: Reader) -> None:
    type_ = reader.uint()
    if type_ == XML_ELEMENT:
        reader.text()
    elif type_ not in BARE_TYPES:
        raise Malformed(f"a shared type is of the unknown kind {type_}")


def _shown_as(data: bytes, kind: int, content_at: int) -> int:
    if kind == TYPE:
        return IS_XML if data[content_at] in XML_TYPES else IS_ARRAY
    return _SHOWN_AS.get(kind, 0)


def _positive(reader: Reader) -> int:
    length = reader.uint()
    if length == 0:
        raise Malformed(f"a length before byte {reader.at} is 0")
    return length


def _read_deletes(reader: Reader, frame: Frame) -> None:
    for _ in range(reader.length()):
        client = Client(reader.uint(CLIENT_MAX))
        if client in frame.deletes:
            raise Malformed(f"client {client} comes twice among the deletions")
        end = 0
        for _ in pace.range(reader.length()):
            start = reader.uint()
            end = max(end, start + _positive(reader))
        if end > CLOCK_MAX:
            raise Malformed(f"the clock of client {client} is too large")
        frame.deletes[client] = end
