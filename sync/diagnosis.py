"""Why is this device stuck? Facts about a device → findings, the likeliest cause first.

Promises: a healthy device has no finding, also one that sleeps, retries a lost answer or takes a
transfer in pages; each finding carries the figures that it was made from and one next step. The
order of `RULES` is the order of the findings: what stops everything else comes first.

Times are ms since 1970 by the server's clock.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from msgspec import Struct

SECOND, MINUTE = 1_000, 60_000
HOUR, DAY = 60 * MINUTE, 24 * 60 * MINUTE

# A device that is offline for a weekend is no case for support, one that is for a week may be.
SILENT_MS = 7 * DAY
# A clock's error that a user does not notice, and that a conflict's order does.
CLOCK_OFF_MS = MINUTE
# Long enough for a retry with patience, short enough for an agent on the phone.
STUCK_MS = 5 * MINUTE
# A lost answer is asked for again once or twice; three times from one cursor is no accident.
REPEATS_MIN = 3
# Fewer changes than a page come with the next pull: their growing is no trouble.
GROWING_CHANGES_MIN = 100

TOKEN_CODES = frozenset({"token_missing", "token_expired", "token_invalid", "token_reused"})
SIZE_CODES = frozenset({"body_too_large", "too_many_changes", "too_many_spaces"})
RECORD_CODES = frozenset({
    "record_too_large", "value_too_large", "too_many_fields", "too_many_elements",
    "too_many_operations", "too_many_clock_entries", "document_too_large",
})  # fmt: skip
BROKEN_CODES = frozenset({
    "malformed_body", "malformed_request", "duplicate_key", "too_deep", "bad_encoding",
    "bad_parameter", "bad_counter", "bad_page", "invalid_text", "unsupported_media_type",
    "unsupported_encoding", "not_acceptable",
})  # fmt: skip
WAIT_CODES = frozenset({"too_many_attempts", "too_fast", "too_many_messages"})


class Meaning(Struct, frozen=True):
    """What a finding means, and the one step that comes next."""

    sentence: str
    next_step: str


FINDINGS: Mapping[str, Meaning] = {
    "device_revoked": Meaning(
        "The device was revoked: whatever it asks is refused.",
        "If that was a mistake, have the user log in again: the app becomes a new device.",
    ),
    "device_replaced": Meaning(
        "The device was replaced after a fork: its id is frozen for good.",
        "Look at the device that replaces it; if the app still uses this id, reinstall it.",
    ),
    "device_fork": Meaning(
        "Two installations share this device's identity, as after a restored phone backup.",
        "Have the user open the app on both: each registers anew and keeps what it wrote.",
    ),
    "token_refused": Meaning(
        "The device's token is refused again and again, and it doesn't get a new one.",
        "Have the user log in again on this device: pending changes stay and are sent then.",
    ),
    "app_too_old": Meaning(
        "The app's version is below the minimum that this server is set to.",
        "Have the user update the app.",
    ),
    "membership_withdrawn": Meaning(
        "The user's membership of the space was withdrawn: the device is told `forbidden`.",
        "If that was a mistake, have an owner of the space invite the user again.",
    ),
    "role_too_small": Meaning(
        "The user may read the space but not write to it, and the device pushes to it.",
        "Have an owner make the user an editor, or tell the user what a viewer may do.",
    ),
    "counter_gap": Meaning(
        "The device pushes changes whose predecessors it doesn't send.",
        "Have the user update the app; if it stays so, ask the app's developers: changes are lost.",
    ),
    "cursor_above_head": Meaning(
        "The device's cursor is above the space's head: it knows a history that is not here.",
        "Check that the app talks to the right server; after a restored backup, that"
        " `python -m app restored` was run. Then ask the device to reset.",
    ),
    "lost_epoch": Meaning(
        "The device's cursor belongs to a history that a restored backup ended.",
        "It takes the space whole with its next complete pull: have the user keep the app open.",
    ),
    "behind_horizon": Meaning(
        "The device stands before the oldest tombstone still kept: it has to take the space whole.",
        "Have the user open the app on a good network until the transfer is done.",
    ),
    "limit_hit": Meaning(
        "What the device sends is larger than a limit allows.",
        "Look at the code: split the record or the request in the app, or raise the limit named.",
    ),
    "client_broken": Meaning(
        "The device sends requests that the server can't read.",
        "Have the user update the app; give the code and the version to the app's developers.",
    ),
    "quarantined": Meaning(
        "Changes of the device can never be applied as they are, and were put aside whole.",
        "Open the quarantine: repair and replay each, or discard it with a reason.",
    ),
    "rate_limited": Meaning(
        "The device asks more often than it may and is told to wait.",
        "Have the user wait for the time told; if it stays so, look for a loop in the app.",
    ),
    "not_pushing": Meaning(
        "The device reports pending changes, and does not push them.",
        "Have the user open the app and sync by hand; if it stays so, take the app's log.",
    ),
    "not_acknowledging": Meaning(
        "The device is connected and is given what is new, but its cursor does not move.",
        "Ask the device to reset: it replaces its copy and keeps its pending changes.",
    ),
    "clock_off": Meaning(
        "The device's clock is off by more than a minute.",
        "Have the user switch the automatic time on: the clock decides what a conflict shows.",
    ),
    "lag_growing": Meaning(
        "The device syncs, but falls behind further and further.",
        "Look at who writes so much to the space, and whether the device's transfers end early.",
    ),
    "silent": Meaning(
        "The device has not been heard of for long.",
        "Ask whether it is still in use. If not, revoke it: it may hold compaction back.",
    ),
    "reset_asked": Meaning(
        "Support asked the device to reset, and it has not done so yet.",
        "Have the user open the app: the next sync takes the space whole.",
    ),
    "conflicts_open": Meaning(
        "Fields are in conflict: both sides are kept, and one of them is shown.",
        "Open the conflicts and settle them with the user.",
    ),
}


class Event(Struct, frozen=True):
    """What happened with a device within one minute, `times` times. `code`: why, where refused
    or reset; `space`: "" where it was about no one space.
    """

    kind: str
    code: str
    space: str
    first_at: int
    last_at: int
    times: int
    changes: int = 0
    rejected: int = 0
    records: int = 0


class SpaceFacts(Struct, frozen=True):
    """A device in a space. `behind`: changes by others after its cursor, `behind_since` when the
    first of them came; `reset_below`: support asked a cursor below that to reset.
    """

    id: str
    name: str
    role: str
    withdrawn_at: int | None
    head: int
    epoch: int
    horizon: int
    counter: int
    cursor: int
    cursor_epoch: int
    cursor_at: int
    reset_below: int = 0
    behind: int = 0
    behind_since: int | None = None
    quarantined: Mapping[str, int] = {}
    conflicts: int = 0


class Facts(Struct, frozen=True):
    """All that is known of a device. `quarantined` in a space: how many by error code."""

    now: int
    id: str
    app_version: str
    seen_at: int
    pushed_at: int | None = None
    pulled_at: int | None = None
    online: bool = False
    clock_offset: int | None = None
    pending: int | None = None
    oldest_pending_at: int | None = None
    reported_at: int | None = None
    growing_since: int | None = None
    revoked_at: int | None = None
    frozen_at: int | None = None
    replaced_by: str | None = None
    spaces: tuple[SpaceFacts, ...] = ()
    events: tuple[Event, ...] = ()
    min_app_version: str = ""

    @property
    def reached_at(self) -> int:
        """When the device last got what it asked for."""
        return max(self.pushed_at or 0, self.pulled_at or 0)


class Finding(Struct, frozen=True):
    """One likely cause. `evidence`: figures by name; `links`: where to look, paths of the API."""

    code: str
    sentence: str
    evidence: dict[str, int | str | None]
    links: list[str]
    next_step: str


Rule = Callable[[Facts], Iterable[Finding]]


def diagnose(facts: Facts) -> list[Finding]:
    """The findings, the likeliest cause first. What a device that may do nothing does besides is
    no finding.
    """
    over = [*_revoked(facts), *_replaced(facts)]
    return over[:1] or [finding for rule in RULES for finding in rule(facts)]


def older(version: str, least: str) -> bool:
    """Whether the version is below the other: numbers between dots, as far as both have them."""
    mine, theirs = _numbers(version), _numbers(least)
    width = max(len(mine), len(theirs))
    padded = (*mine, *[0] * (width - len(mine))), (*theirs, *[0] * (width - len(theirs)))
    return bool(mine) and bool(theirs) and padded[0] < padded[1]


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\s*v?(\d{1,9}(?:\.\d{1,9}){0,9})", version, re.ASCII)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def _finding(facts: Facts, code: str, *more: str, **evidence: int | str | None) -> Finding:
    meaning = FINDINGS[code]
    links = [f"/v1/admin/devices/{facts.id}", *more]
    return Finding(code, meaning.sentence, evidence, links, meaning.next_step)


def _refused(facts: Facts, codes: Iterable[str], since: int) -> list[Event]:
    """The refusals with one of the codes that came after `since`, the newest first."""
    wanted = frozenset(codes)
    found = [e for e in facts.events if e.kind == "refused" and e.code in wanted]
    return sorted((e for e in found if e.last_at > since), key=lambda e: -e.last_at)


def _from_refusals(
    facts: Facts, code: str, codes: Iterable[str], since: int, least: int = 1
) -> Iterator[Finding]:
    """The finding, where so many refusals came after `since`."""
    events = _refused(facts, codes, since)
    times = sum(event.times for event in events)
    if events and times >= least:
        newest = events[0]
        yield _finding(
            facts,
            code,
            f"/v1/admin/devices/{facts.id}/events",
            refused_with=newest.code,
            times=times,
            last_at=newest.last_at,
            **({"space": newest.space} if newest.space else {}),
        )


# The rules, each for one kind of trouble ------------------------------------------------------


def _revoked(facts: Facts) -> Iterator[Finding]:
    if facts.revoked_at is not None:
        asked = sum(e.times for e in _refused(facts, {"device_revoked"}, facts.revoked_at))
        yield _finding(facts, "device_revoked", revoked_at=facts.revoked_at, asked_since=asked)


def _replaced(facts: Facts) -> Iterator[Finding]:
    if facts.frozen_at is not None:
        by = facts.replaced_by
        links = [f"/v1/admin/devices/{by}"] if by else []
        yield _finding(facts, "device_replaced", *links, frozen_at=facts.frozen_at, replaced_by=by)


def _fork(facts: Facts) -> Iterator[Finding]:
    return _from_refusals(facts, "device_fork", {"device_fork"}, facts.pushed_at or 0)


def _token(facts: Facts) -> Iterator[Finding]:
    renewed = [e.last_at for e in facts.events if e.kind in {"login", "token_renewed"}]
    since = max([facts.reached_at, *renewed])
    return _from_refusals(facts, "token_refused", TOKEN_CODES, since, REPEATS_MIN)


def _version(facts: Facts) -> Iterator[Finding]:
    least = facts.min_app_version
    if older(facts.app_version, least):
        yield _finding(facts, "app_too_old", app_version=facts.app_version, minimum=least)


def _membership(facts: Facts) -> Iterator[Finding]:
    for space in facts.spaces:
        asked = _told(facts, space, "forbidden", facts.now - 7 * DAY)
        withdrawn = space.withdrawn_at
        if withdrawn is not None and asked:
            times = sum(event.times for event in asked)
            yield _finding(
                facts,
                "membership_withdrawn",
                f"/v1/admin/spaces/{space.id}",
                space=space.id,
                withdrawn_at=withdrawn,
                asked=times,
            )
        elif asked and withdrawn is None and space.role == "viewer":
            yield _finding(
                facts,
                "role_too_small",
                f"/v1/admin/spaces/{space.id}",
                space=space.id,
                role=space.role,
                last_at=asked[0].last_at,
            )


def _told(facts: Facts, space: SpaceFacts, code: str, since: int) -> list[Event]:
    return [event for event in _refused(facts, {code}, since) if event.space == space.id]


def _gap(facts: Facts) -> Iterator[Finding]:
    since = max(facts.pushed_at or 0, facts.now - 7 * DAY)
    return _from_refusals(facts, "counter_gap", {"counter_gap"}, since, 2)


def _history(facts: Facts) -> Iterator[Finding]:
    """Told to reset for a cursor that can't be, and no plain answer since."""
    for code in ("cursor_above_head", "lost_epoch"):
        events = [e for e in facts.events if (e.kind, e.code) == ("reset", code)]
        last = max(events, key=lambda e: e.last_at, default=None)
        if last is not None and last.last_at > (facts.pulled_at or 0):
            space = _space(facts, last.space)
            yield _finding(
                facts,
                code,
                f"/v1/admin/spaces/{last.space}",
                space=last.space,
                times=sum(event.times for event in events),
                last_at=last.last_at,
                head=space.head if space else None,
                epoch=space.epoch if space else None,
            )


