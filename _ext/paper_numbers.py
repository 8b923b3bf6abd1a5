"""The directive ``paper-numbers``: a table of every number of the paper's main text beside the recorded numbers.

The table is made when the pages are built, from ``paper.json`` and ``results/index.json`` beside its page, so a new
record appears in it by itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

HEADER = ("in the paper", "paper", "ours [95% interval]", "run")
MISSING = "*not recorded yet*"
NOT_COMPUTED = "*not in this book*"


def table_rows(paper: dict[str, dict[str, Any]], index: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row per number of the paper and profile that recorded it; a number without a record gets one row.

    Args:
        paper: id → ``value`` (None: shown in a plot, or not confirmed), ``where`` in the paper (text after a semicolon
            is about the source), ``computed`` (label of our figure, the link of the row); ``format`` if it is not a
            rate, ``printed`` if its source gives more or fewer places, ``data`` if it is not CIFAR-10, in which case
            the id begins with it. Entries ``by`` others than the paper have no row.
        index: rows of ``results/index.json``. A record counts if its profile is of the same data.
    """
    rows = []
    for key, entry in paper.items():
        if entry.get("by", "paper") != "paper":
            continue
        data, spec = entry.get("data", "cifar10"), entry.get("format", ".1%")
        confirmed = entry["value"] is not None and "second-hand" not in entry["where"]
        published = format(entry["value"], entry.get("printed", spec)) if confirmed else "–"
        name, label = entry["where"].split(";")[0], entry["computed"]
        name = f"{{ref}}`{name} <{label}>`" if label else name
        measured = key.removeprefix(f"{data}/")
        found = [row for row in index if row["id"] == measured and row["profile"].startswith(data)]
        for row in found:
            value, low, high = (format(row[key], spec) for key in ("value", "low", "high"))
            count = f"n = {row['n']:,}, {row['seeds']} {'seed' if row['seeds'] == 1 else 'seeds'}"
            rows.append((name, published, f"{value} [{low}, {high}]", f"`{row['profile']}`, {count}"))
        if not found:
            rows.append((name, published, MISSING if label else NOT_COMPUTED, "–"))
    return rows


class PaperNumbers(SphinxDirective):
    """The table, parsed like the Markdown of the page."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book = Path(self.env.doc2path(self.env.docname)).parent
        published, recorded = book / "paper.json", Path(os.environ.get("ADVFEAT_RESULTS") or book / "results")
        index = recorded / "index.json"
        for path in (published, index):
            self.env.note_dependency(str(path))
        rows = table_rows(json.loads(published.read_bytes()), json.loads(index.read_bytes()) if index.exists() else [])
        lines = [HEADER, ("---",) * len(HEADER), *rows]
        container = nodes.container(classes=["paper-numbers"])
        text = StringList([f"| {' | '.join(line)} |" for line in lines], str(published))
        self.state.nested_parse(text, 0, container)
        return [container]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("paper-numbers", PaperNumbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
