"""The sync loop: seal, ask, settle, until nothing is left to push and no page to pull.

Each round is one `POST /v1/sync` for all spaces, and one local transaction for each space's answer.
All state is in the file: killed between any two statements, the next `sync()` goes on from there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from rejoin import catalog, fork, limits, request, settle, spaces
from rejoin.answers import Problem, SpaceAnswer, as_object, as_text, read_space
from rejoin.apply import applying, writing
from rejoin.errors import ServerRefused, Stuck
from rejoin.request import Part
from rejoin.rowwatch import Watch
from rejoin.schema import get_meta, set_meta
from rejoin.spaces import Space
from rejoin.transport import Session
from rejoin.values import JsonObject, compact

DOUBTS_MAX = 20
"""So often may another process have made a fork of a late request; then it is taken for one."""
IDLE_ROUNDS_MAX = 5
"""Rounds that move nothing before the loop gives up: server and device talk past each other."""


@dataclass(frozen=True)
class Progress:
    """How far a sync is. `total` is None where nobody knows it.

    phase: `push` (unit: changes), `pull` (records; the total is an estimate from the positions
    left), `apply` (records, all of a pull at once).
    """

    phase: str
    space: str
    done: int
    total: int | None


@dataclass
class SyncResult:
    """What one `sync()` did. `errors` are the spaces' own, by id, in words."""

    pushed: int = 0
    rejected: int = 0
    pulled: int = 0
    rounds: int = 0
    errors: dict[str, str] = field(default_factory=dict)


