"""The live conversation: `step(state, message) → (state, effects)`. Pure.

What arrives is a message of the device or an event of the server's own; what comes out is what to
do, in order. Promises: nothing is done for a device before its token was checked and it said
hello; in each space the deltas go on exactly where the last one ended, whatever was told, lost or
repeated in between; nothing is read for a device that has not taken what it was sent; at most one
delta of a space is on its way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from sync.errors import BadRequest, SyncError, Unauthenticated
from sync.events import (
    Admitted,
    Apply,
    Check,
    Drained,
    Effect,
    Following,
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
from sync.messages import (
    Ack,
    Asked,
    Hello,
    Ping,
    Pong,
    Presence,
    Ready,
    Token,
    TokenExpiring,
    error_message,
)
from sync.requests import PushMessage

# A device has so long to show a token, and is warned so long before it ends.
HELLO_MS: Final = 10_000
WARN_MS: Final = 60_000

Step = tuple[Session, list[Effect]]


def step(session: Session, message: Any, *, ready: bool = True) -> Step:
    """What a message or an event makes of the session. `ready`: nothing waits for the device."""
    if not session.greeted and isinstance(message, PushMessage | Ack | Presence):
        error = "token_missing" if session.until is None else None
        return session, [Refuse(Unauthenticated(error) if error else BadRequest("hello_first"))]
    return _TABLE[type(message)](session, message, ready)


def _hello(session: Session, hello: Hello, _ready: bool) -> Step:
    if hello.token is None and session.until is None:
        return session, [Refuse(Unauthenticated("token_missing"))]
    check: list[Effect] = [Check(hello.token)] if hello.token is not None else []
    left = [name for name in session.spaces if name not in hello.spaces]
    kept = {name: at for name, at in session.spaces.items() if name in hello.spaces}
    leaving = [Leave(name) for name in left]
    opening = dict.fromkeys(hello.spaces, False)
    session = replace(session, spaces=kept, opening=opening)
    return session, [*check, *leaving, Open(hello.spaces)]


def _token(session: Session, message: Token, _ready: bool) -> Step:
    return session, [Check(message.token)]


def _admitted(session: Session, event: Admitted, _ready: bool) -> Step:
    return replace(session, until=event.until, warned=False), []


def _opened(session: Session, event: Opened, _ready: bool) -> Step:
    """Who followed a space already goes on where the stream stands."""
    spaces = dict(session.spaces)
    shown: dict[str, dict[str, Any]] = {}
    effects: list[Effect] = []
    for name, place in event.found.items():
        if isinstance(place, SyncError):
            shown[name] = {"error": place.as_dict()}
            if spaces.pop(name, None) is not None:
                effects.append(Leave(name))
            continue
        shown[name] = {"epoch": place.epoch, "head": place.head}
        if name not in spaces:
            asked = event.asked[name]
            spaces[name] = _follow(place, asked, told=session.opening.get(name, False))
            effects.append(ShowOthers(name))
            if 0 < asked.cursor <= place.head:
                effects.append(Remember(place.space, asked.epoch or place.epoch, asked.cursor))
    ready = Ready(event.server_time, event.limits, shown)
    opened = replace(session, spaces=spaces, opening={}, greeted=True)
    return opened, [Send(ready), *effects]


def _follow(place: Place, asked: Asked, *, told: bool) -> Following:
    stands = (asked.epoch or place.epoch, asked.cursor)
    behind = told or stands != place.newest
    return Following(place.space, asked.epoch, asked.cursor, behind=behind)


def _told(session: Session, event: Told, ready: bool) -> Step:
    following = session.spaces.get(event.name)
    if following is None and event.name in session.opening:
        # It was looked at before this, perhaps.
        return replace(session, opening={**session.opening, event.name: True}), []
    if following is None or following.behind:
        return session, []
    return _read(session, event.name, replace(following, behind=True), ready)


def _read(session: Session, name: str, following: Following, ready: bool) -> Step:
    """The next read of the space, where there is more and the device can take it."""
    effects: list[Effect] = []
    if ready and following.behind and following.reading is None:
        at, number = following, session.reads + 1
        effects = [Read(name, at.space, at.epoch, at.cursor, at.page, number, at.floor)]
        following = replace(following, behind=False, reading=number)
        session = replace(session, reads=number)
    return _put(session, name, following), effects


def _found(session: Session, event: Found, ready: bool) -> Step:
    """Only of the read that is on its way: who left and came back had another begun before."""
    at = session.spaces.get(event.name)
    if at is None or at.reading != event.number:
        return session, []
    if not ready:
        # It falls back to its cursor: what can't be taken now is read when it can.
        return _put(session, event.name, replace(at, reading=None, behind=True)), []
    more = at.behind or event.next_page is not None
    gone = replace(
        at,
        epoch=event.next_epoch,
        cursor=event.next_cursor,
        page=event.next_page,
        behind=more,
        reading=None,
        floor=at.floor if event.next_page is not None else 0,
    )
    sent: list[Effect] = [] if event.message is None else [Send(event.message)]
    return _put(session, event.name, gone), sent


def _reset_below(session: Session, event: ResetBelow, _ready: bool) -> Step:
    """What is on its way was not measured for this device: it is read anew, and replaced."""
    at = session.spaces.get(event.name)
    if at is None or not at.cursor < event.floor or at.floor == event.floor:
        return session, []
    anew = replace(at, floor=event.floor, page=None, behind=True, reading=None)
    return _put(session, event.name, anew), []


def _missed(session: Session, event: Missed, _ready: bool) -> Step:
    at = session.spaces.get(event.name)
    if at is None or at.reading != event.number:
        return session, []
    again = replace(at, reading=None, behind=True, page=None if event.anew else at.page)
    return _put(session, event.name, again), []


def _put(session: Session, name: str, following: Following) -> Session:
    return replace(session, spaces={**session.spaces, name: following})


def _seen(session: Session, event: Seen, ready: bool) -> Step:
    """Told at once or, but for who has gone, when the device has taken what it was sent."""
    at = session.spaces.get(event.name)
    if at is None:
        return session, []
    if ready or event.gone:
        return session, [Send(event.message)]
    return _put(session, event.name, replace(at, unseen=True)), []


def _drained(session: Session, _event: Drained, ready: bool) -> Step:
    effects: list[Effect] = []
    for name, following in session.spaces.items():
        if following.unseen and ready:
            session = _put(session, name, replace(following, unseen=False))
            effects.append(ShowOthers(name))
    for name, following in session.spaces.items():
        if following.behind and following.reading is None:
            session, read = _read(session, name, following, ready)
            effects += read
    return session, effects


def _lost(session: Session, event: Lost, _ready: bool) -> Step:
    if event.name not in session.spaces:
        return session, []
    spaces = {name: at for name, at in session.spaces.items() if name != event.name}
    told = Send(error_message(event.error, space=event.name))
    return replace(session, spaces=spaces), [Leave(event.name), told]


def _push(session: Session, message: PushMessage, _ready: bool) -> Step:
    return session, [Apply(message)]


def _ack(session: Session, message: Ack, _ready: bool) -> Step:
    """What the device can't have got is not remembered."""
    at = session.spaces.get(message.space)
    if at is None or at.epoch is None or not 0 < message.cursor <= at.cursor:
        return session, []
    return session, [Remember(at.space, at.epoch, message.cursor)]


