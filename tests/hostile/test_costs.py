"""Small requests that would make the server work long: each once took seconds or minutes.

The bounds are on CPU time, some five times what is needed now and a fraction of what it was.
"""

from __future__ import annotations

import gzip
import json
import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.contract.devices import Phone, add, increment, phone, put, remove


@pytest.fixture
def crew(client: FlaskClient) -> list[Phone]:
    first = phone(client)
    return [first, *[phone(client, first.email) for _ in range(3)]]


def _pushed(who: Phone, *changes: dict[str, Any]) -> float:
    """CPU seconds that the push took, here where the server is."""
    body = {"counter": who.counter, "changes": [*changes]}
    data = gzip.compress(json.dumps(body).encode(), 1)
    headers = {**who.headers, "Content-Type": "application/json", "Content-Encoding": "gzip"}
    began = time.process_time()
    answer = who.http.post("/v1/spaces/me/push", data=data, headers=headers)
    took = time.process_time() - began
    assert answer.status_code == 200, answer.text
    assert (answer.json["accepted"], answer.json["rejected"]) == (who.counter, [])
    return took


def _blind(who: Phone, *ops: dict[str, Any], **context: Any) -> dict[str, Any]:
    """A change by a device that has seen nothing."""
    return who.change(*ops, context={"cursor": 0, **context})


def test_many_increments_in_one_request(crew: list[Phone]) -> None:
    # A list of all of them was copied for each: 1.5 s, and four times that for twice as many.
    a = crew[0]
    assert _pushed(a, *[a.change(*[increment("t", "n", 1)] * 1000) for _ in range(20)]) < 1.2
    assert a.pull_all()["tasks", "t"]["fields"] == {"n": 20_000}


def test_new_rows_over_increments_that_their_author_has_not_seen(crew: list[Phone]) -> None:
    # Each new row looked at each unseen increment: 1,000 over 50,000 took 14 s.
    a, b, c, _ = crew
    _pushed(a, *[a.change(*[increment("t", "n", 1)] * 1000) for _ in range(20)])
    assert _pushed(b, *[_blind(b, put("t", new=True)) for _ in range(1000)]) < 3
    assert _pushed(c, *[_blind(c, put("t", new=True)) for _ in range(1000)]) < 3
    assert c.pull_all()["tasks", "t"]["fields"] == {"n": 20_000}


def test_adding_to_and_removing_from_a_set_of_10_000(crew: list[Phone]) -> None:
    # Each removal looked at each element: 1 ms for one.
    a = crew[0]
    _pushed(a, *[a.change(add("t", "s", *range(n, n + 1000))) for n in range(0, 10_000, 1000)])
    a.cursor = 10
    assert _pushed(a, *[a.change(remove("t", "s", n)) for n in range(1000)]) < 2
    assert _pushed(a, *[a.change(add("t", "s", n)) for n in range(1000)]) < 2
    assert len(a.pull_all()["tasks", "t"]["fields"]["s"]) == 10_000


def test_small_writes_beside_great_values_that_are_equal(crew: list[Phone]) -> None:
    # Each write compared them all: 300 took a minute.
    a, b, c, d = crew
    great = [{"k": n} for n in range(15_000)]
    for who in (a, b):
        _pushed(who, _blind(who, put("t", great=great, small=who.device)))
    assert _pushed(c, *[_blind(c, put("t", small=n)) for n in range(300)]) < 2
    assert _pushed(d, *[_blind(d, put("t", great=n)) for n in range(300)]) < 2
    assert set(a.pull_all()["tasks", "t"]["conflicts"]) == {"great", "small"}


def test_contexts_with_long_clocks_on_every_change(crew: list[Phone]) -> None:
    a, b, c, d = crew
    for who in (a, b, c):
        _pushed(who, *[_blind(who, put("t", **{f"f{n % 9}": n})) for n in range(300)])
    nobody = {f"{n:036}": 0 for n in range(150)}
    clocks = [{**nobody, a.device: n % 300, b.device: 300, c.device: n // 4} for n in range(900)]
    changes = [_blind(d, put("t", g=n), cursor=n, clock=clock) for n, clock in enumerate(clocks)]
    assert _pushed(d, *changes) < 6


def test_a_record_of_1_000_fields_and_as_many_operations(crew: list[Phone]) -> None:
    a, b, _, _ = crew
    wide = {f"f{n}": n for n in range(1000)}
    _pushed(a, a.change(put("t", new=True, **wide)))
    each = [put("t", **{name: -1}) for name in wide]
    assert _pushed(a, *[a.change(*each) for _ in range(5)]) < 2
    assert _pushed(b, *[_blind(b, put("t", **{name: -2})) for name in wide]) < 4
    assert len(b.pull_all()["tasks", "t"]["conflicts"]) == 1000


def test_writes_to_a_record_as_large_as_one_may_be(crew: list[Phone]) -> None:
    a = crew[0]
    _pushed(a, a.change(put("t", **{f"f{n}": "x" * 1_030 for n in range(990)})))
    assert _pushed(a, *[a.change(put("t", f1="y" * 1_030)) for _ in range(1000)]) < 5


def test_very_many_records_in_one_request(crew: list[Phone]) -> None:
    a = crew[0]
    each = [[put(f"r{n}-{m}", n=n) for m in range(20)] for n in range(1000)]
    assert _pushed(a, *[a.change(*ops) for ops in each]) < 6
    assert _pushed(a, *[a.change(*ops) for ops in each]) < 8
