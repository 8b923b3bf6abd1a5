"""A page for addresses that do not exist, and the way on from addresses that were once published.

``moved_pages`` in ``_config.yml`` maps an old place to the new one, both from the root of the pages: a page
(``book/old.html``) gets a page that leads on, and for a section (``book/page.html#old``) the page that held it does so.
"""

from __future__ import annotations

import html
import json
import posixpath
from pathlib import Path
from typing import Any

NOT_FOUND = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="description" content="No page of this book has that address. A list of its pages, and a search.">
<link rel="icon" href="data:,">
<title>No such page: {title}</title>
<style>
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 3rem auto; padding: 0 1rem;
  color: #1f2937; background: #fff; }}
a {{ color: #1d4ed8; }}
@media (prefers-color-scheme: dark) {{ body {{ color: #e5e7eb; background: #14181e; }} a {{ color: #93c5fd; }} }}
</style>
</head>
<body>
<main>
<h1>There is no page at this address</h1>
<p>Perhaps it has moved. These are the pages of <a href="{root}">{title}</a>:</p>
<ul>
{links}
</ul>
<form action="{root}search.html"><label>Search the book: <input name="q" type="search"></label> <button>Search</button>
</form>
</main>
</body>
</html>
"""
"""It is shown at addresses of any depth, so its links are whole addresses and it loads nothing."""

LEADS_ON = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>This page has moved</title>
<meta http-equiv="refresh" content="0; url={target}">
<link rel="canonical" href="{target}">
</head>
<body><p>This page has moved: <a href="{target}">{target}</a></p></body>
</html>
"""

FROM_SECTION = """<script>
(moved => {{
  const follow = () => moved[location.hash] && location.replace(moved[location.hash]);
  addEventListener("hashchange", follow);
  follow();
}})({places});
</script>
"""


def relative(target: str, page: str) -> str:
    """The link from one page to another, both from the root."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")


def sections_of(page: str, moved: dict[str, str]) -> dict[str, str]:
    """``#section`` → the link to its new place, for the sections that a page once held."""
    parts = {old: old.partition("#") for old in moved}
    return {f"#{id_}": relative(moved[old], page) for old, (at, mark, id_) in parts.items() if mark and at == page}


def lead_on_from_sections(app: Any, name: str, _template: str, context: dict[str, Any], _doctree: Any) -> None:
    """Let a page lead on to the new places of its sections. Called by Sphinx."""
    places = sections_of(f"{name}.html", app.config.moved_pages)
    if places and app.builder.format == "html":
        context["body"] = FROM_SECTION.format(places=json.dumps(places)) + context.get("body", "")


def write_pages(app: Any, error: Exception | None) -> None:
    """Write ``404.html`` and the pages that lead on. Called by Sphinx."""
    if error is not None or app.builder.name != "html":
        return
    root, out = app.config.html_baseurl, Path(app.outdir)
    names = [name for name in app.env.toctree_includes[app.config.root_doc] if name in app.env.titles]
    links = "\n".join(
        f'<li><a href="{root}{name}.html">{html.escape(app.env.titles[name].astext())}</a></li>' for name in names
    )
    title = html.escape(app.config.html_title)
    (out / "404.html").write_text(NOT_FOUND.format(root=root, title=title, links=links), encoding="utf-8")
    for old, new in app.config.moved_pages.items():
        if "#" in old:
            continue
        path = out / old
        if old.removesuffix(".html") in app.env.found_docs:  # a file may also be of an earlier build
            raise ValueError(f"moved_pages: {old} is a page of the book, so nothing can lead on from it")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(LEADS_ON.format(target=html.escape(relative(new, old))), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("moved_pages", {}, "html", dict)
    app.connect("html-page-context", lead_on_from_sections)
    app.connect("build-finished", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
