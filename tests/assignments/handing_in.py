"""Submissions made from the sources: right, changed, and put where downloads would be."""

from __future__ import annotations

import functools

import nbformat

from advfeat.classroom import rehearse
from advfeat.classroom.release import Classroom, make

CLASS_SEED = 17


def made_class(tmp_path_factory):
    """The folder of a class, with every problem set made; one for all tests."""
    return _made(tmp_path_factory.getbasetemp() / "class")


@functools.cache
def _made(folder):
    made = Classroom(folder)
    make(made, class_seed=CLASS_SEED)
    return made


def answered(classroom, assignment, changes=()):
    """The students' notebook with the answers of the source, some of them changed: (answer, old text, new text)."""
    notebook = rehearse.model_answers(classroom, assignment)
    cells = rehearse.answers(notebook)
    for name, old, new in changes:
        if old:
            assert cells[name].source.count(old) == 1, f"{name} does not hold, exactly once, {old!r}"
        cells[name].source = cells[name].source.replace(old, new) if old else new
    return notebook


def hand_in(notebook, folder, student, assignment):
    """Put a notebook where a student's download would be."""
    (folder / student).mkdir(parents=True)
    nbformat.write(notebook, folder / student / f"{assignment}.ipynb")
