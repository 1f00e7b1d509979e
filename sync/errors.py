"""One class for each remedy; a code never changes its meaning.

`SyncError` answers a request, or one space of it. `Refused` is the verdict on one change,
which uses up its counter and never blocks the changes behind it. Every code is in `CODES` of
its class: an error with another code can't be made, so the documentation, which is generated
from here, is complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class SyncError(Exception):
    """An answer other than the one asked for.

    `code` is stable and for machines, `detail` is a sentence for people, `extra` holds what a
    client needs to go on (`expected`, `known`, `retry_after`, …).
    """

    CODES: ClassVar[Mapping[str, str]] = {}

    def __init__(self, code: str, detail: str = "", **extra: object) -> None:
        if code not in self.CODES:
            raise KeyError(f"{code} is no code of {type(self).__name__}")
        super().__init__(detail or self.CODES[code])
        self.code = code
        self.detail = detail or self.CODES[code]
        self.extra = extra

    def as_dict(self) -> dict[str, object]:
        """The error as it stands in an answer: {"code", "detail", …extra}."""
        return {"code": self.code, "detail": self.detail, **self.extra}


class Refused(SyncError):
    """This change can never be applied. Remedy: none on the device; staff repair and replay it."""

    CODES = {
        "malformed_change": "The change does not have the form that the protocol gives.",
        "unknown_operation": "The server does not know this operation.",
        "duplicate_key": "An object names the same key twice.",
        "invalid_text": "Text holds a NUL character or a lone surrogate.",
        "invalid_number": "A number is not finite or does not fit 64 bits.",
        "invalid_value": "A value is not one that JSON has.",
        "invalid_id": "A record id, collection or field name is empty or too long.",
        "too_deep": "A value, or a type in a document, is nested too deeply.",
        "too_many_operations": "The change has too many operations.",
        "value_too_large": "A value is too large.",
        "record_too_large": "The record would become too large.",
        "too_many_fields": "The record would have too many fields.",
        "too_many_elements": "The set would have too many elements.",
        "too_many_clock_entries": "The context's clock has too many entries.",
        "field_type_mismatch": "The field is of another type.",
        "bad_context": "The context names what never was.",
        "bad_update": "The update is not one that Yjs writes, or does not fit the document.",
        "document_update_too_large": "The update is too large.",
        "document_too_large": "The document would become too large.",
        "too_many_missing": "Too many updates of the document wait for ones that are missing.",
    }


class BadRequest(SyncError):
    """The envelope is broken. Remedy: mend the client; sending it again can't help."""

    CODES = {
        "malformed_body": "The body is not what its content type says.",
        "malformed_frame": "The frame is not one of the Yjs protocols'.",
        "malformed_request": "The request does not have the form that the protocol gives.",
        "duplicate_key": "An object of the request names the same key twice.",
        "too_deep": "The body is nested too deeply.",
        "too_many_changes": "The request has too many changes.",
        "too_many_spaces": "The request has too many spaces.",
        "too_many_documents": "The websocket has too many documents.",
        "bad_counter": "The counters of the changes are not consecutive, or exceed `counter`.",
        "bad_parameter": "A parameter of the request is not valid.",
        "bad_page": "The page token is not good any more: start again from the cursor.",
        "bad_encoding": "The body can't be decompressed.",
        "unknown_message": "The server knows no message of this type.",
        "hello_first": "The first message on the websocket must be `hello`.",
        "invalid_text": "Text holds a NUL character or a lone surrogate.",
    }


class TooLarge(SyncError):
    """Remedy: send less at once."""

    CODES = {
        "body_too_large": "The body is too large after decompression.",
        "message_too_large": "The message on the websocket is too large.",
    }


class UnsupportedMedia(SyncError):
    """Remedy: send JSON or MessagePack, plain or compressed as named."""

    CODES = {
        "unsupported_media_type": "The body must be application/json or application/msgpack.",
        "unsupported_encoding": "The content encoding is not one of gzip, zstd, identity.",
    }


class NotAcceptable(SyncError):
    """Remedy: accept JSON or MessagePack."""

    CODES = {"not_acceptable": "The server answers in application/json or application/msgpack."}


class Unauthenticated(SyncError):
    """Remedy: renew the token, or log in. Never decides a change."""

    CODES = {
        "token_missing": "The request has no access token.",
        "token_expired": "The token has expired: renew it.",
        "token_invalid": "The token is not one of this server's.",
        "token_reused": "This refresh token was used before: log in again.",
        "device_revoked": "This device was revoked: log in again as a new device.",
        "bad_credentials": "The email or the password is wrong.",
    }


class Forbidden(SyncError):
    """Remedy: ask an owner of the space, or an administrator."""

    CODES = {
        "forbidden": "Your role does not allow this, or your membership was withdrawn.",
    }


class NotFound(SyncError):
    """Remedy: none; there is nothing here that you may see."""

    CODES = {"not_found": "There is nothing here that you may see."}


class NotAllowed(SyncError):
    """Remedy: use another method."""

    CODES = {"method_not_allowed": "This path does not take this method."}


class Conflict(SyncError):
    """The request meets a state it did not expect. Remedy: named by the code."""

    CODES = {
        "counter_gap": "Changes before these are missing: send again from `expected`.",
        "device_fork": "These counters were used before: register anew, see `known`.",
        "email_taken": "There is an account with this email already.",
        "last_owner": "A space keeps at least one owner.",
        "personal_space": "A personal space has one member, its owner.",
        "record_moved": "The record has changed since it was looked at: look again.",
        "already_settled": "Somebody else has settled this.",
        "own_account": "Nobody erases the account that asks.",
    }


class TooMany(SyncError):
    """Remedy: wait `retry_after` seconds."""

    CODES = {
        "too_many_attempts": "Too many attempts: wait `retry_after` seconds.",
        "too_fast": "Too many messages on the websocket: come back later.",
    }


class Unavailable(SyncError):
    """Remedy: the same request again, later."""

    CODES = {
        "unavailable": "The server can't reach its database: try again.",
        "too_busy": "The server sends as many long answers as it can: take pages, or try again.",
        "too_many_sockets": "The server has as many websockets as it can: try again, or poll.",
    }


class Internal(SyncError):
    """A fault of the server's, logged there. Remedy: report it; the request may be sent again."""

    CODES = {"internal": "The server met a fault of its own."}
