"""The directive ``chapters``: a table of the book's chapters, each with a line on its contents.

The table is made when the pages are built, from the notebooks beside its page: the metadata of a chapter's first cell
hold its line, under ``shows``. So a new chapter appears in it by itself.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

HEADER = ("chapter", "what it shows")


def table_rows(paths: list[Path]) -> list[tuple[str, str]]:
    """A link to each chapter, and its line.

    Raises:
        ValueError: the first cell of a chapter has no line.
    """
    rows = []
    for path in paths:
        shows = json.loads(path.read_bytes())["cells"][0]["metadata"].get("shows")
        if not shows:
            raise ValueError(f"{path.name}: the metadata of the first cell lack `shows`, its line in the table")
        rows.append((f"[]({path.name})", shows))
    return rows


class Chapters(SphinxDirective):
    """The table, parsed like the Markdown of the page."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book = Path(self.env.doc2path(self.env.docname)).parent
        paths = sorted(book.glob("[0-9]*.ipynb"))
        for path in paths:
            self.env.note_dependency(str(path))
        container = nodes.container(classes=["chapters"])
        lines = [f"| {' | '.join(row)} |" for row in (HEADER, ("---",) * len(HEADER), *table_rows(paths))]
        self.state.nested_parse(StringList(lines, str(book)), 0, container)
        return [container]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("chapters", Chapters)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