def _space(facts: Facts, id_: str) -> SpaceFacts | None:
    return next((space for space in facts.spaces if space.id == id_), None)


def _horizon(facts: Facts) -> Iterator[Finding]:
    for space in _open(facts):
        if 0 < space.cursor < space.horizon:
            yield _finding(
                facts,
                "behind_horizon",
                f"/v1/admin/spaces/{space.id}",
                space=space.id,
                cursor=space.cursor,
                horizon=space.horizon,
                head=space.head,
            )


def _open(facts: Facts) -> Iterator[SpaceFacts]:
    return (space for space in facts.spaces if space.withdrawn_at is None)


def _limits(facts: Facts) -> Iterator[Finding]:
    since = max(facts.pushed_at or 0, facts.now - 7 * DAY)
    yield from _from_refusals(facts, "limit_hit", SIZE_CODES, since)
    for space in facts.spaces:
        for code in sorted(RECORD_CODES & space.quarantined.keys()):
            count = space.quarantined[code]
            link = f"/v1/admin/quarantine?device={facts.id}"
            yield _finding(
                facts, "limit_hit", link, space=space.id, refused_with=code, changes=count
            )


def _broken(facts: Facts) -> Iterator[Finding]:
    since = max(facts.reached_at, facts.now - 7 * DAY)
    return _from_refusals(facts, "client_broken", BROKEN_CODES, since, 2)


