"""The vectors hold for the whole server: HTTP, JSON, PostgreSQL."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.runtime import EXTENSION
from tests.contract.devices import Phone, phone
from tests.vectors.cases import CASES

NAMES = "ABC"


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """The device of a conflict or of a context's clock by its other name."""
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    if not isinstance(value, dict):
        return value
    found = {key: _renamed(item, names) for key, item in value.items()}
    if "device" in found:
        found["device"] = names[found["device"]]
    if "clock" in found:
        found["clock"] = {names.get(key, key): item for key, item in found["clock"].items()}
    return found


def _phones(client: FlaskClient) -> dict[str, Phone]:
    """A new user's devices, by the letters of the vectors: ids in the letters' order."""
    first = phone(client)
    more = [phone(client, first.email) for _ in NAMES[1:]]
    return dict(zip(NAMES, sorted([first, *more], key=lambda p: p.device), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_the_server_answers_as_the_vector_says(
    case: dict[str, Any], app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones, page = _phones(client), None
    ids = {name: made.device for name, made in phones.items()}
    letters = {id_: name for name, id_ in ids.items()}
    for step in case["steps"]:
        part = _renamed(step["request"], ids)
        body = {"sent_at": part.pop("sent_at", None), "spaces": {"me": part}}
        if part.get("page") == "$page":
            part["page"] = page
        with monkeypatch.context() as moved:
            moved.setattr(app.extensions[EXTENSION], "clock", lambda now=step["now"]: now / 1000)
            sent = phones[step["device"]].post("/v1/sync", body)
        answer = json.loads(sent.text)["spaces"]["me"]
        answer.pop("clock", None)
        if answer.get("page") is not None:
            page, answer["page"] = answer["page"], "$page"
        for told in [*answer.get("rejected", []), answer]:
            told.get("error", {}).pop("detail", None)
        assert _renamed(answer, letters) == step["answer"], step