class Loop:
    """One `sync()`. `now_ms` is the device's wall clock, skew included."""

    def __init__(
        self,
        db: sqlite3.Connection,
        session: Session,
        now_ms: Callable[[], int],
        progress: Callable[[Progress], None] | None,
        app_version: str | None,
        credentials: Callable[[], tuple[str, str] | None],
        watch: Watch | None = None,
    ) -> None:
        self._db = db
        self._session = session
        self._now_ms = now_ms
        self._progress = progress or (lambda _: None)
        self._app_version = app_version
        self._credentials = credentials
        self._watch = watch
        self._failed: dict[int, str] = {}
        self._muted: set[int] = set()
        self._ask_again: set[int] = set()
        self._doubts = 0
        self._received: dict[int, int] = {}
        self.result = SyncResult()

    def run(self) -> SyncResult:
        """Rounds until all is settled. Raises NotLoggedIn, Offline, ServerRefused, Stuck."""
        idle = 0
        while True:
            settle.sealed(self._db)
            before = self._standing()
            work = [s for s in spaces.read_all(self._db) if s.no not in self._failed]
            if not work:
                break
            try:
                at_once = limits.read(self._db).spaces
                for start in range(0, len(work), at_once):
                    self._round(work[start : start + at_once])
            except ServerRefused as refused:
                limits.learn(self._db, self._session, refused)
                continue
            self._learn_roles()
            if catalog.publish_missing(self._db, self._now_ms()):
                continue
            if not self._unfinished():
                break
            idle = idle + 1 if self._standing() == before else 0
            if idle == IDLE_ROUNDS_MAX:
                raise Stuck(
                    "The server answers, but nothing moves; your changes are kept. "
                    + "; ".join(self._failed.values())
                )
        for no, words in self._failed.items():
            self.result.errors[spaces.read(self._db, no).id] = words
        return self.result

    def _standing(self) -> list[tuple[object, ...]]:
        return [
            (
                s.no,
                s.pull_cursor,
                s.page,
                s.discarded,
                s.no in self._muted,
                spaces.pending(self._db, s.no),
            )
            for s in spaces.read_all(self._db)
        ]

    def _unfinished(self) -> bool:
        return any(
            s.page is not None
            or not s.pulled
            or s.replacing
            or s.no in self._ask_again
            or self._sendable(s)
            for s in spaces.read_all(self._db)
            if s.no not in self._failed
        )

    def _sendable(self, space: Space) -> bool:
        return space.no not in self._muted and spaces.pending(self._db, space.no) > 0

    def _round(self, work: list[Space]) -> None:
        device = get_meta(self._db, "device_id")
        parts = request.parts(self._db, work, limits.read(self._db), self._muted)
        envelope = self.envelope(self._db, self._now_ms(), self._app_version)
        text = (
            envelope[:-1]
            + ',"spaces":{'
            + ",".join(f"{compact(p.space.id)}:{p.text}" for p in parts)
            + "}}"
        )
        answer = self._session.send("/v1/sync", text)
        self.result.rounds += 1
        answered = as_object(answer.get("spaces"))
        forked: Problem | None = None
        for part in parts:
            mine = read_space(answered.get(part.space.id))
            if mine.error and mine.error.code == "device_fork":
                forked = self._doubted(part, mine.error, device) or forked
            elif mine.error:
                self._trouble(part, mine.error)
            else:
                self._settle(part, mine)
        if forked:
            fork.resolve(self._db, self._session, self._now_ms(), self._credentials())

    def _doubted(self, part: Part, problem: Problem, device: str | None) -> Problem | None:
        """None where the fork may be our own doing: ask again.

        Another process on this file may have used later counters, or another device id, while the
        request was on its way; to the server it then looked like a copy from a backup.
        """
        moved = (
            spaces.read(self._db, part.space.no).counter != part.space.counter
            or get_meta(self._db, "device_id") != device
        )
        if not moved or self._doubts == DOUBTS_MAX:
            return problem
        self._doubts += 1
        self._ask_again.add(part.space.no)
        return None

    @staticmethod
    def envelope(db: sqlite3.Connection, now_ms: int, app_version: str | None) -> str:
        """The request without its spaces: the clock, and what support staff see."""
        waiting, oldest = db.execute(
            "SELECT count(*), min(at) FROM rejoin_changes WHERE state = 'pending'"
        ).fetchone()
        client: JsonObject = {"pending": waiting}
        if app_version:
            client["app_version"] = app_version
        if oldest is not None:
            client["oldest_pending_at"] = oldest
        return compact({"sent_at": now_ms, "client": client})

    def _settle(self, part: Part, answer: SpaceAnswer) -> None:
        space = part.space
        before = spaces.pending(self._db, space.no)
        received = self._received.get(space.no, 0) + len(answer.raw_records)
        self._received[space.no] = received
        if answer.raw_records:
            self._progress(Progress("pull", space.id, received, _estimate(answer, space, received)))
        settle.settle(
            self._db,
            space,
            answer,
            self._now_ms(),
            part.held,
            muted=space.no in self._muted,
            watch=self._watch,
        )
        self._ask_again.discard(space.no)
        if part.held or space.no in self._muted:
            self._db.execute(
                "UPDATE rejoin_spaces SET read_only = ? WHERE no = ?",
                (space.no in self._muted, space.no),
            )
        if answer.page is None and received:
            self._progress(Progress("apply", space.id, received, received))
            self._received[space.no] = 0
        after = spaces.pending(self._db, space.no)
        self.result.pulled += len(answer.raw_records)
        self.result.rejected += len(answer.rejected)
        self.result.pushed += sum(c <= (answer.accepted or 0) for c in part.held)
        if part.held:
            self._progress(Progress("push", space.id, max(0, before - after), before))

    def _trouble(self, part: Part, problem: Problem) -> None:
        space = part.space
        if problem.code == "counter_gap":
            expected = problem.integer("expected")
            if expected is not None:
                with writing(self._db):
                    settle.give_back(self._db, space.no, expected)
                return
        if problem.code == "bad_page":
            settle.drop_pages(self._db, space.no)
            return
        if problem.code in settle.FOREVER_CODES:
            self._refused_space(part, problem)
            return
        self._fail(space, f"{problem.detail or 'the server refused this space'} ({problem.code})")

    def _refused_space(self, part: Part, problem: Problem) -> None:
        space = part.space
        if part.held:
            self._muted.add(space.no)  # perhaps a viewer, who may read: ask without them
            self._ask_again.add(space.no)
            return
        words = f"This space is not open to this account ({problem.code})."
        if space.pulled:
            settle.withdraw(self._db, space, problem, self._now_ms(), self._watch)
        if space.pulled or space.withdrawn:
            words += (
                " Its rows were removed from this device; changes that had not been sent are"
                " listed under refused."
            )
        self._fail(space, words)

    def _learn_roles(self) -> None:
        """Asked once for each shared space: a viewer must not publish table definitions."""
        if not any(s.role is None and s.pulled for s in spaces.read_all(self._db)):
            return
        listed = self._session.get("/v1/spaces").get("spaces")
        for one in map(as_object, listed if isinstance(listed, list) else []):
            self._db.execute(
                "UPDATE rejoin_spaces SET role = ?, name = ?, read_only = ? WHERE id = ?",
                (
                    as_text(one.get("role")),
                    as_text(one.get("name")),
                    one.get("role") == "viewer",
                    as_text(one.get("id")),
                ),
            )

    def _fail(self, space: Space, words: str) -> None:
        self._failed[space.no] = words
        self._db.execute("UPDATE rejoin_spaces SET error = ? WHERE no = ?", (words, space.no))


def _estimate(answer: SpaceAnswer, space: Space, received: int) -> int | None:
    """Records in all, guessed from how far the positions have come. None while nothing says."""
    if answer.page is None:
        return received
    positions = [d.position for d in answer.records if d.position is not None]
    if not positions or answer.head is None:
        return None
    gone = max(positions) - space.pull_cursor
    return (
        max(received, round(received * (answer.head - space.pull_cursor) / gone)) if gone else None
    )


def retry_aside(db: sqlite3.Connection, now_ms: int, watch: Watch | None = None) -> None:
    """Tries rows again that local constraints had refused: the app may have made room."""
    for (no,) in db.execute(
        "SELECT DISTINCT c.space FROM rejoin_aside AS a"
        " JOIN rejoin_collections AS c ON c.no = a.collection"
    ).fetchall():
        with applying(db, no, now_ms, watch):
            pass


def remember(db: sqlite3.Connection, words: str | None, now_ms: int | None) -> None:
    """What went wrong last, for status(). No words: all is well, as of `now_ms` if it synced."""
    set_meta(db, "last_error", words)
    set_meta(db, "last_error_at", now_ms if words else None)
    if words is None and now_ms is not None:
        set_meta(db, "last_sync_at", now_ms)
