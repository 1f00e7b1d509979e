"""What a cursor has not seen.

A delta is always measured from the cursor: of each record changed after it, the fields changed
after it, with their merged values, however often they changed in between. Pages walk the records
by the position of their last change, so a record that changes meanwhile is met again further on;
the cursor moves only when the last page has been read, so no field slips between two pages.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from sync.answers import RecordDelta, SiblingShown
from sync.changes import Natural
from sync.errors import BadRequest, Refused
from sync.fields import Names, Sibling
from sync.stored import Causality, StoredRecord, causality_of, has_documents, values_of
from sync.values import Value, check_text, equal, fitting

# Values as JSON text: most are passed on without a look at them.
_RAW_VALUES: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Place(Struct, frozen=True, array_like=True):
    """Where a page ended: the position, collection and id of its last record."""

    position: Natural
    collection: str
    id: str


class PageToken(Struct, frozen=True, array_like=True):
    """A transfer that goes on. `head` is the head when it began: what was deleted before that,
    a device that starts from nothing need not hear of. `reset`: the transfer replaces its copy.
    """

    space: str
    epoch: int
    cursor: Natural
    head: Natural
    reset: bool
    after: Place


_TOKEN = msgspec.msgpack.Decoder(PageToken)
_CHECK_BYTES = 8


def write_token(token: PageToken) -> str:
    """URL-safe text. Its check finds damage, not forgery: a forger would fool only themselves."""
    packed = msgspec.msgpack.encode(token)
    check = blake2b(packed, digest_size=_CHECK_BYTES).digest()
    return base64.urlsafe_b64encode(check + packed).decode().rstrip("=")


def read_token(text: str, space: str, epoch: int, cursor: int, horizon: int) -> PageToken:
    """Raises `BadRequest` (`bad_page`) for one that is damaged, or from another transfer, or
    whose transfer began before tombstones that are gone now.
    """
    try:
        whole = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), b"-_", validate=True)
        check, packed = whole[:_CHECK_BYTES], whole[_CHECK_BYTES:]
        token = _TOKEN.decode(packed)
        check_text(token.after.collection + token.after.id)
    except (ValueError, msgspec.MsgspecError, Refused):
        raise BadRequest("bad_page") from None
    if blake2b(packed, digest_size=_CHECK_BYTES).digest() != check:
        raise BadRequest("bad_page")
    expected = (space, epoch, cursor)
    if (token.space, token.epoch, token.cursor) != expected or token.head < horizon:
        raise BadRequest("bad_page", "the token belongs to a transfer that can't go on")
    return token


def needs_reset(cursor: int, epoch: int | None, current: int, survived: int, horizon: int) -> bool:
    """Whether a device must replace its copy: its cursor is from a lost history, or older than
    the oldest tombstone still kept.

    `survived`: up to which position the history of the cursor's epoch is that of the current one.
    """
    lost = cursor > survived or (epoch is not None and epoch > current)
    return lost or 0 < cursor < horizon


def delta(row: StoredRecord, cursor: int, names: Names, raw: bool) -> RecordDelta:
    """The record as a device at `cursor` needs it, less its documents (see `documents_wanted`).
    `raw`: values as JSON text, to be spliced in.
    """
    key = (row.collection, row.id, row.position)
    if row.deleted:
        return RecordDelta(*key, deleted=True)
    packed = causality_of(row)
    # At cursor 0 too: an earlier page of the same transfer may have brought the old row.
    whole = packed.whole > cursor
    if cursor == 0 and raw and not row.conflicts and not has_documents(row):
        return RecordDelta(*key, replace=whole, fields=msgspec.Raw(row.data))
    fields = _fields(row, packed, 0 if whole else cursor, raw)
    conflicts = _conflicts(row, packed, fields, names) if row.conflicts else {}
    return RecordDelta(*key, replace=whole, fields=fields, conflicts=conflicts)


def _fields(row: StoredRecord, packed: Causality, cursor: int, raw: bool) -> dict[str, Value]:
    values = _RAW_VALUES.decode(row.data) if raw else fitting(values_of(row))
    for name in packed.documents:
        values.pop(name, None)
    if cursor == 0:
        return values
    return {name: v for name, v in values.items() if packed.position_of(name) > cursor}


class Wanted(NamedTuple):
    """A document of which a delta brings the updates after `cursor`."""

    collection: str
    id: str
    field: str
    cursor: int


def documents_wanted(row: StoredRecord, cursor: int) -> list[Wanted]:
    """The documents that a device at `cursor` has not seen as they are."""
    if row.deleted or not has_documents(row):
        return []
    packed = causality_of(row)
    base = 0 if packed.whole > cursor else cursor
    return [
        Wanted(row.collection, row.id, name, base)
        for name, (position, *_shown) in packed.documents.items()
        if position > base
    ]


def _conflicts(
    row: StoredRecord, packed: Causality, fields: Mapping[str, Value], names: Names
) -> dict[str, list[SiblingShown]]:
    values = values_of(row)
    found: dict[str, list[SiblingShown]] = {}
    for name in fields:
        if packed.is_register(name):
            siblings = packed.siblings_of(name, values[name])
            if any(not equal(siblings[0].value, sibling.value) for sibling in siblings[1:]):
                found[name] = [_shown(sibling, names) for sibling in siblings]
    return found


def _shown(sibling: Sibling, names: Names) -> SiblingShown:
    write = sibling.write
    return SiblingShown(sibling.value, names(write.replica), write.at, write.position)
