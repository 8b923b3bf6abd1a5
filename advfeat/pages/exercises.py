"""The exercises of a chapter, by their labels, and the list of all labels that were ever published."""

from __future__ import annotations

import json
import re
from pathlib import Path

from advfeat.files import write_whole


def labels_of(chapter: Path) -> list[str]:
    """The labels of a chapter's exercises, from the first to the last; an exercise without a label is left out."""
    cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
    markdown = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    exercises = re.findall(r"^:::+\{exercise\}.*?^:::+$", markdown, re.MULTILINE | re.DOTALL)
    found = (re.search(r"^:label: (\S+)$", exercise, re.MULTILINE) for exercise in exercises)
    return [label.group(1) for label in found if label]


def publish_labels(chapter: Path, published: Path) -> list[str]:
    """Add the labels of a chapter's exercises to the list of published ones, and return those that are new.

    A label that is on the list stays there, even if the chapter has lost its exercise, so that a test finds the loss.

    Args:
        published: the list, one label a line, sorted, below lines that begin with ``#``.

    Raises:
        OSError: the list cannot be read or written.
    """
    lines = published.read_text(encoding="utf-8").splitlines() if published.exists() else []
    head = [line for line in lines if line.startswith("#")]
    known = {line for line in lines if line and not line.startswith("#")}
    new = [label for label in labels_of(chapter) if label not in known]
    if new:
        write_whole(published, "\n".join([*head, *sorted(known.union(new))]) + "\n")
    return new
