"""For students: run a notebook from top to bottom, as the grader will, and print the results of its open tests.

No file of the instructor is needed: the notebook itself holds a checksum of every locked cell.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from advfeat.classroom.executor import Executor, checksum, mark_unexecuted
from advfeat.classroom.executor import mark as _mark
from advfeat.classroom.repair import ids, remark

LONGEST_CELL = 900
"""Seconds for one cell: enough for a first training run, but an endless loop is stopped."""
_STUB = "raise NotImplementedError()"
_NO_ANSWER = "YOUR ANSWER HERE"


def validate(path: Path) -> int:
    """Run the notebook at ``path``, which is not changed, and print the result of every open test.

    Returns:
        0 if every open test passes and nothing is missing, 1 if not, 2 if the file is not a problem set.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        print(f"{path} cannot be opened as a notebook: {error}")
        return 2
    if not any(_mark(cell).get("grade") for cell in notebook.cells):
        print(f"{path} is not one of the problem sets: it has no graded cells")
        return 2
    known = _known(notebook)
    problems = remark(notebook, known)
    problems += [f"the cell {name} is gone; the grader puts it back" for name in known if name not in ids(notebook)]
    problems += [
        f"the locked cell {_name(cell)} has been changed; the grader puts it back" for cell in changed(notebook)
    ]
    graded = [cell for cell in notebook.cells if _mark(cell).get("grade")]
    unanswered = [cell for cell in notebook.cells if _mark(cell).get("solution") and _left_open(cell)]
    problems += [f"no answer yet: {_name(cell)}" for cell in unanswered]
    print(f"running {path.name} ...", flush=True)
    problems += _run(notebook, path.parent)
    passed = 0.0
    hidden = written = 0.0
    for cell in graded:
        points = float(_mark(cell)["points"])
        if cell.cell_type == "markdown":
            written += points
        elif _hidden(cell):
            hidden += points
        else:
            message = failure(cell)
            print(f"  {'FAIL' if message else 'ok  '}  {_name(cell)}: {_title(cell)}")
            if message:
                print("        " + message.replace("\n", "\n        "))
                problems.append(f"the test {_name(cell)} fails")
            else:
                passed += points
    print(
        f"open tests: {passed:g} points; {hidden:g} more are decided by tests that run when your work is graded", end=""
    )
    print(f", {written:g} by a person" if written else "")
    for problem in problems:
        print(f"- {problem}")
    print("Ready to hand in." if not problems else "Not yet ready; it can be handed in all the same.")
    return 1 if problems else 0


def _known(notebook: NotebookNode) -> list[str]:
    """Names of the original cells: those listed in the notebook, or those with the most frequent prefix."""
    listed = notebook.metadata.get("advfeat", {}).get("cells")
    sets = Counter(name.partition("-")[0] for name in ids(notebook))
    return listed or [name for name in ids(notebook) if name.partition("-")[0] == sets.most_common(1)[0][0]]


def changed(notebook: NotebookNode) -> list[NotebookNode]:
    """The locked cells that have changed since the notebook was made."""
    locked = [cell for cell in notebook.cells if _mark(cell).get("locked") and "checksum" in _mark(cell)]
    return [cell for cell in locked if _mark(cell)["checksum"] != checksum(cell)]


def failure(cell: NotebookNode) -> str:
    """The message of a failed test; empty if the test passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}" if output.ename != "AssertionError" else output.evalue
    return ""


def _run(notebook: NotebookNode, folder: Path) -> list[str]:
    """Run all cells; returns the reason if the run did not reach the end."""
    place = {"metadata": {"path": str(folder)}}
    client = Executor(notebook, seconds=LONGEST_CELL, kernel_name="python3", resources=place)
    client.execute()
    mark_unexecuted(notebook)
    return [f"the cells behind did not run: {client.stopped}"] if client.stopped else []


def _name(cell: NotebookNode) -> str:
    name: str = _mark(cell).get("grade_id", "?")
    return name


def _title(cell: NotebookNode) -> str:
    title: str = cell.source.partition("\n")[0].lstrip("# ")
    return title


def _hidden(cell: NotebookNode) -> bool:
    """Whether a cell holds only comments: the grader inserts its test."""
    return all(line.startswith("#") or not line.strip() for line in cell.source.splitlines())


def _left_open(cell: NotebookNode) -> bool:
    return (_STUB if cell.cell_type == "code" else _NO_ANSWER) in cell.source
