"""Request bodies as marshmallow schemas, answers as msgspec structs: all but the changes.

Promises: past `Shape.load` there are frozen values; every text is free of NUL and lone
surrogates, which PostgreSQL can't hold, and no longer than its schema says; strings are never
made of numbers, nor numbers of strings.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Generic, TypeVar, cast
from uuid import UUID

import msgspec
from marshmallow import Schema, ValidationError, fields, post_load, validate

from sync.errors import BadRequest

T = TypeVar("T")

# RFC 5321 §4.5.3.1.3: a path of 256 octets, with its angle brackets.
EMAIL_CHARS_MAX: Final = 254
PASSWORD_CHARS_MIN: Final = 8
# argon2 takes any length; this bounds the work of normalising.
PASSWORD_CHARS_MAX: Final = 1024
NAME_CHARS_MAX: Final = 200
INT64_MAX: Final = 2**63 - 1

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_EMAIL: Final = validate.Email()


class Shape(Schema, Generic[T]):
    """A schema that loads into `MADE`, a frozen dataclass with the same names."""

    MADE: ClassVar[type[Any]]

    @post_load
    def _make(self, data: Mapping[str, Any], **_: object) -> T:
        return cast("T", self.MADE(**data))


# Fields -------------------------------------------------------------------------------------


def require_clean(text: str) -> str:
    """The text, which PostgreSQL can hold; raises BadRequest("invalid_text")."""
    if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
        raise BadRequest("invalid_text")
    return text


class Text(fields.String):
    """A string of bounded length without NUL or lone surrogates."""

    def __init__(self, *, most: int, least: int = 0, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(min=least, max=most), **kwargs)
        self.most = most

    def _deserialize(self, value: object, *_: Any, **__: Any) -> str:
        # marshmallow would also take bytes, which MessagePack has.
        if not isinstance(value, str):
            raise self.make_error("invalid")
        # Validators come after this and all run: nothing costly may happen to a huge text.
        return require_clean(value) if len(value) <= self.most else value


class Email(Text):
    """An address in the form that accounts are kept under, see `email_of`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(most=EMAIL_CHARS_MAX, **kwargs)

    def _deserialize(self, value: object, *args: Any, **kwargs: Any) -> str:
        email = email_of(super()._deserialize(value, *args, **kwargs))
        if email is None:
            raise ValidationError("Not a valid email address.")
        return email


def email_of(text: str) -> str | None:
    """The address trimmed, in NFC, case-folded: one account for each. None: it is no address."""
    if len(text) > EMAIL_CHARS_MAX:
        return None
    email = unicodedata.normalize("NFC", text.strip()).casefold()
    try:
        return str(_EMAIL(require_clean(email))) if len(email) <= EMAIL_CHARS_MAX else None
    except (ValidationError, BadRequest):
        return None


def normal_password(text: str) -> str:
    """The password in NFC, so that one typed on another platform's keyboard is the same."""
    return unicodedata.normalize("NFC", text)


class Password(Text):
    """A password as `normal_password` makes it."""

    def __init__(self, *, least: int = 0, **kwargs: Any) -> None:
        super().__init__(most=PASSWORD_CHARS_MAX, least=least, load_only=True, **kwargs)

    def _deserialize(self, value: object, *args: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, *args, **kwargs)
        return normal_password(text) if len(text) <= self.most else text


class Identifier(fields.UUID):
    """A UUID as text of 36 characters: no braces, no URN, no bytes."""

    def _validated(self, value: object) -> UUID:
        if not (isinstance(value, str) and _UUID.match(value)):
            raise self.make_error("invalid_uuid")
        return UUID(value)


class Whole(fields.Integer):
    """A whole number of 64 bits in a query: ASCII digits, after a `-` if need be."""

    def __init__(self, *, least: int = 0, most: int = INT64_MAX, **kwargs: Any) -> None:
        super().__init__(validate=validate.Range(least, most), **kwargs)

    def _validated(self, value: object) -> int:
        # int() would take spaces, underscores, other scripts' digits, True and 1.5.
        if not isinstance(value, str) or not re.fullmatch(r"-?[0-9]{1,20}", value):
            raise self.make_error("invalid", input=value)
        return int(value)


# Accounts and devices -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credentials:
    """An account to be made."""

    email: str
    password: str


