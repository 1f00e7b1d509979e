"""How much work a request asks for, in steps of about ten microseconds.

A few kilobytes can ask for minutes: a new row looks at every field of the old one, a set is
copied for each element added. `limits.work_per_request` bounds it, whatever the bytes.
"""

from __future__ import annotations

from sync.changes import Add, Context, Operation, Put, Remove
from sync.fields import ObservedRemoveSet
from sync.records import Record


def work_of_closing(context: Context) -> int:
    """Closing a context over its clock reads what the clock names in the log."""
    return 25 + sum(context.clock.values()) // 50 if context.clock else 0


def work_of_edit(structs: int, read: int) -> int:
    """Reading a struct strictly takes 3 µs; merging and integrating, a step for each 800 bytes."""
    return structs // 3 + read // 800


def work_of(op: Operation, record: Record) -> int:
    """How many steps the operation takes: of copying a record or a set, a thousand fields or
    elements make one; clearing a new row looks at each field.
    """
    fields = len(record.fields)
    copied, cleared = fields, fields if isinstance(op, Put) and op.new else 0
    if isinstance(op, Add | Remove):
        value = record.fields.get(op.field)
        copied += len(value.elements) if isinstance(value, ObservedRemoveSet) else 0
    return 1 + cleared + copied // 1_000
