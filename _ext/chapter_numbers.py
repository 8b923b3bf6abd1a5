"""Figures, exercises and algorithms are numbered by chapter: Fig. 4.2 is the second figure of chapter 4.

Sphinx counts through the whole book, so that a new figure in chapter 1 would rename all later ones. It can count by
section, but only where all headings are numbered. Here its numbers are replaced once it has given them; whatever shows
a number (captions, references, solutions) reads it from there. A chapter is the number in its file's name; a page
without one counts from 1.
"""

from __future__ import annotations

import re
from typing import Any


def numbered(document: str, numbers: dict[str, dict[str, tuple[int, ...]]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Kind → id → number, for a document: counted from 1 in their order, after the number of the chapter if any."""
    chapter = re.search(r"(?:^|/)(\d\d)-[^/]*$", document)
    before = (int(chapter[1]),) if chapter else ()
    return {
        kind: {key: (*before, place) for place, key in enumerate(sorted(of, key=of.__getitem__), 1)}
        for kind, of in numbers.items()
    }


def number_by_chapter(_: Any, env: Any) -> list[str]:
    """Called by Sphinx when all documents are read and counted."""
    env.toc_fignumbers = {document: numbered(document, numbers) for document, numbers in env.toc_fignumbers.items()}
    return []


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("env-get-updated", number_by_chapter, priority=900)  # after Sphinx, which counts at this event
    return {"parallel_read_safe": True, "parallel_write_safe": True}
