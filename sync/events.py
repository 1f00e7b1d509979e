"""What happens in a live conversation, and what is to be done about it: values of session.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from sync.errors import SyncError
from sync.messages import Asked
from sync.requests import PushMessage


class Following(Struct, frozen=True):
    """A space that the device follows, and where the stream to it stands. `page`: within a
    transfer. `behind`: there is more. `reading`: the number of the read that is on its way.
    `unseen`: what others show of themselves was not told. `floor`: below it support staff asked
    this device to reset.
    """

    space: str
    epoch: int | None
    cursor: int
    page: str | None = None
    behind: bool = False
    reading: int | None = None
    unseen: bool = False
    floor: int = 0


class Session(Struct, frozen=True):
    """`until`: when the token ends, None before one was checked; times in ms since 1970.
    `opening`: the spaces that are looked for, and whether one was told of meanwhile. `reads`: how
    many were begun.
    """

    began: int
    until: int | None = None
    greeted: bool = False
    warned: bool = False
    spaces: Mapping[str, Following] = {}
    opening: Mapping[str, bool] = {}
    reads: int = 0


# Events of the server's own -------------------------------------------------------------------


class Admitted(Struct, frozen=True):
    """The token is good until then."""

    until: int


class Place(Struct, frozen=True):
    """A space as it was found, by its id. `newest`: (epoch, head) after hints began to come."""

    space: str
    epoch: int
    head: int
    newest: tuple[int, int]


class Opened(Struct, frozen=True):
    """What became of the spaces of a hello, by the names that the device used."""

    server_time: int
    limits: dict[str, int]
    asked: Mapping[str, Asked]
    found: Mapping[str, Place | SyncError]


class Told(Struct, frozen=True):
    """The space advanced."""

    name: str


class Found(Struct, frozen=True):
    """A delta that was read. `message`: it, as it is sent; None: it holds nothing. `resets`: the
    devices that were asked to reset, and below which cursor. `number`: the read's; it is put in
    for each session, for many are given the same delta.
    """

    name: str
    next_epoch: int
    next_cursor: int
    next_page: str | None
    message: Any
    resets: Mapping[str, int] = {}
    number: int = 0


class ResetBelow(Struct, frozen=True):
    """Support staff asked this device to reset where its cursor is below that."""

    name: str
    floor: int


class Missed(Struct, frozen=True):
    """A read came to nothing. `anew`: the transfer can't go on, it starts again."""

    name: str
    anew: bool = False
    number: int = 0


class Lost(Struct, frozen=True):
    """The device may not follow the space any more."""

    name: str
    error: SyncError


class Seen(Struct, frozen=True):
    """Another device shows itself, or, `gone`, does not any more."""

    name: str
    message: Any
    gone: bool


class Drained(Struct, frozen=True):
    """The device has taken all that it was sent."""


class Tick(Struct, frozen=True):
    now: int


# Effects --------------------------------------------------------------------------------------


class Check(Struct, frozen=True):
    """The token: `Admitted`, or the end."""

    token: str


class Open(Struct, frozen=True):
    """Look for the spaces, and have their hints come: `Opened`."""

    asked: Mapping[str, Asked]


class Leave(Struct, frozen=True):
    """No more hints of this space."""

    name: str


class Send(Struct, frozen=True):
    message: Any


class Read(Struct, frozen=True):
    """What the cursor has not seen: `Found` or `Missed`, of that number, from 1 on."""

    name: str
    space: str
    epoch: int | None
    cursor: int
    page: str | None
    number: int
    floor: int = 0


class Apply(Struct, frozen=True):
    """Push; the answer is `Pushed` or an error with its `ref`."""

    push: PushMessage


class Remember(Struct, frozen=True):
    """The device has applied so much."""

    space: str
    epoch: int
    cursor: int


class Show(Struct, frozen=True):
    """The device's presence."""

    name: str
    state: dict[str, Any] | None


class ShowOthers(Struct, frozen=True):
    """What the others in the space show, now: `Seen` of each."""

    name: str


class Refuse(Struct, frozen=True):
    """Tell the error, and close where its kind closes."""

    error: SyncError


Effect = Check | Open | Leave | Send | Read | Apply | Remember | Show | ShowOthers | Refuse
