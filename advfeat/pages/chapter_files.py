"""Where the chapters, their runs and the built pages lie, and which chapter a name means."""

from __future__ import annotations

from pathlib import Path

from advfeat.checkout import CHECKOUT
from advfeat.experiments.records import BOOK
from advfeat.pages.parameters import Refused

RUNS = CHECKOUT / "runs"
STAGE = RUNS / "stage"
LABELS = CHECKOUT / "tests" / "exercise_labels.txt"
"""The labels of all exercises that were ever published."""


def chapters() -> list[Path]:
    """The chapters, in the order of their numbers."""
    return sorted(BOOK.glob("[0-9]*.ipynb"))


def find_chapter(name: str) -> Path:
    """The chapter meant by ``05``, ``5``, its file name with or without ending, or its path.

    Raises:
        Refused: no chapter, or several, have that name.
    """
    stem = Path(name).name.removesuffix(".ipynb")
    number = stem.zfill(2) + "-" if stem.isdecimal() else None
    found = [path for path in chapters() if path.stem == stem or (number and path.stem.startswith(number))]
    if len(found) != 1:
        known = "\n".join(f"  {path.stem}" for path in chapters())
        raise Refused(f"no chapter {name!r}; there are\n{known}")
    return found[0]
