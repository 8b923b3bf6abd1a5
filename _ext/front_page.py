"""The front page's directives ``front-picture``, ``at-a-glance`` and ``launch``, and the role ``repo``, a file's link.

All are made when the pages are built: the picture and the table from chapter 5 and its record
(``advfeat.pages.front_page``), the links from the addresses in ``_config.yml``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import matplotlib as mpl
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective, SphinxRole

from advfeat.checkout import CHECKOUT
from advfeat.pages.front_page import (
    RELABELLED,
    SOURCE_CHAPTER,
    SOURCE_PROFILE,
    Tile,
    at_a_glance,
    card,
    enlarged,
    front_tiles,
)

CARD = "_static/card.png"
ALT = (
    "Six small photographs as two relabelled training sets hold them. In D_rand, whose labels are drawn at random, and "
    "in D_det, whose every label is the next class, a car, a horse and a ship are labelled as something else."
)
SYMBOLS = {
    "D": r"\mathcal D",
    "D_rand": r"\hat{\mathcal D}_{\mathrm{rand}}",
    "D_det": r"\hat{\mathcal D}_{\mathrm{det}}",
}


def font() -> Path:
    """A typeface that is the same everywhere: matplotlib brings it."""
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def book_of(env: Any) -> Path:
    """The folder of the book, which holds the page; the page depends on chapter 5 and its record."""
    book = Path(env.doc2path(env.docname)).parent
    record = book / "results" / SOURCE_CHAPTER / SOURCE_PROFILE
    for path in (
        book / f"{SOURCE_CHAPTER}.ipynb",
        book / "paper.json",
        book / "results" / "index.json",
        *record.iterdir(),
    ):
        env.note_dependency(str(path))
    return book


class FrontPicture(SphinxDirective):
    """The photographs with what a person sees above and the label below; in print all in one picture."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx. The content of the directive is the caption."""
        shown = front_tiles(book_of(self.env))
        folder = Path(self.env.app.doctreedir) / "front"
        folder.mkdir(parents=True, exist_ok=True)
        row = nodes.container(classes=["front-picture"])
        for kind in RELABELLED:
            words = nodes.paragraph("", "", nodes.math("", SYMBOLS[kind]), nodes.Text(f": {RELABELLED[kind]}"))
            group = nodes.container("", nodes.container("", words, classes=["front-set"]), classes=["front-group"])
            group += [self._tile(tile, folder) for tile in shown if tile.kind == kind]
            row += group
        card(shown, font()).save(folder / "card.png", optimize=True)
        printed = nodes.image(uri=self._from_source(folder / "card.png"), alt=ALT, width="100%")
        caption = nodes.container(classes=["front-caption"])
        self.state.nested_parse(self.content, self.content_offset, caption)
        return [addnodes.only("", row, expr="html"), addnodes.only("", printed, expr="latex"), caption]

    def _tile(self, tile: Tile, folder: Path) -> nodes.container:
        path = folder / f"{tile.kind}-{tile.seen}.png"
        enlarged(tile.picture, 128).save(path, optimize=True)
        image = nodes.image(uri=self._from_source(path), alt=f"A photograph of a {tile.seen}, enlarged.")
        image["classes"].append("dark-light")  # the theme dims no picture of this class
        seen = nodes.paragraph("", f"you see: {tile.seen}")
        label = nodes.paragraph("", "label: ", nodes.strong("", tile.label))
        return nodes.container("", seen, image, label, classes=["front-tile"])

    def _from_source(self, path: Path) -> str:
        """The path as the page's source would name it."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        return Path(os.path.relpath(path, here)).as_posix()


class AtAGlance(SphinxDirective):
    """Table 1 in three rows: live, recorded with its intervals, and the paper's."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        book = book_of(self.env)
        container = nodes.container(classes=["at-a-glance"])
        names = {name: f"${symbol}$" for name, symbol in SYMBOLS.items()}
        lines = at_a_glance(book, names=names, intervals=True).splitlines()
        self.state.nested_parse(StringList(lines, str(book)), 0, container)
        return [container]


def hosted(options: dict[str, Any], page: str) -> dict[str, str]:
    """Links that open a notebook on Colab and on Binder, as the launch buttons of chapters do.

    Args:
        options: of the theme: ``repository_url``, ``repository_branch`` and ``launch_buttons``.
        page: the notebook, from the root of the repository.
    """
    project = options["repository_url"].removeprefix("https://github.com/")
    branch, buttons = options["repository_branch"], options["launch_buttons"]
    return {
        "Colab": f"{buttons['colab_url']}/github/{project}/blob/{branch}/{page}",
        "Binder": f"{buttons['binderhub_url']}/v2/gh/{project}/{branch}?urlpath=lab/tree/{page}",
    }


class Launch(SphinxDirective):
    """Links that open a chapter on a hosted notebook."""

    required_arguments = 1
    option_spec: ClassVar = {"class": directives.class_option}

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx. The argument is the chapter's file beside the page."""
        folder = Path(self.env.docname).parent
        links = hosted(self.config.html_theme_options, (folder / self.arguments[0]).as_posix())
        words = nodes.paragraph("", "Run a chapter in the browser, without installing anything: ")
        for number, (name, url) in enumerate(links.items()):
            words += nodes.Text(" or " if number else "")
            words += nodes.reference("", name, refuri=url, internal=False)
        words += nodes.Text(".")
        return [nodes.container("", words, classes=["launch"])]


class InRepository(SphinxRole):
    """A file of the repository, as a link to it.

    Raises:
        ValueError: there is no such file.
    """

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Called by Sphinx."""
        if not (CHECKOUT / self.text).exists():
            raise ValueError(f"repo: there is no file {self.text!r} in the repository")
        options = self.config.html_theme_options
        url = f"{options['repository_url']}/blob/{options['repository_branch']}/{self.text}"
        return [nodes.reference("", "", nodes.literal("", self.text), refuri=url, internal=False)], []


def write_card(app: Any, error: Exception | None) -> None:
    """Put the picture that previews of links show beside the pages."""
    made = Path(app.doctreedir) / "front" / "card.png"
    if error is None and app.builder.format == "html" and made.exists():
        (Path(app.outdir) / CARD).write_bytes(made.read_bytes())


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("front-picture", FrontPicture)
    app.add_directive("at-a-glance", AtAGlance)
    app.add_directive("launch", Launch)
    app.add_role("repo", InRepository())
    app.connect("build-finished", write_card)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