def _quarantine(facts: Facts) -> Iterator[Finding]:
    counts = {
        (space.id, code): count
        for space in facts.spaces
        for code, count in space.quarantined.items()
        if code not in RECORD_CODES
    }
    if counts:
        space, code = max(counts, key=lambda key: counts[key])
        link = f"/v1/admin/quarantine?device={facts.id}"
        changes = sum(counts.values())
        yield _finding(facts, "quarantined", link, changes=changes, refused_with=code, space=space)


def _rate(facts: Facts) -> Iterator[Finding]:
    since = max(facts.reached_at, facts.now - HOUR)
    return _from_refusals(facts, "rate_limited", WAIT_CODES, since)


def _pushing(facts: Facts) -> Iterator[Finding]:
    """A report that came with a push counts what the push brought: only one after it tells."""
    reported, pending = facts.reported_at or 0, facts.pending or 0
    if not pending or (facts.pushed_at or 0) >= reported:
        return
    oldest = facts.oldest_pending_at
    age = facts.now - reported if oldest is None else facts.now - oldest - (facts.clock_offset or 0)
    if age > STUCK_MS:
        yield _finding(
            facts,
            "not_pushing",
            pending=pending,
            oldest_pending_ms=age,
            reported_at=reported,
            pushed_at=facts.pushed_at,
        )


