"""Requests that were valid once: whatever is turned in them, by the tree or by the byte, the
server finds no fault in itself, and log, records and counters fit together.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from tests.contract.devices import Phone, add, delete, increment, phone, put, remove
from tests.hostile.doors import CODINGS, FORMATS, JSON, good, ledger, send, squeezed, sync, written

SPACE_CHANGES_MAX = 60
STRANGER = "00000000-0000-4000-8000-000000000000"

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, -1, 33, 2**31, 2**32, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64,
    -(2**63), -(2**63) - 1, 10**400, 0.0, -0.0, 1.0, 1.5, 1e16, 1e308, 5e-324, float("nan"),
    float("inf"), "", "x", "me", "put", "increment", "a\0b", "\ud800", "\udfff\ud800", "\ufeff",
    "x" * 129, "y" * 70_000, STRANGER, [], {}, [None], [[]], [1, "a", {}], {"": 1}, {"a\0": 1},
    {"\ud800": []}, {"counter": 1}, {"op": "put"}, b"\xff",
]  # fmt: skip
NAMES = [
    "", "op", "id", "new", "fields", "by", "values", "cursor", "clock", "epoch", "at", "page",
    "changes", "counter", "discarded", "limit", "spaces", "x", "a\0", "\ud800", "\U0010ffff",
]  # fmt: skip

places = st.integers(0, 10_000)
turns = st.tuples(
    st.sampled_from(["set", "set", "drop", "double", "name", "move"]),
    places,
    places,
    st.sampled_from(VALUES),
    st.sampled_from(NAMES),
)
bites = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "copy", "end"]), places, places, st.binary(max_size=6)
)


def _request(a: Phone) -> dict[str, Any]:
    """A request of every kind of operation, new and repeated, with contexts of every form."""
    context = {"epoch": 1, "cursor": 0, "clock": {a.device: 0}}
    changes = [
        a.change(put("t", new=True, title="x", o={"k": [1, {"z": 2.5}]}), increment("t", "n", 1)),
        a.change(add("t", "s", "a", 1, None), remove("t", "s", "a"), context=context),
        a.change(delete("u"), put("u", title="é")),
    ]
    part = {"epoch": 1, "cursor": 0, "counter": a.counter, "changes": changes, "limit": 10}
    return {
        "sent_at": 1,
        "client": {"app_version": "1", "pending": 1, "oldest_pending_at": 5},
        "spaces": {"me": part, STRANGER: {"cursor": 1}},
    }


def _nodes(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of each place in the tree."""
    level = [tree]
    while level:
        below = []
        for each in level:
            keys = list(each) if isinstance(each, dict) else range(len(each))
            for key in keys:
                yield each, key
                if isinstance(each[key], dict | list):
                    below.append(each[key])
        level = below


def _turned(tree: Any, turn: tuple[str, int, int, Any, str]) -> None:
    kind, here, there, value, name = turn
    nodes = list(_nodes(tree))
    if not nodes:
        return
    holder, key = nodes[here % len(nodes)]
    if kind == "set":
        holder[key] = copy.deepcopy(value)
    elif kind == "drop":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    elif kind == "name" and isinstance(holder, dict):
        holder[name] = holder.pop(key)
    elif kind == "move":
        other, place = nodes[there % len(nodes)]
        holder[key] = copy.deepcopy(other[place])


def _bitten(data: bytes, bite: tuple[str, int, int, bytes]) -> bytes:
    kind, here, there, more = bite
    one, two = sorted((here % (len(data) + 1), there % (len(data) + 1)))
    if kind == "flip" and one < len(data):
        return data[:one] + bytes([data[one] ^ (1 << (there % 8))]) + data[one + 1 :]
    if kind == "cut":
        return data[:one] + data[min(two, one + 40) :]
    if kind == "insert":
        return data[:one] + more + data[one:]
    if kind == "copy":
        return data[:one] + data[one : one + 40] + data[one:]
    return data[:one]


def _written(tree: Any, format_: str) -> bytes:
    try:
        return written(tree, format_)
    except (OverflowError, ValueError, TypeError):  # not in this format
        return b""


