"""A record as the database keeps it: plain values for anyone's SQL, causality packed beside them.

`data` is a JSON object of the values shown. `causality` is MessagePack:
`[writes, life, whole, fields]`, where `writes` holds each `[replica, counter, position, at]` once
and everything else names a write by its index there. A field is one of

    3                                a register, written by writes[3], its value in `data`
    [0, shown, other, value, …]      a register with siblings (or cleared: [0])
    [1, position, present]           a counter, its sum in `data`
    [2, position, present, [3, 4], …] a set: the additions of each element, in `data`'s order

A life is the write's index times two, plus one for a deletion. A record with documents has a fifth
member, `{"body": [1047, 1040, 1763800000000]}`: by field where each changed last, up to where
`data` shows it, and since when. What `data` holds of them is a view.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from sync.clock import Replica, Write
from sync.fields import Counter, Document, Field, Names, ObservedRemoveSet, Register, Sibling, Tail
from sync.records import Begun, Life, Record, Row
from sync.values import Value, canonical, to_json

REGISTER, COUNTER, SET = 0, 1, 2


class StoredRecord(NamedTuple):
    """A row of the table `records`, less its space."""

    collection: str
    id: str
    position: int
    deleted: bool
    size: int
    conflicts: int
    data: bytes
    causality: bytes


class Causality(NamedTuple):
    """The packed form, decoded but not yet interpreted."""

    writes: list[Any]
    life: list[int]
    whole: int
    fields: dict[str, Any]
    documents: dict[str, list[int]] = {}

    def position_of(self, name: str) -> int:
        """The position at which the field changed last."""
        packed = self.fields[name]
        if isinstance(packed, int):
            return int(self.writes[packed][2])
        if packed[0] != REGISTER:
            return int(packed[1])
        indexes = (*packed[1:2], *packed[2::2])
        return max((int(self.writes[index][2]) for index in indexes), default=0)

    def is_register(self, name: str) -> bool:
        packed = self.fields[name]
        return isinstance(packed, int) or packed[0] == REGISTER

    def siblings_of(self, name: str, shown: Value) -> list[Sibling]:
        """The siblings of a register, the one shown first."""
        packed = self.fields[name]
        if isinstance(packed, int):
            packed = (REGISTER, packed)
        pairs = [(packed[1], shown)] if len(packed) > 1 else []
        pairs += zip(packed[2::2], packed[3::2], strict=True)
        return [Sibling(_write(self.writes[index]), value) for index, value in pairs]


_CAUSALITY = msgspec.msgpack.Decoder(Causality)
_VALUES = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.msgpack.Encoder().encode


def _write(packed: list[int]) -> Write:
    replica, counter, position, at = packed
    return Write(Replica(replica), counter, position, at)


def has_documents(row: StoredRecord) -> bool:
    """Told by the first byte: an array of five."""
    return row.causality[:1] == b"\x95"


def causality_of(row: StoredRecord) -> Causality:
    return _CAUSALITY.decode(row.causality)


def values_of(row: StoredRecord) -> dict[str, Value]:
    return _VALUES.decode(row.data)


def unpack(row: StoredRecord) -> Record:
    packed, values = causality_of(row), values_of(row)
    writes = [_write(write) for write in packed.writes]
    fields = {name: _unpack_field(packed, name, values.get(name)) for name in packed.fields}
    for name, (position, shown_to, shown_at) in packed.documents.items():
        fields[name] = Document(position, values.get(name), shown_to, shown_at)
    life = tuple(Life(writes[code >> 1], bool(code & 1)) for code in packed.life)
    return Record(row.position, packed.whole, life, fields, row.size)


def _unpack_field(packed: Causality, name: str, shown: Value) -> Field:
    code = packed.fields[name]
    if packed.is_register(name):
        return Register(tuple(packed.siblings_of(name, shown)))
    kind, position, present, *additions = code
    tail = Tail(position, ())
    if kind == COUNTER:
        return Counter(shown or 0, position, present, tail)
    writes = (tuple(_write(packed.writes[index]) for index in indexes) for indexes in additions)
    elements = dict(zip(map(canonical, shown or ()), writes, strict=True))
    return ObservedRemoveSet(elements, position, present, tail)


def pack(
    collection: str, id_: str, row: Row, names: Names, *, same_data: bool = False
) -> StoredRecord:
    """`names` gives the device of a replica; it decides between siblings of the same time.
    `same_data`: what is shown has not changed, and is left out.
    """
    if isinstance(row, Begun):
        data = to_json(row.values)
        causality = _encode(([row.write], (0,), 0, dict.fromkeys(row.values, 0)))
        position = row.write.position
        return StoredRecord(collection, id_, position, False, len(data), 0, data, causality)
    return _pack(collection, id_, row, names, same_data)


def _pack(collection: str, id_: str, record: Record, names: Names, same_data: bool) -> StoredRecord:
    packer = _Packer(names)
    life = [packer.index(sibling.write) * 2 + sibling.deleted for sibling in record.life]
    for name, value in record.fields.items():
        packer.add(name, value)
    data = to_json(packer.shown)
    packed = Causality(list(packer.writes), life, record.whole, packer.fields, packer.documents)
    size = len(data) + packer.bytes_of_others
    # No delta brings what is shown of documents: they are counted by their updates.
    if packer.texts and not same_data:
        data = to_json({**packer.shown, **packer.texts})
    return StoredRecord(
        collection,
        id_,
        record.position,
        record.deleted,
        size,
        packer.conflicts,
        b"" if same_data else data,
        _encode(packed if packed.documents else packed[:4]),
    )


class _Packer:
    """Takes a record's fields one by one, and numbers their writes, each once."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.writes: dict[Write, int] = {}
        self.shown: dict[str, Value] = {}
        self.fields: dict[str, Any] = {}
        self.documents: dict[str, list[int]] = {}
        self.texts: dict[str, Value] = {}
        self.conflicts = 0
        self.bytes_of_others = 0

    def index(self, write: Write) -> int:
        return self.writes.setdefault(write, len(self.writes))

    def add(self, name: str, value: Field) -> None:
        if isinstance(value, Register):
            self._add_register(name, value)
        elif isinstance(value, Counter):
            self.fields[name] = [COUNTER, value.position, value.present]
            if value.present:
                self.shown[name] = value.total
        elif isinstance(value, Document):
            self._add_document(name, value)
        else:
            self._add_set(name, value)

    def _add_document(self, name: str, value: Document) -> None:
        self.documents[name] = [value.position, value.shown_to, value.shown_at]
        if value.present:
            self.texts[name] = value.shown

    def _add_register(self, name: str, value: Register) -> None:
        if len(value.siblings) == 1:
            ((write, self.shown[name]),) = value.siblings
            self.fields[name] = self.index(write)
            return
        packed: list[Value] = [REGISTER]
        for number, sibling in enumerate(value.ranked(self.names)):
            packed.append(self.index(sibling.write))
            if number == 0:
                self.shown[name] = sibling.value
            else:
                packed.append(sibling.value)
            self.bytes_of_others += len(to_json(sibling.value))
        self.fields[name] = packed
        self.conflicts += value.in_conflict

    def _add_set(self, name: str, value: ObservedRemoveSet) -> None:
        texts = value.texts
        additions = [[self.index(write) for write in value.elements[text]] for text in texts]
        self.fields[name] = [SET, value.position, value.present, *additions]
        if value.present:
            self.shown[name] = [msgspec.json.decode(text) for text in texts]
