"""Yjs updates, version 1, read strictly: before any library sees one.

Libraries trust what they read: a length without a bound is allocated, a varint without an end is
followed, text that is no UTF-8 is undefined behaviour, an item that refers to itself ends the
process. What passes here is what Yjs (13.6) and Yrs (0.28) both write and both read the same way.
Nothing is integrated here; `sync.documents` asks whether all that an update refers to is there.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple, NewType

from msgspec import Struct

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

GC, DELETED, JSON, BINARY, STRING, EMBED, FORMAT, TYPE, ANY, DOC, SKIP = range(11)
XML_ELEMENT = 3
# Y.Array, Y.Map, Y.Text, Y.XmlFragment, Y.XmlText. Not XmlHook, which Yjs and Yrs write each in
# its own way, and not the types that Yrs alone knows.
BARE_TYPES = frozenset({0, 1, 2, 4, 6})
XML_TYPES = frozenset({3, 6})
# What stands directly in a root tells how to show it.
IS_MAP, IS_TEXT, IS_ARRAY, IS_XML = 1, 2, 4, 8
_SHOWN_AS = {JSON: IS_ARRAY, BINARY: IS_ARRAY, STRING: IS_TEXT, EMBED: IS_TEXT, FORMAT: IS_TEXT}


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
    """An item for measuring depth: its parent is that of its neighbour where it names none."""

    length: int
    parent: str | Id | None
    neighbour: Id | None
    is_type: bool


class Frame(Struct):
    """What an update says of itself. `deletes`: by client the end of its last deletion.
    `parents`: nested types that items name as their parent. `roots`: by name, how what stands in
    it is to be shown, as bits. `types`: how many nested types it makes.
    """

    spans: dict[Client, Span] = {}
    deletes: Clocks = {}
    parents: set[Id] = set()
    roots: dict[str, int] = {}
    types: int = 0
    structs: int = 0


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
        for _ in range(self.length()):
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


def read(update: bytes, items: dict[Client, list[tuple[Clock, Item]]] | None = None) -> Frame:
    """The frame of an update. Raises `Malformed`. `items`, where given, is filled for `depth`."""
    reader, frame = Reader(update), Frame()
    try:
        for _ in range(reader.length()):
            _read_client(reader, frame, items)
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
    return b"".join(map(_uint, numbers))


def _uint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_client(
    reader: Reader, frame: Frame, items: dict[Client, list[tuple[Clock, Item]]] | None
) -> None:
    count = reader.length()
    client, clock = reader.id()
    if client in frame.spans or count == 0:
        raise Malformed(f"client {client} comes twice, or with nothing")
    span = frame.spans[client] = Span(clock, clock, [])
    if clock:
        span.gates.append(Gate(clock, CLOCK_MAX, (client, clock - 1)))
    found = items.setdefault(client, []) if items is not None else None
    for _ in range(count):
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
    frame.structs += count


def _read_struct(reader: Reader, frame: Frame, span: Span, client: Client) -> Item | None:
    """None: a skip, which moves the clock by itself."""
    info = reader.byte()
    kind = info & 0x1F
    if info in {GC, SKIP}:
        length = _positive(reader)
        if info == GC:
            return Item(length, None, None, False)
        span.end += length
        return None
    if not DELETED <= kind <= DOC:
        raise Malformed(f"a struct before byte {reader.at} is of the unknown kind {kind}")
    left = reader.id() if info & 0x80 else None
    right = reader.id() if info & 0x40 else None
    parent: str | Id | None = None
    # Only an item without neighbours names its parent, and the key that it stands under.
    if left is None and right is None:
        parent = reader.text() if _flag(reader) else reader.id()
        if info & 0x20:
            reader.text()
    content_at = reader.at
    length = _read_content(reader, frame, kind)
    if isinstance(parent, str):
        shown = IS_MAP if info & 0x20 else _shown_as(reader.data, kind, content_at)
        frame.roots[parent] = frame.roots.get(parent, 0) | shown
    elif parent is not None:
        frame.parents.add(parent)
    needs = (left, right, parent if isinstance(parent, tuple) else None)
    for id_ in needs:
        if id_ is not None:
            _require(span, client, length, id_)
    return Item(length, parent, left or right, kind == TYPE)


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
    if kind in {JSON, ANY}:
        count = _positive(reader)
        for _ in range(count):
            reader.text() if kind == JSON else reader.value()
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
        elif kind == DOC:
            reader.value()


def _read_type(reader: Reader) -> None:
    type_ = reader.uint()
    if type_ == XML_ELEMENT:
        reader.text()
    elif type_ not in BARE_TYPES:
        raise Malformed(f"a shared type is of the unknown kind {type_}")


def _shown_as(data: bytes, kind: int, content_at: int) -> int:
    if kind == TYPE:
        return IS_XML if data[content_at] in XML_TYPES else IS_ARRAY
    return _SHOWN_AS.get(kind, IS_ARRAY if kind in {ANY, DOC} else 0)


def _flag(reader: Reader) -> bool:
    flag = reader.uint()
    if flag > 1:
        raise Malformed(f"a parent before byte {reader.at} is neither a root nor nested")
    return flag == 1


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
        for _ in range(reader.length()):
            start = reader.uint()
            end = max(end, start + _positive(reader))
        if end > CLOCK_MAX:
            raise Malformed(f"the clock of client {client} is too large")
        frame.deletes[client] = end


def depth(update: bytes) -> int:
    """How deep types are nested in an update that holds a document from its beginning."""
    items: dict[Client, list[tuple[Clock, Item]]] = {}
    read(update, items)
    return _Depths(items).deepest()


class _Depths:
    """Follows items to their parents without recursion: a chain may be long."""

    def __init__(self, items: dict[Client, list[tuple[Clock, Item]]]) -> None:
        self.items = items
        self.depths: dict[Id, int] = {}

    def deepest(self) -> int:
        types = [(c, k) for c, found in self.items.items() for k, item in found if item.is_type]
        return max((self._depth(id_) for id_ in types), default=0)

    def _depth(self, id_: Id) -> int:
        """That of the type which stands at `id_`: one in a root has depth 1."""
        way: list[tuple[Id, bool]] = []
        depth = 0
        following: Id | None = id_
        while following is not None:
            place, item = self._item(following)
            if place in self.depths:
                depth = self.depths[place]
                break
            if item is None:
                break
            way.append((place, isinstance(item.parent, tuple)))
            following = item.parent if isinstance(item.parent, tuple) else item.neighbour
        return self._keep(way, depth)

    def _keep(self, way: list[tuple[Id, bool]], depth: int) -> int:
        """Gives each item on the way its depth, from the outermost in."""
        depth = depth or 1
        for place, nested in reversed(way):
            depth += nested
            self.depths[place] = depth
        return depth

    def _item(self, id_: Id) -> tuple[Id, Item | None]:
        client, clock = id_
        found = self.items.get(client, [])
        at = bisect_right(found, clock, key=_clock_of) - 1
        if at < 0 or clock >= found[at][0] + found[at][1].length:
            return id_, None
        return (client, found[at][0]), found[at][1]


def _clock_of(placed: tuple[Clock, Item]) -> Clock:
    return placed[0]
