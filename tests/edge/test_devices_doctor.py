"""`rejoin doctor` against a real server, behind proxies that do what proxies do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rejoin_testing.ears import Ears
from rejoin_testing.proxy import Proxy, proxying

import rejoin
from rejoin import cli, doctor
from tests.contract.people import new_email
from tests.edge.fleet import PASSWORD

IDLE_S = 2.0
Behind = Callable[..., tuple[rejoin.Database, Proxy]]


@pytest.fixture
def behind(live_server: str, tmp_path: Path) -> Iterator[Behind]:
    """A device that is logged in, and then finds a proxy in its way."""
    ending: list[Any] = []

    def make(**does: Any) -> tuple[rejoin.Database, Proxy]:
        path = tmp_path / "device.sqlite"
        with rejoin.open(path, live_server) as db:
            db.signup(new_email(), PASSWORD)
        proxy = proxying(live_server, **does)
        ending.append(proxy)
        made = proxy.__enter__()
        db = rejoin.open(path, made.address)
        ending.append(db)
        return db, made

    yield make
    for one in reversed(ending):
        one.__exit__(None, None, None)


def findings(db: rejoin.Database) -> list[tuple[str, str, str]]:
    return [(f.mark, f.seen, f.advice) for f in doctor.examine(db, IDLE_S)]


def bad(db: rejoin.Database) -> list[str]:
    """What is wrong, each with a next step; the last finding only sums up."""
    found = findings(db)
    assert all(advice for mark, _, advice in found[:-1] if mark == "bad")
    return [seen for mark, seen, _ in found if mark == "bad"]


def test_with_nothing_in_between_all_ways_work(
    behind: Behind, capsys: pytest.CaptureFixture[str]
) -> None:
    db, _ = behind()
    assert cli.main(["doctor", str(db.path), "--idle", str(IDLE_S)]) == 0
    said = capsys.readouterr().out
    for words in (
        "takes connections",
        "Plain requests work",
        "The login works",
        "The websocket works",
        "there and back",
        "idle for 2 s stays open",
        "Long poll works",
        "`live` goes by the websocket here",
    ):
        assert words in said
    assert "\nbad" not in said


def test_a_proxy_that_strips_upgrade_is_named_and_long_poll_does(behind: Behind) -> None:
    db, _ = behind(strip_upgrade=True)
    (seen,) = bad(db)
    assert "without `Upgrade`" in seen
    assert findings(db)[-1][:2] == ("note", "`live` goes by long poll here.")


def test_a_proxy_that_buffers_is_named(behind: Behind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rejoin.doctor_live.READY_TIMEOUT_S", 1.0)
    db, proxy = behind()
    db.session().get("/v1/spaces")
    seen = []
    for finding in doctor.examine(db, IDLE_S):
        proxy.hold = "login works" in finding.seen or proxy.hold
        seen.append(str(finding))
        proxy.hold = proxy.hold and "buffers" not in finding.seen
    assert any("something in between buffers" in words for words in seen)


def test_a_proxy_that_cuts_idle_connections_is_named_with_its_seconds(behind: Behind) -> None:
    db, _ = behind(idle_s=1.0)
    (seen,) = bad(db)
    assert "An idle websocket was cut after 1 s" in seen


def test_a_proxy_that_gives_up_on_slow_answers_is_named(behind: Behind) -> None:
    db, _ = behind(answer_s=1.0)
    (seen,) = bad(db)
    assert "ended after 1 s (status 504)" in seen


def test_a_login_page_of_the_network_is_recognised(behind: Behind) -> None:
    db, _ = behind(portal=True)
    seen = bad(db)
    assert "a redirect to http://login.hotel.test/" in seen[0]
    assert seen[-1].startswith("No Rejoin server answers here")


def test_a_wrong_clock_a_wrong_port_and_a_wrong_scheme_are_said(
    behind: Behind, live_server: str, tmp_path: Path
) -> None:
    db, _ = behind()
    with rejoin.open(db.path, clock=lambda: time.time() + 3600) as fast:
        assert any("clock is 3,600 s ahead" in seen for _, seen, _ in findings(fast))
    with rejoin.open(tmp_path / "b.sqlite", "http://127.0.0.1:1") as lost:
        assert "refuses connections" in bad(lost)[0]
    with rejoin.open(tmp_path / "c.sqlite", live_server.replace("http:", "https:")) as secure:
        assert "TLS with 127.0.0.1" in bad(secure)[0]
    with rejoin.open(tmp_path / "d.sqlite", "http://no-such-host.invalid") as nowhere:
        assert "has no address here" in bad(nowhere)[0]
    with rejoin.open(tmp_path / "e.sqlite", live_server) as nobody:
        assert "not logged in" in bad(nobody)[0]


def test_live_goes_on_behind_each_of_them(behind: Behind) -> None:
    db, proxy = behind()
    db.connection.execute("CREATE TABLE t (id TEXT PRIMARY KEY, x)")
    db.track("t")
    ears = Ears()
    proxy.strip_upgrade = True
    with db.live(ears.on_change, on_state=ears.on_state) as live:
        assert live.wait_until("polling", timeout_s=30), live.words
        db.execute("INSERT INTO t VALUES ('a', 1)")
        assert ears.wait(lambda: db.status().pending == 0)
        proxy.strip_upgrade, proxy.idle_s = False, 1.0
        live.wake()
        assert live.wait_until("live", timeout_s=30), live.words
        ears.states.clear()
        assert ears.wait(lambda: ears.states.count("live") >= 2)
        db.execute("INSERT INTO t VALUES ('b', 2)")
        assert ears.wait(lambda: db.status().pending == 0)
