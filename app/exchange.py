"""Push, pull and sync: one transaction each. HTTP, websockets and adapters all come through here.

A push, from top to bottom: open the space and lock its head, read what the changes touch, let
`sync.plan` decide, write it down, commit. Only then is it acknowledged, and a hint given.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec
from sqlalchemy import Engine

from app import touched
from app.access import Visit, open_space, require_device
from app.hints import Hints
from app.pages import next_page, nothing_new, page_after
from app.recording import Recorder
from app.touched import Meeting, Records
from app.turns import Done, Turn, Turns, give_way, open_free
from app.unshown import Unshown
from storage import replicas
from storage.engine import no_disk, one_moment, one_push, one_statement
from storage.spaces import Space
from storage.sql import Cursor, cursor
from sync.answers import PushAnswer, Rejection, SpaceAnswer, SyncAnswer
from sync.errors import BadRequest, Conflict, SyncError, Unauthenticated
from sync.limits import Limits
from sync.plan import Plan, plan_push
from sync.requests import Pull, Push, SpaceRequest, SyncRequest


@dataclass(frozen=True, slots=True)
class Exchange:
    """The way to the log, for all that speak to devices."""

    engine: Engine
    limits: Limits
    hints: Hints
    turns: Turns
    recorder: Recorder | None = None
    unshown: Unshown | None = None

    def sync(self, visit: Visit, request: SyncRequest) -> SyncAnswer:
        """Everything in one round trip; an error of one space harms no other."""
        visit = replace(visit, sent_at=request.sent_at)
        answers: dict[str, SpaceAnswer] = {}
        for name, part in request.spaces.items():
            try:
                answers[name] = self._sync_space(visit, name, part)
            except Unauthenticated:
                raise
            except SyncError as error:
                answers[name] = SpaceAnswer(error=error.as_dict())
        if not answers:
            with one_statement(self.engine) as connection:
                require_device(cursor(connection), visit.who)
        if self.recorder:
            self.recorder.synced(visit, request, answers)
        return SyncAnswer(visit.received_at, answers)

    def _sync_space(self, visit: Visit, name: str, part: SpaceRequest) -> SpaceAnswer:
        if not part.changes and part.discarded is None:
            return self.pull(visit, name, part)
        _, plan, answer = self._turned(Turn(visit, name, part))
        return msgspec.structs.replace(answer, accepted=plan.accepted, rejected=_told(plan))

    def push(self, visit: Visit, name: str, part: Push) -> PushAnswer:
        """The changes alone. Raises `SyncError`, and then has changed nothing."""
        visit = replace(visit, sent_at=part.sent_at)
        space, plan, _ = self._turned(Turn(visit, name, part, pulls=False))
        if self.recorder:
            self.recorder.pushed(visit, name, part, len(plan.rejected))
        return PushAnswer(space.epoch, plan.accepted, _told(plan), plan.head)

    def _turned(self, turn: Turn) -> Done:
        """With others where it can be, and committed."""
        if turn.may_join:
            self.turns.take(turn, self.push_turns)
        done = turn.done or self._push_alone(turn)
        if isinstance(done, SyncError):
            raise done
        self._tell(*done[:2])
        return done

    def _push_alone(self, turn: Turn) -> Done:
        with one_push(self.engine) as connection:
            cur = cursor(connection)
            space = open_space(cur, turn.visit.who, turn.name, "write", lock=True)
            plan = push(cur, space, turn.visit, turn.part, self.limits)
            return space, plan, self._answer(cur, space, plan, turn)

    def push_turns(self, turns: list[Turn]) -> None:
        """Those of the turns that can go together, in one transaction."""
        with one_push(self.engine, begun=False) as connection:
            cur = cursor(connection)
            joined, before = open_free(cur, turns)
            outcomes = push_together(cur, [one for _, one in joined], before, self.limits)
            done = [
                (one.space, plan, self._answer(cur, one.space, plan, turn))
                if isinstance(plan, Plan)
                else plan
                for (turn, one), plan in zip(joined, outcomes, strict=True)
            ]
        for (turn, _), what in zip(joined, done, strict=True):
            turn.done = what

    def _answer(self, cur: Cursor, space: Space, plan: Plan, turn: Turn) -> SpaceAnswer:
        if not turn.pulls:
            return SpaceAnswer(epoch=space.epoch)
        try:
            return page_after(cur, space, plan, turn.visit, turn.part, self.limits)
        except BadRequest as bad_page:
            return SpaceAnswer(epoch=space.epoch, error=bad_page.as_dict())

    def pull(self, visit: Visit, name: str, part: Pull, wait: float = 0) -> SpaceAnswer:
        """What the cursor has not seen; with nothing new, waits up to `wait` seconds for it."""
        answer, space = self._pull(visit, name, part)
        if wait <= 0 or _has_news(answer, part):
            return answer
        with self.hints.watch(space.id) as wait_for_hint:
            while True:
                answer, space = self._pull(visit, name, part)
                if wait <= 0 or _has_news(answer, part):
                    return answer
                wait -= wait_for_hint(wait, (space.epoch, space.head))

    def _pull(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space]:
        answer, space = self._glance(visit, name, part) or self._read(visit, name, part)
        self._acknowledge(visit, space, part)
        return msgspec.structs.replace(answer, accepted=space.counter, rejected=[]), space

    def _glance(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space] | None:
        """Most pulls find nothing new, and learn it from one statement."""
        if part.page is not None:
            return None
        with one_statement(self.engine) as connection:
            space = _opened(cursor(connection), visit, name, part)
        answer = nothing_new(space, part)
        return (answer, space) if answer else None

    def _read(self, visit: Visit, name: str, part: Pull) -> tuple[SpaceAnswer, Space]:
        with one_moment(self.engine) as connection:
            cur = cursor(connection)
            space = _opened(cur, visit, name, part)
            return next_page(cur, space, visit, part, self.limits), space

    def _acknowledge(self, visit: Visit, space: Space, part: Pull) -> None:
        """Remembers a cursor that moved, in a transaction that nobody waits for."""
        stands = _acknowledged(space, part)
        if stands == (space.cursor, space.cursor_epoch):
            return
        with no_disk(self.engine) as connection:
            cur = cursor(connection)
            if space.replica is None:
                space = open_space(cur, visit.who, str(space.id), "read", lock=True)
            replica = space.replica or replicas.add(cur, space.id, visit.who.device_id)
            replicas.acknowledge(cur, space.id, replica, *stands)

    def _tell(self, space: Space, plan: Plan) -> None:
        if plan.unshown and self.unshown:
            self.unshown.show_later(space.id, plan.unshown)
        if plan.entries:
            self.hints.tell(space.id, space.epoch, plan.head)
            if self.turns.idle:
                # The news goes first, and then the answer. In a crowd, the news go together.
                give_way()


def _has_news(answer: SpaceAnswer, part: Pull) -> bool:
    return not part.cursor == answer.cursor == answer.head


def _opened(cur: Cursor, visit: Visit, name: str, part: Pull) -> Space:
    """The space to read, by a device that is not behind its own count."""
    space = open_space(cur, visit.who, name, "read")
    counter = part.counter if isinstance(part, SpaceRequest) else None
    if counter is not None and counter < space.counter:
        raise Conflict("device_fork", known=[])
    return space


def push(cur: Cursor, space: Space, visit: Visit, part: SpaceRequest, limits: Limits) -> Plan:
    """Decides the changes and writes them, under the space's lock, which `space` is the state of.

    Raises `SyncError` (`device_fork`, `counter_gap`, `bad_counter`) before anything is written.
    """
    replica = space.replica or replicas.add(cur, space.id, visit.who.device_id)
    one = Meeting(space, replica, visit, part)
    (outcome,) = push_together(cur, [one], touched.records_of(cur, one), limits)
    if isinstance(outcome, SyncError):
        raise outcome
    return outcome


def push_together(
    cur: Cursor, pushes: list[Meeting], before: Records, limits: Limits
) -> list[Plan | SyncError]:
    """As `push`, to several spaces in the statements of one; what is wrong with one is its own."""
    outcomes = [_decide(cur, one, before, limits) for one in pushes]
    moved = [
        (one, plan)
        for one, plan in zip(pushes, outcomes, strict=True)
        if isinstance(plan, Plan) and plan.accepted > one.space.counter
    ]
    if moved:
        touched.write(cur, moved, before, [_standing(one, plan) for one, plan in moved])
    return outcomes


def _decide(cur: Cursor, one: Meeting, before: Records, limits: Limits) -> Plan | SyncError:
    state, visit = touched.state_of(cur, one, before), one.visit
    try:
        return plan_push(state, one.part, visit.sent_at, visit.received_at, limits)
    except SyncError as error:
        return error


def _standing(one: Meeting, plan: Plan) -> replicas.Moved:
    stands = _acknowledged(one.space, one.part)
    return replicas.Moved(str(one.space.id), one.replica, plan.accepted, plan.head, *stands)


def _acknowledged(space: Space, part: Pull) -> tuple[int, int]:
    """(cursor, epoch) as the device says that it stands. What it can't have got is not kept."""
    cursor, epoch = part.cursor, part.epoch or space.epoch
    believed = 0 < cursor <= space.head and epoch <= space.epoch
    return (cursor, epoch) if believed else (space.cursor, space.cursor_epoch)


def _told(plan: Plan) -> list[Rejection]:
    return [Rejection(*told) for told in plan.rejected]