def _acknowledging(facts: Facts) -> Iterator[Finding]:
    for space in _open(facts):
        since = space.behind_since
        if since is None or space.cursor < space.reset_below:
            continue
        given = sum(
            event.times
            for event in facts.events
            if (event.kind, event.space) == ("pulled", space.id)
            and event.first_at > space.cursor_at
        )
        waits = facts.online and facts.now - since > STUCK_MS
        if given >= REPEATS_MIN or waits:
            yield _finding(
                facts,
                "not_acknowledging",
                f"/v1/admin/spaces/{space.id}",
                space=space.id,
                cursor=space.cursor,
                head=space.head,
                behind=space.behind,
                behind_ms=facts.now - since,
                given=given,
            )


def _clock(facts: Facts) -> Iterator[Finding]:
    offset = facts.clock_offset
    if offset is not None and abs(offset) > CLOCK_OFF_MS:
        yield _finding(facts, "clock_off", offset_ms=offset)


def _growing(facts: Facts) -> Iterator[Finding]:
    since, behind = facts.growing_since, max((s.behind for s in _open(facts)), default=0)
    syncs = since is not None and facts.seen_at > since
    if since is not None and syncs and behind >= GROWING_CHANGES_MIN:
        took = facts.now - since
        if took > STUCK_MS:
            yield _finding(facts, "lag_growing", behind=behind, growing_ms=took)


def _silent(facts: Facts) -> Iterator[Finding]:
    quiet = facts.now - facts.seen_at
    if quiet > SILENT_MS and not facts.online:
        yield _finding(facts, "silent", seen_at=facts.seen_at, silent_ms=quiet)


def _reset(facts: Facts) -> Iterator[Finding]:
    for space in _open(facts):
        if 0 < space.cursor < space.reset_below:
            yield _finding(
                facts,
                "reset_asked",
                f"/v1/admin/spaces/{space.id}",
                space=space.id,
                cursor=space.cursor,
                reset_below=space.reset_below,
            )


def _conflicts(facts: Facts) -> Iterator[Finding]:
    for space in _open(facts):
        if space.conflicts:
            link = f"/v1/admin/conflicts?space={space.id}"
            yield _finding(facts, "conflicts_open", link, space=space.id, records=space.conflicts)


RULES: tuple[Rule, ...] = (
    _fork, _token, _version, _membership, _gap, _history, _horizon, _limits, _broken, _quarantine,
    _rate, _pushing, _acknowledging, _clock, _growing, _silent, _reset, _conflicts,
)  # fmt: skip
