"""The first code cell of every chapter: on a hosted notebook, such as Colab, it fetches the book and installs it.

Where the library is installed the cell does nothing, and no page shows it. ``python -m advfeat.pages.hosted`` writes it
into all chapters.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from advfeat.checkout import CHECKOUT
from advfeat.files import write_whole
from advfeat.pages.addresses import addresses

CLONE = "advfeat-book"
"""Where a hosted notebook puts the book. A folder ``advfeat`` would be taken for the library itself."""

CELL_SOURCE = """\
# Where the book is not installed, as on Colab: fetch and install it, which takes minutes.
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("advfeat") is None:
    _book = Path("{folder}").resolve()
    _url = "{repository}"
    if not (_book / "pyproject.toml").exists():
        subprocess.run(["git", "clone", "-q", "--depth=1", _url, str(_book)], check=True)
    _install = [sys.executable, "-m", "pip", "install", "-q", "-e", str(_book)]
    subprocess.run(_install, check=True)
    sys.path.insert(0, str(_book))
"""


def first_cell(repository: str) -> dict[str, Any]:
    """The cell, as a notebook holds it.

    Args:
        repository: address of the project.
    """
    source = CELL_SOURCE.format(folder=CLONE, repository=repository).rstrip("\n")
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": "hosted",
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }


def with_first_cell(notebook: dict[str, Any], repository: str) -> dict[str, Any]:
    """A notebook with the cell behind its title, once; the code cells are counted anew if it was run.

    Args:
        notebook: in the types of JSON.
        repository: address of the project.
    """
    cell = first_cell(repository)
    title, *rest = [other for other in notebook["cells"] if other.get("id") != cell["id"]]
    cells = [title, cell, *rest]
    count = 0
    ran = all(other["execution_count"] for other in rest if other["cell_type"] == "code")
    for other in cells:
        if other["cell_type"] == "code" and ran:
            count += 1
            other["execution_count"] = count
            for output in other["outputs"]:
                if "execution_count" in output:
                    output["execution_count"] = count
    return {**notebook, "cells": cells}


def write_first_cells(book: Path, repository: str) -> list[Path]:
    """Put the cell into every chapter of a book; return the chapters that changed."""
    changed = []
    for path in sorted(book.glob("[0-9]*.ipynb")):
        text = path.read_text(encoding="utf-8")
        written = json.dumps(with_first_cell(json.loads(text), repository), indent=1, ensure_ascii=False) + "\n"
        if written != text:
            write_whole(path, written)
            changed.append(path)
    return changed


def main() -> None:
    """Write the first cell into every chapter of the checkout."""
    parser = argparse.ArgumentParser(prog="python -m advfeat.pages.hosted", description=main.__doc__)
    parser.parse_args()
    changed = write_first_cells(CHECKOUT / "book", addresses().repository)
    parser.exit(message="".join(f"{path.name}\n" for path in changed))


if __name__ == "__main__":
    main()
