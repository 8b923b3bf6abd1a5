"""A rehearsal with submissions of simulated students, which shows how long grading takes and how its pages look."""

from __future__ import annotations

import random
import re
import shutil
import zipfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from advfeat.classroom.release import Classroom

_MARKERS = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)
# Of every ten students, by number: those who leave answers open, and those with code that fails or never ends.
_LEFT_OPEN = (1, 3, 5)
_SPOILED = {
    7: "a_name_that_is_defined_nowhere",
    8: "import a_package_that_only_this_student_has",
    9: "while True:\n    pass",
}


def model_answers(classroom: Classroom, assignment: str) -> NotebookNode:
    """The students' notebook of ``assignment`` with all answers of its own solution."""
    notebook: NotebookNode = nbformat.read(classroom.notebook("release", assignment), as_version=4)
    source = nbformat.read(classroom.notebook("source", assignment), as_version=4)
    right = {name: cell.source for name, cell in answers(source).items()}
    for name, cell in answers(notebook).items():
        cell.source = _MARKERS.sub("", right[name])
    return notebook


def answers(notebook: NotebookNode) -> dict[str, NotebookNode]:
    """Name → cell, for every cell that students fill in."""
    marks = [(cell.metadata.get("nbgrader", {}), cell) for cell in notebook.cells]
    return {mark["grade_id"]: cell for mark, cell in marks if mark.get("solution")}


def simulate(classroom: Classroom, assignment: str, downloads: Path, *, students: int, seed: int = 0) -> list[str]:
    """Write submissions of ``students`` simulated students to ``downloads``, which is emptied first.

    Of every ten students, four have all answers right; three left some answers open; one misspelled a name, one needs a
    package that is not installed, and one wrote an endless loop. The last student of the class hands in a file that is
    not a notebook, the first a ZIP archive.

    Returns:
        The students, in order.

    Raises:
        ValueError: fewer than one student.
    """
    if students < 1:
        raise ValueError(f"students must be positive, got {students}")
    draw = random.Random(seed)
    shutil.rmtree(downloads, ignore_errors=True)
    release = answers(nbformat.read(classroom.notebook("release", assignment), as_version=4))
    names = [f"student-{number:02d}" for number in range(1, students + 1)]
    for number, name in enumerate(names):
        notebook = model_answers(classroom, assignment)
        cells = answers(notebook)
        if number % 10 in _LEFT_OPEN:
            for part, cell in cells.items():
                cell.source = release[part].source if draw.random() < 0.5 else cell.source
        elif number % 10 in _SPOILED:
            cell = draw.choice([cell for cell in cells.values() if cell.cell_type == "code"])
            cell.source = f"{_SPOILED[number % 10]}\n{cell.source}"
        path = downloads / name / f"{assignment}.ipynb"
        path.parent.mkdir(parents=True)
        nbformat.write(notebook, path)
    if students > 1:
        (downloads / names[-1] / f"{assignment}.ipynb").write_text("This is my essay.")
    first = downloads / names[0]
    with zipfile.ZipFile(downloads / f"{names[0]}.zip", "w") as bundle:
        bundle.write(first / f"{assignment}.ipynb", f"{assignment}.ipynb")
    shutil.rmtree(first)
    return names
