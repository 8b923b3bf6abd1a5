"""One executor for students and for the grader: which cells of a problem set run, and which count as executed.

The module needs nothing but nbclient, which students have.
"""

from __future__ import annotations

import hashlib
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

NOT_RUN = "The cell was not executed, so it gets no points."


class Executor(NotebookClient):
    """Runs every code cell of a problem set in order, and goes on after errors, long cells and a dead kernel.

    Tags of marked cells are removed first, because some tags keep a cell from being executed. ``stopped`` is the reason
    why the run did not reach the last cell; every later cell then holds an error with that reason.
    """

    def __init__(self, notebook: NotebookNode, *arguments: Any, seconds: float, **settings: Any) -> None:
        super().__init__(notebook, *arguments, **settings)
        self.allow_errors = self.interrupt_on_timeout = True
        self.timeout = round(seconds)
        # Critical errors only: it warns of TCP on this machine, and sometimes reports its own end as an error.
        self.extra_arguments = ["--IPKernelApp.log_level=50"]
        slow = f"The cell took more than {seconds:g} seconds and was interrupted."
        self.error_on_timeout = {"ename": "TooSlow", "evalue": slow, "traceback": [f"TooSlow: {slow}"]}
        self.on_cell_executed = _keep_the_error
        self.stopped = ""
        untag(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None

    async def async_execute_cell(self, cell: NotebookNode, cell_index: int, *rest: Any, **named: Any) -> NotebookNode:
        if cell.cell_type != "code":
            return cell
        if self.stopped:
            happened = f"Not run. An earlier cell ended the run: {self.stopped}"
        else:
            try:
                return await super().async_execute_cell(cell, cell_index, *rest, **named)
            except (CellTimeoutError, DeadKernelError):
                self._stop("The kernel died, or was told to exit, in this cell.")
                happened = self.stopped
        cell.outputs.append(_error("Stopped", happened))
        return cell

    def _stop(self, reason: str) -> None:
        """Run no further cell; the first reason is kept."""
        self.stopped = self.stopped or reason


def mark(cell: NotebookNode) -> Any:
    """nbgrader's mark on a cell, a dictionary; empty if the cell has none."""
    return cell.metadata.get("nbgrader", {})


def mark_id(cell: NotebookNode) -> str:
    """The name of a marked cell; empty if the cell has none."""
    return mark(cell).get("grade_id") or ""


def checksum(cell: NotebookNode) -> str:
    """nbgrader's fingerprint of a marked cell, version 0.9."""
    its = mark(cell)
    kind = [str(bool(its.get(name))) for name in ("grade", "solution", "locked")]
    points = [str(float(its["points"]))] if its.get("grade") else []
    text = "".join([cell.source, cell.cell_type, *kind, its["grade_id"], *points])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def untag(notebook: NotebookNode) -> None:
    """Remove the tags of marked cells."""
    for cell in notebook.cells:
        if mark(cell):
            cell.metadata.pop("tags", None)


def mark_unexecuted(notebook: NotebookNode) -> list[str]:
    """Give every test that was not executed an error: without one it would count as passed.

    Returns:
        The names of these tests.
    """
    found = []
    for cell in notebook.cells:
        is_test = cell.cell_type == "code" and mark(cell).get("grade") and not mark(cell).get("solution")
        if not is_test or any(output.output_type == "error" for output in cell.outputs):
            continue
        if cell.get("execution_count") is None:
            cell.outputs.append(_error("NotRun", NOT_RUN))
            found.append(mark_id(cell))
    return found


def _error(name: str, text: str) -> NotebookNode:
    output: NotebookNode = new_output("error", ename=name, evalue=text, traceback=[f"{name}: {text}"])
    return output


def _keep_the_error(*, cell: NotebookNode, execute_reply: dict[str, Any], **_: Any) -> None:
    """Add the error of an interrupted cell, which only its reply holds, to the outputs."""
    reply = execute_reply["content"]
    if reply["status"] == "error" and not any(output.get("ename") == reply["ename"] for output in cell.outputs):
        error = {name: reply[name] for name in ("ename", "evalue", "traceback")}
        cell.outputs.append(new_output("error", **error))
