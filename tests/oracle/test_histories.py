"""Generated histories: what must hold, whatever the devices, the network and the clocks do."""

from __future__ import annotations

import os
import random
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.oracle.histories import ELEMENTS, FATES, VALUES, History, in_short, perform, search
from tests.oracle.model import Op
from tests.oracle.world import DEVICES_MAX, SKEWS_MS, World

which = st.integers(0, 99)
ids = st.sampled_from(["a", "b"])
elements = st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=2)
some_fields = st.dictionaries(st.sampled_from("rq"), st.sampled_from(VALUES), max_size=2)


def _on(op: str, **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Op]:
    fixed = {"op": st.just(op), "collection": st.just("c"), "id": ids}
    return st.fixed_dictionaries({**fixed, **parts})


rows = _on("put", fields=some_fields)
steps = _on("increment", field=st.just("n"), by=st.integers(-3, 3))
adds = _on("add", field=st.just("s"), values=elements)
removes = _on("remove", field=st.just("s"), values=elements)
deletes = _on("delete")
puts = _on("put", fields=some_fields, new=st.booleans())
mistyped = _on("increment", field=st.sampled_from("rs"), by=st.just(1))
unknown = _on("multiply")
tidy = st.one_of(rows, deletes, steps, adds, removes)
wild = st.one_of(puts, deletes, steps, adds, removes, mistyped, unknown)


class Histories(RuleBasedStateMachine):
    """Each rule is something that happens to devices; the world compares after each."""

    newest: History = []

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        Histories.newest = []

    def do(self, name: str, **given: Any) -> None:
        self.newest.append((name, given))
        perform(self.world, (name, given))

    @initialize(skews=st.tuples(*[st.sampled_from(SKEWS_MS)] * 3))
    def devices_join(self, skews: tuple[int, int, int]) -> None:
        for skew in skews:
            self.do("join", skew_ms=skew)

    @rule(number=which, ops=st.lists(wild, min_size=1, max_size=3), ms=st.integers(0, 9_000))
    def edit_anything(self, number: int, ops: list[Op], ms: int) -> None:
        self.do("edit_anything", number=number, ops=ops, ms=ms)

    @rule(number=which, op=tidy)
    def edit_as_an_app_does(self, number: int, op: Op) -> None:
        self.do("edit_as_an_app_does", number=number, op=op)

    @rule(
        number=which,
        op=wild,
        behind=st.integers(-1, 9),
        clock=st.lists(st.integers(-1, 9), max_size=3),
        epoch=st.integers(-1, 1),
    )
    def edit_with_a_context(self, **given: Any) -> None:
        self.do("edit_with_a_context", **given)

    @rule(
        number=which,
        id_=ids,
        field=st.sampled_from("de"),
        at=st.integers(0, 4),
        word=st.sampled_from(["a", "bc"]),
        cut=st.integers(0, 2),
    )
    def type(self, **given: Any) -> None:
        self.do("type", **given)

    @rule(number=which, op=rows, pull=st.booleans())
    def insert_over_own_deletion(self, number: int, op: Op, pull: bool) -> None:
        self.do("insert_over_own_deletion", number=number, op=op, pull=pull)

    @rule(
        number=which,
        most=st.sampled_from([1, 2, 1000]),
        limit=st.sampled_from([1, 2, 1000]),
        fate=st.sampled_from(["answered", "answered", *FATES]),
    )
    def sync(self, **given: Any) -> None:
        self.do("sync", **given)

    @rule(number=which)
    def sync_well(self, number: int) -> None:
        self.do("sync", number=number, most=1000, limit=1000, fate="answered")

    @precondition(lambda self: self.world.delayed)
    @rule(index=which)
    def deliver_late(self, index: int) -> None:
        self.do("deliver", index=index)

    @precondition(lambda self: self.world.sent)
    @rule(index=which)
    def replay(self, index: int) -> None:
        self.do("replay", index=index)

    @precondition(lambda self: len(self.world.devices) < DEVICES_MAX)
    @rule(number=which)
    def clone(self, number: int) -> None:
        self.do("clone", number=number)

    @rule(number=which, skew_ms=st.sampled_from(SKEWS_MS))
    def set_clock(self, number: int, skew_ms: int) -> None:
        self.do("set_clock", number=number, skew_ms=skew_ms)

    @precondition(lambda self: len(self.world.backups) < 3)
    @rule()
    def backup(self) -> None:
        self.do("backup")

    @precondition(lambda self: self.world.backups)
    @rule(index=which)
    def restore(self, index: int) -> None:
        self.do("restore", index=index)

    @rule(back=st.integers(0, 3))
    def purge(self, back: int) -> None:
        self.do("purge", back=back)

    @rule(number=which)
    def forget_kept_changes(self, number: int) -> None:
        self.do("forget_kept", number=number)

    def teardown(self) -> None:
        self.world.settle()


QUICK = settings(
    max_examples=300,
    stateful_step_count=40,
    derandomize=True,
    report_multiple_bugs=False,
    # `in_short` takes a second where Hypothesis' own shrinking takes minutes.
    phases=[Phase.generate],
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SEEDS, STEPS = 900, 60


def test_whatever_happens_the_server_and_every_device_hold_what_the_protocol_defines() -> None:
    _explore(QUICK)


def _explore(how: settings) -> None:
    try:
        run_state_machine_as_test(Histories, settings=how)
    except Exception as error:
        raise AssertionError(in_short(Histories.newest)) from error


def test_longer_histories_of_every_mood_hold_too() -> None:
    search(range(SEEDS), STEPS)


def _soak_seconds() -> float:
    return 60 * float(os.environ.get("REJOIN_SOAK_MINUTES", "5"))


@pytest.mark.soak
def test_new_histories_hold_for_as_long_as_one_cares_to_look() -> None:
    until = time.monotonic() + _soak_seconds()
    while time.monotonic() < until:
        seed = random.getrandbits(48)
        search(range(seed, seed + 20), random.choice([30, 60, 120, 240]))


@pytest.mark.soak
def test_hypothesis_finds_nothing_in_many_more_examples() -> None:
    many = settings(QUICK, max_examples=int(_soak_seconds() * 15), derandomize=False)
    _explore(many)
