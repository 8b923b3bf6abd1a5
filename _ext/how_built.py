"""The directive ``how-built``: where, when and with what each recorded number, each chapter and the pages were made.

The tables are made when the pages are built, from the records and the notebooks beside the page.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

RECORDS = ("chapter, profile", "seeds", "commit, day (UTC)", "made with", "minutes")
CHAPTERS = ("chapter", "device", "versions", "time")
TOOLS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme")


def record_rows(results: Path, repository: str) -> list[tuple[str, ...]]:
    """One row for each record and circumstance: seeds that were recorded alike share a row.

    Args:
        results: folder of the records.
        repository: address of the project, where commits can be seen.
    """
    rows = []
    for path in sorted(results.glob("*/*/record.json")):
        record = json.loads(path.read_bytes())
        alike: dict[tuple[str, ...], list[tuple[int, float | None]]] = {}
        for seed, run in record["runs"].items():
            made = run["provenance"]
            engine = "" if made.get("engine", "torch") == "torch" else f", {made['engine']}"
            shown = (
                f"[`{made['commit'][:7]}`]({repository}/commit/{made['commit']})"
                f"{' and changes' * made['dirty']}, {made['time'][:10]}",
                f"{made['device']}, {made['threads']} thread{'s' * (made['threads'] > 1)}{engine}; "
                f"PyTorch {made['versions']['torch']}, Python {made['versions']['python']}",
            )
            alike.setdefault(shown, []).append((int(seed), run["seconds"].get("chapter")))
        for shown, runs in alike.items():
            minutes = [f"{seconds / 60:.0f}" for _, seconds in sorted(runs) if seconds is not None]
            seeds = ", ".join(str(seed) for seed, _ in sorted(runs))
            name = f"[]({path.parent.parent.name}.ipynb), `{path.parent.name}`"
            rows.append((name, seeds, *shown, " + ".join(minutes) or "–"))
    return rows


def chapter_rows(book: Path) -> list[tuple[str, ...]]:
    """One row for each chapter: what its last cell, *About this run*, says of this copy."""
    rows = []
    for path in sorted(book.glob("[0-9]*.ipynb")):
        outputs = json.loads(path.read_bytes())["cells"][-1]["outputs"]
        text = "".join("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
        said = dict(re.findall(r"^\| \*\*(\w+)\*\* \| (.*) \|$", text, re.MULTILINE))
        rows.append((f"[]({path.name})", *(said.get(name, "–") for name in CHAPTERS[1:])))
    return rows


def tools(folder: Path) -> str:
    """The commit of the checkout that holds a folder, if git knows one, and the versions that build the pages."""
    try:
        asked = ["git", "-C", str(folder), "rev-parse", "--short", "HEAD"]
        commit = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        commit = ""
    versions = ", ".join(f"{name} {version(name)}" for name in TOOLS)
    return f"from commit `{commit or 'unknown'}`, with Python {platform.python_version()}, {versions}"


class HowBuilt(SphinxDirective):
    """The table that the argument names, ``records`` or ``chapters``; or, for ``pages``, a sentence."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book = Path(self.env.doc2path(self.env.docname)).parent
        results = Path(os.environ.get("ADVFEAT_RESULTS") or book / "results")
        for path in (*results.glob("*/*/record.json"), *book.glob("[0-9]*.ipynb")):
            self.env.note_dependency(str(path))
        if self.arguments[0] == "pages":
            lines = [f"These pages were built {tools(book)}."]
        else:
            head, rows = {
                "records": (RECORDS, record_rows(results, self.config.html_theme_options["repository_url"])),
                "chapters": (CHAPTERS, chapter_rows(book)),
            }[self.arguments[0]]
            lines = [f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows)]
        container = nodes.container(classes=["how-built"])
        self.state.nested_parse(StringList(lines, str(book)), 0, container)
        return [container]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("how-built", HowBuilt)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
