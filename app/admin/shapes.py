"""What an admin question may ask: query parameters and bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from marshmallow import fields, validate

from app.admin.devices import STATES
from app.admin.paging import PAGE_ROWS, PAGE_ROWS_MAX, TOKEN_CHARS_MAX
from app.schemas import EMAIL_CHARS_MAX, NAME_CHARS_MAX, Identifier, Shape, Text, Whole
from storage.search import DeviceQuery

# Seconds of a century: more is a slip of the keyboard.
SECONDS_MAX: Final = 100 * 366 * 86_400


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
