"""The directive ``predict``: a question before a figure, which a reader answers before seeing it.

    :::{predict} fig-ch05-answers
    A network is trained on ... How often does it name ...

    - the label | {glue:text}`ch05_table1/D_det`
    - the class after it | {glue:text}`ch05_table1/D_det/after`
    :::

The argument is the name of the figure. Behind each bar stands the number that was found, as a role that inserts it, so
none is typed. The options ``unit`` (``%``) and ``range`` (``0 100``) are those of all answers. On a page the script
covers the figure until the reader locks a prediction or skips; without it, in print and in LaTeX there is the question
alone, and the figure shows.
"""

from __future__ import annotations

import html
import re
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

TITLE = "Predict, then see"
ANSWER = re.compile(r"- (?P<label>.+) \| (?P<found>\{[\w:-]+\}`[^`]+`)")


class Predict(nodes.General, nodes.Element):
    """The question, and last a ``PredictAnswers``."""


class PredictAnswers(nodes.General, nodes.Element):
    """A ``PredictAnswer`` for each bar."""


class PredictAnswer(nodes.General, nodes.Element):
    """A label and the number that was found, both inline."""


def parted(lines: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The lines of the question, and the label and the role of each answer.

    Raises:
        ValueError: there is no question, no answer, or an answer whose number is no role.
    """
    question = [line for line in lines if not line.startswith("- ")]
    answers = []
    for line in lines:
        if line.startswith("- "):
            found = ANSWER.fullmatch(line.strip())
            if not found:
                raise ValueError(f"an answer must be '- label | {{role}}`number`', got {line!r}")
            answers.append((found["label"], found["found"]))
    if not answers or not "".join(question).strip():
        raise ValueError("a prediction needs a question and at least one answer")
    return question, answers


def limits(text: str) -> tuple[float, float]:
    """Two numbers, the smaller first.

    Raises:
        ValueError: the text is something else.
    """
    low, high = (float(part) for part in text.split())
    if low >= high:
        raise ValueError(f"the range must rise, got {text!r}")
    return low, high


class PredictDirective(SphinxDirective):
    """The question parsed like the Markdown of the page, and the answers behind it."""

    has_content = True
    required_arguments = 1
    option_spec: ClassVar = {"unit": directives.unchanged, "range": limits}

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        try:
            question, answers = parted(list(self.content))
        except ValueError as error:
            raise self.error(str(error)) from None
        low, high = self.options.get("range", (0.0, 100.0))
        node = Predict(figure=self.arguments[0], low=low, high=high, unit=self.options.get("unit", "%"))
        self.set_source_info(node)
        title = nodes.paragraph("", "", nodes.strong(text=TITLE), classes=["advfeat-title"])
        node += title
        self._parse(question, node)
        bars = PredictAnswers()
        for label, found in answers:
            answer = PredictAnswer()
            for text, name in ((label, "label"), (found, "found")):
                holder = nodes.container()
                self._parse([text], holder)
                inline = nodes.inline(classes=[f"advfeat-{name}"])
                inline += holder[0].children
                answer += inline
            bars += answer
        node += bars
        return [node]

    def _parse(self, lines: list[str], into: nodes.Element) -> None:
        source, line = self.get_source_info()
        self.state.nested_parse(StringList(lines, source, [(source, line)] * len(lines)), 0, into)


def check_figures(_: Any, doctree: nodes.document) -> None:
    """Warn of a prediction whose figure is not on its page: it would cover nothing."""
    for node in doctree.findall(Predict):
        if node["figure"] not in doctree.nameids:
            logging.getLogger(__name__).warning("no figure %r on this page", node["figure"], location=node)


def _open(self: Any, node: Predict) -> None:
    data = {"figure": node["figure"], "low": f"{node['low']:g}", "high": f"{node['high']:g}", "unit": node["unit"]}
    attributes = "".join(f' data-{name}="{html.escape(value)}"' for name, value in data.items())
    self.body.append(f'<div class="advfeat-predict"{attributes}>\n')


def _open_answers(self: Any, _: PredictAnswers) -> None:
    if self.builder.name == "epub":
        raise nodes.SkipNode
    self.body.append('<ul class="advfeat-answers" hidden>\n')


def _skip(*_: object) -> None:
    raise nodes.SkipNode


def _nothing(*_: object) -> None:
    pass


def _writes(text: str) -> Any:
    def visit(self: Any, _: nodes.Node) -> None:
        self.body.append(text)

    return visit


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    quoted = (_writes("\n\\begin{quote}"), _writes("\n\\end{quote}\n"))
    others = dict.fromkeys(("text", "man", "texinfo"), (_nothing, _nothing))
    unanswered = dict.fromkeys(("latex", "text", "man", "texinfo"), (_skip, None))
    app.add_node(Predict, html=(_open, _writes("</div>\n")), latex=quoted, **others)
    app.add_node(PredictAnswers, html=(_open_answers, _writes("</ul>\n")), **unanswered)
    app.add_node(PredictAnswer, html=(_writes("<li>"), _writes("</li>\n")), **unanswered)
    app.add_directive("predict", PredictDirective)
    app.connect("doctree-read", check_figures)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
