"""Texts that we write for PostgreSQL ourselves come back as they are."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg import DataError
from sqlalchemy import Engine

from storage import sql
from storage.sql import as_rows, copy_rows, cursor, from_rows, text_array

# All that a text may hold (`check_text`), and often what means something to PostgreSQL.
TEXTS = st.lists(
    st.text(
        st.one_of(
            st.sampled_from("\\\t\n\r\"',{}N.b \v\x7f"),
            st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)),
        )
    )
    | st.sampled_from(["NULL", "\\N", "\\.", "", "{}", '"', "\\", "\\\\", "\\x00", "a\r\nb"]),
    max_size=20,
)


@given(TEXTS)
def test_an_array_holds_its_texts(engine: Engine, texts: list[str]) -> None:
    with engine.begin() as connection:
        cur = cursor(connection)
        cur.execute("SELECT %s::text[]", [text_array(texts)])
        assert cur.fetchall() == [(texts,)]


@pytest.mark.parametrize("texts", [["\0"], ["a", "b\0c"]])
def test_an_array_takes_no_text_for_two(texts: list[str]) -> None:
    with pytest.raises(DataError):
        text_array(texts)


@given(TEXTS)
def test_rows_hold_their_texts(engine: Engine, texts: list[str]) -> None:
    columns = {"number": "int", "text": "text", "nothing": "text"}
    with engine.begin() as connection:
        cur = cursor(connection)
        rows = [(str(number), text, None) for number, text in enumerate(texts)]
        cur.execute(f"{from_rows(columns, 'rows')} ORDER BY number", {"rows": as_rows(rows)})
        assert cur.fetchall() == [(number, text, None) for number, text in enumerate(texts)]


@given(TEXTS)
@example(["a\tb", "a\\tb", "a\nb", "a\rb", "\\N", "\\."])
def test_copied_rows_hold_their_texts(engine: Engine, texts: list[str]) -> None:
    columns = {"number": "int", "text": "text", "nothing": "text"}
    with engine.begin() as connection:
        cur = cursor(connection)
        cur.execute("CREATE TEMP TABLE copied (number int, text text, nothing text) ON COMMIT DROP")
        # No text that is copied is empty: an empty one stands for NULL.
        texts = [f"{text}." for text in texts]
        rows = ((str(number), text, None) for number, text in enumerate(texts))
        copy_rows(cur, "copied", columns, rows)
        cur.execute("SELECT text, nothing FROM copied ORDER BY number")
        assert cur.fetchall() == [(text, None) for text in texts]


def test_more_rows_than_go_at_once_all_arrive(engine: Engine) -> None:
    with engine.begin() as connection:
        cur = cursor(connection)
        cur.execute("CREATE TEMP TABLE copied (number int) ON COMMIT DROP")
        copy_rows(cur, "copied", {"number": "int"}, ((f"{number}",) for number in range(1000)))
        cur.execute("SELECT count(*), sum(number) FROM copied")
        assert cur.fetchall() == [(1000, 499_500)]


def test_rows_with_a_nul_are_refused(engine: Engine) -> None:
    rows = {"rows": as_rows([["a\0b"]])}
    with engine.begin() as connection, pytest.raises(DataError):
        cursor(connection).execute(from_rows({"text": "text"}, "rows"), rows)


def test_parts_hold_so_much_and_each_row_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql, "PART_BYTES", 4)
    rows = [["a", "b"], ["c", None], ["d"], ["efghi"], ["j", "k"]]
    assert [*sql.in_parts(rows)] == [rows[:3], rows[3:4], rows[4:]]
    assert [*sql.in_parts([])] == [[]]
