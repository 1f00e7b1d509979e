"""What a device asks for in one round trip, and how it is read: fast, or forgiving.

The fast way decodes bytes straight into values. Whatever that way can't take, or would take only
by passing something over (a key twice, an explicit default), goes the forgiving way, which reads
a tree first and gives a verdict on each change. Both give the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from sync.changes import BadChange, Change, Counted, Int64, Natural, check, from_tree
from sync.errors import BadRequest, Refused
from sync.limits import Limits
from sync.values import check_text

Format = Literal["json", "msgpack"]


class Client(Struct, frozen=True, omit_defaults=True):
    """What support staff see of the device."""

    app_version: str = ""
    pending: Natural = 0
    oldest_pending_at: Int64 | None = None


class Pull(Struct, frozen=True, omit_defaults=True):
    """Where a device stands in a space. `epoch` is what the last answer said, or none."""

    epoch: Counted | None = None
    cursor: Natural = 0
    page: str | None = None
    limit: Counted | None = None


class SpaceRequest(Pull, frozen=True, omit_defaults=True):
    """A device's half of the conversation about one space.

    `counter` is the highest counter that it ever used here, `discarded` the highest of those
    that the server lacks and that it can't give back.
    """

    counter: Natural | None = None
    discarded: Natural | None = None
    changes: list[Change | BadChange] = []


class Push(SpaceRequest, frozen=True, omit_defaults=True):
    """One space's object as the body of its own request."""

    sent_at: Int64 | None = None


class PushMessage(Push, frozen=True, omit_defaults=True):
    """A push on a websocket: which space it is for, and the device's own name for it."""

    type: str = "push"
    space: str = ""
    ref: int | str | None = None


class SyncRequest(Struct, frozen=True, omit_defaults=True):
    spaces: dict[str, SpaceRequest] = {}
    sent_at: Int64 | None = None
    client: Client | None = None


T = TypeVar("T")


# What the decoders are made for: a default that was written out is told from one left out, so that
# `_faithful` can count, and msgspec's unions of structs can't hold `BadChange` too.
class SpacePart(Struct, frozen=True):
    """A space's part of a request, as it travels; see `SpaceRequest`."""

    epoch: Counted | UnsetType | None = UNSET
    cursor: Natural | UnsetType = UNSET
    page: str | UnsetType | None = UNSET
    limit: Counted | UnsetType | None = UNSET
    counter: Natural | UnsetType | None = UNSET
    discarded: Natural | UnsetType | None = UNSET
    changes: list[Change] | UnsetType = UNSET


class PushBody(SpacePart, frozen=True):
    """`sent_at`: ms since 1970 by the device's clock."""

    sent_at: Int64 | UnsetType | None = UNSET


class PushMessageBody(PushBody, frozen=True, kw_only=True):
    """A push on a websocket. `ref` is the device's own, given back with the answer."""

    type: str
    space: str
    ref: int | str | UnsetType | None = UNSET


class SyncBody(Struct, frozen=True):
    """All spaces at once; `sent_at` as in `PushBody`."""

    spaces: dict[str, SpacePart] | UnsetType = UNSET
    sent_at: Int64 | UnsetType | None = UNSET
    client: Client | UnsetType | None = UNSET


def _no_extension(code: int, _data: memoryview) -> object:
    """Only the forgiving parser makes of an extension what can be written down, the same twice."""
    raise msgspec.ValidationError(f"an extension of type {code}")


_DECODE: dict[tuple[str, type], Callable[[bytes], Any]] = {
    ("json", SyncBody): msgspec.json.Decoder(SyncBody).decode,
    ("json", PushBody): msgspec.json.Decoder(PushBody).decode,
    ("json", PushMessageBody): msgspec.json.Decoder(PushMessageBody).decode,
    ("msgpack", PushMessageBody): msgspec.msgpack.Decoder(
        PushMessageBody, ext_hook=_no_extension
    ).decode,
    ("msgpack", SyncBody): msgspec.msgpack.Decoder(SyncBody, ext_hook=_no_extension).decode,
    ("msgpack", PushBody): msgspec.msgpack.Decoder(PushBody, ext_hook=_no_extension).decode,
}


@dataclass(frozen=True, slots=True)
class Source:
    """A request's bytes, and the forgiving parser for the second look at them.

    `parse` gives dicts, lists and scalars, marks an object that names a key twice by the class
    `doubled`, and raises `BadRequest` for what is not of the format at all.
    """

    data: bytes
    format: Format
    parse: Callable[[], object]
    doubled: type[dict[str, Any]]


def read_sync(source: Source, limits: Limits) -> SyncRequest:
    """Raises `BadRequest` for a broken envelope."""
    try:
        return _read_sync(source, limits)
    except RecursionError:
        raise BadRequest("too_deep") from None


def read_push(source: Source, limits: Limits) -> Push:
    """Raises `BadRequest` for a broken envelope."""
    try:
        return Push(**_read_push(source, limits, PushBody))
    except RecursionError:
        raise BadRequest("too_deep") from None


