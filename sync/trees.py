"""How the types of a document are nested, told from its update alone, without integrating it."""

from __future__ import annotations

from bisect import bisect_right

from sync.framing import ARRAY_TYPE, STRING, TYPE, Client, Clock, Id, Item, read


def depth(update: bytes) -> int:
    """How deep types are nested in an update that holds a document from its beginning."""
    return _Tree(update).depth()


def has_text_in_arrays(update: bytes, roots: set[str]) -> bool:
    """Whether text stands directly in an array, one of `roots` or a nested one, in an update that
    holds a document from its beginning. Yjs never writes it; Yrs reads such an array for ever.
    """
    return _Tree(update).has_text_in_arrays(roots)


class _Tree:
    """Follows items to their parents without recursion: a chain may be long."""

    def __init__(self, update: bytes) -> None:
        self.items: dict[Client, list[tuple[Clock, Item]]] = {}
        read(update, self.items)
        self.parents: dict[Id, str | Id | None] = {}
        self.depths: dict[Id, int] = {}

    def depth(self) -> int:
        return max((self._depth(id_) for id_ in self._all(TYPE)), default=0)

    def has_text_in_arrays(self, roots: set[str]) -> bool:
        for id_ in self._all(STRING):
            parent = self._parent(id_)
            if isinstance(parent, tuple):
                item = self._item(parent)[1]
                if item is not None and item.type == ARRAY_TYPE:
                    return True
            elif parent in roots:
                return True
        return False

    def _all(self, kind: int) -> list[Id]:
        return [
            (client, clock)
            for client, found in self.items.items()
            for clock, item in found
            if item.kind == kind
        ]

    def _parent(self, id_: Id) -> str | Id | None:
        """The root's name or the type in which the item stands; None: in what was deleted."""
        way: list[Id] = []
        following: Id | None = id_
        parent: str | Id | None = None
        while following is not None:
            place, item = self._item(following)
            if place in self.parents or item is None:
                parent = self.parents.get(place)
                break
            way.append(place)
            parent, following = item.parent, item.neighbour
        for place in way:
            self.parents[place] = parent
        return parent

    def _depth(self, id_: Id) -> int:
        """That of the type which stands at `id_`: one in a root has depth 1."""
        way: list[Id] = []
        following: str | Id | None = self._item(id_)[0]
        while isinstance(following, tuple) and following not in self.depths:
            way.append(following)
            parent = self._parent(following)
            following = self._item(parent)[0] if isinstance(parent, tuple) else None
        depth = self.depths[following] if isinstance(following, tuple) else 0
        for place in reversed(way):
            depth += 1
            self.depths[place] = depth
        return depth

    def _item(self, id_: Id) -> tuple[Id, Item | None]:
        """The item that holds this clock, and where it begins."""
        client, clock = id_
        found = self.items.get(client, [])
        at = bisect_right(found, clock, key=_clock_of) - 1
        if at < 0 or clock >= found[at][0] + found[at][1].length:
            return id_, None
        return (client, found[at][0]), found[at][1]


def _clock_of(placed: tuple[Clock, Item]) -> Clock:
    return placed[0]
