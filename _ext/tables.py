"""Tables of pandas as a reader should see them: with one head row and a caption.

pandas writes the name of the index into a second head row of otherwise empty cells; here it moves into the corner. The
caption comes from the metadata of the cell, ``{"table": {"caption": ...}}``, of several tables as a list. Only the
pages are changed: a notebook elsewhere shows what pandas shows, and no cell has to know of it. ``mended_pages`` does
for each table, whoever made it, what all tables need.
"""

from __future__ import annotations

from typing import Any

from bs4 import BeautifulSoup, Tag
from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform


class Tables(SphinxPostTransform):
    """Rewrites the HTML of each table that a cell shows."""

    default_priority = 400  # after MyST-NB has chosen among the outputs of a cell
    formats = ("html",)

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for cell in self.document.findall(lambda node: isinstance(node, nodes.container) and "cell" in node["classes"]):
            captions = (cell.get("cell_metadata") or {}).get("table", {}).get("caption", [])
            left = [captions] if isinstance(captions, str) else list(captions)
            for raw in cell.findall(nodes.raw):
                if 'class="dataframe"' in raw.astext():
                    text = rewritten(raw.astext(), left.pop(0) if left else "")
                    raw.children = []
                    raw += nodes.Text(text)


def rewritten(html: str, caption: str = "") -> str:
    """A table of pandas with one head row for each level of its columns, and a caption."""
    page = BeautifulSoup(html, "html.parser")
    for style in page.find_all("style"):
        style.decompose()  # the pages have their own
    for table in page.find_all("table"):
        del table["border"]
        _join_heads(table)
        for row in table.find_all("tr"):
            row.attrs.pop("style", None)
        if caption:
            words = page.new_tag("caption")
            words.string = caption
            table.insert(0, words)
    return str(page)


def _join_heads(table: Tag) -> None:
    """Move the names of the index from a head row of their own into the empty cells above them.

    The columns have a name of their own in the corner of theirs; it stays, as the name of what stands beside it.
    """
    rows = table.select("thead tr")
    if len(rows) < 2:
        return
    names = [cell for cell in rows[-1].find_all("th") if cell.get_text(strip=True)]
    levels = next((place for place, cell in enumerate(rows[-1].find_all("th")) if not cell.get_text(strip=True)), 0)
    if not levels or len(names) != levels:
        return  # the last row holds names of columns
    above = rows[-2].find_all("th")[:levels]
    for name, place in zip(names, above, strict=True):
        was = place.get_text(strip=True)
        place.string = f"{name.get_text(strip=True)}, {was}" if was else name.get_text(strip=True)
    rows[-1].decompose()


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_post_transform(Tables)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
