"""The laws of merging, held against the engine itself: no oracle, one history told in two ways."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.fields import Counter, Field, Register
from sync.stored import unpack, values_of
from sync.values import canonical
from tests.oracle.model import Op
from tests.oracle.space import Space
from tests.oracle.world import START_MS

DEVICES = ["device-5", "device-2", "device-8"]
BASE = "device-1"
YEARS_MS = 10**12

LAW = settings(
    max_examples=250,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def _on(op: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    ids = st.sampled_from(["a", "a", "b"])
    return st.fixed_dictionaries(
        {"op": st.just(op), "collection": st.just("c"), "id": ids, **parts}
    )


values = st.sampled_from(["x", "y", 1, 1.0, None])
elements = st.lists(st.sampled_from(["x", "y", 1]), min_size=1, max_size=2)
operations = st.one_of(
    _on(
        "put",
        fields=st.dictionaries(st.sampled_from("rq"), values, max_size=2),
        new=st.booleans(),
    ),
    _on("delete"),
    _on("increment", field=st.just("n"), by=st.integers(-3, 3)),
    _on("add", field=st.just("s"), values=elements),
    _on("remove", field=st.just("s"), values=elements),
)
times = st.integers(-3, 3).map(lambda years: START_MS + years * YEARS_MS)
edits = st.tuples(st.lists(operations, min_size=1, max_size=3), times)
lines = st.lists(edits, max_size=4)


@st.composite
def concurrent_lines(draw: st.DrawFn) -> tuple[list[Op], dict[str, list[Op]]]:
    """(what all may have seen, the changes of each device made in ignorance of the others)."""
    base = [_change(n, 0, edit) for n, edit in enumerate(draw(lines), 1)]
    found = {}
    for device in DEVICES:
        cursors = st.integers(0, len(base))
        edited = enumerate(draw(lines), 1)
        found[device] = [_change(n, draw(cursors), edit) for n, edit in edited]
    return base, found


def _change(counter: int, cursor: int, edit: tuple[list[Op], int]) -> Op:
    ops, at = edit
    return {"counter": counter, "context": {"cursor": cursor}, "at": at, "ops": ops}


def _push(space: Space, device: str, changes: list[Op]) -> None:
    body = json.dumps({"sent_at": START_MS, "changes": changes}).encode()
    answer = space.sync(device, body, START_MS)
    assert answer["rejected"] == []


def _told(base: list[Op], pieces: list[tuple[str, list[Op]]]) -> Space:
    space = Space()
    for change in base:
        _push(space, BASE, [change])
    for device, changes in pieces:
        _push(space, device, changes)
    return space


def _pieces(found: dict[str, list[Op]], order: list[int], size: int) -> list[tuple[str, list[Op]]]:
    """The lines cut into requests and interleaved; each device's own order is kept."""
    left = {device: list(changes) for device, changes in found.items()}
    pieces = []
    for choice in [*order, *range(100)]:
        waiting = [device for device in DEVICES if left[device]]
        if not waiting:
            break
        device = waiting[choice % len(waiting)]
        pieces.append((device, left[device][:size]))
        left[device] = left[device][size:]
    return pieces


def _merged(space: Space, *, with_times: bool = True) -> dict[Any, Any]:
    """Everything but positions: life, siblings, sums, elements; and what is shown."""
    found: dict[Any, Any] = {}
    for key, row in space.rows.items():
        record = unpack(row)
        fields = {n: _plain(space, f, with_times) for n, f in record.fields.items()}
        shown = canonical(values_of(row)) if with_times else None
        life = {(w.replica, w.counter, d) for w, d in _named(space, record.life)}
        found[key] = (row.deleted, row.conflicts, life, fields, shown)
    return found


def _named(space: Space, siblings: Any) -> list[Any]:
    return [(s.write._replace(replica=space.names[s.write.replica]), s[1]) for s in siblings]


