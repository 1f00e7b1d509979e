"""Who is in a document now, and what they say of themselves: y-protocols' awareness, as a table.

Ephemeral, and bounded. Editors tell again what they hear of each other: only a greater clock
counts, and only from the socket that holds a client, or from another of the same user, who came
back through it. So nobody speaks for others, and what is told again ends here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from sync.yprotocol import STATES_MAX, Presence, check_state

# Editors tell their state anew every 15 s, and forget others' after 30.
OUTDATED_SECONDS: Final = 30.0
# A socket speaks for one editor; a browser's tab tells of its neighbours, too.
HELD_MAX: Final = 16


class Holder(NamedTuple):
    """A socket, of any worker, and whose it is."""

    socket: str
    user: str


class _Entry(NamedTuple):
    presence: Presence
    holder: Holder
    told_at: float

    @property
    def gone(self) -> bool:
        return self.presence.state is None


class AwarenessTable:
    """The states of one document. `now`: seconds of a clock that only goes forward."""

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}

    def apply(self, presences: Iterable[Presence], holder: Holder, now: float) -> list[Presence]:
        """Those that changed something: everybody is told, the sender too.

        Raises `BadRequest` (`malformed_frame`) at a state that is none; then nothing has changed.
        """
        self._forget(now)
        changed = {each.client: each for each in presences if self._changes(each, holder)}
        for each in changed.values():
            if each.state is not None:
                check_state(each.state)
        told = self._admitted(list(changed.values()), holder)
        self._entries |= {each.client: _Entry(each, holder, now) for each in told}
        return told

    def leave(self, socket: str, now: float) -> list[Presence]:
        """The socket is gone: what is to be told of those whom it held.

        They are remembered for a while: what others still tell again of them comes too late.
        """
        told = [each._replace(state=None) for each in self.held_by(socket)]
        for each in told:
            self._entries[each.client] = self._entries[each.client]._replace(
                presence=each, told_at=now
            )
        return told

    def held_by(self, socket: str) -> list[Presence]:
        """Those that are here through the socket."""
        entries = self._entries.values()
        return [e.presence for e in entries if e.holder.socket == socket and not e.gone]

    def standing(self, now: float) -> list[Presence]:
        """What a newcomer is told."""
        self._forget(now)
        return [entry.presence for entry in self._entries.values() if not entry.gone]

    def _forget(self, now: float) -> None:
        """Of another worker that died, nobody says that they left."""
        since = now - OUTDATED_SECONDS
        self._entries = {c: entry for c, entry in self._entries.items() if entry.told_at >= since}

    def _changes(self, new: Presence, holder: Holder) -> bool:
        known = self._entries.get(new.client)
        if known is None:
            return new.state is not None
        if known.holder.user != holder.user and not known.gone:
            return False
        withdrawn = new.clock == known.presence.clock and new.state is None and not known.gone
        return new.clock > known.presence.clock or withdrawn

    def _admitted(self, changed: list[Presence], holder: Holder) -> list[Presence]:
        known = [each for each in changed if each.client in self._entries]
        held = sum(entry.holder.socket == holder.socket for entry in self._entries.values())
        free = max(0, min(HELD_MAX - held, STATES_MAX - len(self._entries)))
        strangers = [each for each in changed if each.client not in self._entries]
        return known + strangers[:free]
