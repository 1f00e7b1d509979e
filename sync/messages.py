"""What travels on a live websocket, and how it is read. The conversation is in session.py."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sync.answers import RecordDelta, Rejection
from sync.changes import Counted, Int64, Natural
from sync.errors import BadRequest, Refused, SyncError, TooLarge
from sync.limits import Limits
from sync.requests import PushMessage, Source, read_push_message
from sync.values import check_text, check_value

# What is no push is small: a hello to as many spaces as one may name has a tenth of it.
SMALL_BYTES: Final = 64 * 2**10


class Asked(Struct, frozen=True):
    """Where a device stands in a space; as in `sync.requests.SpaceRequest`."""

    epoch: Counted | None = None
    cursor: Natural = 0
    counter: Natural | None = None


class Hello(Struct, frozen=True):
    """The spaces that the device wants, all of them: what it does not name, it leaves."""

    spaces: dict[str, Asked]
    token: str | None = None
    sent_at: Int64 | None = None


class Ack(Struct, frozen=True):
    """What the device has applied."""

    space: str
    cursor: Natural


class Token(Struct, frozen=True):
    """A fresh access token of the same device."""

    token: str


class Presence(Struct, frozen=True):
    """What others shall see of the device while it is here; None: nothing."""

    space: str
    state: Any


class Ping(Struct, frozen=True):
    pass


Message = Hello | PushMessage | Ack | Token | Presence | Ping
_SMALL: Final[dict[str, type[Hello | Ack | Token | Presence | Ping]]] = {
    "hello": Hello,
    "ack": Ack,
    "token": Token,
    "presence": Presence,
    "ping": Ping,
}


class _Kind(Struct):
    type: str


_KIND: Final = {
    "json": msgspec.json.Decoder(_Kind).decode,
    "msgpack": msgspec.msgpack.Decoder(_Kind).decode,
}


def read_message(source: Source, limits: Limits) -> Message:
    """Raises `BadRequest`, `TooLarge` for what is no message, or too much of one."""
    kind = _kind(source)
    if kind == "push":
        return read_push_message(source, limits)
    if kind not in _SMALL:
        raise BadRequest("unknown_message")
    if len(source.data) > SMALL_BYTES:
        raise TooLarge("message_too_large", limit=SMALL_BYTES)
    return _read_small(_tree(source), kind, limits)


def _kind(source: Source) -> str:
    try:
        return _KIND[source.format](source.data).type
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    found = _tree(source).get("type")
    if not isinstance(found, str):
        raise BadRequest("malformed_request", "The message has no `type`.")
    return found


class About(Struct, frozen=True):
    """What a message that can't be taken was about, as far as it can be told."""

    ref: int | str | None = None
    space: str | None = None


_ABOUT: Final = {
    "json": msgspec.json.Decoder(About).decode,
    "msgpack": msgspec.msgpack.Decoder(About).decode,
}


def about(source: Source) -> About:
    """For the error that answers it."""
    try:
        return _ABOUT[source.format](source.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return About()


def _read_small(tree: dict[str, Any], kind: str, limits: Limits) -> Message:
    try:
        made = msgspec.convert(tree, _SMALL[kind])
    except msgspec.ValidationError as error:
        raise BadRequest("malformed_request", str(error)) from None
    except UnicodeEncodeError:
        raise BadRequest("invalid_text") from None
    if isinstance(made, Hello):
        _check_hello(made, tree, limits)
    if isinstance(made, Presence):
        _check_presence(made, limits)
    return made


def _check_hello(hello: Hello, tree: dict[str, Any], limits: Limits) -> None:
    if len(hello.spaces) > limits.spaces_per_request:
        raise BadRequest("too_many_spaces", f"{limits.spaces_per_request} spaces at most")
    if any(type(part) is not dict for part in (tree["spaces"], *tree["spaces"].values())):
        raise BadRequest("duplicate_key")
    try:
        check_text("".join(hello.spaces))
    except Refused as error:
        raise BadRequest(error.code, f"`spaces`: {error.detail}") from None


def _check_presence(presence: Presence, limits: Limits) -> None:
    if presence.state is not None and not isinstance(presence.state, dict):
        raise BadRequest("malformed_request", "`state` is no object")
    try:
        check_value(presence.state, limits)
    except Refused as error:
        code = error.code if error.code in BadRequest.CODES else "malformed_request"
        raise BadRequest(code, f"`state`: {error.detail}") from None
    if len(msgspec.json.encode(presence.state)) > limits.presence_bytes:
        raise TooLarge("message_too_large", "`state` is too large", limit=limits.presence_bytes)


def _tree(source: Source) -> dict[str, Any]:
    tree = source.parse()
    if isinstance(tree, source.doubled):
        raise BadRequest("duplicate_key")
    if not isinstance(tree, dict):
        raise BadRequest("malformed_request", "The message is no object.")
    return tree


# From the server ------------------------------------------------------------------------------


class Ready(Struct, frozen=True, tag_field="type", tag="ready"):
    """`spaces` by the names that the device used: {"epoch", "head"}, or {"error"}."""

    server_time: int
    limits: dict[str, int]
    spaces: dict[str, dict[str, Any]]


class Delta(
    Struct, frozen=True, tag_field="type", tag="delta", kw_only=True, rename={"from_": "from"}
):
    """As a page of `SpaceAnswer`; `partial` ones belong together with the one that follows."""

    space: str
    epoch: int
    from_: int
    records: list[RecordDelta]
    cursor: int
    partial: bool
    reset: bool
    clock: dict[str, int]


class Pushed(Struct, frozen=True, tag_field="type", tag="pushed"):
    """As the answer to a push: what is acknowledged is on the disk."""

    ref: int | str | None
    space: str
    epoch: int
    accepted: int
    rejected: list[Rejection]
    head: int


class Present(Struct, frozen=True, tag_field="type", tag="presence"):
    """`state` None: the device has left."""

    space: str
    device: str
    state: dict[str, Any] | None


class TokenExpiring(
    Struct, frozen=True, tag_field="type", tag="token_expiring", rename={"in_": "in"}
):
    """`in`: seconds."""

    in_: int


class Pong(Struct, frozen=True, tag_field="type", tag="pong"):
    pass


def error_message(
    error: SyncError, ref: int | str | UnsetType | None = UNSET, space: str | None = None
) -> dict[str, Any]:
    """{"type": "error", "code", "detail", …}, with what it is about."""
    about: dict[str, Any] = {"type": "error", **error.as_dict()}
    if ref is not UNSET and ref is not None:
        about["ref"] = ref
    return about if space is None else {**about, "space": space}
