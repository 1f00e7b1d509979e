"""Whether all that an update refers to is there.

Only such an update is ever integrated: libraries integrate anything else at their own risk (Yrs
0.28 ends the process where pending updates refer to each other in a circle).
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from sync.framing import Client, Clock, Clocks, Frame, Gate


def is_complete(frame: Frame, clocks: Clocks) -> bool:
    """Whether everything that the update refers to is there or in it, in an order in which each
    comes after what it needs.
    """
    there = {client: clocks.get(client, 0) for client in frame.spans} | dict(
        in_order(frame, clocks)
    )
    ends = [*frame.deletes.items(), *((client, span.end) for client, span in frame.spans.items())]
    return all(end <= there.get(client, clocks.get(client, 0)) for client, end in ends)


def in_order(frame: Frame, clocks: Clocks) -> Iterator[tuple[Client, Clock]]:
    """Whose structs can be taken next, and up to which clock, again and again: until all are, or
    the others wait for what neither is there nor in the update.
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
            return  # what it skips, nothing else in the update brings
        if gate is not None:
            heappush(waiting.setdefault(gate.needs[0], []), (gate.needs[1], client))
        end = frame.spans[client].end if gate is None else gate.clock
        if end > there[client]:
            there[client] = end
            yield client, end
        others = waiting.get(client, [])
        while others and others[0][0] < there[client]:
            ready.append(heappop(others)[1])


def _next_gate(gates: list[Gate], there: Clocks, clocks: Clocks) -> Gate | None:
    """The first that is still shut; those before it are dropped."""
    while gates:
        client, clock = gates[-1].needs
        if clock >= there.get(client, clocks.get(client, 0)):
            return gates[-1]
        gates.pop()
    return None
