"""The directive ``verdicts``, a box with the verdicts on the front page's claims, and three roles for one number each.

``recorded`` is a recorded number with its interval, ``seeds`` one of the page's own record seed by seed, ``published``
one of the paper. All are made when the pages are built, from ``claims.json``, ``paper.json`` and ``results`` beside the
page that holds them, so a new record changes them by itself. ``advfeat.pages.verdicts`` has the rule of a verdict.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from statistics import fmean
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from advfeat.pages.verdicts import RULE, claim_table, rows_of_book

PROFILE = "cifar10-cpu"  # the profile of a recorded number if the page does not name one


def number(text: str, index: list[dict[str, Any]]) -> str:
    """A recorded number with its interval, in percent, or a dash; ``text`` is its ``id`` or ``id @ profile``."""
    key, _, profile = (part.strip() for part in text.partition("@"))
    found = [row for row in index if row["id"] == key and row["profile"] == (profile or PROFILE)]
    return f"{found[0]['value']:.1%} [{found[0]['low']:.1%}, {found[0]['high']:.1%}]" if found else "–"


def by_seed(text: str, records: Path) -> str:
    """A number of a chapter's record, seed by seed ("43.1% and 42.5%"), or a dash where there is none.

    Args:
        text: its id, perhaps its format (else ``.1%``), perhaps ``first``, of the lowest seed alone, or ``mean``, of
            all seeds (runs that share a network count as one).
        records: folder of the chapter's records; of several that of the most training images counts.
    """
    key, spec, which = _asked(text)
    runs = [json.loads(path.read_bytes())["runs"] for path in sorted(records.glob("*/record.json"))]
    largest = max(runs, key=lambda of: max(run["config"].get("train_images", 0) for run in of.values()), default={})
    values = [largest[seed]["values"] for seed in sorted(largest, key=int)]
    found = [of[key] for of in values if key in of]
    if which == "mean" and found:
        by_network = [[of["value"] for of in found if of["seed"] == seed] for seed in {of["seed"] for of in found}]
        return format(fmean(map(fmean, by_network)), spec)
    shown = [format(of["value"], spec) for of in found]
    return " and ".join(shown[:1] if which == "first" else shown) or "–"


def published(text: str, paper: dict[str, dict[str, Any]]) -> str:
    """A number of ``paper.json`` by its id, in a format of one's own or else in ``.1%``."""
    key, spec, _ = _asked(text)
    return format(paper[key]["value"], spec)


def _asked(text: str) -> tuple[str, str, str]:
    """The parts of a role's text: an id, a format, and which of several seeds."""
    key, *more = text.split()
    which = next((word for word in more if word in ("first", "mean")), "all")
    return key, next((word for word in more if word != which), ".1%"), which


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
        lines = [*claim_table(rows, links=True).splitlines(), "", RULE]
        self.state.nested_parse(StringList(lines, str(book / "claims.json")), 0, container)
        return [container]


class Recorded(SphinxRole):
    """One recorded number with its interval; a dash if it is not recorded, for example in another results folder."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Called by Sphinx."""
        _, results = _folders(self.env)
        path = results / "index.json"
        return [nodes.Text(number(self.text, json.loads(path.read_bytes()) if path.exists() else []))], []


class Seeds(SphinxRole):
    """One number of the page's own record, seed by seed."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Called by Sphinx."""
        _, results = _folders(self.env)
        return [nodes.Text(by_seed(self.text, results / Path(self.env.docname).name))], []


class Published(SphinxRole):
    """One number of the paper, or of another source in ``paper.json``."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Called by Sphinx."""
        book, _ = _folders(self.env)
        return [nodes.Text(published(self.text, json.loads((book / "paper.json").read_bytes())))], []


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("verdicts", Verdicts)
    app.add_role("recorded", Recorded())
    app.add_role("seeds", Seeds())
    app.add_role("published", Published())
    return {"parallel_read_safe": True, "parallel_write_safe": True}
