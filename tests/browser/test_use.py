"""What readers do with a page: search, choose a theme, unfold, print, read on a phone, read without JavaScript."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

CHAPTER = "book/05-non-robust-features.html"


def test_search_from_a_chapter_finds_chapters(open_page):
    """The search index is loaded by the page of results alone, so the way there is walked."""
    page = open_page(CHAPTER)
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input[name=q]").fill("transferability")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    chapter = page.locator('#search-results a[href*="06-transferability"]').first
    chapter.wait_for()
    assert "/search.html" in page.url


@pytest.mark.parametrize("system", ["light", "dark"])
def test_theme_follows_the_system_until_a_reader_chooses(open_page, system):
    page = open_page(CHAPTER, theme=system)
    theme = "document.documentElement.dataset.theme"
    background = "getComputedStyle(document.body).backgroundColor"
    assert page.evaluate(theme) == system
    before = page.evaluate(background)
    button = page.locator(".theme-switch-button:visible").first
    for _ in range(3):  # light, dark, the system's: one press more or less, by where it starts
        button.press("Enter")
        if page.evaluate(theme) != system:
            break
    chosen = page.evaluate(theme)
    assert chosen != system
    assert page.evaluate(background) != before
    page.reload()
    assert page.evaluate(theme) == chosen


def test_folded_cell_opens_by_keyboard(open_page):
    page = open_page(CHAPTER)
    summary = page.locator("article details > summary").first
    code = page.locator("article details .cell_input").first
    assert not code.is_visible()
    summary.press("Enter")
    assert code.is_visible()


def test_solution_opens_by_keyboard(open_page):
    page = open_page(CHAPTER)
    button = page.get_by_role("button", name="Solution to Exercise").first
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    assert button.get_attribute("aria-expanded") == "true"


def test_box_that_scrolls_is_scrolled_by_keyboard(open_page):
    """A table that is too wide for a phone: named, moved by the arrows, and its edge fades until the end."""
    page = open_page("book/03-standard-and-robust-training.html", width=360, height=740)
    box = page.locator(".scroll-box.scrolls").first
    assert "scrolls sideways" in box.get_attribute("aria-label")
    assert "scrolls-on" in box.get_attribute("class")
    box.focus()
    for _ in range(40):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("box => !box.classList.contains('scrolls-on')", arg=box.element_handle())
    assert box.evaluate("box => box.scrollLeft") > 0


def test_box_is_none_where_there_is_room(open_page):
    page = open_page("book/03-standard-and-robust-training.html", width=360, height=740)
    page.set_viewport_size({"width": 1600, "height": 900})
    page.wait_for_function("() => !document.querySelector('.scroll-box.scrolls')")
    assert page.locator(".scroll-box[tabindex], .scroll-box[role]").count() == 0


@pytest.mark.parametrize("width", [360, 1280])
def test_page_is_readable_without_javascript(open_page, width):
    """Text, pictures and solutions are there; nothing is wider than the window."""
    page = open_page(CHAPTER, width=width, javascript=False)
    assert page.locator("article h1").is_visible()
    assert page.locator("article .solution").first.is_visible()
    assert page.locator("article img").first.is_visible()


def test_print_shows_neither_masks_nor_hints(open_page):
    page = open_page("book/03-standard-and-robust-training.html", width=360, media="print")
    masks = page.eval_on_selector_all(".scrolls", "boxes => boxes.map(box => getComputedStyle(box).maskImage)")
    assert masks
    assert set(masks) == {"none"}
