"""The book as MyST's own engine would be given it: every role of ours as the text that it shows, nothing run.

A way out of Jupyter Book 1 that is kept open by a test; CONTRIBUTING says what would be left to do.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from advfeat.checkout import CHECKOUT
from advfeat.experiments.records import BOOK
from advfeat.pages.front_page import glued

sys.path.insert(0, str(CHECKOUT / "_ext"))
from verdicts import by_seed, number, published

# Directives of ours: each would become a plug-in of MyST that returns what it returns here, Markdown or a picture.
OURS = ("at-a-glance", "chapters", "front-picture", "how-built", "launch", "paper-numbers", "predict", "verdicts")
_ROLE = re.compile(r"\{(glue:text|seeds|published|recorded|repo)\}`([^`]+)`")
_DIRECTIVE = re.compile(rf"^(`{{3,}}|:{{3,}})\{{({'|'.join(OURS)})\}}.*?^\1[ ]*$", re.MULTILINE | re.DOTALL)
_GLOSSARY = re.compile(r"^```\{glossary\}$.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([a-z][a-z0-9-]*)\)")  # to a label, which there begins with a hash


def translate(folder: Path) -> dict[str, list[str]]:
    """Write the book into an empty folder, as MyST's engine reads it; returns what the roles of each page became."""
    book, became = folder / "book", defaultdict(list)
    shutil.copytree(BOOK, book, ignore=shutil.ignore_patterns("results", "assignments", "*.json"))
    shutil.copytree(CHECKOUT / "_static", folder / "_static")
    index = json.loads((BOOK / "results" / "index.json").read_bytes())
    paper = json.loads((BOOK / "paper.json").read_bytes())
    chapters = {path: json.loads(path.read_bytes()) for path in sorted(book.glob("*.ipynb"))}
    numbers = {key: text for notebook in chapters.values() for key, text in glued(notebook).items()}

    def plain(text: str, page: str) -> str:
        shown: dict[str, Callable[[str], str]] = {
            "glue:text": lambda key: numbers[key],
            "seeds": lambda asked: by_seed(asked, BOOK / "results" / page),
            "published": lambda asked: published(asked, paper),
            "recorded": lambda asked: number(asked, index),
            "repo": lambda path: f"`{path}`",
        }

        def of_role(found: re.Match[str]) -> str:
            became[page].append(shown[found[1]](found[2]))
            return became[page][-1]

        text = _DIRECTIVE.sub(lambda found: f":::{{note}} {found[2]}\nA plug-in makes this part.\n:::", text)
        text = _ROLE.sub(of_role, text)
        text = _LINK.sub(r"](#\1)", text)
        text = text.replace("og:description:", "description:").replace(":style: plain\n:all:\n", "")
        return _GLOSSARY.sub(lambda found: re.sub(r"^  (?=\S)", ": ", found[0], flags=re.MULTILINE), text)

    for path, notebook in chapters.items():
        cells = []
        for cell in notebook["cells"]:
            cell["id"] = f"{path.stem[:2]}-{cell['id']}"  # of the whole book, there
            if cell["cell_type"] == "markdown":
                cell["source"] = plain("".join(cell["source"]), path.stem)
            cells += [cell, *_figure(cell)]
        notebook["cells"] = cells
        path.write_text(json.dumps(notebook), encoding="utf-8")
    for path in book.glob("*.md"):
        path.write_text(plain(path.read_text(encoding="utf-8"), path.stem), encoding="utf-8")
    _write_settings(folder)
    return dict(became)


def _figure(cell: dict[str, Any]) -> list[dict[str, Any]]:
    """The figure of a cell's picture, which stands after the cell there."""
    figure = cell["metadata"].get("mystnb", {}).get("figure")
    if not figure:
        return []
    label = figure["name"]
    cell["metadata"]["label"] = f"cell-of-{label}"
    text = f":::{{figure}} #cell-of-{label}-output\n:label: {label}\n{figure['caption']}\n:::"
    return [{"cell_type": "markdown", "id": f"figure-{label}", "metadata": {}, "source": text}]


def _write_settings(folder: Path) -> None:
    config = yaml.safe_load((CHECKOUT / "_config.yml").read_text(encoding="utf-8"))
    table = yaml.safe_load((CHECKOUT / "_toc.yml").read_text(encoding="utf-8"))
    suffix = {path.stem: path.suffix for path in (folder / "book").iterdir()}

    def entry(of: dict[str, str]) -> dict[str, str]:
        return {**of, "file": of["file"] + suffix[Path(of["file"]).name]}

    parts = [{"title": part["caption"], "children": list(map(entry, part["chapters"]))} for part in table["parts"]]
    project = {
        "title": config["title"],
        "bibliography": config["bibtex_bibfiles"],
        "numbering": {"heading_1": True, "figure": {"template": "Fig. %s"}},
        "toc": [entry({"file": table["root"]}), *parts],
    }
    # Pages are read before they are dressed. A theme would come from a server; this one is empty.
    settings = {"version": 1, "project": project, "site": {"template": "theme"}}
    (folder / "theme").mkdir()
    (folder / "theme" / "template.yml").write_text("myst: v1\ntitle: none\nkind: site\n", encoding="utf-8")
    (folder / "myst.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
