"""Figures as people read them. Times are UTC: an agent and a customer share no time zone."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlencode

import msgspec
from flask import request
from markupsafe import Markup
from msgspec import UNSET

from app.admin.sight import ValueShown
from app.console.door import NOTES
from app.runtime import runtime

# (ms, singular), the largest first.
UNITS: Final = (
    (86_400_000, "day"),
    (3_600_000, "hour"),
    (60_000, "minute"),
    (1_000, "second"),
)
MOMENT_MS: Final = 5_000
STATES: Final = {
    "online": "online",
    "ok": "ok",
    "lagging": "lagging",
    "stuck": "stuck",
    "silent": "silent",
    "quarantined": "quarantined",
    "conflicts": "conflicts",
    "clock_off": "clock off",
    "revoked": "revoked",
}
ACTIONS: Final = {
    "open_values": "opened values",
    "settle": "settled a conflict",
    "restore": "restored a record",
    "replay": "replayed a change",
    "discard": "discarded a change",
    "reset": "asked for a reset",
    "revoke": "revoked a device",
    "compact": "compacted a space",
    "export": "exported a user's data",
    "erase": "erased a user",
}
DONE: Final = {
    "settle": "The conflict is settled: all devices converge on it.",
    "restore": "The record is restored: all devices converge on it.",
    "replay": "The change is replayed: its device reads of it in its outcomes.",
    "discard": "The change is discarded; it stays kept as it is.",
    "reset": "The device is asked to reset: it will with its next pull.",
    "reset_more": "The device is asked to reset in 100 of its spaces; for more, use the API.",
    "revoke": "The device is revoked: it is out with its next request.",
    "compact": "The space is compacted.",
    "erase": "The user is erased.",
}
EVENTS: Final = {
    "pushed": "pushed",
    "pulled": "pulled",
    "refused": "was refused",
    "reset": "was told to reset",
    "connected": "connected",
    "disconnected": "disconnected",
    "login": "logged in",
    "logout": "logged out",
    "token_renewed": "renewed its token",
}


def span(ms: float) -> str:
    """A length of time: `3 minutes`, `2 days`."""
    whole = abs(int(ms))
    for unit, word in UNITS:
        if whole >= unit:
            return counted(whole // unit, word)
    return f"{whole} ms"


def counted(number: int, word: str) -> str:
    """`1 change`, `12 changes`."""
    return f"{grouped(number)} {word}{'' if number == 1 else 's'}"


def grouped(number: int) -> str:
    """A number with narrow spaces between thousands."""
    return f"{number:,}".replace(",", "\u202f")


def moment(ms: int | None) -> Markup:
    """When it was, as seen from now; the exact time is in the tooltip."""
    if not ms:
        return Markup('<span class="none">never</span>')
    at, away = _at(ms), runtime().now_ms() - ms
    if abs(away) < MOMENT_MS:
        said = "just now"
    else:
        said = f"{span(away)} ago" if away > 0 else f"in {span(away)}"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(timespec="milliseconds"), exact(ms), said
    )


def exact(ms: int | None) -> str:
    """`2026-11-22 19:00:05 UTC`; what no calendar has stays a number."""
    if ms is None:
        return "never"
    try:
        return f"{_at(ms):%Y-%m-%d %H:%M:%S} UTC"
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms since 1970"


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def size(count: int) -> str:
    """Bytes: `340 B`, `1.2 kB`, `3.4 MB`."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"


def clock(offset: int | None) -> str:
    """The device's clock, whose offset is the server's time less its own."""
    if offset is None:
        return "It has not told its time yet."
    if abs(offset) < 1_000:
        return "In step with the server's, to the second."
    return f"{span(offset)} {'behind' if offset > 0 else 'ahead of'} the server's."


def titled(name: str) -> str:
    """`refused_with` as `refused with`."""
    return name.replace("_", " ")


def page_of(link: str) -> str:
    """The console's page of what stands at this path of the API."""
    return request.script_root + link.removeprefix("/v1")


def said(args: Mapping[str, str]) -> str:
    """What was just done, by the address that an action leads to; "": nothing."""
    sentence = DONE.get(args.get("done", ""), "")
    position, number = args.get("position", ""), args.get("audit", "")
    if sentence and re.fullmatch(r"[0-9]{1,19}", position):
        sentence += f" It is change {position} of the log."
    if sentence and re.fullmatch(r"[0-9]{1,19}", number):
        sentence += f" Number {number} in the audit trail."
    return sentence


def next_page(token: str) -> str:
    """This page's address with the list going on there."""
    kept = {name: value for name, value in request.args.items() if name not in NOTES}
    asked = {**kept, "page": token}
    return f"{request.script_root}{request.path}?{urlencode(asked)}"


def value(shown: Any) -> Markup:
    """A value as the agent may see it: itself, or its type, its size and its hash."""
    if not isinstance(shown, ValueShown):
        return Markup("<code>{}</code>").format(as_json(shown))
    if shown.value is UNSET:
        return Markup('<span class="unopened">{}, {} <code>{}</code></span>').format(
            shown.type, size(shown.bytes), shown.hash
        )
    return Markup('<code class="value">{}</code>').format(as_json(shown.value))


def as_json(given: Any, indent: int = 0) -> str:
    """The value as JSON text; with an indent, on several lines."""
    whole = msgspec.json.encode(given)
    return (msgspec.json.format(whole, indent=indent) if indent else whole).decode()


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "span": span,
    "counted": counted,
    "grouped": grouped,
    "moment": moment,
    "exact": exact,
    "size": size,
    "clock": clock,
    "titled": titled,
    "page_of": page_of,
    "value": value,
    "as_json": as_json,
    "next_page": next_page,
    "said": said,
    "state_word": lambda state: STATES.get(state, state),
    "action_word": lambda action: ACTIONS.get(action, titled(action)),
    "event_word": lambda kind: EVENTS.get(kind, titled(kind)),
}
