"""The book as LaTeX, for `make pdf`: what differs between pages on a screen and pages on paper.

Nothing here touches the HTML. On paper the front page becomes an introduction without a number, solutions stand in an
appendix to which their exercises refer, drawings become PDF, and tables that a cell made as HTML become tables. Fonts,
colours and the title page are in ``printed.tex``, beside this file.
"""

from __future__ import annotations

import datetime
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from docutils import nodes
from printed_tables import columns_of, keep_together, tables_of
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.transforms.post_transforms.images import ImageConverter
from sphinx_exercise.nodes import is_exercise_node, solution_node

BACK_MATTER = "Back matter"  # the part of _toc.yml whose chapters become appendices
SCALE = 80  # percent
MOST_LINES = 30  # of a table that stays on one page
INTRODUCTION = "Introduction"
SOLUTIONS = "Solutions"
HEADINGS = ("section", "subsection", "subsubsection")
ESCAPED = {ord(char): f"\\{char}" for char in "#$%&_{}"} | {
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
}


def raw(latex: str) -> nodes.raw:
    """LaTeX that goes to the file as it is."""
    return nodes.raw("", latex, format="latex")


def label(docname: str, name: str) -> nodes.raw:
    """The place that a reference to ``name`` on a page leads to."""
    return raw(rf"\phantomsection\label{{\detokenize{{{docname}:{name}}}}}" + "\n")


class DrawingsToPdf(ImageConverter):
    """An SVG as PDF: rsvg-convert keeps lines and letters, where ImageMagick would make pixels of them."""

    conversion_rules = [("image/svg+xml", "application/pdf")]  # noqa: RUF012, a class attribute of Sphinx

    def is_available(self) -> bool:
        """Called by Sphinx. True: a missing program stops the build at the first drawing, with a message."""
        return True

    def convert(self, _from: str, _to: str) -> bool:
        """Called by Sphinx."""
        subprocess.run(["rsvg-convert", "--format=pdf", f"--output={_to}", _from], check=True)
        return True


class LatexTransform(SphinxPostTransform):
    """A change of the whole book, once its pages are joined for LaTeX."""

    formats = ("latex",)


class HtmlTables(LatexTransform):
    """A table that a cell shows as HTML, from pandas, becomes a table; LaTeX would leave it out."""

    default_priority = 395  # the output is chosen before, hidden cells are left out after

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for node in list(self.document.findall(nodes.raw)):
            if node.get("format") == "html" and "<table" in node.astext():
                node.replace_self(tables_of(node.astext()))


class Proofs(LatexTransform):
    """A proof is text with a mark at its end, and no box without a title."""

    default_priority = 395

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for node in list(self.document.findall(nodes.admonition)):
            if "proof" in node["classes"]:
                _slant_first_word(node)
                node.replace_self([raw("\\begin{bookproof}\n"), *node.children, raw("\\end{bookproof}\n")])


class Figures(LatexTransform):
    """A figure of a cell is drawn for a screen; on paper its letters are those of a caption."""

    default_priority = 720

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for image in self.document.findall(nodes.image):
            if not {"width", "height", "scale"} & set(image.attributes) and image["uri"].endswith(".png"):
                image["scale"] = SCALE


class Columns(LatexTransform):
    """Columns as wide as their texts need; a table of many lines may go on on the next page."""

    default_priority = 770

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for table in list(self.document.findall(nodes.table)):
            keep_together(table)
            spec, lines = columns_of(table)
            table["classes"] = [*table["classes"], *(["longtable"] if lines > MOST_LINES else [])]
            table.parent.insert(table.parent.index(table), addnodes.tabular_col_spec(spec=spec))


class Tags(LatexTransform):
    r"""A formula with a number of its own, by \tag, which Sphinx would put where LaTeX refuses it."""

    default_priority = 395

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        for node in self.document.findall(nodes.math_block):
            formula = node.astext()
            if r"\tag" in formula and not node.get("label"):
                replaced = nodes.Text("\\begin{equation*}\n" + formula.strip() + "\n\\end{equation*}")
                node.children, node["nowrap"] = [replaced], True


class FrontPage(LatexTransform):
    """The front page is an introduction without a number, and its headings are headings below it.

    sphinx-jupyterbook-latex, which would make large letters of them, leaves alone what is no section any more.
    """

    default_priority = 690

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        root = self.config.root_doc
        top = next(section for section in self.document.findall(nodes.section) if section.get("docname") == root)
        self._dissolve(top, root, 0)
        start = raw(
            rf"\chapter*{{{INTRODUCTION}}}\addcontentsline{{toc}}{{chapter}}{{{INTRODUCTION}}}"
            rf"\markboth{{{INTRODUCTION}}}{{{INTRODUCTION}}}" + "\n"
        )
        top.insert(1, start)  # after the title, which goes to the title page

    def _dissolve(self, section: nodes.section, root: str, depth: int) -> None:
        """Put the parts of the sections below a section in their place."""
        for below in [node for node in section.children if isinstance(node, nodes.section)]:
            self._dissolve(below, root, depth + 1)
            title, *rest = below.children
            heading = nodes.paragraph("", "", raw(rf"\{HEADINGS[depth]}*{{"), *title.children, raw("}"))
            targets = {node.get("refid") for node in section.findall(nodes.target)}  # these print labels of their own
            below.replace_self([heading, *(label(root, name) for name in below["ids"] if name not in targets), *rest])


