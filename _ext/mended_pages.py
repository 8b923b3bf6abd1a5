"""Mend the written pages: what the theme, pandas and the notebooks leave out for readers without a mouse or a screen.

The same fault comes from several makers (a table from Markdown, from pandas, from an extension), so the pages are
mended once they are written, whoever wrote them. ``tests/browser`` looks for each fault in a browser.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag

INTERVAL = re.compile(r"(\[[^\[\]]+, [^\[\]]+\])")
LONGEST_NAME = 80  # letters of a name that is taken from a caption
NOT_LOADED = (
    "scripts/fontawesome.js",  # draws each icon of the theme anew as SVG: 1.5 MB; the theme's fonts have them all
    "sphinx-thebe.js",  # runs cells on a server, which no page offers
    "sphinx-thebe.css",
)
ONLY_TO_SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("build-finished", mend_all)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def mend_all(app: Any, error: Exception | None) -> None:
    """Mend every page of a build that went well."""
    if error is not None or app.builder.name != "html":
        return
    folder = Path(app.outdir)
    for path in sorted(folder.rglob("*.html")):
        if path.relative_to(folder).parts[0] not in ("_static", "_sources"):
            path.write_text(mended(path.read_text(encoding="utf-8"), path), encoding="utf-8")


def mended(html: str, path: Path) -> str:
    """``html``, the text of the page at ``path``, with every fault mended that is known here."""
    page = BeautifulSoup(html, "html.parser")
    mend_scripts(page, searching=path.name == "search.html")
    mend_theme_choice(page)
    mend_head(page)
    mend_landmarks(page)
    mend_ids(page)
    mend_bibliography(page)
    mend_tables(page)
    mend_folds(page)
    mend_images(page, path.parent)
    return str(page)


def words(element: Tag | None) -> str:
    """The text of an element in one line, without the signs for links.

    A formula, of which a name would show the source, becomes an ellipsis.
    """
    if element is None:
        return ""
    parts = []
    for text in element.find_all(string=True):
        if text.find_parent(class_="math"):
            parts.append("…")
        elif not text.find_parent(class_="headerlink"):
            parts.append(str(text))
    return re.sub(r"\s+", " ", "".join(parts)).strip()


def shortened(text: str) -> str:
    """The first sentence of ``text``, or as many of its words as a name has room for."""
    first = re.split(r"(?<=[.:;?]) ", text, maxsplit=1)[0].rstrip(".:; ")
    if len(first) <= LONGEST_NAME:
        return first
    return first[:LONGEST_NAME].rsplit(" ", 1)[0].rstrip("…,.:; ") + " …"


def heading_above(element: Tag) -> str:
    """The heading of the section that an element stands in."""
    return words(element.find_previous(["h1", "h2", "h3", "h4"]))


def mend_scripts(page: BeautifulSoup, *, searching: bool) -> None:
    """Drop scripts that no page uses or that come twice.

    The theme and Sphinx both register Thebe, whose constants a page then declares twice, an error in each console. The
    search index is 0.1 MB, and only the page with the results reads it.
    """
    seen = set()
    unused = NOT_LOADED if searching else NOT_LOADED + ONLY_TO_SEARCH
    for tag in page.find_all(["script", "link"]):
        address = (tag.get("src") or tag.get("href") or "").split("?")[0]
        body = (tag.string or "").strip() if tag.name == "script" else ""
        repeated = bool(body) and body in seen
        if address.endswith(unused) or "thebe" in body or tag.get("type") == "text/x-thebe-config" or repeated:
            tag.decompose()
        else:
            seen.add(body)


def mend_theme_choice(page: BeautifulSoup) -> None:
    """Follow the system's theme until a reader chooses one, from the first pixel on and without an error.

    The theme's own first line sets both to "", which it then reports as an invalid mode; until its script arrives the
    page is light.
    """
    for script in page.find_all("script"):
        if script.string and "document.documentElement.dataset.mode" in script.string:
            system = '(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'
            text = script.string.replace('getItem("mode") || ""', 'getItem("mode") || "auto"')
            script.string = text.replace('getItem("theme") || ""', f'getItem("theme") || {system}')
    if page.body is not None and page.body.get("data-default-mode") == "":
        page.body["data-default-mode"] = "auto"


def mend_head(page: BeautifulSoup) -> None:
    """One viewport, and a description of pages that have none."""
    if page.head is None:
        return
    for repeated in page.head.find_all("meta", attrs={"name": "viewport"})[1:]:
        repeated.decompose()
    if page.head.find("meta", attrs={"name": "description"}) is None and page.title is not None:
        page.head.append(page.new_tag("meta", attrs={"name": "description", "content": words(page.title)}))


def mend_landmarks(page: BeautifulSoup) -> None:
    """The logo stands above the navigation, in no landmark: it is the banner of the page, as the theme has no other."""
    brand = page.select_one(".bd-sidebar-primary .navbar-brand")
    if brand is not None and isinstance(brand.parent, Tag):
        brand.parent["role"] = "banner"
    for button in page.select("button[aria-label]"):  # its name has to begin with the words that it shows
        if words(button) and words(button.find(class_="search-button__default-text")):
            del button["aria-label"]


def mend_ids(page: BeautifulSoup) -> None:
    """An id belongs to the first element that has it, where links lead; exercises all get the same inner one."""
    seen = set()
    for element in page.select("[id]"):
        if element["id"] in seen:
            del element["id"]
        else:
            seen.add(element["id"])


def mend_bibliography(page: BeautifulSoup) -> None:
    """The entries of a list are its items; the role that they are given is no longer known."""
    for entry in page.select("[role=doc-biblioentry]"):
        entry["role"] = "listitem"


def mend_tables(page: BeautifulSoup) -> None:
    """Each table says its name and what its head cells are the heads of, keeps intervals whole, and can scroll."""
    names: Counter[str] = Counter()
    for table in page.select("article table, .bd-article table"):
        for head in table.find_all("th"):
            group = "group" if int(head.get("colspan") or head.get("rowspan") or 1) > 1 else ""
            in_head = head.find_parent("thead") is not None
            if not words(head) and head.find("img") is None:
                head.name = "td"  # an empty corner is the head of nothing
                head.attrs.pop("scope", None)
            elif not head.get("scope"):
                head["scope"] = ("col" if in_head else "row") + group
        for cell in table.find_all("td"):
            mark_intervals(page, cell)
        if table.find("caption") is None and not table.get("aria-label") and not table.get("aria-labelledby"):
            columns = [words(head) for head in table.select("thead tr:last-child th")]
            name = ": ".join(filter(None, [heading_above(table), ", ".join(filter(None, columns))]))
            names[name] += 1
            table["aria-label"] = name if names[name] == 1 else f"{name} ({names[name]})"
        if table.find_parent(class_="scroll-box") is None:
            table.wrap(page.new_tag("div", attrs={"class": "scroll-box"}))


def mark_intervals(page: BeautifulSoup, cell: Tag) -> None:
    """Intervals in brackets become elements of their own, which the pages write in one line."""
    for text in cell.find_all(string=INTERVAL):
        parts: list[Tag | str] = list(INTERVAL.split(text))
        for place in range(1, len(parts), 2):
            interval = page.new_tag("span", attrs={"class": "interval"})
            interval.string = parts[place]
            parts[place] = interval
        text.replace_with(*parts)


def mend_folds(page: BeautifulSoup) -> None:
    """A folded cell has a name of its own: with the caption of its figure, or the section where a name comes again.

    Each of them has the label "Toggle hidden content", which hides the words that it shows.
    """
    folds = [
        (summary, summary.find(class_="collapsed"), summary.find(class_="expanded"))
        for summary in page.select("details > summary[aria-label]")
        if summary.find(class_="collapsed") and summary.find(class_="expanded")
    ]
    for _, shown, _ in folds:
        if words(shown) == "Show code cell source":  # of a cell without a title
            shown.string = "Code"
    titles = Counter(words(shown) for _, shown, _ in folds)
    names: Counter[tuple[str, str]] = Counter()
    for summary, shown, hidden in folds:
        del summary["aria-label"]
        title = words(shown)
        cell = summary.find_parent(class_="cell")
        detail = shortened(words(cell.select_one("figcaption .caption-text"))) if cell is not None else ""
        if not detail and (titles[title] > 1 or title == "Code"):
            detail = heading_above(summary)
        names[title, detail] += 1
        if names[title, detail] > 1:
            detail = f"{detail} ({names[title, detail]})"
        detail = f": {detail}" if detail else ""
        _append(page, shown, detail, "fold-detail")
        _append(page, hidden, f" {title}{detail}", "visually-hidden")


def _append(page: BeautifulSoup, element: Tag, text: str, role: str) -> None:
    if text:
        more = page.new_tag("span", attrs={"class": role})
        more.string = text
        element.append(more)


def mend_images(page: BeautifulSoup, folder: Path) -> None:
    """Pictures are loaded when they come near, and have their room before that."""
    for image in page.select("article img"):
        if not image.get("loading"):
            image["loading"] = "lazy"
            image["decoding"] = "async"
        if not any(image.get(name) for name in ("width", "height", "style")):
            size = png_size(folder / str(image.get("src", "")))
            if size:
                image["width"], image["height"] = map(str, size)


def png_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a PNG, in pixels, from its first bytes; nothing of other files."""
    if path.suffix != ".png" or not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(24)
    return struct.unpack(">II", head[16:24]) if head[:8] == b"\x89PNG\r\n\x1a\n" else None
