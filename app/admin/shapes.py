"""What an admin question may ask: query parameters and bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from marshmallow import ValidationError, fields, validate

from app.admin.devices import STATES
from app.admin.paging import PAGE_ROWS, PAGE_ROWS_MAX, TOKEN_CHARS_MAX
from app.admin.quarantine import STATES as QUARANTINE_STATES
from app.schemas import EMAIL_CHARS_MAX, NAME_CHARS_MAX, Identifier, Shape, Text, Whole
from storage.search import DeviceQuery

# Seconds of a century: more is a slip of the keyboard.
SECONDS_MAX: Final = 100 * 366 * 86_400
REASON_CHARS_MAX: Final = 1_000
# More than any limit on ids that an operator may set: they are only looked up.
KEY_CHARS_MAX: Final = 4_096


def _limit() -> Whole:
    return Whole(least=1, most=PAGE_ROWS_MAX)


def _page() -> Text:
    return Text(most=TOKEN_CHARS_MAX, metadata={"description": "`page` of the answer before."})


@dataclass(frozen=True, slots=True)
class Paged:
    """Which page of a list."""

    page: str | None = None
    limit: int = PAGE_ROWS


class PagedQuery(Shape[Paged]):
    """Which page of a list."""

    MADE = Paged
    page = _page()
    limit = _limit()


@dataclass(frozen=True, slots=True)
class UsersWanted(Paged):
    """Users by how their email begins, or by id."""

    email: str | None = None
    id: UUID | None = None


class UsersQuery(Shape[UsersWanted]):
    """Users by how their email begins, or by id."""

    MADE = UsersWanted
    page = _page()
    limit = _limit()
    email = Text(most=EMAIL_CHARS_MAX, metadata={"description": "How it begins."})
    id = Identifier()


@dataclass(frozen=True, slots=True)
class DevicesWanted(Paged):
    """Devices that fit all that is given."""

    q: str | None = None
    id: UUID | None = None
    user: UUID | None = None
    email: str | None = None
    name: str | None = None
    platform: str | None = None
    app_version: str | None = None
    state: str | None = None
    behind: int | None = None
    behind_seconds: int | None = None

    @property
    def query(self) -> DeviceQuery:
        """As storage takes it."""
        seconds = self.behind_seconds
        return DeviceQuery(
            q=self.q,
            id=self.id,
            user=self.user,
            email=self.email,
            name=self.name,
            platform=self.platform,
            app_version=self.app_version,
            state=self.state,
            behind=self.behind,
            behind_ms=None if seconds is None else seconds * 1000,
        )


def _beginning(most: int = NAME_CHARS_MAX) -> Text:
    return Text(most=most, metadata={"description": "How it begins, in any case."})


class DevicesQuery(Shape[DevicesWanted]):
    """Devices that fit all that is given."""

    MADE = DevicesWanted
    page = _page()
    limit = _limit()
    q = Text(
        most=EMAIL_CHARS_MAX,
        metadata={"description": "An id, or how an email or a device's name begins."},
    )
    id = Identifier()
    user = Identifier()
    email = _beginning(EMAIL_CHARS_MAX)
    name = _beginning()
    platform = _beginning()
    app_version = _beginning()
    state: Any = fields.String(validate=validate.OneOf(STATES))
    behind = Whole(metadata={"description": "More changes than that behind."})
    behind_seconds = Whole(most=SECONDS_MAX, metadata={"description": "Behind for longer."})


class Flag(fields.Field[bool]):
    """`true` or `false` in a query."""

    def _deserialize(self, value: object, *_: Any, **__: Any) -> bool:
        if value not in {"true", "false"}:
            raise ValidationError("Write true or false.")
        return value == "true"


def _values() -> Flag:
    return Flag(
        metadata={
            "type": "boolean",
            "description": "Open the values; takes a `reason`, and is audited.",
        }
    )


def _reason() -> Text:
    return Text(most=REASON_CHARS_MAX, metadata={"description": "Why the values are opened."})


@dataclass(frozen=True, slots=True)
class Opening(Paged):
    """Whether values are to be seen, and why."""

    values: bool = False
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class LogWanted(Opening):
    """A part of a log: before a position, by one device."""

    before: int | None = None
    device: UUID | None = None


class LogQuery(Shape[LogWanted]):
    """A part of a log: before a position, by one device."""

    MADE = LogWanted
    page = _page()
    limit = _limit()
    values = _values()
    reason = _reason()
    before = Whole(least=1)
    device = Identifier()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordWanted(Opening):
    """A record, now or as it was at a position."""

    collection: str
    id: str
    at: int | None = None


class RecordQuery(Shape[RecordWanted]):
    """A record, now or as it was at a position; or its history."""

    MADE = RecordWanted
    page = _page()
    limit = _limit()
    values = _values()
    reason = _reason()
    collection = Text(most=KEY_CHARS_MAX, required=True)
    id = Text(most=KEY_CHARS_MAX, required=True)
    at = Whole(least=0, metadata={"description": "A position: the record as it was there."})


@dataclass(frozen=True, slots=True)
class ConflictsWanted(Opening):
    """Conflicts of one space or of all."""

    space: UUID | None = None


class ConflictsQuery(Shape[ConflictsWanted]):
    """Conflicts of one space or of all."""

    MADE = ConflictsWanted
    page = _page()
    limit = _limit()
    values = _values()
    reason = _reason()
    space = Identifier()


@dataclass(frozen=True, slots=True)
class QuarantineWanted(Paged):
    """Changes put aside that fit."""

    space: UUID | None = None
    device: UUID | None = None
    code: str | None = None
    state: str = "open"


class QuarantineQuery(Shape[QuarantineWanted]):
    """Changes put aside that fit."""

    MADE = QuarantineWanted
    page = _page()
    limit = _limit()
    space = Identifier()
    device = Identifier()
    code = Text(most=NAME_CHARS_MAX, metadata={"description": "The code of the error."})
    state: Any = fields.String(validate=validate.OneOf(QUARANTINE_STATES))


@dataclass(frozen=True, slots=True)
class Opened:
    """Whether values are to be seen, and why."""

    values: bool = False
    reason: str | None = None


class OpenedQuery(Shape[Opened]):
    """Whether values are to be seen, and why."""

    MADE = Opened
    values = _values()
    reason = _reason()


@dataclass(frozen=True, slots=True)
class AuditWanted(Paged):
    """A part of the audit trail. `subject`: a user, a device or a space."""

    actor: UUID | None = None
    action: str | None = None
    subject: UUID | None = None


class AuditQuery(Shape[AuditWanted]):
    """A part of the audit trail."""

    MADE = AuditWanted
    page = _page()
    limit = _limit()
    actor = Identifier()
    action = Text(most=NAME_CHARS_MAX)
    subject = Identifier(metadata={"description": "A user, a device or a space."})
