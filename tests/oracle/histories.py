"""Histories as data: lists of actions, made by a seed, performed in a world, and made shorter.

Hypothesis finds small counterexamples; these go further: longer, with weights of their own for
each history (some have many clones, some none), and without overhead.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from tests.oracle.device import Device
from tests.oracle.model import Op
from tests.oracle.world import DEVICES_MAX, SKEWS_MS, World

Action = tuple[str, dict[str, Any]]
History = list[Action]

VALUES: list[Any] = ["x", "y", 1, 1.0, True, None, ["z"], {"k": 0.5}]
ELEMENTS: list[Any] = ["x", "y", 1, 1.0]
FATES = ["unanswered", "delayed", "lost"]
KINDS = ["put", "put", "put", "delete", "increment", "add", "remove"]
MOODS = [
    # clones, disasters, upkeep, odd edits
    (0, 0, 0, 0),
    (0, 0, 0, 1),
    (0, 0, 0, 6),
    (0.5, 0, 0, 1),
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0.5, 1, 0, 2),
    (0, 0, 2, 0),
    (0.5, 0.5, 1, 1),
]


def perform(world: World, action: Action) -> None:
    """Does it, where it can be done."""
    name, given = action
    PERFORM[name](world, **given)


def run(history: History) -> World:
    """The world after the history, come to rest. Raises what the comparison finds."""
    world = World()
    for action in history:
        perform(world, action)
    world.settle()
    return world


def _join(world: World, skew_ms: int) -> None:
    world.join(skew_ms)


def _edit_anything(world: World, number: int, ops: list[Op], ms: int) -> None:
    world.now += ms
    _device(world, number).edit(ops, world.now)


def _edit_with_a_context(
    world: World, number: int, op: Op, behind: int, clock: list[int], epoch: int
) -> None:
    """A context that no device of this model would give; some of them name what never was."""
    counts = sorted(world.model.count.items())
    named = {name: max(0, count - back) for (name, count), back in zip(counts, clock, strict=False)}
    change = _device(world, number).edit([op], world.now)
    cursor = max(0, world.space.head - behind)
    change["context"] = {"epoch": max(1, world.epochs + epoch), "cursor": cursor}
    if named:
        change["context"]["clock"] = named


def _type(world: World, number: int, **given: Any) -> None:
    """In a document, which takes a client number that nobody else ever has."""
    world.clients += 1
    _device(world, number).type(world.now, world.clients, **given)


def _set_clock(world: World, number: int, skew_ms: int) -> None:
    _device(world, number).skew_ms = skew_ms


def _edit_as_an_app_does(world: World, number: int, op: Op) -> None:
    """A row is inserted where there is none, and changed or deleted where there is one."""
    device = _device(world, number)
    there = (op["collection"], op["id"]) in device.view()
    if op["op"] == "put":
        op = {**op, "new": not there}
    elif not there:
        op = {**op, "op": "put", "new": True, "fields": {"r": 0}}
        op = {name: op[name] for name in ("op", "collection", "id", "new", "fields")}
    device.edit([op], world.now)


def _insert_over_own_deletion(world: World, number: int, op: Op, pull: bool) -> None:
    """A row goes and comes again before the deletion is pushed; meanwhile a pull may come in."""
    device = _device(world, number)
    device.edit([{"op": "delete", "collection": op["collection"], "id": op["id"]}], world.now)
    if pull:
        world.sync(device, 0, 1000)
    device.edit([{**op, "new": True}], world.now)


def _sync(world: World, number: int, most: int, limit: int, fate: str) -> None:
    world.sync(_device(world, number), most, limit, fate)


def _deliver(world: World, index: int) -> None:
    if world.delayed:
        world.deliver(index)


def _replay(world: World, index: int) -> None:
    if world.sent:
        world.replay(index)


def _clone(world: World, number: int) -> None:
    if len(world.devices) < DEVICES_MAX:
        world.clone(_device(world, number))


def _backup(world: World) -> None:
    world.backup()


def _restore(world: World, index: int) -> None:
    if world.backups:
        world.restore(index)


def _purge(world: World, back: int) -> None:
    world.purge(world.space.head - back)


def _forget_kept(world: World, number: int) -> None:
    _device(world, number).kept.clear()


def _device(world: World, number: int) -> Device:
    return world.devices[number % len(world.devices)]


PERFORM: dict[str, Callable[..., None]] = {
    "join": _join,
    "edit_anything": _edit_anything,
    "edit_as_an_app_does": _edit_as_an_app_does,
    "edit_with_a_context": _edit_with_a_context,
    "type": _type,
    "set_clock": _set_clock,
    "insert_over_own_deletion": _insert_over_own_deletion,
    "sync": _sync,
    "deliver": _deliver,
    "replay": _replay,
    "clone": _clone,
    "backup": _backup,
    "restore": _restore,
    "purge": _purge,
    "forget_kept": _forget_kept,
}


class Chance:
    """Draws the actions of one history; its weights are drawn first."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        pick = self.random.choice
        self.ids = "abcd"[: pick([1, 2, 4])]
        self.limits = pick([[1000], [1, 2], [1, 2, 1000]])
        self.kinds = [*KINDS, *["delete"] * pick([0, 0, 4])]
        clones, disasters, upkeep, odd = pick(MOODS)
        self.weights = {
            "edit_anything": 6 if odd else 0,
            "edit_with_a_context": 2 * odd,
            "edit_as_an_app_does": 8 if odd < 6 else 4,
            "insert_over_own_deletion": pick([0, 1]),
            "type": pick([0, 0, 0, 6]),
            "sync": 12,
            "deliver": 1,
            "replay": 1 + 2 * disasters,
            "set_clock": pick([0, 0.5]),
            "clone": clones,
            "backup": disasters,
            "restore": disasters,
            "forget_kept": disasters,
            "purge": upkeep,
        }

    def history(self, steps: int) -> History:
        pick = self.random.choice
        joins: History = [("join", {"skew_ms": pick(SKEWS_MS)}) for _ in range(pick([2, 3, 4]))]
        names = self.random.choices([*self.weights], [*self.weights.values()], k=steps)
        return joins + [(name, getattr(self, name)()) for name in names]

    def edit_anything(self) -> dict[str, Any]:
        ops = [self._op() for _ in range(self.random.choice([1, 1, 2, 3]))]
        return {"number": self._number(), "ops": ops, "ms": self.random.choice([0, 0, 1, 9_000])}

    def edit_with_a_context(self) -> dict[str, Any]:
        pick = self.random.choice
        # Mostly one device is named, so that what *it* had seen makes the difference.
        clock = [99] * 5
        clock[pick(range(3))] = pick([0, 0, 1, -1 if self._coin() else 0])
        return {
            "number": self._number(),
            "op": self._op(),
            "behind": pick([0, 1, 3, 6, 12, -1 if self._coin() else 4]),
            "clock": pick([[], clock, clock, [0, 1, 3, 99]]),
            "epoch": pick([0, 0, 0, 0, -1, 1 if self._coin() else 0]),
        }

    def set_clock(self) -> dict[str, Any]:
        return {"number": self._number(), "skew_ms": self.random.choice(SKEWS_MS)}

    def edit_as_an_app_does(self) -> dict[str, Any]:
        return {"number": self._number(), "op": self._tidy_op()}

    def insert_over_own_deletion(self) -> dict[str, Any]:
        return {"number": self._number(), "op": self._put(), "pull": self._coin()}

    def type(self) -> dict[str, Any]:
        pick = self.random.choice
        return {
            "number": self._number(),
            "id_": pick(self.ids),
            "field": pick("ddde"),
            "at": pick([0, 0, 1, 3, 99]),
            "word": pick(["a", "bc"]),
            "cut": pick([0, 0, 1, 3]),
        }

    def sync(self) -> dict[str, Any]:
        pick = self.random.choice
        fate = pick(["answered"] * 7 + FATES)
        return {
            "number": self._number(),
            "most": pick([1000, 1000, 1, 2]),
            "limit": pick(self.limits),
            "fate": fate,
        }

    def deliver(self) -> dict[str, Any]:
        return {"index": self._number()}

    def replay(self) -> dict[str, Any]:
        return {"index": self._number()}

    def clone(self) -> dict[str, Any]:
        return {"number": self._number()}

    def backup(self) -> dict[str, Any]:
        return {}

    def restore(self) -> dict[str, Any]:
        return {"index": self._number()}

    def purge(self) -> dict[str, Any]:
        return {"back": self.random.choice([0, 0, 1, 3])}

    def forget_kept(self) -> dict[str, Any]:
        return {"number": self._number()}

    def _number(self) -> int:
        return self.random.randrange(100)

    def _coin(self) -> bool:
        return self.random.random() < 0.5

    def _op(self) -> Op:
        rare = self.random.random()
        if rare < 0.02:
            return self._on("multiply")
        if rare < 0.05:
            return self._on("increment", field=self.random.choice("rqs"), by=1)
        op = self._tidy_op()
        return {**op, "new": self._coin()} if op["op"] == "put" else op

    def _tidy_op(self) -> Op:
        kind = self.random.choice(self.kinds)
        if kind == "put":
            return self._put()
        if kind == "delete":
            return self._on("delete")
        if kind == "increment":
            return self._on("increment", field="n", by=self.random.randint(-3, 3))
        return self._on(kind, field="s", values=self.random.choices(ELEMENTS, k=self._few()))

    def _put(self) -> Op:
        names = self.random.sample("rq", self.random.choice([0, 1, 1, 2]))
        return self._on("put", fields={name: self.random.choice(VALUES) for name in names})

    def _few(self) -> int:
        return self.random.choice([1, 1, 2])

    def _on(self, op: str, **parts: Any) -> Op:
        return {"op": op, "collection": "c", "id": self.random.choice(self.ids), **parts}


def generate(seed: int, steps: int) -> History:
    return Chance(seed).history(steps)


def fails(history: History) -> bool:
    try:
        run(history)
    except Exception:  # noqa: BLE001  whatever goes wrong is what is looked for
        return True
    return False


def shortened(history: History) -> History:
    """A part of a failing history that still fails, and of which nothing can be left out."""
    size = len(history) // 2
    while size:
        start = 0
        while start < len(history):
            shorter = history[:start] + history[start + size :]
            if any(name == "join" for name, _ in shorter) and fails(shorter):
                history = shorter
            else:
                start += size
        size //= 2
    return history


def search(seeds: range, steps: int) -> None:
    """Runs a history for each seed. What fails is made short and told, to be run again."""
    for seed in seeds:
        history = generate(seed, steps)
        try:
            run(history)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {in_short(history)}") from error


def in_short(history: History) -> str:
    lines = "\n".join(f"    {action!r}," for action in shortened(history))
    return f"in short:\n{lines}"