def read_push_message(source: Source, limits: Limits) -> PushMessage:
    """As `read_push`, of a message on a websocket."""
    try:
        return PushMessage(**_read_push(source, limits, PushMessageBody))
    except RecursionError:
        raise BadRequest("too_deep") from None


def _read_sync(source: Source, limits: Limits) -> SyncRequest:
    fast: SyncBody | None = _fast(source, SyncBody)
    if fast is not None:
        parts = {key: _space(part, limits) for key, part in (fast.spaces or {}).items()}
    else:
        tree = _tree(source)
        trees = _object(tree.get("spaces", {}), source, "`spaces`")
        parts = {
            key: _space_from_tree(SpacePart, part, limits, source) for key, part in trees.items()
        }
        _object(tree.get("client") or {}, source, "`client`")
        fast = _convert({**tree, "spaces": {}}, SyncBody)
    request = SyncRequest(
        {key: SpaceRequest(**part) for key, part in parts.items()},
        None if fast.sent_at is UNSET else fast.sent_at,
        None if fast.client is UNSET else fast.client,
    )
    _check_names(request.spaces)
    if request.client is not None:
        _check_client(request.client)
    if len(request.spaces) > limits.spaces_per_request:
        raise BadRequest("too_many_spaces", f"{limits.spaces_per_request} spaces at most")
    _check_count(sum(len(space.changes) for space in request.spaces.values()), limits)
    return request


def _read_push(source: Source, limits: Limits, kind: type[PushBody]) -> dict[str, Any]:
    fast: PushBody | None = _fast(source, kind)
    if fast is not None:
        part = _space(fast, limits)
    else:
        part = _space_from_tree(kind, _tree(source), limits, source)
    _check_count(len(part["changes"]), limits)
    return part


def _fast(source: Source, kind: type) -> Any:
    """The request, or None where it must be read the forgiving way."""
    try:
        request = _DECODE[source.format, kind](source.data)
        return request if _faithful(source, request) else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError):
        return None


def _faithful(source: Source, request: object) -> bool:
    """Whether decoding passed nothing over.

    Written down again, the request has no key that it did not have, so equal counts of quotes
    (of bytes, in MessagePack) mean that no key was lost. An escaped quote could upset the count,
    and so could a float of 32 bits (it begins with 0xCA), which is written down with 64.
    """
    if source.format == "msgpack":
        again = msgspec.msgpack.encode(request)
        return len(again) == len(source.data) and b"\xca" not in source.data
    if b"\\u" in source.data:
        return False
    return msgspec.json.encode(request).count(b'"') == source.data.count(b'"')


def _space(fast: SpacePart, limits: Limits) -> dict[str, Any]:
    """The members that the device gave."""
    given = {name: getattr(fast, name) for name in fast.__struct_fields__}
    part = {name: value for name, value in given.items() if value is not UNSET}
    part["changes"] = [check(change, limits) for change in fast.changes or ()]
    return part


def _space_from_tree(
    kind: type[SpacePart], tree: object, limits: Limits, source: Source
) -> dict[str, Any]:
    given = _object(tree, source, "a space")
    changes = given.get("changes", [])
    if not isinstance(changes, list):
        raise BadRequest("malformed_request", "`changes` is no array")
    _check_count(len(changes), limits)
    part = _space(_convert({**given, "changes": []}, kind), limits)
    part["changes"] = [from_tree(change, limits, source.doubled) for change in changes]
    return part


def _tree(source: Source) -> dict[str, Any]:
    return _object(source.parse(), source, "the body")


def _object(tree: object, source: Source, what: str) -> dict[str, Any]:
    if isinstance(tree, source.doubled):
        raise BadRequest("duplicate_key", f"{what} names a key twice")
    if not isinstance(tree, dict) or not all(type(key) is str for key in tree):
        raise BadRequest("malformed_request", f"{what} is no object")
    return tree


def _convert(tree: dict[str, Any], kind: type[T]) -> T:
    try:
        return msgspec.convert(tree, kind)
    except msgspec.ValidationError as error:
        raise BadRequest("malformed_request", str(error)) from None
    except UnicodeEncodeError:
        raise BadRequest("invalid_text") from None


def _check_names(spaces: Iterable[str]) -> None:
    """The answer calls the spaces by the same names: it must be possible to write them."""
    try:
        check_text("".join(spaces))
    except Refused as error:
        raise BadRequest(error.code, f"`spaces`: {error.detail}") from None


def _check_client(client: Client) -> None:
    try:
        check_text(client.app_version)
    except Refused as error:
        raise BadRequest("malformed_request", f"`app_version`: {error.detail}") from None


def _check_count(count: int, limits: Limits) -> None:
    if count > limits.changes_per_request:
        most = limits.changes_per_request
        raise BadRequest("too_many_changes", f"{count} changes; {most} at most")
