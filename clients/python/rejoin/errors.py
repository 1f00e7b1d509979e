"""What can go wrong on a device, one class for each remedy, each message for people."""

from __future__ import annotations


class RejoinError(Exception):
    """Base of all errors of this package."""


class TrackingError(RejoinError):
    """A table can't be tracked as it is; the message says what to do about it."""


class Busy(RejoinError):
    """Called inside an open transaction of this connection. Remedy: commit it first."""


class NotLoggedIn(RejoinError):
    """No usable login on this device. Data and pending changes are kept; log in (again)."""


class Offline(RejoinError):
    """The server could not be reached, or is overloaded, after all retries. Try again later."""


class ServerRefused(RejoinError):
    """The server answered a whole request with an error that repeating it won't mend.

    `status` is the HTTP status, `code` the stable code of the problem document ("" if none).
    """

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{detail or 'the server refused the request'} ({code or status})")
        self.status = status
        self.code = code
        self.detail = detail


class Stuck(RejoinError):
    """The server and this device talk past each other: several rounds moved nothing."""
