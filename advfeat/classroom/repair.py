"""Restore the marked cells of a submitted notebook: each cell of the problem set once, with its original mark.

Editors copy a cell with its mark when it is split or pasted, drop cells, change their kind and add metadata. None of
that should change the points.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Collection

from nbformat import NotebookNode

from advfeat.classroom.executor import checksum, mark, mark_id


def ids(notebook: NotebookNode) -> list[str]:
    """Names of the marked cells, in order."""
    return [name for name in map(mark_id, notebook.cells) if name]


def repair(notebook: NotebookNode, release: NotebookNode) -> list[str]:
    """Bring marks, kinds, metadata and locked texts of ``notebook`` back to those of ``release``, in place.

    Returns:
        The notes of ``remark``.
    """
    notebook.metadata = copy.deepcopy(release.metadata)
    made = {mark_id(cell): cell for cell in release.cells if mark_id(cell)}
    for cell in notebook.cells:
        if mark_id(cell) in made:
            _as_made(cell, made[mark_id(cell)])
    notes = remark(notebook, made)
    restore(notebook, release)
    return notes


def remark(notebook: NotebookNode, known: Collection[str]) -> list[str]:
    """Remove the marks of copies of a cell, and of cells that are not ``known``; their code stays, and runs.

    Of several copies of a test the last keeps the mark; of several copies of an answer, the last that was worked on. A
    written answer in several pieces becomes one cell again.

    Returns:
        A sentence about each removal.
    """
    notes = []
    copies: dict[str, list[NotebookNode]] = defaultdict(list)
    for cell in notebook.cells:
        if not mark(cell) and "nbgrader" not in cell.metadata:
            continue
        name = mark_id(cell)
        if name in known:
            copies[name].append(cell)
            continue
        del cell.metadata["nbgrader"]
        if name:
            notes.append(f"{name} is no cell of this problem set; its mark is taken off")
    for name, cells in copies.items():
        if len(cells) == 1:
            continue
        notes.append(f"{name} is the mark of {len(cells)} cells; it stays on one, and is taken off the copies")
        worked_on = [cell for cell in cells if _worked_on(cell)]
        kept = (worked_on or cells)[-1]
        if worked_on and mark(kept).get("grade") and mark(kept).get("solution"):
            kept = _joined(notebook, worked_on)
        for cell in cells:
            if cell is not kept:
                del cell.metadata["nbgrader"]
    return notes


def restore(notebook: NotebookNode, release: NotebookNode) -> None:
    """Put cells of ``release`` that are missing in ``notebook`` back, after the cell that they followed."""
    present = {mark_id(cell): index for index, cell in enumerate(notebook.cells) if mark_id(cell)}
    before = ""
    for cell in release.cells:
        name = mark_id(cell)
        if not name:
            continue
        if name not in present:
            where = present[before] + 1 if before else 0
            notebook.cells.insert(where, copy.deepcopy(cell))
            present = {mark_id(cell): index for index, cell in enumerate(notebook.cells) if mark_id(cell)}
        before = name


def _as_made(cell: NotebookNode, made: NotebookNode) -> None:
    cell.metadata = copy.deepcopy(made.metadata)
    if not mark(made).get("solution"):
        cell.source = made.source
    if cell.cell_type == made.cell_type:
        return
    cell.cell_type = made.cell_type
    for name in ("outputs", "execution_count", "attachments"):
        cell.pop(name, None)
    if made.cell_type == "code":
        cell.outputs, cell.execution_count = [], None


def _worked_on(cell: NotebookNode) -> bool:
    """Whether an answer differs from the text that was handed out, whose checksum the cell holds."""
    return bool(mark(cell).get("solution")) and mark(cell).get("checksum") != checksum(cell)


def _joined(notebook: NotebookNode, pieces: list[NotebookNode]) -> NotebookNode:
    """The first of ``pieces`` with the texts and pictures of all; the others are removed from the notebook."""
    first = pieces[0]
    first.source = "\n\n".join(dict.fromkeys(piece.source for piece in pieces))
    pictures = {name: data for piece in pieces for name, data in piece.get("attachments", {}).items()}
    if pictures:
        first.attachments = pictures
    notebook.cells = [cell for cell in notebook.cells if not any(cell is piece for piece in pieces[1:])]
    return first
