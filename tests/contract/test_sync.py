"""A round trip over HTTP, on a real PostgreSQL: what a device asks and what it is told."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import msgspec
import pytest
from flask import Flask
from flask.testing import FlaskClient

from app import history
from app.access import Visit
from app.auth import token_principal
from app.hints import Hints
from app.runtime import EXTENSION
from app.streams import STREAMS_MAX, Streams
from sync.errors import Unavailable
from tests.contract.devices import Phone, add, delete, increment, phone, put, remove


@pytest.fixture
def a(client: FlaskClient) -> Phone:
    return phone(client)


@pytest.fixture
def b(client: FlaskClient, a: Phone) -> Phone:
    return phone(client, a.email)


def test_what_one_device_pushes_another_pulls(a: Phone, b: Phone) -> None:
    pushed = a.sync(a.change(put("t1", new=True, title="Milk", done=False, n=1, x=1.0, z=None)))
    assert (pushed["accepted"], pushed["cursor"], pushed["head"]) == (1, 1, 1)
    assert pushed["records"] == [], "the author has it all"
    assert pushed["clock"] == {a.device: 1}
    pulled = b.sync()
    assert pulled["records"] == [
        {
            "collection": "tasks",
            "id": "t1",
            "position": 1,
            "fields": {"title": "Milk", "done": False, "n": 1, "x": 1.0, "z": None},
        }
    ]
    assert isinstance(pulled["records"][0]["fields"]["x"], float)
    assert b.sync()["records"] == []


def test_a_push_repeated_after_a_lost_answer_is_acknowledged_not_applied(a: Phone) -> None:
    first = a.change(put("t1", new=True, title="Milk"), increment("t1", "votes", 1))
    a.sync(first)
    a.cursor = 0
    again = a.sync(first, a.change(increment("t1", "votes", 1)))
    assert (again["accepted"], again["head"]) == (2, 2)
    assert a.pull_all()["tasks", "t1"]["fields"] == {"title": "Milk", "votes": 2}


def test_concurrent_writes_of_a_field_are_both_kept_until_one_settles_them(
    a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t1", new=True, title="Tea", note="n")))
    b.sync()
    a.sync(a.change(put("t1", title="Milk"), at=2_000))
    met = b.sync(b.change(put("t1", title="Oat milk"), at=1_000))
    (record,) = met["records"]
    assert record["fields"] == {"title": "Milk"}
    sides = [(s["value"], s["device"], s["position"]) for s in record["conflicts"]["title"]]
    assert sides == [("Milk", a.device, 2), ("Oat milk", b.device, 3)]
    assert b.get("/v1/spaces/me/outcomes").json["outcomes"] == [
        {
            "counter": 1,
            "outcome": "conflict",
            "position": 3,
            "conflicts": [{"collection": "tasks", "id": "t1", "field": "title"}],
        }
    ]
    a.sync()
    settled = a.sync(a.change(put("t1", title="Both")))
    assert settled["records"] == []
    assert b.sync()["records"] == [
        {"collection": "tasks", "id": "t1", "position": 4, "fields": {"title": "Both"}}
    ]


def test_counters_and_sets_merge(a: Phone, b: Phone) -> None:
    a.sync(a.change(put("t1", new=True, title="x"), add("t1", "tags", "home", "work")))
    b.sync()
    a.sync(a.change(increment("t1", "votes", 5), remove("t1", "tags", "work")))
    b.sync(b.change(increment("t1", "votes", -2), add("t1", "tags", "work", "b")))
    a.sync()
    fields = a.pull_all()["tasks", "t1"]["fields"]
    assert fields == {"title": "x", "votes": 3, "tags": ["b", "home", "work"]}


def test_alive_wins_over_a_concurrent_deletion_and_the_whole_row_is_back(
    a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t1", new=True, title="x", note="y")))
    b.sync()
    a.sync(a.change(delete("t1")))
    assert b.sync(b.change(put("t1", title="z")))["records"][0]["replace"] is True
    (back,) = a.sync()["records"]
    assert back["replace"] is True
    assert back["fields"] == {"title": "z", "note": "y"}


def test_a_new_row_clears_what_its_author_saw_and_not_the_increments_it_did_not(
    a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t1", new=True, title="x", note="y"), increment("t1", "votes", 10)))
    b.sync()
    stale = b.change(delete("t1"))
    fresh = b.change(put("t1", new=True, title="again"))
    a.sync(a.change(increment("t1", "votes", 3)))
    b.sync(stale, fresh)
    assert a.pull_all()["tasks", "t1"]["fields"] == {"title": "again", "votes": 3}


def test_a_bad_change_is_put_aside_and_the_ones_behind_it_flow(a: Phone) -> None:
    answer = a.sync(
        a.change(put("t1", new=True, votes="many")),
        a.change(put("t2", title="never"), increment("t1", "votes", 1)),
        a.change({"op": "fly", "collection": "tasks", "id": "t1"}),
        a.change(put("t1", title="fine")),
    )
    assert answer["accepted"] == 4
    codes = [(r["counter"], r["error"]["code"], r["error"]["op"]) for r in answer["rejected"]]
    assert codes == [(2, "field_type_mismatch", 1), (3, "unknown_operation", 0)]
    assert set(a.pull_all()) == {("tasks", "t1")}
    outcomes = a.get("/v1/spaces/me/outcomes").json["outcomes"]
    assert [o["outcome"] for o in outcomes] == ["applied", "rejected", "rejected", "applied"]
    after = a.get("/v1/spaces/me/outcomes", after=2, limit=1).json["outcomes"]
    assert [o["counter"] for o in after] == [3]


def test_the_device_is_told_again_on_every_retry(a: Phone) -> None:
    bad = a.change({"op": "put", "collection": "tasks", "id": "\0"})
    first = a.sync(bad)
    assert first["rejected"][0]["error"]["code"] == "invalid_text"
    assert a.sync(bad)["rejected"] == first["rejected"]


def test_a_gap_is_answered_with_what_is_expected_and_changes_nothing(a: Phone) -> None:
    lost, kept = a.change(put("t1")), a.change(put("t2"))
    answer = a.sync(kept)
    assert answer["error"]["code"] == "counter_gap"
    assert answer["error"]["expected"] == 1
    assert a.sync(lost, kept)["accepted"] == 2


def test_what_a_device_no_longer_has_it_names_discarded(a: Phone) -> None:
    lost = a.change(put("t1"))
    kept = a.change(put("t2"))
    assert a.sync(kept, discarded=1)["accepted"] == 2
    assert a.get("/v1/spaces/me/outcomes").json["outcomes"][0] == {
        "counter": 1,
        "outcome": "discarded",
        "last": 1,
    }
    assert a.sync(lost)["error"]["code"] == "device_fork"


def test_counters_used_twice_for_two_things_are_a_fork(client: FlaskClient, a: Phone) -> None:
    same, mine = a.change(put("t1", title="same")), a.change(put("t2", title="mine"))
    a.sync(same, mine)
    answer = a.sync(same, {**mine, "at": 5}, a.change(put("t3")))
    assert answer["error"]["code"] == "device_fork"
    assert answer["error"]["known"] == [1]
    a.counter = 1
    assert a.sync()["error"]["code"] == "device_fork"
    heir = phone(client, a.email, replaces=a.device)
    a.counter = 9
    assert a.sync(mine)["error"]["code"] == "device_fork", "frozen for good"
    heir.cursor = 2
    context = {"cursor": 0, "clock": {a.device: 1}}
    change = heir.change(put("t1", title="heir"), context=context)
    assert heir.sync(change)["accepted"] == 1
    assert heir.pull_all()["tasks", "t1"].get("conflicts") is None


def test_pages_are_taken_with_the_same_cursor_and_a_moved_record_is_met_again(
    a: Phone, b: Phone
) -> None:
    a.sync(*[a.change(put(f"t{n}", new=True, n=n)) for n in range(25)])
    first = b.sync(limit=10)
    assert (len(first["records"]), first["cursor"], first["head"]) == (10, 0, 25)
    a.sync(a.change(put("t0", n=100)), a.change(delete("t1")))
    second = b.sync(limit=10, page=first["page"])
    third = b.sync(limit=10, page=second["page"])
    assert third["page"] is None
    assert third["cursor"] == 27
    found = {r["id"]: r for r in first["records"] + second["records"] + third["records"]}
    assert len(found) == 25
    assert found["t0"]["fields"] == {"n": 100}
    assert found["t1"]["deleted"] is True


def test_a_bad_page_token_does_not_stop_the_changes(a: Phone) -> None:
    answer = a.sync(a.change(put("t1")), page="nonsense")
    assert answer["error"]["code"] == "bad_page"
    assert answer["accepted"] == 1
    assert a.get("/v1/spaces/me/pull", page="%%%").json["code"] == "bad_page"


def test_a_cursor_from_a_lost_history_is_reset(a: Phone) -> None:
    a.sync(a.change(put("t1", new=True, n=1)))
    a.cursor = 99
    answer = a.sync()
    assert answer["reset"] is True
    assert [r["id"] for r in answer["records"]] == ["t1"]
    assert a.cursor == 1


def test_a_cursor_from_a_lost_history_is_reset_even_if_its_own_push_reaches_it(a: Phone) -> None:
    a.sync(a.change(put("t1", new=True, n=1)))
    a.cursor = 3
    first, second = (a.change(put(id_), context={"cursor": 1}) for id_ in ("t2", "t3"))
    answer = a.sync(first, second)
    assert (answer["reset"], answer["head"]) == (True, 3)
    assert len(answer["records"]) == 3


def test_messagepack_holds_the_same(a: Phone) -> None:
    change = a.change(put("t1", new=True, title="Milk", big=2**63 - 1))
    body = {"spaces": {"me": {"cursor": 0, "counter": 1, "changes": [change]}}}
    headers = {
        **a.headers,
        "Content-Type": "application/msgpack",
        "Accept": "application/msgpack",
    }
    raw = a.http.post("/v1/sync", data=msgspec.msgpack.encode(body), headers=headers)
    assert raw.content_type == "application/msgpack"
    assert msgspec.msgpack.decode(raw.data)["spaces"]["me"]["accepted"] == 1
    a.sync(a.change(*[increment("t2", "sum", 2**53 - 1)] * 900), *[])
    a.sync(a.change(*[increment("t2", "sum", 2**53 - 1)] * 900), *[])
    pulled = a.http.get("/v1/spaces/me/pull?cursor=0", headers=headers)
    records = {r["id"]: r["fields"] for r in msgspec.msgpack.decode(pulled.data)["records"]}
    assert records["t1"] == {"title": "Milk", "big": 2**63 - 1}
    assert records["t2"] == {"sum": float(1800 * (2**53 - 1))}
    assert a.pull_all()["tasks", "t2"]["fields"] == {"sum": 1800 * (2**53 - 1)}


def test_numbers_come_back_as_they_went(a: Phone) -> None:
    values: list[Any] = [1e16, 1e300, 5e-324, 0.1, 1.0, -(2**63), 2**63 - 1, 10**16, True, None]
    a.sync(a.change(put("t1", new=True, **{f"f{n}": v for n, v in enumerate(values)})))
    fields = a.pull_all()["tasks", "t1"]["fields"]
    back = [fields[f"f{n}"] for n in range(len(values))]
    assert back == values
    assert [type(v) for v in back] == [type(v) for v in values]


def test_the_log_shows_each_change_in_order(a: Phone, b: Phone) -> None:
    a.sync(a.change(put("t1", new=True, title="x")))
    b.sync(b.change(put("t1", title="y")))
    log = b.get("/v1/spaces/me/log").json
    assert (log["epoch"], log["head"]) == (1, 2)
    assert [(c["position"], c["device"], c["counter"]) for c in log["changes"]] == [
        (1, a.device, 1),
        (2, b.device, 1),
    ]
    assert log["changes"][0]["ops"] == [put("t1", new=True, title="x")]
    assert log["changes"][1]["conflicts"] == [{"collection": "tasks", "id": "t1", "field": "title"}]
    assert b.get("/v1/spaces/me/log", after=1, limit=1).json["changes"][0]["position"] == 2


def test_a_snapshot_is_the_whole_space_with_its_totals_first(a: Phone) -> None:
    a.sync(*[a.change(put(f"t{n}", new=True, n=n)) for n in range(30)])
    a.sync(a.change(delete("t3")))
    lines = a.get("/v1/spaces/me/snapshot").text.splitlines()
    head, *rows = map(msgspec.json.decode, lines)
    assert head == {"epoch": 1, "cursor": 31, "records": 29, "clock": {a.device: 31}}
    assert len(rows) == 29


def test_a_snapshot_that_nobody_reads_holds_no_connection(a: Phone, app: Flask) -> None:
    a.sync(*[a.change(put(f"t{n}", new=True, text="x" * 1_000)) for n in range(200)])
    runtime = app.extensions[EXTENSION]
    with app.test_request_context(headers=a.headers):
        visit = Visit(token_principal(), 0, raw=True)
    stream = history.snapshot(runtime.engine, visit, "me")
    next(stream)
    next(stream)
    assert runtime.engine.pool.checkedout() == 0
    stream.close()


def test_there_are_so_many_long_answers_at_once_and_no_more() -> None:
    streams = Streams()
    held = [streams.counted(iter([b"a", b"b"])) for _ in range(STREAMS_MAX)]
    for stream in held:
        next(stream)
    with pytest.raises(Unavailable, match="long answers"):
        next(streams.counted(iter([b"a"])))
    held[0].close()
    assert next(streams.counted(iter([b"a"]))) == b"a"


def test_a_long_poll_is_woken_by_its_own_space_alone() -> None:
    hints, mine, other = Hints(), uuid4(), uuid4()
    with hints.watch(mine) as wait:
        hints.tell(other)
        assert wait(0.01) >= 0.01
        hints.tell(mine)
        assert wait(30) < 1
    assert hints._watches == {}


def test_a_long_poll_ends_with_what_is_new(a: Phone, b: Phone) -> None:
    answer = b.get("/v1/spaces/me/pull", cursor=0, wait=1).json
    assert answer["records"] == []
    a.sync(a.change(put("t1", new=True)))
    answer = b.get("/v1/spaces/me/pull", cursor=0, wait=30).json
    assert len(answer["records"]) == 1


def test_shared_spaces_know_owners_editors_viewers_and_strangers(client: FlaskClient) -> None:
    owner, editor, viewer, stranger = (phone(client) for _ in range(4))
    space = owner.post("/v1/spaces", {"name": "Crew"}).json["id"]
    for someone, role in ((editor, "editor"), (viewer, "viewer")):
        path = f"/v1/spaces/{space}/members/{someone.email}"
        made = client.put(path, json={"role": role}, headers=owner.headers)
        assert made.status_code == 200
    for someone in (owner, editor, viewer, stranger):
        someone.space = space
    assert editor.sync(editor.change(put("t1", new=True)))["accepted"] == 1
    assert viewer.sync()["head"] == 1
    assert viewer.sync(viewer.change(put("t2")))["error"]["code"] == "forbidden"
    assert stranger.sync()["error"]["code"] == "not_found"
    for path in ("pull", "log", "snapshot", "outcomes"):
        answer = stranger.get(f"/v1/spaces/{space}/{path}")
        assert (answer.status_code, answer.json["code"]) == (404, "not_found")
    client.delete(f"/v1/spaces/{space}/members/{editor.email}", headers=owner.headers)
    assert editor.sync()["error"]["code"] == "forbidden"


def test_a_revoked_device_is_out_with_its_next_request(a: Phone, b: Phone) -> None:
    gone = a.http.delete(f"/v1/devices/{b.device}", headers=a.headers)
    assert gone.status_code == 204
    answer = b.post("/v1/sync", {"spaces": {"me": {"cursor": 0}}})
    assert (answer.status_code, answer.json["code"]) == (401, "device_revoked")
    assert b.post("/v1/sync", {"spaces": {}}).status_code == 401
    assert b.get("/v1/spaces/me/pull").status_code == 401


def test_a_phone_with_a_wrong_clock_neither_wins_for_ever_nor_loses_every_race(
    a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t1", new=True, title="x")))
    b.sync()
    now = a.get("/v1").json["server_time"]
    year = 365 * 86_400_000
    ahead = a.change(put("t1", title="ahead"), at=now - 60_000 + year)
    body = {"counter": 2, "changes": [ahead], "sent_at": now + year}
    assert a.post("/v1/spaces/me/push", body).status_code == 200
    right = b.change(put("t1", title="right"), at=now - 30_000)
    b.sync(right)
    (record,) = list(b.pull_all().values())
    assert record["fields"]["title"] == "right"
    assert [s["value"] for s in record["conflicts"]["title"]] == ["right", "ahead"]


def test_the_device_that_pushes_elsewhere_than_at_the_head_gets_what_it_missed(
    a: Phone, b: Phone
) -> None:
    a.sync(a.change(put("t1", new=True, title="x", note="y")))
    b.sync()
    a.sync(a.change(put("t1", note="z")))
    answer = b.sync(b.change(put("t1", title="b")))
    assert answer["records"][0]["fields"] == {"note": "z", "title": "b"}
