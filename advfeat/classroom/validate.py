"""For students: run a notebook from top to bottom, as the grader will, and say how its open tests come out.

Needs no file of the instructor's: what a locked cell looked like is kept, as a checksum, in the notebook itself.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

LONGEST_CELL = 900
"""Seconds; a first training run fits, an endless loop does not."""
_STUB = "raise NotImplementedError()"
_NO_ANSWER = "YOUR ANSWER HERE"


def validate(path: Path) -> int:
    """Run the notebook at ``path``, which stays as it is, and print the result of every open test.

    Returns:
        0 if every open test passes and nothing is missing, 1 if not, 2 if the file is not a problem set.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
    except (OSError, ValueError) as error:
        print(f"{path} cannot be opened as a notebook: {error}")
        return 2
    graded = [cell for cell in notebook.cells if _mark(cell).get("grade")]
    if not graded:
        print(f"{path} is not one of the problem sets: it has no graded cells")
        return 2
    problems = [
        f"the locked cell {_name(cell)} has been changed; the grader puts it back" for cell in changed(notebook)
    ]
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


def changed(notebook: NotebookNode) -> list[NotebookNode]:
    """The locked cells that are no longer what they were when the notebook was made."""
    locked = [cell for cell in notebook.cells if _mark(cell).get("locked") and "checksum" in _mark(cell)]
    return [cell for cell in locked if _mark(cell)["checksum"] != _checksum(cell)]


def failure(cell: NotebookNode) -> str:
    """What a test that was run says is wrong; empty if it passed."""
    for output in cell.outputs:
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}" if output.ename != "AssertionError" else output.evalue
    return ""


def _run(notebook: NotebookNode, folder: Path) -> list[str]:
    """Run all cells; returns what kept it from reaching the end."""
    settings: dict[str, Any] = {"timeout": LONGEST_CELL, "allow_errors": True, "kernel_name": "python3"}
    client = NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **settings)
    try:
        client.execute()
    except CellTimeoutError:
        return [f"a cell took more than {LONGEST_CELL} seconds, and the cells behind it did not run"]
    except DeadKernelError:
        return ["the kernel died, and the cells behind did not run"]
    return []


def _checksum(cell: NotebookNode) -> str:
    """nbgrader's fingerprint of a cell, version 0.9."""
    mark = _mark(cell)
    kind = [str(bool(mark.get(name))) for name in ("grade", "solution", "locked")]
    points = [str(float(mark["points"]))] if mark.get("grade") else []
    text = "".join([cell.source, cell.cell_type, *kind, mark["grade_id"], *points])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _mark(cell: NotebookNode) -> dict[str, Any]:
    return cell.metadata.get("nbgrader", {})


def _name(cell: NotebookNode) -> str:
    return _mark(cell).get("grade_id", "?")


def _title(cell: NotebookNode) -> str:
    return cell.source.partition("\n")[0].lstrip("# ")


def _hidden(cell: NotebookNode) -> bool:
    """Nothing but comments: the test is put there by the grader."""
    return all(line.startswith("#") or not line.strip() for line in cell.source.splitlines())


def _left_open(cell: NotebookNode) -> bool:
    return (_STUB if cell.cell_type == "code" else _NO_ANSWER) in cell.source
