"""The live conversation, message by message, and conversations that nobody thought of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.errors import Forbidden, NotFound, SyncError
from sync.events import (
    Admitted,
    Apply,
    Check,
    Drained,
    Found,
    Leave,
    Lost,
    Missed,
    Open,
    Opened,
    Place,
    Read,
    Refuse,
    Remember,
    ResetBelow,
    Seen,
    Send,
    Session,
    Show,
    ShowOthers,
    Tick,
    Told,
)
from sync.messages import Ack, Asked, Hello, Ping, Pong, Presence, Ready, Token, TokenExpiring
from sync.requests import PushMessage
from sync.session import HELLO_MS, WARN_MS, step

SPACE = "0e2f4a6c-0000-4000-8000-000000000001"


def opened(head: int, cursor: int = 0, name: str = "s", newest: int | None = None) -> Opened:
    stands = (1, head if newest is None else newest)
    return Opened(5, {}, {name: Asked(1, cursor)}, {name: Place(SPACE, 1, head, stands)})


def following(head: int = 3, cursor: int = 3) -> Session:
    """A session that has said hello to one space and stands at the cursor."""
    session, _ = step(Session(0, until=10**9), opened(head, cursor))
    return session


def found(to: int, next_page: str | None = None, *, number: int = 1) -> Found:
    return Found("s", 1, to, next_page, b"delta", number=number)


def only(effects: list[Any]) -> Any:
    (effect,) = effects
    return effect


# Coming in


def test_a_hello_with_a_token_has_it_checked_before_anything_is_opened() -> None:
    asked = {"s": Asked(cursor=3)}
    session, effects = step(Session(0), Hello(asked, token="t"))
    assert effects == [Check("t"), Open(asked)]
    assert not session.greeted


def test_a_hello_without_any_token_is_refused() -> None:
    _, effects = step(Session(0), Hello({}))
    assert only(effects).error.code == "token_missing"


@pytest.mark.parametrize(
    "early",
    [PushMessage(space="s"), Ack("s", 1), Presence("s", {})],
    ids=lambda m: type(m).__name__,
)
def test_nothing_is_done_before_hello(early: Any) -> None:
    _, effects = step(Session(0), early)
    assert only(effects).error.code == "token_missing"
    _, effects = step(Session(0, until=10**9), early)
    assert only(effects).error.code == "hello_first"


def test_ready_tells_each_space_or_why_it_cannot_be_had() -> None:
    places: dict[str, Any] = {"s": Place(SPACE, 2, 7, (2, 7)), "x": NotFound("not_found")}
    asked = {"s": Asked(cursor=7, epoch=2), "x": Asked()}
    session, effects = step(Session(0, until=1), Opened(5, {"n": 1}, asked, places))
    ready = effects[0].message
    assert isinstance(ready, Ready)
    assert ready.spaces["s"] == {"epoch": 2, "head": 7}
    assert ready.spaces["x"]["error"]["code"] == "not_found"
    assert list(session.spaces) == ["s"]
    assert effects[1:] == [ShowOthers("s"), Remember(SPACE, 2, 7)]


def test_a_cursor_beyond_the_head_is_not_remembered() -> None:
    _, effects = step(Session(0, until=1), opened(head=3, cursor=9))
    assert not any(isinstance(effect, Remember) for effect in effects)


def test_a_second_hello_leaves_what_it_does_not_name_and_goes_on_with_the_rest() -> None:
    session = following(head=3, cursor=3)
    session, effects = step(session, Hello({"t": Asked()}))
    assert effects == [Leave("s"), Open({"t": Asked()})]
    assert session.spaces == {}


def test_a_space_that_is_followed_goes_on_where_its_stream_stands() -> None:
    session = following(head=3, cursor=3)
    session, _ = step(session, Hello({"s": Asked(1, 0)}))
    session, _ = step(session, opened(head=3, cursor=0))
    assert session.spaces["s"].cursor == 3


# The stream


def test_who_stands_at_the_head_has_nothing_read() -> None:
    assert step(following(3, 3), Drained())[1] == []


def test_who_stands_behind_is_read_for_once() -> None:
    session, effects = step(following(head=3, cursor=1), Drained())
    assert effects == [Read("s", SPACE, 1, 1, None, 1)]
    assert step(session, Drained())[1] == []
    assert step(session, Told("s"))[1] == []


def test_what_is_committed_while_the_space_was_opened_is_read_too() -> None:
    session, _ = step(Session(0, until=1), opened(head=3, cursor=3, newest=4))
    assert step(session, Drained())[1] == [Read("s", SPACE, 1, 3, None, 1)]


def test_what_is_told_while_the_space_is_looked_for_is_not_lost() -> None:
    session, _ = step(Session(0, until=1), Hello({"s": Asked(1, 3)}))
    session, effects = step(session, Told("s"))
    assert effects == []
    session, _ = step(session, opened(head=3, cursor=3))
    session, effects = step(session, Drained())
    assert effects == [Read("s", SPACE, 1, 3, None, 1)]
    assert session.opening == {}


def test_a_delta_moves_the_cursor_and_the_next_is_read_from_there() -> None:
    session, _ = step(following(head=3, cursor=1), Drained())
    session, effects = step(session, found(3))
    assert effects == [Send(b"delta")]
    session, effects = step(session, Told("s"))
    assert effects == [Read("s", SPACE, 1, 3, None, 2)]


def test_what_is_told_while_a_read_is_on_its_way_is_read_after_it() -> None:
    session, _ = step(following(head=3, cursor=1), Drained())
    session, effects = step(session, Told("s"))
    assert effects == []
    session, _ = step(session, found(3))
    assert step(session, Drained())[1] == [Read("s", SPACE, 1, 3, None, 2)]


def test_pages_go_on_from_their_token_with_the_same_cursor() -> None:
    session, _ = step(following(head=9, cursor=1), Drained())
    session, _ = step(session, found(1, next_page="p"))
    session, effects = step(session, Drained())
    assert effects == [Read("s", SPACE, 1, 1, "p", 2)]
    session, _ = step(session, found(9, number=2))
    assert (session.spaces["s"].cursor, session.spaces["s"].page) == (9, None)
    assert step(session, Drained())[1] == []


def test_a_transfer_that_cannot_go_on_starts_again_from_the_cursor() -> None:
    session, _ = step(following(head=9, cursor=1), Drained())
    session, _ = step(session, found(1, next_page="p"))
    session, _ = step(session, Drained())
    session, _ = step(session, Missed("s", anew=True, number=2))
    assert step(session, Drained())[1] == [Read("s", SPACE, 1, 1, None, 3)]


def test_who_does_not_read_is_sent_nothing_and_falls_back_to_the_cursor() -> None:
    session, _ = step(following(head=3, cursor=1), Drained())
    session, effects = step(session, found(3), ready=False)
    assert effects == []
    session, effects = step(session, Told("s"), ready=False)
    assert effects == []
    assert step(session, Drained())[1] == [Read("s", SPACE, 1, 1, None, 2)]


def test_a_space_that_was_withdrawn_is_told_and_left_and_read_no_more() -> None:
    session, _ = step(following(head=3, cursor=1), Drained())
    session, effects = step(session, Lost("s", Forbidden("forbidden")))
    assert effects[0] == Leave("s")
    assert (effects[1].message["type"], effects[1].message["space"]) == ("error", "s")
    assert step(session, found(3)) == (session, [])
    assert step(session, Told("s")) == (session, [])


def test_a_device_that_is_asked_to_reset_is_read_anew_and_then_goes_on() -> None:
    session, _ = step(following(head=3, cursor=1), Drained())
    session, effects = step(session, ResetBelow("s", 3))
    assert effects == []
    session, effects = step(session, found(3))
    assert effects == [], "measured for others"
    session, effects = step(session, Drained())
    assert effects == [Read("s", SPACE, 1, 1, None, 2, floor=3)]
    session, _ = step(session, ResetBelow("s", 3))
    session, effects = step(session, found(3, number=2))
    assert effects == [Send(b"delta")]
    session, effects = step(session, Told("s"))
    assert effects == [Read("s", SPACE, 1, 3, None, 3)]


def test_the_answer_from_before_the_device_left_is_not_taken_for_that_of_now() -> None:
    session, _ = step(following(head=9, cursor=5), Drained())
    session, _ = step(session, Hello({}))
    session, _ = step(session, Opened(5, {}, {}, {}))
    session, _ = step(session, Hello({"s": Asked(1, 5)}))
    session, _ = step(session, opened(head=10, cursor=5))
    session, effects = step(session, Drained())
    assert effects == [Read("s", SPACE, 1, 5, None, 2)]
    assert step(session, found(9, number=1)) == (session, [])
    assert step(session, Missed("s", number=1)) == (session, [])
    session, effects = step(session, found(10, number=2))
    assert effects == [Send(b"delta")]
    assert session.spaces["s"].cursor == 10


# The rest


def test_an_acknowledgement_of_what_was_never_sent_is_not_remembered() -> None:
    session = following(head=3, cursor=3)
    assert step(session, Ack("s", 3))[1] == [Remember(SPACE, 1, 3)]
    assert step(session, Ack("s", 4))[1] == []
    assert step(session, Ack("other", 1))[1] == []


def test_a_push_a_ping_a_token_and_a_presence_do_what_they_say() -> None:
    session = following()
    push = PushMessage(space="s", ref=7)
    assert step(session, push)[1] == [Apply(push)]
    assert step(session, Ping())[1] == [Send(Pong())]
    assert step(session, Token("t"))[1] == [Check("t")]
    assert step(session, Presence("s", {"x": 1}))[1] == [Show("s", {"x": 1})]
    assert only(step(session, Presence("other", {}))[1]).message["type"] == "error"


def test_a_presence_that_cannot_be_taken_now_is_shown_later_and_a_leaving_at_once() -> None:
    session = following()
    assert step(session, Seen("s", b"here", gone=False))[1] == [Send(b"here")]
    session, effects = step(session, Seen("s", b"here", gone=False), ready=False)
    assert effects == []
    assert step(session, Seen("s", b"gone", gone=True), ready=False)[1] == [Send(b"gone")]
    session, effects = step(session, Drained())
    assert effects == [ShowOthers("s")]
    assert step(session, Drained())[1] == []


def test_a_token_is_warned_of_once_and_ends_and_a_fresh_one_keeps_the_session() -> None:
    session = Session(0, until=100_000, greeted=True)
    assert step(session, Tick(100_000 - WARN_MS - 1))[1] == []
    session, effects = step(session, Tick(50_000))
    assert effects == [Send(TokenExpiring(50))]
    assert step(session, Tick(60_000))[1] == []
    session, _ = step(session, Admitted(300_000))
    assert step(session, Tick(100_001))[1] == []
    assert only(step(session, Tick(300_000))[1]).error.code == "token_expired"


def test_who_shows_no_token_in_time_is_refused() -> None:
    session = Session(began=0)
    assert step(session, Tick(HELLO_MS))[1] == []
    assert isinstance(only(step(session, Tick(HELLO_MS + 1))[1]), Refuse)


# Conversations that nobody thought of


@dataclass
class World:
    """A log that grows, a reader of it that may be slow, and a device that takes or does not."""

    session: Session
    head: int
    ready: bool = True
    reads: list[Read] = field(default_factory=list)
    # The answers to reads from before the device left, as they were found then.
    old: list[Found] = field(default_factory=list)
    got: list[tuple[int, int]] = field(default_factory=list)

    def do(self, event: Any) -> None:
        self.session, effects = step(self.session, event, ready=self.ready)
        for effect in effects:
            if isinstance(effect, Read):
                self.reads.append(effect)
            if isinstance(effect, Send) and isinstance(effect.message, tuple):
                assert self.ready, "sent to a device that takes nothing"
                self.got.append(effect.message)

    def settle(self) -> None:
        if self.ready:
            self.do(Drained())

    def answer(self, *, whole: bool = True) -> Found:
        """To the read that is on its way, as the log is now; or a first page of it."""
        read = self.reads.pop()
        partial = not whole and read.page is None and read.cursor < self.head
        message = None if partial or read.cursor == self.head else (read.cursor, self.head)
        end = read.cursor if partial else self.head
        return Found("s", 1, end, "page" if partial else None, message, number=read.number)

    def leave_and_come_back(self) -> None:
        cursor = self.session.spaces["s"].cursor
        self.old += [self.answer()] if self.reads else []
        self.do(Hello({}))
        self.do(Opened(5, {}, {}, {}))
        self.head += 1
        self.do(Hello({"s": Asked(1, cursor)}))
        self.do(opened(self.head, cursor))


STEPS = st.lists(
    st.sampled_from(
        [
            "commit",
            "commit and lose the hint",
            "hint",
            "read",
            "read in pages",
            "the read fails",
            "stop reading",
            "read on",
            "drain",
            "leave and come back",
            "an old answer comes",
        ]
    ),
    max_size=60,
)


# What tells of all that was missed: a hint that comes, or a hello.
ENDS = st.sampled_from([["hint"], ["leave and come back", "an old answer comes"]])


@given(STEPS, ENDS, st.integers(0, 3), st.integers(0, 3))
def test_whatever_happens_deltas_join_without_a_gap_or_a_repeat_and_reach_the_head(
    steps: list[str], end: list[str], cursor: int, head: int
) -> None:
    head += cursor
    session, _ = step(Session(0, until=10**9), opened(head, cursor))
    world = World(session, head)
    for one in [*steps, "read on", *end] + ["drain", "read"] * 4:
        _happen(world, one)
        assert len(world.reads) <= 1, "two reads of a space at once"
        world.settle()
    at = cursor
    for begin, end in world.got:
        assert begin == at, "a gap, or a repeat"
        at = end
    assert at == world.head == world.session.spaces["s"].cursor


def _happen(world: World, what: str) -> None:
    if what.startswith("commit"):
        world.head += 1
    if what in {"commit", "hint"}:
        world.do(Told("s"))
    if what in {"stop reading", "read on"}:
        world.ready = what == "read on"
    if what == "leave and come back":
        world.leave_and_come_back()
    if what == "an old answer comes" and world.old:
        world.do(world.old.pop())
    if "read fails" in what and world.reads:
        world.do(Missed("s", number=world.reads.pop().number))
    if what in {"read", "read in pages"} and world.reads:
        world.do(world.answer(whole=what == "read"))


@given(
    st.lists(
        st.one_of(
            st.builds(Hello, st.dictionaries(st.sampled_from("ab"), st.just(Asked()), max_size=2)),
            st.builds(Ack, st.sampled_from("ab"), st.integers(0, 9)),
            st.builds(Told, st.sampled_from("ab")),
            st.builds(Lost, st.sampled_from("ab"), st.just(Forbidden("forbidden"))),
            st.just(Drained()),
            st.builds(
                Found,
                st.sampled_from("ab"),
                st.just(1),
                st.integers(0, 9),
                st.none(),
                st.just(b"x"),
                number=st.integers(0, 3),
            ),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_nothing_is_sent_of_a_space_that_is_not_followed(messages: list[Any], ready: bool) -> None:
    session = Session(0, until=10**9)
    for message in messages:
        before = set(session.spaces)
        session, effects = step(session, message, ready=ready)
        for effect in effects:
            if isinstance(effect, Open):
                places: dict[str, Place | SyncError] = {
                    name: Place(SPACE, 1, 2, (1, 2)) for name in effect.asked
                }
                session, _ = step(session, Opened(0, {}, effect.asked, places))
            if isinstance(effect, Read):
                assert effect.name in session.spaces
            if isinstance(effect, Send) and isinstance(effect.message, bytes):
                assert message.name in before
