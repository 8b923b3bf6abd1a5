"""Feedback pages without active content from the submission: no scripts, no event handlers, no frames, no forms."""

from __future__ import annotations

import base64
import binascii
import copy
import html
import re
from typing import Any

from bleach.css_sanitizer import CSSSanitizer
from bleach.sanitizer import Cleaner
from jinja2 import pass_context
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode
from traitlets import default

# The tags of Markdown and of pandas' tables. All other tags are shown as text.
_TAGS = {
    *("a", "abbr", "b", "blockquote", "br", "caption", "code", "col", "colgroup", "dd", "del", "details", "div", "dl"),
    *("dt", "em", "figcaption", "figure", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i", "img", "kbd", "li", "mark"),
    *("ol", "p", "pre", "s", "small", "span", "strong", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th"),
    *("thead", "tr", "u", "ul"),
}
_PLAIN = {"class", "title", "colspan", "rowspan", "align", "border", "start", "alt", "width", "height", "style"}
_LINK = re.compile(r"(https?://|mailto:|#)", re.IGNORECASE)
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,", re.IGNORECASE)
_WITH_CONTENT = re.compile(r"<(script|style)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)


def _allowed(tag: str, name: str, value: str) -> bool:
    if (tag, name) == ("a", "href"):
        return bool(_LINK.match(value))
    if (tag, name) == ("img", "src"):
        return bool(_PICTURE.match(value))
    return name in _PLAIN


def clean(text: str) -> str:
    """HTML without active content; scripts and styles are removed, other forbidden tags are shown as text.

    Links lead to ``http``, ``https`` and ``mailto``, or within the page. Only embedded pictures are allowed: a server
    of a picture would learn who reads the page.
    """
    styles = CSSSanitizer(allowed_css_properties=["text-align", "width", "height"])
    cleaner = Cleaner(
        _TAGS, _allowed, protocols={"http", "https", "mailto", "data"}, strip_comments=True, css_sanitizer=styles
    )
    cleaned: str = cleaner.clean(_WITH_CONTENT.sub("", text))
    return cleaned


def harmless(notebook: NotebookNode) -> NotebookNode:
    """A copy of a notebook with only the outputs and metadata that a page shows, without active content."""
    shown = copy.deepcopy(notebook)
    shown.metadata = {name: value for name, value in shown.metadata.items() if name == "language_info"}
    for cell in shown.cells:
        cell.metadata = {name: value for name, value in cell.metadata.items() if name == "nbgrader"}
        if cell.cell_type == "raw":
            cell.source = html.escape(cell.source)
        for output in cell.get("outputs", []):
            if "data" in output:
                output.data = {kind: value for kind, value in map(_shown, output.data.items()) if value}
                output.metadata = {}
        if cell.cell_type == "code" and not isinstance(cell.execution_count, int):
            cell.execution_count = None
    return shown


def _shown(datum: tuple[str, Any]) -> tuple[str, str]:
    kind, value = datum
    if kind == "text/html":
        return kind, clean(str(value))
    if kind in ("text/plain", "text/markdown"):  # when the page is made, plain text is escaped and Markdown cleaned
        return kind, str(value)
    if kind == "text/latex":
        return kind, str(value)
    if kind in ("image/png", "image/jpeg"):
        try:
            return kind, base64.b64encode(base64.b64decode(str(value))).decode()
        except binascii.Error:
            return kind, ""
    return kind, ""


class FeedbackPage(HTMLExporter):
    """nbgrader's feedback page of a submission."""

    @default("exclude_anchor_links")
    def _exclude_anchor_links_default(self) -> bool:
        return True

    @pass_context
    def markdown2html(self, context: Any, source: str) -> str:
        """Written answers and comments, cleaned after Markdown has become HTML."""
        return clean(super().markdown2html(context, source))

    def from_notebook_node(self, nb: NotebookNode, resources: Any = None, **named: Any) -> Any:
        """The page, and the resources that nbconvert returns with it."""
        return super().from_notebook_node(harmless(nb), resources, **named)