class SignupBody(Shape[Credentials]):
    """Who wants an account."""

    MADE = Credentials
    email = Email(required=True, metadata={"format": "email"})
    password = Password(least=PASSWORD_CHARS_MIN, required=True, metadata={"format": "password"})


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What a device says of itself. None: it said nothing of that."""

    name: str | None = None
    platform: str | None = None
    app_version: str | None = None
    replaces: UUID | None = None


class DeviceBody(Shape[DeviceInfo]):
    """What a device says of itself."""

    MADE = DeviceInfo
    name = Text(most=NAME_CHARS_MAX, metadata={"description": "What the user calls it."})
    platform = Text(most=NAME_CHARS_MAX, metadata={"description": "Such as `iOS 19.1`."})
    app_version = Text(most=NAME_CHARS_MAX, metadata={"description": "Such as `4.2.0`."})
    replaces = Identifier(
        allow_none=True,
        metadata={"description": "After a fork: the old id, which is frozen for good."},
    )


@dataclass(frozen=True, slots=True)
class Login:
    """A login: of a new device, or of `device_id` again."""

    email: str
    password: str
    device: DeviceInfo = DeviceInfo()
    device_id: UUID | None = None


class LoginBody(Shape[Login]):
    """Who logs in, on which device."""

    MADE = Login
    email = Email(required=True, metadata={"format": "email"})
    password = Password(required=True, metadata={"format": "password"})
    device = fields.Nested(DeviceBody)
    device_id = Identifier(
        allow_none=True, metadata={"description": "The same device logs in again."}
    )


@dataclass(frozen=True, slots=True)
class Renewal:
    """A refresh token."""

    refresh_token: str


class RefreshBody(Shape[Renewal]):
    """The refresh token, which is spent by this."""

    MADE = Renewal
    refresh_token = Text(most=256, required=True)


# Spaces -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewSpace:
    """A shared space to be made."""

    name: str


class SpaceBody(Shape[NewSpace]):
    """A shared space to be made."""

    MADE = NewSpace
    name = Text(least=1, most=NAME_CHARS_MAX, required=True)


@dataclass(frozen=True, slots=True)
class NewRole:
    """The role that a member is to have."""

    role: str


class RoleBody(Shape[NewRole]):
    """The role that a member is to have."""

    MADE = NewRole
    role = fields.String(required=True, validate=validate.OneOf(("owner", "editor", "viewer")))


# Answers ------------------------------------------------------------------------------------


class Account(msgspec.Struct, frozen=True):
    """An account as made."""

    user_id: UUID
    email: str
    personal_space: UUID


class Session(msgspec.Struct, frozen=True):
    """A device logged in. `expires_in` is the access token's life in seconds."""

    access_token: str
    refresh_token: str
    device_id: UUID
    personal_space: UUID
    expires_in: int


class Device(msgspec.Struct, frozen=True):
    """A device of one's own. Times are milliseconds since 1970."""

    id: UUID
    name: str
    platform: str
    app_version: str
    current: bool
    replaces: UUID | None
    created_at: int
    seen_at: int
    frozen_at: int | None
    revoked_at: int | None


class Devices(msgspec.Struct, frozen=True):
    """All devices that ever logged in, the oldest first."""

    devices: list[Device]


class SpaceMade(msgspec.Struct, frozen=True):
    """A shared space as made."""

    id: UUID
    name: str
    role: str


class Space(msgspec.Struct, frozen=True):
    """A space that one may read. `head` is the position of its newest change."""

    id: UUID
    name: str
    role: str
    personal: bool
    head: int
    epoch: int
    created_at: int


class Spaces(msgspec.Struct, frozen=True):
    """The spaces that one may read, the personal one first."""

    spaces: list[Space]


class Member(msgspec.Struct, frozen=True):
    """Who may do what in a space."""

    user_id: UUID
    email: str
    role: str


class Members(msgspec.Struct, frozen=True):
    """A space's members, the oldest first."""

    members: list[Member]


class Info(msgspec.Struct, frozen=True):
    """The server. `server_time` is milliseconds since 1970."""

    name: str
    version: str
    server_time: int
    limits: dict[str, int]


class Health(msgspec.Struct, frozen=True):
    """`status` is `ok`."""

    status: str
