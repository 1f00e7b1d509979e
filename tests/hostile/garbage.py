"""Updates that are well-formed and mean nothing: whatever bytes can say in the form of Yjs."""

from __future__ import annotations

from random import Random

Clocks = dict[int, int]
CLIENTS = (1, 2, 3)
# Deleted, binary, text, embed, format, type, values.
KINDS = [(4,), (4, 6, 7), (1, 3, 4, 5, 6, 7, 8), (1, 4, 7)]


def uint(number: int) -> bytes:
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*written, number])


def text(words: str) -> bytes:
    return uint(len(words.encode())) + words.encode()


class Garbage:
    """A history of updates. `there`: what they have made so far; with `careful`, each refers only
    to that, as honest updates do, but to anything of it.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.kinds = self.random.choice(KINDS)
        self.careful = self.random.random() < 0.5
        self.there: Clocks = {}

    def history(self) -> list[bytes]:
        random = self.random
        updates = [self._update() for _ in range(random.randint(2, 12))]
        if random.random() < 0.5:
            updates = [update for update in updates if random.random() < 0.9]
            random.shuffle(updates)
        return updates + random.choices(updates, k=3 if updates else 0)

    def _update(self) -> bytes:
        clients = self.random.sample(CLIENTS, self.random.randint(1, 3))
        parts = [self._of(client) for client in clients]
        return uint(len(parts)) + b"".join(parts) + self._deletes()

    def _of(self, client: int) -> bytes:
        random = self.random
        start = clock = max(0, self.there.get(client, 0) - random.choice([0, 0, 0, 0, 1, 3]))
        if not self.careful:
            start = clock = random.choice([0, 0, 0, 1, 3])
        structs = []
        for _ in range(random.randint(1, 6)):
            struct, length = self._struct(client, clock)
            structs.append(struct)
            clock += length
            self.there[client] = max(self.there.get(client, 0), clock)
        return uint(len(structs)) + uint(client) + uint(start) + b"".join(structs)

    def _struct(self, client: int, clock: int) -> tuple[bytes, int]:
        random = self.random
        what = random.random()
        if what < 0.06 or (what < 0.1 and not self.careful):
            length = random.choice([1, 2, 5])
            return (b"\0" if what < 0.06 else b"\x0a") + uint(length), length
        kind = random.choice(self.kinds)
        content, length = self._content(kind)
        left = self._id(client, clock) if random.random() < 0.5 else None
        right = self._id(client, clock) if random.random() < 0.4 else None
        keyed = random.random() < 0.25
        head = [kind | ((left and 0x80) or 0) | ((right and 0x40) or 0) | ((keyed and 0x20) or 0)]
        if left or right:
            return bytes(head) + (left or b"") + (right or b"") + content, length
        parent = self._id(client, clock) if random.random() < 0.4 else None
        named = b"\0" + parent if parent else b"\1" + text(random.choice("tum"))
        return bytes(head) + named + (text("k") if keyed else b"") + content, length

    def _id(self, client: int, clock: int) -> bytes | None:
        random = self.random
        if not self.careful:
            other, at = random.choice([1, 2, 3, 4]), random.choice([0, 0, 1, 2, 3, 5, 8, 20])
            return uint(other) + uint(at)
        known = {**self.there, client: min(clock, self.there.get(client, 0))}
        known = {other: clocks for other, clocks in known.items() if clocks}
        if not known:
            return None
        other = random.choice([*known])
        return uint(other) + uint(random.randrange(known[other]))

    def _content(self, kind: int) -> tuple[bytes, int]:
        random = self.random
        if kind == 1:
            length = random.choice([1, 1, 2, 5])
            return uint(length), length
        if kind == 4:
            words = random.choice(["a", "bc", "hello", "é", "😀", "x😀y"])
            return text(words), len(words.encode("utf-16-le")) // 2
        if kind == 8:
            count = random.choice([1, 2])
            return uint(count) + b"".join(self._value(0) for _ in range(count)), count
        return self._single(kind), 1

    def _single(self, kind: int) -> bytes:
        random = self.random
        json = text(random.choice(["null", "1", '"x"', '{"a":1}', "[1]", "true"]))
        if kind == 3:
            return text("xyz")
        if kind == 7:
            type_ = random.choice([0, 1, 2, 3, 4, 6])
            return uint(type_) + (text("p") if type_ == 3 else b"")
        return json if kind == 5 else text("b") + json

    def _value(self, depth: int) -> bytes:
        random = self.random
        kind = random.choice([127, 126, 125, 124, 123, 122, 121, 119, 118, 117, 116])
        if kind in {117, 118}:
            count = random.randrange(3) if depth < 3 else 0
            entries = [text("k") if kind == 118 else b"" for _ in range(count)]
            inner = b"".join(entry + self._value(depth + 1) for entry in entries)
            return bytes([kind]) + uint(count) + inner
        sizes = {125: 0, 124: 4, 123: 8, 122: 8}
        if kind == 125:
            return bytes([kind, random.randrange(64)])
        if kind in {116, 119}:
            return bytes([kind]) + text(random.choice(["", "a", "é"]))
        return bytes([kind]) + random.randbytes(sizes.get(kind, 0))

    def _deletes(self) -> bytes:
        random = self.random
        deletes = []
        for client, clock in self.there.items():
            if clock and random.random() < 0.3:
                start = random.randrange(clock)
                most = clock - start if self.careful else 9
                deletes.append(uint(client) + b"\1" + uint(start) + uint(random.randint(1, most)))
        return uint(len(deletes)) + b"".join(deletes)
