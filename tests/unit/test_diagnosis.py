"""The rules of a diagnosis, where requests don't reach: edges, and the page that explains them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sync.diagnosis import (
    CLOCK_OFF_MS,
    DAY,
    FINDINGS,
    HOUR,
    MINUTE,
    SILENT_MS,
    STUCK_MS,
    Event,
    Facts,
    SpaceFacts,
    diagnose,
    older,
)

NOW = 1_800_000_000_000
SUPPORT = Path(__file__).resolve().parents[2] / "docs" / "SUPPORT.md"


def facts(**more: Any) -> Facts:
    return Facts(**{"now": NOW, "id": "d", "app_version": "1", "seen_at": NOW, **more})


def space(**more: Any) -> SpaceFacts:
    usual = {"id": "s", "name": "S", "role": "owner", "withdrawn_at": None, "head": 9, "epoch": 1}
    here = {"horizon": 0, "counter": 1, "cursor": 9, "cursor_epoch": 1, "cursor_at": NOW - HOUR}
    return SpaceFacts(**{**usual, **here, **more})


def event(kind: str, code: str = "", times: int = 1, at: int = NOW, **more: Any) -> Event:
    return Event(**{"kind": kind, "code": code, "space": "s", "first_at": at, "last_at": at,
                    "times": times, **more})  # fmt: skip


def codes(**more: Any) -> list[str]:
    return [finding.code for finding in diagnose(facts(**more))]


def test_a_device_of_which_nothing_is_known_has_no_finding() -> None:
    assert codes() == []
    assert codes(spaces=(space(),)) == []


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("1.9", "1.10", True),
        ("1.10", "1.9", False),
        ("2", "2.0.0", False),
        ("v1.2-beta", "1.3", True),
        ("", "1", False),
        ("nightly", "1", False),
        ("1.0", "", False),
        ("9" * 30, "1", False),
    ],
)
def test_versions_are_compared_number_by_number(version: str, least: str, expected: bool) -> None:
    assert older(version, least) is expected


def test_bounds_are_reached_and_not_before() -> None:
    assert codes(clock_offset=CLOCK_OFF_MS) == codes(clock_offset=-CLOCK_OFF_MS) == []
    assert codes(clock_offset=-CLOCK_OFF_MS - 1) == ["clock_off"]
    assert codes(seen_at=NOW - SILENT_MS) == []
    assert codes(seen_at=NOW - SILENT_MS - 1) == ["silent"]
    assert codes(seen_at=NOW - SILENT_MS - 1, online=True) == []


def test_what_worked_since_is_no_finding_any_more() -> None:
    fork = (event("refused", "device_fork", at=NOW - MINUTE),)
    assert codes(events=fork) == ["device_fork"]
    assert codes(events=fork, pushed_at=NOW) == []
    token = (event("refused", "token_expired", 3, at=NOW - MINUTE),)
    assert codes(events=token) == ["token_refused"]
    assert codes(events=(*token, event("token_renewed"))) == []
    reset = (event("reset", "cursor_above_head", at=NOW - MINUTE),)
    assert codes(events=reset, spaces=(space(),)) == ["cursor_above_head"]
    assert codes(events=reset, pulled_at=NOW) == []


def test_pending_changes_that_came_with_their_report_were_pushed() -> None:
    waiting = {"pending": 3, "oldest_pending_at": NOW - HOUR}
    assert codes(**waiting, reported_at=NOW, pushed_at=NOW) == []
    assert codes(**waiting, reported_at=NOW, pushed_at=NOW - 1) == ["not_pushing"]
    assert codes(pending=0, reported_at=NOW - DAY) == []
    young = {"pending": 3, "oldest_pending_at": NOW - STUCK_MS}
    assert codes(**young, reported_at=NOW) == []


def test_the_age_of_what_is_pending_counts_by_the_servers_clock() -> None:
    """A phone whose clock is an hour slow has not waited for an hour."""
    waiting = {"pending": 1, "oldest_pending_at": NOW - HOUR, "reported_at": NOW}
    assert codes(**waiting, clock_offset=HOUR) == ["clock_off"]
    assert codes(**waiting, clock_offset=0) == ["not_pushing"]


def test_a_retry_is_no_stuck_cursor_but_three_are() -> None:
    behind = space(cursor=5, behind=4, behind_since=NOW - HOUR)
    for times, expected in ((2, []), (3, ["not_acknowledging"])):
        events = (event("pulled", times=times, at=NOW - MINUTE),)
        assert codes(spaces=(behind,), events=events) == expected
    before_it_moved = (event("pulled", times=9, at=NOW - 2 * HOUR),)
    assert codes(spaces=(behind,), events=before_it_moved) == []


def test_of_a_device_that_may_do_nothing_only_that_is_said() -> None:
    more = {"clock_offset": HOUR, "spaces": (space(quarantined={"invalid_id": 1}),)}
    assert codes(**more, revoked_at=NOW) == ["device_revoked"]
    assert codes(**more, frozen_at=NOW) == ["device_replaced"]


def test_every_finding_is_explained_in_the_docs_word_for_word() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \| .* \| (.*?) \|$", SUPPORT.read_text(), re.MULTILINE)
    told = {code: (sentence, step) for code, sentence, step in rows}
    assert told == {code: (m.sentence, m.next_step) for code, m in FINDINGS.items()}
    assert [code for code, _, _ in rows] == list(FINDINGS)


def test_a_space_that_was_left_is_a_finding_only_where_the_device_still_asks_for_it() -> None:
    left = (space(withdrawn_at=NOW - MINUTE),)
    assert codes(spaces=left) == []
    asked = (event("refused", "forbidden"),)
    assert codes(spaces=left, events=asked) == ["membership_withdrawn"]
