"""The quick look at an update passes nothing that the strict reading would not pass."""

from __future__ import annotations

from typing import Any

import pycrdt
from hypothesis import given
from hypothesis import strategies as st

from sync import documents, framing


def typed(text: str, client: int) -> list[bytes]:
    """What an editor sends: a letter at a time, some in the middle, some taken back."""
    document: pycrdt.Doc[Any] = pycrdt.Doc(client_id=client)
    root = document.get("body", type=pycrdt.Text)
    sent: list[bytes] = []
    subscription = document.observe(lambda event: sent.append(event.update))
    for at, letter in enumerate(text):
        root.insert(at // 2, letter)
    while len(str(root)) > 1:
        del root[len(str(root)) // 2]
    document.unobserve(subscription)
    return sent


def test_nearly_all_that_an_editor_sends_is_known_at_a_look() -> None:
    for client in (1, 2**32 - 1, 2**53 - 1):
        sent = typed("The quick brown fox", client)
        assert sum(documents.is_one_letter(update) for update in sent) == len(sent) - 1


@given(st.from_regex(documents.ONE_LETTER, fullmatch=True))
def test_what_passes_at_a_look_can_be_merged(update: bytes) -> None:
    assert documents.is_one_letter(update)
    assert documents.merge([update, update])
    try:
        framing.read(update)
    except framing.Malformed as malformed:
        assert "later" in str(malformed)  # noqa: PT017 - the others say that it is no update
