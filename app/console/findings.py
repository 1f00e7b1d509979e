"""A finding as a card: its figures in words, and the next step as a button."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from flask import url_for
from markupsafe import Markup

from app.admin.answers import DeviceFound, FindingShown
from app.console.session import Agent
from app.console.words import clock, grouped, moment, page_of, span, titled

# What an agent can do about it on the device's own page.
ON_THE_PAGE: Final = {
    "not_acknowledging": ("Ask it to reset", "#ask-reset", "support"),
    "cursor_above_head": ("Ask it to reset", "#ask-reset", "support"),
    "silent": ("Revoke it", "#revoke", "admin"),
}
# By what the path of an evidence's link holds.
ELSEWHERE: Final = (
    ("/quarantine", "Open its quarantine"),
    ("/conflicts", "Open the conflicts"),
    ("/spaces/", "Open the space"),
    ("/devices/", "Open the other device"),
)


@dataclass(frozen=True, slots=True)
class Step:
    """A button that leads there."""

    text: str
    href: str


@dataclass(frozen=True, slots=True)
class Card:
    """A finding to be shown. `evidence`: (name, value) in words."""

    code: str
    sentence: str
    next_step: str
    evidence: list[tuple[str, str]]
    steps: list[Step]


def cards(
    findings: list[FindingShown], device: DeviceFound, spaces: Mapping[str, str], agent: Agent
) -> list[Card]:
    """The findings of a device, with the steps that this agent may take; `spaces`: names by id."""
    return [
        Card(
            one.code,
            one.sentence,
            one.next_step,
            _evidence(one, spaces),
            [*_here(one, agent), *_elsewhere(one, device)],
        )
        for one in findings
    ]


def _evidence(finding: FindingShown, spaces: Mapping[str, str]) -> list[tuple[str, str]]:
    return [
        (_name(name), _value(name, value, spaces))
        for name, value in finding.evidence.items()
        if value is not None
    ]


def _name(name: str) -> str:
    return titled(name.removesuffix("_at").removesuffix("_ms"))


def _value(name: str, value: int | str, spaces: Mapping[str, str]) -> str:
    if name == "space":
        return _link(page_of(f"/v1/admin/spaces/{value}"), spaces.get(str(value), str(value)))
    if name == "replaced_by":
        return _link(url_for("console.show_device", device=UUID(str(value))), str(value))
    if name == "refused_with":
        return Markup("<code>{}</code>").format(value)
    if isinstance(value, str):
        return value
    if name == "offset_ms":
        return clock(value)
    if name.endswith("_at"):
        return moment(value)
    return span(value) if name.endswith("_ms") else grouped(value)


def _link(href: str, text: str) -> str:
    return Markup('<a class="long" href="{}">{}</a>').format(href, text)


def _here(finding: FindingShown, agent: Agent) -> Iterator[Step]:
    if finding.code in ON_THE_PAGE:
        text, form, least = ON_THE_PAGE[finding.code]
        if agent.may(least):
            yield Step(text, form)


def _elsewhere(finding: FindingShown, device: DeviceFound) -> Iterator[Step]:
    own = f"/v1/admin/devices/{device.id}"
    for link in finding.links:
        if link == f"{own}/events":
            yield Step("See the timeline", "#timeline")
        elif link != own:
            text = next((text for part, text in ELSEWHERE if part in link), "Look there")
            yield Step(text, page_of(link))