class Victim:
    """A phone whose requests are turned, and a bystander in the same space."""

    def __init__(self, client: FlaskClient, engine: Engine) -> None:
        self.client, self.engine = client, engine
        self.renew()

    def renew(self) -> None:
        self.a = phone(self.client)
        self.bystander = phone(self.client, self.a.email)
        self.known = ledger(self.engine, self.a)

    def try_it(self, path: str, data: bytes, format_: str, coding: str) -> None:
        answer = send(self.a, path, data, format_, coding, Accept=JSON)
        found = ledger(self.engine, self.a)
        found.require_consistent()
        if answer.status_code >= 400:
            assert found == self.known
        else:
            assert found.changes[: len(self.known.changes)] == self.known.changes
            assert found.quarantine[: len(self.known.quarantine)] == self.known.quarantine
        self.known = found
        counters = found.counters.values()
        if len(found.changes) > SPACE_CHANGES_MAX or max(counters, default=0) > SPACE_CHANGES_MAX:
            self.require_unharmed()
            self.renew()

    def require_unharmed(self) -> None:
        """The bystander goes on, and what is in the space can be read in every way."""
        answer = sync(self.bystander, {"cursor": 0, "changes": [good(self.bystander, "mine")]})
        assert (answer["accepted"], answer["head"]) == (1, self.known.head + 1)
        for path in ("pull", "log", "outcomes", "snapshot"):
            for format_ in FORMATS:
                headers = {**self.bystander.headers, "Accept": format_}
                if path != "snapshot":
                    read = self.client.get(f"/v1/spaces/me/{path}", headers=headers)
                    assert read.status_code == 200
        alive = {(c, i) for c, i, _, deleted, *_ in self.known.records if not deleted}
        assert set(self.bystander.pull_all()) == alive | {("tasks", "mine")}


@pytest.fixture
def victim(client: FlaskClient, engine: Engine) -> Victim:
    return Victim(client, engine)


def _fuzz(victim: Victim, examples: int, *, fixed: bool) -> None:
    @settings(
        max_examples=examples,
        derandomize=fixed,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(turns, max_size=4),
        st.one_of(st.just([]), st.lists(bites, max_size=3)),
        st.sampled_from(FORMATS),
        st.sampled_from([*["identity"] * 4, *CODINGS]),
        st.booleans(),
        st.booleans(),
    )
    def search(
        turned: list[Any], bitten: list[Any], format_: str, coding: str, half: bool, packed: bool
    ) -> None:
        victim.a.counter = max(victim.known.counters.values(), default=0)
        tree = _request(victim.a)
        path = "/v1/spaces/me/push" if half else "/v1/sync"
        whole: Any = {"tree": tree["spaces"]["me"] if half else tree}
        for turn in turned:
            _turned(whole, turn)
        data = _written(whole.get("tree"), format_)
        spoil: Callable[[bytes], bytes] = lambda plain: squeezed(plain, coding)  # noqa: E731
        if packed:
            data = spoil(data)
        for bite in bitten:
            data = _bitten(data, bite)
        victim.try_it(path, data if packed else spoil(data), format_, coding)

    search()
    victim.require_unharmed()


def test_no_turned_request_finds_a_fault_or_leaves_one(victim: Victim) -> None:
    _fuzz(victim, 800, fixed=True)


@pytest.mark.soak
def test_no_turned_request_of_very_many_finds_a_fault(victim: Victim) -> None:
    _fuzz(victim, 20_000, fixed=False)


QUERIES = st.dictionaries(
    st.sampled_from(["cursor", "epoch", "page", "limit", "after", "wait", "x", ""]),
    st.one_of(
        st.sampled_from(["", "0", "1", "-1", "1e3", " 1", "١", "9" * 19, "9" * 5000, "\0", "%00"]),
        st.text(max_size=8),
    ),
    max_size=3,
)


@settings(
    max_examples=300,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(path=st.sampled_from(["pull", "log", "outcomes", "snapshot"]), query=QUERIES)
def test_no_query_finds_a_fault(victim: Victim, path: str, query: dict[str, str]) -> None:
    query = {name: value for name, value in query.items() if (name, value) != ("wait", "1")}
    answer = victim.a.get(f"/v1/spaces/me/{path}", **query)
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        assert answer.json["code"] in {"bad_parameter", "bad_page"}
