"""Builds the pages from chapters that were run for them, and writes the expected outputs of another run."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import profile_name
from advfeat.experiments.records import BOOK
from advfeat.pages import staging
from advfeat.pages.chapter_files import RUNS, STAGE, chapters
from advfeat.pages.environment import inputs_of, surroundings
from advfeat.pages.executed_copy import finished_with
from advfeat.pages.execution import Failed, Task, check_first, execute_all
from advfeat.pages.parameters import DEFAULT_PROFILE, Refused, check_parameters
from advfeat.pages.staging import build_pages, fill

INSTALL_BOOK = 'the packages that run and build the book are installed by: pip install -e ".[book]" -c constraints.txt'


def solutions(markdown: str) -> dict[str, str]:
    """Label of an exercise → the code of its folded solution, with all blocks joined; "" if it has no code."""
    found = re.findall(r"^:::+\{solution\} (\S+)\n(.*?)^:::+$", markdown, re.MULTILINE | re.DOTALL)
    blocks = {label: re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL) for label, body in found}
    return {label: "\n".join(code) for label, code in blocks.items()}


def expectation(chapter: Path) -> Path:
    """Write to ``runs/again`` the expected result of another run of a chapter, for nbval; return the path.

    This is the copy that the pages were built from, with two changes. Cells whose output must be the same on every
    machine (``nbval-check-output``) have the committed outputs. The code of the folded solutions follows the last cell:
    the solutions run one after the other in the final state of the chapter, as for a reader who tries them all, and
    their outputs are not compared.

    Raises:
        Refused: the chapter has not been run for the pages, or has been changed since.
    """
    import nbformat

    staged = STAGE / "book" / chapter.name
    committed = nbformat.read(chapter, as_version=4)
    notebook = nbformat.read(staged, as_version=4) if staged.exists() else nbformat.v4.new_notebook()
    if [cell.source for cell in notebook.cells] != [cell.source for cell in committed.cells]:
        name = os.path.relpath(staged, CHECKOUT)
        raise Refused(f"{name} is no run of {chapter.name} as it is now; `make book` makes one")
    for cell, known in zip(notebook.cells, committed.cells, strict=True):
        if "nbval-check-output" in cell.metadata.get("tags", []):
            cell.outputs = known.outputs
    markdown = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for label, code in solutions(markdown).items():
        if code:
            added = nbformat.v4.new_code_cell(f"# solution of {label}\n{code}", id=label)
            added.metadata["tags"] = ["nbval-ignore-output"]
            notebook.cells.append(added)
    copy = RUNS / "again" / chapter.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, copy)
    return copy


def jupyter_book() -> str:
    """The path of the program that builds the pages.

    Raises:
        Refused: it is not installed.
    """
    program = staging.jupyter_book_program()
    if program is None:
        raise Refused(f"jupyter-book is neither in {sysconfig.get_path('scripts')} nor on the path; {INSTALL_BOOK}")
    return program


def build_book(profile: str, *, jobs: int = 1, fresh: bool = False) -> Path:
    """Run every chapter, build the pages in ``runs/stage``, return the path of the first page.

    The executed chapters lie in ``runs/book/<profile>``. A chapter is not run again if its executed copy is whole and
    its cells, parameters and surroundings have not changed since.

    Args:
        jobs: number of chapters that run at a time, each in processes of its own.
        fresh: run every chapter again, even if its executed copy is up to date.

    Raises:
        Refused: unknown profile, a chapter without a profile or bound to fail, or Jupyter Book is missing.
        Failed: a chapter failed, the build gave a warning, or another build is under way.
    """
    program = jupyter_book()
    given = {"profile": profile} if profile != DEFAULT_PROFILE else {}
    plans = [(chapter, check_parameters(chapter, given)) for chapter in chapters()]
    for chapter, plan in plans:
        check_first(chapter, plan)
    RUNS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(RUNS / ".book.lock", timeout=0):
            return _build(program, plans, RUNS / "book" / profile_name(profile), jobs, fresh)
    except Timeout:
        raise Failed(f"another build of the book is under way in {RUNS}") from None


def _build(program: str, plans: Sequence[tuple[Path, dict[str, Any]]], done: Path, jobs: int, fresh: bool) -> Path:
    shutil.rmtree(STAGE, ignore_errors=True)  # no page of an earlier build may be taken for one of this
    around = surroundings(BOOK)
    tasks = [Task(chapter, done / chapter.name, plan, inputs_of(chapter, plan, around)) for chapter, plan in plans]
    waiting = [task for task in tasks if fresh or finished_with(task.copy) != task.inputs]
    for task in tasks:
        if task not in waiting:
            print(f"{task.chapter.stem} ({done.name}) is done: nothing that it depends on has changed since")
    spent = execute_all(waiting, jobs)
    fill(STAGE, [task.copy for task in tasks])
    start = time.perf_counter()
    first = build_pages(program, STAGE)
    if first is None:
        raise Failed("jupyter-book reported errors or warnings, see above")
    spent["pages"] = time.perf_counter() - start
    print("\nseconds\n" + "\n".join(f"{seconds:8.1f}  {name}" for name, seconds in spent.items()))
    return first
