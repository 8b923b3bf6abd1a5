"""The directive ``verdicts``, a box with the verdicts on all claims, and the role ``recorded``, one number.

Both are made when the pages are built, from ``claims.json``, ``paper.json`` and ``results/index.json`` beside their
page, so a new record changes them by itself. The rule of a verdict is that of ``advfeat.verdicts``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from advfeat.verdicts import RULE, rows_of_book, table

PROFILE = "cifar10-cpu"  # the profile of a recorded number if the page does not name one


def number(text: str, index: list[dict[str, Any]]) -> str:
    """A recorded number with its interval, in percent, or a dash; ``text`` is its ``id`` or ``id @ profile``."""
    key, _, profile = (part.strip() for part in text.partition("@"))
    found = [row for row in index if row["id"] == key and row["profile"] == (profile or PROFILE)]
    return f"{found[0]['value']:.1%} [{found[0]['low']:.1%}, {found[0]['high']:.1%}]" if found else "–"


def _folders(env: Any) -> tuple[Path, Path]:
    """The folder of the book, which holds the page, and the folder of the records; notes the page's dependencies."""
    book = Path(env.doc2path(env.docname)).parent
    results = Path(os.environ.get("ADVFEAT_RESULTS") or book / "results")
    for path in (book / "claims.json", book / "paper.json", results / "index.json"):
        env.note_dependency(str(path))
    return book, results


class Verdicts(SphinxDirective):
    """The claims of the front page with their verdicts, and the rule, parsed like the Markdown of the page."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book, results = _folders(self.env)
        rows = [row for row in rows_of_book(book, results) if row.front]
        container = nodes.container(classes=["verdicts"])
        lines = [*table(rows, links=True).splitlines(), "", RULE]
        self.state.nested_parse(StringList(lines, str(book / "claims.json")), 0, container)
        return [container]


class Recorded(SphinxRole):
    """One recorded number with its interval; a dash if it is not recorded, for example in another results folder."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Called by Sphinx."""
        _, results = _folders(self.env)
        path = results / "index.json"
        return [nodes.Text(number(self.text, json.loads(path.read_bytes()) if path.exists() else []))], []


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("verdicts", Verdicts)
    app.add_role("recorded", Recorded())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
