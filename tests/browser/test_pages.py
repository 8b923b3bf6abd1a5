"""Every page, as a browser shows it: a fault that a reader would meet fails the test of its page by name."""

from __future__ import annotations

from collections import Counter

import pytest

from .conftest import PAGES
from .visits import visit

pytestmark = pytest.mark.browser

# Bytes, uncompressed; a server that compresses sends a third. Of the 2.5 MB that a chapter takes at once, 1.2 are
# MathJax, which brings the formulas without a network, and 0.6 the theme's styles and letters.
FIRST_LOAD = 3_000_000
WHOLE_PAGE = 4_500_000


def page_paths():
    """All pages of the built book, by their path; one that leads to another one at once is none."""
    found = sorted(path.relative_to(PAGES) for path in PAGES.rglob("*.html"))
    pages = [path.as_posix() for path in found if path.parts[0] not in ("_static", "_sources")]
    return [path for path in pages if 'http-equiv="refresh"' not in (PAGES / path).read_text("utf-8").lower()]


@pytest.fixture(scope="session")
def visits():
    """The visits of this session, by page."""
    return {}


@pytest.fixture(params=page_paths() or ["index.html"])
def visited(request, visits, new_page):
    """The visit to one page, made when the first test asks for it."""
    path = request.param
    if path not in visits:
        page = new_page(path)
        visits[path] = visit(page)
        page.context.close()
    return visits[path]


def test_console_is_silent(visited):
    assert visited.complaints == []


def test_nothing_is_asked_of_another_server(visited, site):
    assert [url for url in visited.requests if not url.startswith((site, "data:", "blob:"))] == []


def test_every_image_arrives(visited):
    assert visited.missing_images == []


def test_no_formula_is_left_raw(visited):
    assert visited.facts["formulas"] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_above_minor(visited, theme):
    """Contrasts, names, roles, landmarks."""
    assert [what for impact, what in visited.axe[theme] if impact != "minor"] == []


def test_tables_have_a_name_and_heads_a_scope(visited):
    assert visited.facts["tables"] == []


def test_folds_have_names_of_their_own(visited):
    """Two of one name could not be told apart in a list of buttons; cells and solutions alike."""
    names = Counter(visited.facts["folds"])
    assert {name: number for name, number in names.items() if number > 1 or "hidden content" in name or not name} == {}


def test_headings_go_down_one_level_at_a_time(visited):
    levels = [level for level, _ in visited.facts["headings"]]
    assert levels.count(1) == 1
    assert levels[0] == 1
    steps = zip(visited.facts["headings"], visited.facts["headings"][1:], strict=False)
    assert [(above, below) for above, below in steps if below[0] > above[0] + 1] == []


def test_page_describes_itself(visited):
    assert visited.facts["title"]
    assert visited.facts["description"]


def test_pictures_below_the_first_screen_wait(visited):
    assert visited.facts["eager_images"] == []


def test_weight_is_bounded(visited):
    assert visited.first_load <= FIRST_LOAD
    assert visited.whole <= WHOLE_PAGE


def test_phone_scrolls_down_alone(visited):
    """At 360 pixels, with everything unfolded, no page is wider than the window."""
    assert visited.phone["width"] <= visited.phone["window"] == 360, visited.phone["outside"]


def test_boxes_that_scroll_say_so_and_are_reached_by_keyboard(visited):
    assert visited.phone["boxes"] == []
