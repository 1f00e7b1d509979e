"""What an action may say: bodies, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from marshmallow import fields, validate
from msgspec import UNSET

from app.admin.shapes import KEY_CHARS_MAX, REASON_CHARS_MAX
from app.schemas import Identifier, Shape, Text
from sync.changes import JSON_SAFE_INT

# As many as a change may have by default; the engine has the last word.
OPERATIONS_MAX: Final = 100_000
FIELDS_MAX: Final = 1_000


class Position(fields.Integer):
    """A whole number in a body: no text, no fraction."""

    def __init__(self, *, least: int = 0, **kwargs: Any) -> None:
        bounds = validate.Range(least, JSON_SAFE_INT)
        super().__init__(validate=bounds, **kwargs)

    def _validated(self, value: object) -> int:
        if type(value) is not int:
            raise self.make_error("invalid", input=value)
        return value


def _reason() -> Text:
    words = {"description": "Why: it stands in the audit trail."}
    return Text(least=1, most=REASON_CHARS_MAX, required=True, metadata=words)


@dataclass(frozen=True, slots=True)
class Reasoned:
    """Why something is done."""

    reason: str


class ReasonBody(Shape[Reasoned]):
    """Why something is done."""

    MADE = Reasoned
    reason = _reason()


@dataclass(frozen=True, slots=True)
class ResetWanted(Reasoned):
    """Which space a device is to take anew; None: all of its."""

    space: UUID | None = None
    after: UUID | None = None


class ResetBody(Shape[ResetWanted]):
    """Which space a device is to take anew; none named: all of its, `after` that one."""

    MADE = ResetWanted
    reason = _reason()
    space = Identifier(allow_none=True)
    after = Identifier(allow_none=True)


@dataclass(frozen=True, slots=True)
class Dot:
    """A change by its device and counter."""

    device: UUID
    counter: int


class DotBody(Shape[Dot]):
    """A change by its device and counter."""

    MADE = Dot
    device = Identifier(required=True)
    counter = Position(least=1, required=True)


@dataclass(frozen=True, slots=True)
class SettleWanted(Reasoned):
    """On what a field is settled: a sibling or a value. `seen`: where the agent looked."""

    collection: str
    id: str
    field: str
    seen: int
    sibling: Dot | None = None
    value: Any = UNSET


class SettleBody(Shape[SettleWanted]):
    """On what a field is settled: a sibling by its dot, or a value."""

    MADE = SettleWanted
    reason = _reason()
    collection = Text(most=KEY_CHARS_MAX, required=True)
    id = Text(most=KEY_CHARS_MAX, required=True)
    field = Text(most=KEY_CHARS_MAX, required=True)
    seen = Position(
        required=True, metadata={"description": "The `at_position` or head that was looked at."}
    )
    sibling = fields.Nested(DotBody)
    value = fields.Raw(allow_none=True)


@dataclass(frozen=True, slots=True)
class RestoreWanted(Reasoned):
    """To which position a record goes back; `names`: of its fields, None: all."""

    collection: str
    id: str
    position: int
    seen: int
    names: list[str] | None = None


class RestoreBody(Shape[RestoreWanted]):
    """To which position a record goes back, with all its fields or with some."""

    MADE = RestoreWanted
    reason = _reason()
    collection = Text(most=KEY_CHARS_MAX, required=True)
    id = Text(most=KEY_CHARS_MAX, required=True)
    position = Position(required=True)
    seen = Position(
        required=True, metadata={"description": "The `at_position` or head that was looked at."}
    )
    names = fields.List(
        Text(most=KEY_CHARS_MAX), allow_none=True, validate=validate.Length(max=FIELDS_MAX)
    )


@dataclass(frozen=True, slots=True)
class ReplayWanted(Reasoned):
    """How a change is repaired: other operations, or some left out; neither: as it is."""

    ops: list[Any] | None = None
    drop: Sequence[int] = ()


class ReplayBody(Shape[ReplayWanted]):
    """How a change is repaired: by other operations, or by leaving some out (from 0)."""

    MADE = ReplayWanted
    reason = _reason()
    ops = fields.List(fields.Raw(), allow_none=True, validate=validate.Length(max=OPERATIONS_MAX))
    drop = fields.List(Position(), validate=validate.Length(max=OPERATIONS_MAX))
