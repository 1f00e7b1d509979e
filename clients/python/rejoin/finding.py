"""What the doctor says: one sentence with what was seen, and what to do about it."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from rejoin.answers import as_object
from rejoin.transport import AGENT, Http, HttpAnswer
from rejoin.values import JsonObject, parse

Mark = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Finding:
    """One thing that was seen. `advice`: the next step, "" where there is none to take."""

    mark: Mark
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.mark:<4} {self.seen}" + (f"\n     {self.advice}" if self.advice else "")


Found = Generator[Finding, None, bool]
"""Findings as they are made, and in the end whether it works."""


def get(http: Http, url: str, timeout_s: float, token: str | None) -> HttpAnswer:
    """One GET. Raises OSError."""
    headers = {"Accept": "application/json", "User-Agent": AGENT}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return http.request("GET", url, headers, None, timeout_s)


def read_object(answer: HttpAnswer) -> JsonObject:
    """The body as an object; {} where it is none."""
    try:
        return as_object(parse(answer.body))
    except (ValueError, RecursionError):
        return {}


def ms(seconds: float) -> str:
    return f"{seconds * 1000:,.0f} ms"
