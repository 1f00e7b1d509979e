"""Whether all that an update refers to is there.

Only such an update is ever integrated: libraries integrate anything else at their own risk (Yrs
0.28 ends the process where pending updates refer to each other in a circle).
"""

from __future__ import annotations

from heapq import heappop, heappush

from sync.framing import Client, Clocks, Frame, Gate


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
