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
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective, SphinxRole

from advfeat.pages.verdicts import NOT_RECORDED, RULE, claim_map, claim_table, rows_of_book

PAPERS_DATA = "cifar10"  # as in advfeat.pages.notebook, which needs a notebook's packages
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
        records: folder of the chapter's records; of several that of the most training images counts, of CIFAR-10 where
            that is recorded.
    """
    key, spec, which = _asked(text)
    runs = [json.loads(path.read_bytes())["runs"] for path in sorted(records.glob("*/record.json"))]

    def size(of: dict[str, Any]) -> tuple[bool, int]:
        configs = [run["config"] for run in of.values()]
        return configs[0].get("data") == PAPERS_DATA, max(config.get("train_images", 0) for config in configs)

    largest = max(runs, key=size, default={})
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
    """The claims with their verdicts, parsed like the Markdown of the page: those of the front page, with the rule.

    With ``:chapters:`` all claims of the chapters of these numbers, and with ``:map:`` those of all chapters, as a map
    from claim to evidence and verdict, in which those that are not recorded yet are folded; both without the rule.
    """

    option_spec: ClassVar = {"chapters": directives.positive_int_list, "map": directives.flag}

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book, results = _folders(self.env)
        rows = rows_of_book(book, results)
        if "map" in self.options:
            pages = {str(int(path.stem[:2])): path.stem for path in sorted(book.glob("[0-9][0-9]-*.ipynb"))}
            found = [row for row in rows if row.chapter in pages]
            known = [row for row in found if row.verdict != NOT_RECORDED]
            lines = claim_map(known, pages).splitlines()
            if len(known) < len(found):
                waiting = claim_map([row for row in found if row not in known], pages).splitlines()
                title = f"Not recorded yet: {len(waiting) - 2} more"
                lines += ["", f"```{{admonition}} {title}", ":class: dropdown", "", *waiting, "```"]
        elif "chapters" in self.options:
            wanted = {str(of) for of in self.options["chapters"]}
            lines = claim_table([row for row in rows if row.chapter in wanted], links=True, chapters=True).splitlines()
        else:
            lines = [*claim_table([row for row in rows if row.front], links=True).splitlines(), "", RULE]
        container = nodes.container(classes=["verdicts"])
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
