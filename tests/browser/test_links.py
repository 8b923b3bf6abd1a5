"""Every link inside the book leads somewhere: to a page, a file, and the very place that it names."""

from __future__ import annotations

import re
from urllib.parse import unquote, urljoin, urlsplit

import pytest

pytestmark = pytest.mark.browser

HOME = "http://book.invalid/"
# A page to print and one to see are made by the reader's browser; these are no addresses.
NO_ADDRESS = ("mailto:", "javascript:", "data:")


@pytest.fixture(scope="module")
def pages(pages_folder):
    """Path of each page → its parsed text."""
    from bs4 import BeautifulSoup

    found = sorted(path for path in pages_folder.rglob("*.html") if "_static" not in path.parts)
    return {
        path.relative_to(pages_folder).as_posix(): BeautifulSoup(path.read_text("utf-8"), "html.parser")
        for path in found
    }


def addresses(page):
    """Everything that a page links to or shows, with the attribute that says so."""
    for name in ("href", "src", "srcset", "poster"):
        for element in page.select(f"[{name}]"):
            yield element[name].split()[0] if name == "srcset" else element[name]
    for element in page.select("meta[http-equiv=refresh]"):
        yield re.sub(r"^.*url=", "", element["content"], flags=re.IGNORECASE).strip("'\"")


def test_links_anchors_and_files_exist(pages, pages_folder):
    anchors = {path: {tag["id"] for tag in page.select("[id]")} for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        for address in addresses(page):
            if address.startswith(NO_ADDRESS):
                continue
            target = urljoin(HOME + path, address)
            if not target.startswith(HOME):
                continue
            parts = urlsplit(target)
            name = unquote(parts.path).lstrip("/")
            if name == "" or name.endswith("/"):
                name += "index.html"
            if not (pages_folder / name).is_file():
                broken.append(f"{path}: {address}: no such file")
            elif parts.fragment and name in anchors and unquote(parts.fragment) not in anchors[name]:
                broken.append(f"{path}: {address}: no such place")
    assert broken == []


def test_no_id_is_given_twice(pages):
    """A link to an id that two elements have leads to the first of them, perhaps the wrong one."""
    twice = []
    for path, page in pages.items():
        ids = [tag["id"] for tag in page.select("[id]")]
        twice += [f"{path}: {name}" for name in sorted({name for name in ids if ids.count(name) > 1})]
    assert twice == []


def test_links_in_words_have_words(pages):
    """A link without text, picture or label has no name."""
    empty = [
        f"{path}: {link}"
        for path, page in pages.items()
        for link in page.select("main a[href]")
        if not link.get_text(strip=True) and not link.find(["img", "svg"]) and not link.get("aria-label")
    ]
    assert empty == []