class BackMatter(LatexTransform):
    """Solutions in an appendix; the chapters of the back matter are appendices, and an empty one is left out."""

    default_priority = 760  # when parts, chapters and the bibliography stand where they belong

    def run(self, **_: Any) -> None:
        """Called by Sphinx."""
        _adopt(self.document)
        part = next((node for node in self.document.findall(nodes.section) if node.get("docname") == BACK_MATTER), None)
        if part is None:
            raise ValueError(f"_toc.yml has no part {BACK_MATTER!r}, whose chapters become appendices")
        part.insert(1, raw("\\appendix\n"))
        for page in list(part.findall(addnodes.start_of_file)):
            if not any(isinstance(node, nodes.paragraph | nodes.table | nodes.section) for node in page[0][1:]):
                page.parent.remove(page)  # the bibliography, whose entries have a heading of their own at the end
        chapter = self._solutions()
        if len(chapter) > 1:
            appendix = addnodes.start_of_file("", chapter, docname="solutions")
            part.append(nodes.compound("", appendix, classes=["toctree-wrapper"]))

    def _solutions(self) -> nodes.section:
        """A section with all solutions, chapter by chapter; the exercises say where theirs is."""
        exercises = {node["label"]: node for node in self.document.findall(is_exercise_node)}
        chapter = nodes.section("", nodes.title("", SOLUTIONS), ids=["solutions"])
        last = None
        for solution in list(self.document.findall(solution_node)):
            page = _page_of(solution)
            solution.parent.remove(solution)
            if page is not last:
                last = page
                chapter += nodes.section("", nodes.title("", page[0][0].astext()), ids=[f"of-{len(chapter)}"])
            chapter[-1] += solution
            exercise = exercises[solution["target_label"]]
            where = rf"\pageref{{{page['docname']}:{solution['label']}}}"
            exercise += nodes.paragraph("", "", raw(rf"\hfill{{\small\itshape Solution on page~{where}}}"))
        for label_, node in exercises.items():
            node.parent.insert(node.parent.index(node), label(_page_of(node)["docname"], label_))
        return chapter


def _slant_first_word(proof: nodes.admonition) -> None:
    """The word Proof in italics, as usual in print."""
    first = next(proof.findall(nodes.Text), None)
    if first is not None and first.startswith("Proof"):
        word, dot, rest = first.partition(".")
        first.parent.replace(first, [nodes.emphasis("", word + dot), nodes.Text(rest)])


def _adopt(node: nodes.Element) -> None:
    """Tell every node again who its parent is: sphinx-jupyterbook-latex moves children without a word to them."""
    for child in node.children:
        child.parent = node
        if isinstance(child, nodes.Element):
            _adopt(child)


def _page_of(node: nodes.Node) -> addnodes.start_of_file:
    """The page that a node stands on."""
    while not isinstance(node, addnodes.start_of_file):
        node = node.parent
    return node


def title_page() -> str:
    """The lines of the title page that are known only now: version, date, commit."""
    from advfeat.experiments.provenance import provenance

    now = float(os.environ.get("SOURCE_DATE_EPOCH") or datetime.datetime.now(datetime.UTC).timestamp())
    date = datetime.datetime.fromtimestamp(now, datetime.UTC)
    try:
        number = version("advfeat")
    except PackageNotFoundError:
        number = "unknown"
    made = provenance()
    commit = made["commit"][:12] + (", with changes" if made["dirty"] else "")
    made_with = ", ".join(f"{name} {of}" for name, of in made["versions"].items() if name != "advfeat")
    lines = {"Version": number, "Date": f"{date.day} {date:%B %Y}", "Commit": commit, "MadeWith": made_with}
    return "\n".join(rf"\newcommand{{\book{name}}}{{{text.translate(ESCAPED)}}}" for name, text in lines.items())


def configure(_app: Any, config: Any) -> None:
    """The settings of LaTeX, after sphinx-jupyterbook-latex has set its own."""
    config.latex_theme = "manual"  # the theme of Jupyter Book asks for fonts of half a gigabyte
    config.latex_docclass = {"manual": "report"}
    config.latex_table_style = ["booktabs"]
    config.latex_show_urls = "no"
    config.latex_domain_indices = False
    config.jblatex_load_imgconverter = False  # see DrawingsToPdf
    config.jblatex_show_tocs = False
    config.latex_elements = {
        "papersize": "a4paper",
        "pointsize": "10pt",
        "extraclassoptions": "openany,oneside",
        "fncychap": "",
        "fontpkg": "",
        "fvset": r"\fvset{fontsize=\footnotesize}",
        "sphinxsetup": "hmargin={29mm,29mm}, vmargin={28mm,28mm}, marginpar=10mm",
        "figure_align": "!htbp",
        "makeindex": "",
        "printindex": "",
        "maketitle": r"\booktitlepage",
    }


def add_preamble(app: Any) -> None:
    """The preamble, which costs an import of PyTorch, for LaTeX only."""
    if app.builder.format == "latex":
        look = Path(__file__).with_suffix(".tex").read_text(encoding="utf-8")
        app.builder.context["preamble"] = f"{title_page()}\n{look}"


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("config-inited", configure, priority=900)
    app.connect("builder-inited", add_preamble)
    app.add_post_transform(DrawingsToPdf)
    for transform in (HtmlTables, Tags, Proofs, FrontPage, BackMatter, Figures, Columns):
        app.add_post_transform(transform)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