def _plain(space: Space, value: Field, with_times: bool) -> object:
    if isinstance(value, Register):
        return {
            (w.replica, w.counter, w.at if with_times else 0, canonical(v))
            for w, v in _named(space, value.siblings)
        }
    if isinstance(value, Counter):
        return value.present, value.total
    elements = {
        text: {(space.names[w.replica], w.counter) for w in writes}
        for text, writes in value.elements.items()
    }
    return value.present, elements


orders = st.lists(st.integers(0, 5), max_size=12)
sizes = st.sampled_from([1, 2, 100])


@LAW
@given(concurrent_lines(), orders, orders, sizes, sizes)
def test_concurrent_changes_merge_alike_in_whatever_order_and_batches_they_arrive(
    history: tuple[list[Op], dict[str, list[Op]]],
    one: list[int],
    other: list[int],
    one_size: int,
    other_size: int,
) -> None:
    base, found = history
    first = _told(base, _pieces(found, one, one_size))
    second = _told(base, _pieces(found, other, other_size))
    assert _merged(first) == _merged(second)


@LAW
@given(concurrent_lines(), st.lists(times, min_size=32, max_size=32))
def test_clocks_choose_which_sibling_is_shown_and_nothing_else(
    history: tuple[list[Op], dict[str, list[Op]]], others: list[int]
) -> None:
    base, found = history
    left = iter(others)
    moved_base = [{**c, "at": next(left)} for c in base]
    moved = {d: [{**c, "at": next(left)} for c in changes] for d, changes in found.items()}
    first = _told(base, _pieces(found, [], 1))
    second = _told(moved_base, _pieces(moved, [], 1))
    assert _merged(first, with_times=False) == _merged(second, with_times=False)


@LAW
@given(concurrent_lines(), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3)), max_size=8))
def test_requests_sent_again_whole_or_in_part_leave_state_and_log_as_they_were(
    history: tuple[list[Op], dict[str, list[Op]]], repeats: list[tuple[int, int]]
) -> None:
    base, found = history
    pieces = _pieces(found, [], 2)
    space = _told(base, pieces)
    before = space.fingerprint()
    for which, skip in repeats:
        if pieces:
            device, changes = pieces[which % len(pieces)]
            _push(space, device, changes[skip:])
    assert space.fingerprint() == before


@LAW
@given(concurrent_lines(), orders)
def test_every_acknowledged_write_is_shown_a_sibling_or_overwritten_by_one_who_had_seen_it(
    history: tuple[list[Op], dict[str, list[Op]]], order: list[int]
) -> None:
    base, found = history
    space = _told(base, _pieces(found, order, 1))
    log = [(space.names[r], change) for r, _, change in space.log]
    for position, (device, change) in enumerate(log, 1):
        for op in json.loads(json.dumps(_plain_ops(change))):
            for name in op.get("fields", {}):
                here = (position, device, change.counter)
                assert _stands(space, op, name, here) or _overwritten(log, op, name, here), op


def _plain_ops(change: Any) -> list[Op]:
    return [{"id": op.id, "fields": dict(op.fields)} for op in change.ops if hasattr(op, "fields")]


def _stands(space: Space, op: Op, name: str, here: tuple[int, str, int]) -> bool:
    register = unpack(space.rows["c", op["id"]]).fields[name]
    assert isinstance(register, Register)
    return any(s.write.position == here[0] for s in register.siblings)


def _overwritten(log: list[Any], op: Op, name: str, here: tuple[int, str, int]) -> bool:
    """By a put of the field, or a new row, whose author had seen this position or wrote it."""
    position, device, counter = here
    for other, change in log[position - 1 :]:
        own = other == device and change.counter >= counter
        if own or change.context.cursor >= position:
            for written in change.ops:
                put = hasattr(written, "fields") and written.id == op["id"]
                if put and (name in written.fields or written.new):
                    return True
    return False
