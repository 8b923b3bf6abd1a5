"""The notebooks of a download: whether they can be read, are of the problem set, and were worked on."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import nbformat
from nbformat import NotebookNode

from advfeat.classroom.downloads import LARGEST, Entry, Unusable, decoded, one_line
from advfeat.classroom.executor import mark, mark_id
from advfeat.classroom.release import Classroom, assignments
from advfeat.classroom.repair import ids


@dataclass(frozen=True)
class Look:
    """The contents of a notebook: whether it is of the problem set and was worked on, its texts, or the problem."""

    fits: bool = False
    worked_on: bool = False
    texts: tuple[str, ...] = ()
    problem: str = ""


class Contents:
    """The contents of a download's notebooks, each looked at once, beside the notebook that was handed out."""

    def __init__(self, classroom: Classroom, assignment: str) -> None:
        self.assignment = assignment
        self.release = nbformat.read(classroom.notebook("release", assignment), as_version=4)
        self.made = {mark_id(cell): cell for cell in self.release.cells if mark_id(cell)}
        others = {name: classroom.notebook("release", name) for name in assignments() if name != assignment}
        self.others = {name: set(ids(nbformat.read(path, 4))) for name, path in others.items() if path.exists()}
        self.looks: dict[Entry, Look] = {}

    def look(self, entry: Entry) -> Look:
        """The contents of the notebook; a notebook that cannot be read has a problem."""
        if entry not in self.looks:
            try:
                self.looks[entry] = self._look_at(read_notebook(entry))
            except Unusable as problem:
                self.looks[entry] = Look(problem=str(problem))
            except Exception as error:  # noqa: BLE001 - any failure in one file, so that the others are graded
                self.looks[entry] = Look(problem=f"cannot be opened: {one_line(error)}")
        return self.looks[entry]

    def _look_at(self, notebook: NotebookNode) -> Look:
        names = set(ids(notebook))
        other = max(self.others, key=lambda name: len(self.others[name] & names), default="")
        of_other = len(self.others[other] & names) if other else 0
        if len(self.made.keys() & names) <= of_other:
            return Look(problem=f"no cell of {self.assignment} in it" + (f", but of {other}" if of_other else ""))
        answers = {name: made for name, made in self.made.items() if mark(made).get("solution")}
        marked = [(cell, answers.get(mark_id(cell))) for cell in notebook.cells]
        worked_on = any(made is not None and cell.source.strip() != made.source.strip() for cell, made in marked)
        return Look(True, worked_on, tuple(cell.source for cell in notebook.cells))


def read_notebook(entry: Entry) -> NotebookNode:
    """A notebook in the present format.

    Raises:
        Unusable: the file is refused, too large or damaged; also the errors of ``nbformat`` if it is not a notebook.
    """
    if entry.size > LARGEST and not entry.refused:
        raise Unusable(f"the notebook is larger than {LARGEST:,} bytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # older notebooks have no identifiers of cells
        notebook = nbformat.reads(decoded(entry.read()), as_version=4)
        nbformat.validate(notebook)
        upgraded: NotebookNode = nbformat.v4.upgrade(notebook, 4, notebook.nbformat_minor)
        return upgraded