def _presence(session: Session, message: Presence, _ready: bool) -> Step:
    if message.space not in session.spaces:
        error = BadRequest("bad_parameter", "Say hello to the space first.")
        return session, [Send(error_message(error, space=message.space))]
    return session, [Show(message.space, message.state)]


def _ping(session: Session, _message: Ping, _ready: bool) -> Step:
    return session, [Send(Pong())]


def _tick(session: Session, event: Tick, _ready: bool) -> Step:
    if session.until is None:
        late = event.now - session.began > HELLO_MS
        return session, [Refuse(Unauthenticated("token_missing"))] if late else []
    left = session.until - event.now
    if left <= 0:
        return session, [Refuse(Unauthenticated("token_expired"))]
    if left <= WARN_MS and not session.warned:
        return replace(session, warned=True), [Send(TokenExpiring(left // 1000))]
    return session, []


_TABLE: Final[dict[type, Callable[[Session, Any, bool], Step]]] = {
    Hello: _hello,
    PushMessage: _push,
    Ack: _ack,
    Token: _token,
    Presence: _presence,
    Ping: _ping,
    Admitted: _admitted,
    Opened: _opened,
    Told: _told,
    Found: _found,
    ResetBelow: _reset_below,
    Missed: _missed,
    Lost: _lost,
    Seen: _seen,
    Drained: _drained,
    Tick: _tick,
}
