"""The mending of the written pages, on small pages: each test has the fault as its maker leaves it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from advfeat.checkout import CHECKOUT


@pytest.fixture(scope="module")
def mending():
    spec = importlib.util.spec_from_file_location("mended_pages", CHECKOUT / "_ext" / "mended_pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def mend(mending, tmp_path):
    def mend(body="", *, head="", name="chapter.html"):
        text = f'<html><head><title>A title</title>{head}</head><body data-default-mode="">{body}</body></html>'
        return BeautifulSoup(mending.mended(text, tmp_path / name), "html.parser")

    return mend


THEBE = "<script>const THEBE_JS_URL = 1; const thebe_selector = 2</script>"
TOGGLE = "<script>var togglebuttonSelector = '.toggle';</script>"


def test_scripts_come_once_and_unused_ones_not_at_all(mend):
    page = mend(
        head=THEBE + TOGGLE + THEBE + TOGGLE + '<script src="_static/scripts/fontawesome.js?digest=5"></script>'
    )
    assert [script.string for script in page.find_all("script")] == ["var togglebuttonSelector = '.toggle';"]


def test_files_that_have_the_same_empty_body_are_all_kept(mend):
    """A comparison of bodies alone would take every script with an address for a repetition of the first."""
    page = mend(head='<script src="a.js"></script><script src="b.js"></script>')
    assert [script["src"] for script in page.find_all("script")] == ["a.js", "b.js"]


@pytest.mark.parametrize(("name", "kept"), [("chapter.html", 0), ("search.html", 1)])
def test_search_index_stays_on_the_page_of_results(mend, name, kept):
    page = mend(head='<script src="../searchindex.js"></script>', name=name)
    assert len(page.find_all("script")) == kept


def test_theme_follows_the_system(mend):
    first_line = (
        'document.documentElement.dataset.mode = localStorage.getItem("mode") || "";'
        'document.documentElement.dataset.theme = localStorage.getItem("theme") || "";'
    )
    page = mend(head=f"<script>{first_line}</script>")
    assert '"mode") || "auto"' in page.script.string
    assert 'getItem("theme") || (matchMedia' in page.script.string
    assert '|| ""' not in page.script.string
    assert page.body["data-default-mode"] == "auto"


def test_head_has_one_viewport_and_a_description(mend):
    page = mend(head='<meta name="viewport" content="a"/><meta name="viewport" content="b"/>')
    assert [tag["content"] for tag in page.find_all("meta", attrs={"name": "viewport"})] == ["a"]
    assert page.find("meta", attrs={"name": "description"})["content"] == "A title"
    described = mend(head='<meta name="description" content="its own"/>')
    assert [tag["content"] for tag in described.find_all("meta")] == ["its own"]


def test_later_elements_lose_an_id_that_is_taken(mend):
    page = mend('<p id="a">1</p><p id="b">2</p><p id="a">3</p>')
    assert [p.get("id") for p in page.find_all("p")] == ["a", "b", None]


PANDAS = (
    "<table><thead><tr><th></th><th>radius</th><th>right</th></tr></thead>"
    "<tbody><tr><th>standard</th><td>0.25</td><td>8</td></tr></tbody></table>"
)


def test_table_gets_scopes_a_name_and_a_box(mend):
    page = mend(f"<article><h2>Recorded</h2>{PANDAS}{PANDAS}</article>")
    table, second = page.find_all("table")
    assert [(head.get_text(), head["scope"]) for head in table.find_all("th")] == [
        ("radius", "col"),
        ("right", "col"),
        ("standard", "row"),
    ]
    assert table.thead.td is not None  # the corner is the head of nothing
    assert table["aria-label"] == "Recorded: radius, right"
    assert second["aria-label"] == "Recorded: radius, right (2)"
    assert table.parent["class"] == ["scroll-box"]


def test_an_interval_in_a_table_is_marked_and_nothing_else_is(mend):
    cells = ["90% [88%, 92%]", "[one]", "<p>a [1, 2], n = 9 &amp; more</p>", "[0.0, 1.0] against [2.0, 3.0]"]
    page = mend("<article><table><tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr></table></article>")
    assert [span.get_text() for span in page.select("td .interval")] == [
        "[88%, 92%]", "[1, 2]", "[0.0, 1.0]", "[2.0, 3.0]",
    ]  # fmt: skip
    assert [cell.get_text() for cell in page.find_all("td")] == [
        "90% [88%, 92%]", "[one]", "a [1, 2], n = 9 & more", "[0.0, 1.0] against [2.0, 3.0]",
    ]  # fmt: skip


def test_caption_and_scope_of_a_table_stay(mend):
    page = mend('<article><table><caption>Ours</caption><tr><th scope="row">a</th></tr></table></article>')
    assert page.table.get("aria-label") is None
    assert page.th["scope"] == "row"


def test_head_over_several_columns_is_the_head_of_a_group(mend):
    page = mend('<article><table><thead><tr><th colspan="2">both</th></tr></thead></table></article>')
    assert page.th["scope"] == "colgroup"


def cell(title, caption=""):
    fold = (
        '<details><summary aria-label="Toggle hidden content"><p class="collapsed">'
        f'{title}</p><p class="expanded">Hide</p></summary>code</details>'
    )
    figure = f'<figcaption><span class="caption-text">{caption}</span></figcaption>' if caption else ""
    return f'<div class="cell">{fold}{figure}</div>'


def test_folds_are_named_by_caption_then_section_then_number(mend):
    formula = '<span class="math">\\(D\\)</span>'
    cells = [
        cell("Parameters"),
        cell("Code of the figure", f"Accuracy on {formula}. More."),
        cell("Code of the figure", "Accuracy, again"),
        cell("Numbers"),
        cell("Numbers"),
        cell("Show code cell source"),
    ]
    page = mend(f"<article><h2>Recorded</h2>{''.join(cells)}</article>")
    assert [p.get_text() for p in page.find_all(class_="collapsed")] == [
        "Parameters",
        "Code of the figure: Accuracy on …",
        "Code of the figure: Accuracy, again",
        "Numbers: Recorded",
        "Numbers: Recorded (2)",
        "Code: Recorded",
    ]
    assert page.find(class_="expanded").get_text() == "Hide Parameters"
    assert page.find("summary", attrs={"aria-label": True}) is None


def test_long_caption_is_cut_between_words(mending):
    text = "A caption of a good many words " * 5
    assert len(mending.shortened(text)) <= mending.LONGEST_NAME + 2
    assert mending.shortened(text).removesuffix(" …").split(" ")[-1] in text.split()


def test_pictures_wait_and_have_their_room(mend, tmp_path):
    from PIL import Image

    Image.new("RGB", (7, 5)).save(tmp_path / "a.png")
    Path(tmp_path / "b.png").write_bytes(b"no picture at all, but long enough")
    page = mend('<article><img src="a.png"/><img src="b.png"/><img src="a.png" width="3"/></article>')
    first, broken, sized = page.find_all("img")
    assert (first["width"], first["height"], first["loading"]) == ("7", "5", "lazy")
    assert broken.get("width") is None
    assert (sized["width"], sized.get("height")) == ("3", None)


def test_entries_of_the_bibliography_are_items(mend):
    page = mend('<div role="list"><div role="doc-biblioentry">x</div></div>')
    assert page.find("div").find("div")["role"] == "listitem"


def test_logo_is_the_banner(mend):
    page = mend('<div class="bd-sidebar-primary"><div><a class="navbar-brand"><img src="l.svg"/></a></div></div>')
    assert page.find(class_="navbar-brand").parent["role"] == "banner"
