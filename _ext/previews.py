"""What a page says of itself where it is not shown: in the preview of a link, and in the results of a search engine.

A page names its description in the head of its file, as ``og:description``; a chapter's is the line of the table of
chapters, ``shows`` in the metadata of its first cell. Text gathered from a page would begin with numbers, formulas and
descriptions of pictures.
"""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from sphinx.util import logging

LOGGER = logging.getLogger(__name__)


def description(source: Path, meta: dict[str, Any]) -> str:
    """The description of a page, or nothing if it has none.

    Args:
        source: the file of the page.
        meta: the fields in the head of the file.
    """
    if source.suffix != ".ipynb":
        return str(meta.get("og:description", ""))
    shows = json.loads(source.read_bytes())["cells"][0]["metadata"].get("shows", "")
    plain = shows.replace("*", "").replace("`", "").replace("$", "")
    return f"Chapter {int(source.name[:2])}: {plain}." if plain else ""


def describe(app: Any, name: str, _template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page its description before the previews are made. Called by Sphinx."""
    if doctree is None:  # the index and the search have no source
        return
    meta = context["meta"] = dict(context.get("meta") or {})
    said = description(Path(app.env.doc2path(name)), meta)
    if not said:
        LOGGER.warning("%s has no og:description, which previews of its link show", name, type="previews")
    meta["og:description"] = said
    context["metatags"] += f'<meta name="description" content="{html.escape(said)}" />\n'


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    # The addresses of previews begin like those of the pages, so there is one place for both.
    app.connect("config-inited", lambda _app, config: setattr(config, "ogp_site_url", config.html_baseurl))
    app.connect("html-page-context", describe, priority=400)  # before sphinxext.opengraph
    return {"parallel_read_safe": True, "parallel_write_safe": True}
