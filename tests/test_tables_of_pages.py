"""Tables of pandas reach the reader with one head row and a caption, and with the text that they had."""

from __future__ import annotations

import sys

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from advfeat.checkout import CHECKOUT


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "_ext"))
    yield __import__("tables")
    del sys.modules["tables"]


@pytest.fixture
def numbers(monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "_ext"))
    yield __import__("chapter_numbers")
    del sys.modules["chapter_numbers"]


def rows(html):
    """The words of each cell, row by row."""
    return [
        [cell.get_text() for cell in row.find_all(["th", "td"])]
        for row in BeautifulSoup(html, "html.parser").find_all("tr")
    ]


FRAME = pd.DataFrame({"clean": ["90% [88%, 92%]"], "attacked": ["–"]}, index=["D_R"])


def test_the_name_of_the_index_stands_in_the_corner_and_no_row_is_empty(tables):
    # pandas writes it into a second head row, whose other cells are empty.
    assert len(rows(FRAME.rename_axis("trained on").to_html())) == 3
    made = tables.rewritten(FRAME.rename_axis("trained on").to_html())
    assert rows(made) == [["trained on", "clean", "attacked"], ["D_R", "90% [88%, 92%]", "–"]]
    # A table without such a name keeps its head, and one with names of its columns their row.
    assert rows(tables.rewritten(FRAME.to_html())) == rows(FRAME.to_html())
    named = FRAME.rename_axis("set").rename_axis("attack", axis=1)
    assert rows(tables.rewritten(named.to_html()))[0] == ["set, attack", "clean", "attacked"]


def test_two_levels_keep_their_order(tables):
    deep = pd.DataFrame({("a", "x"): [1], ("a", "y"): [2], ("b", "x"): [3]}, index=pd.Index(["r"], name="epoch"))
    head, second, body = rows(tables.rewritten(deep.to_html()))
    assert (head, second, body) == (["", "a", "b"], ["epoch", "x", "y", "x"], ["r", "1", "2", "3"])
    pairs = pd.DataFrame({"n": [1, 2]}, index=pd.MultiIndex.from_tuples([("a", "x"), ("a", "y")], names=["one", "two"]))
    assert rows(tables.rewritten(pairs.to_html())) == [["one", "two", "n"], ["a", "x", "1"], ["y", "2"]]
    unnamed = pd.DataFrame({("a", "x"): [1], ("a", "y"): [2]}, index=["r"])
    assert rows(tables.rewritten(unnamed.to_html())) == rows(unnamed.to_html())


def test_the_caption_is_that_of_the_cell(tables):
    page = BeautifulSoup(tables.rewritten(FRAME.rename_axis("trained on").to_html(), "What came out"), "html.parser")
    assert page.table.contents[0].name == "caption"
    assert page.caption.get_text() == "What came out"
    assert BeautifulSoup(tables.rewritten(FRAME.to_html()), "html.parser").caption is None


def test_numbers_begin_anew_in_each_chapter(numbers):
    # In the order of Sphinx's numbers, not of the ids: fig-b comes first on its page.
    given = {"figure": {"fig-a": (12,), "fig-b": (11,), "fig-c": (102,)}, "exercise": {"ex-a": (7,)}}
    expected = {"figure": {"fig-b": (4, 1), "fig-a": (4, 2), "fig-c": (4, 3)}, "exercise": {"ex-a": (4, 1)}}
    assert numbers.numbered("book/04-robust-datasets", given) == expected
    assert numbers.numbered("book/intro", {"figure": {"fig-a": (1,)}}) == {"figure": {"fig-a": (1,)}}
