"""Every bound, named, with its reason. Each has a setting `REJOIN_LIMIT_<NAME>`."""

from __future__ import annotations

from dataclasses import dataclass, field


def _limit(default: int, doc: str) -> int:
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds in force. Counts are whole numbers, sizes are bytes."""

    changes_per_request: int = _limit(1_000, "changes in one request, of all its spaces")
    operations_per_change: int = _limit(1_000, "operations in one change: one local transaction")
    work_per_request: int = _limit(
        50_000,
        "steps of merging in one request: one for each operation, and one for each field that a"
        " new row looks at; changes beyond it wait for the next request",
    )
    body_bytes: int = _limit(8 * 2**20, "bytes of a request body after decompression")
    value_bytes: int = _limit(256 * 2**10, "bytes of one value as JSON")
    record_bytes: int = _limit(2**20, "bytes of one record as JSON, with its siblings")
    fields_per_record: int = _limit(1_000, "fields of one record")
    elements_per_set: int = _limit(10_000, "elements of one set")
    document_update_bytes: int = _limit(2**20, "bytes of one update of a document, in a change")
    document_bytes: int = _limit(
        16 * 2**20, "bytes of one document as it is kept, with the updates that wait for others"
    )
    document_waiting: int = _limit(
        100, "updates of one document that wait for others, on which they depend"
    )
    document_depth: int = _limit(100, "levels of nested types in one document")
    document_shown_chars: int = _limit(
        256 * 2**10, "characters of a document's text, or JSON, that its record shows to SQL"
    )
    clock_entries: int = _limit(1_000, "entries in the clock of one context")
    value_depth: int = _limit(32, "levels of nesting in one value; a scalar has none")
    id_chars: int = _limit(128, "characters of a record id, a collection or a field name")
    spaces_per_request: int = _limit(100, "spaces in one request")
    page_records: int = _limit(1_000, "records in one page")
    page_bytes: int = _limit(2**20, "bytes of one page as JSON; a single record may exceed it")
    presence_bytes: int = _limit(4 * 2**10, "bytes of a device's presence in a space, as JSON")
    wait_seconds: int = _limit(60, "seconds that a long poll may wait")
