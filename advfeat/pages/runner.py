"""Run the chapters of the book: one at any profile, all of them for the pages, or in place before a commit.

``python -m advfeat.pages list|run|record|refresh|book|again``; ``make`` has a target for each. Everything that can
be checked is checked before the first cell runs. A wrong chapter, profile or parameter, and any other condition under
which a run is bound to fail, gives exit code 2 and a message that says what is accepted; a failing cell gives 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import profile_name
from advfeat.pages.environment import ALLOCATOR, FOLDERS, inputs_of, prepare_environment, surroundings
from advfeat.pages.executed_copy import file_name, finished_with
from advfeat.pages.execution import Failed, Task, cell_timeout, end_orderly, execute, execute_all
from advfeat.pages.parameters import (
    DEFAULT_PROFILE,
    KINDS,
    Refused,
    check_parameters,
    default_of,
    listing,
    parameters_of,
    profile_listing,
)

__all__ = ["ALLOCATOR", "DEFAULT_PROFILE", "FOLDERS", "KINDS", "Failed", "Refused", "main"]

BOOK = CHECKOUT / "book"
RUNS = CHECKOUT / "runs"
STAGE = RUNS / "stage"

_EXTRA = 'the packages that run and build the book are installed by: pip install -e ".[book]" -c constraints.txt'


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


def refresh(chapter: Path) -> None:
    """Run a chapter on its defaults and put the outputs into the committed file: no parameters, so no injected cell."""
    copy = RUNS / "refresh" / chapter.name
    _check_run(chapter, {})
    execute(chapter, copy, {})
    copy.replace(chapter)


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
    scripts = sysconfig.get_path("scripts")
    program = shutil.which("jupyter-book", path=scripts) or shutil.which("jupyter-book")
    if program is None:
        raise Refused(f"jupyter-book is neither in {scripts} nor on the path; {_EXTRA}")
    given = {"profile": profile} if profile != DEFAULT_PROFILE else {}
    plans = [(chapter, check_parameters(chapter, given)) for chapter in chapters()]
    for chapter, plan in plans:
        _check_run(chapter, plan)
    RUNS.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(RUNS / ".book.lock", timeout=0):
            return _build(program, plans, RUNS / "book" / profile_name(profile), jobs, fresh)
    except Timeout:
        raise Failed(f"another build of the book is under way in {RUNS}") from None


def _build(program: str, plans: Sequence[tuple[Path, dict[str, Any]]], done: Path, jobs: int, fresh: bool) -> Path:
    shutil.rmtree(STAGE, ignore_errors=True)
    around = surroundings(BOOK)
    tasks = [Task(chapter, done / chapter.name, plan, inputs_of(chapter, plan, around)) for chapter, plan in plans]
    waiting = [task for task in tasks if fresh or finished_with(task.copy) != task.inputs]
    for task in tasks:
        if task not in waiting:
            print(f"{task.chapter.stem} ({done.name}) is done: nothing that it depends on has changed since")
    spent = execute_all(waiting, jobs)
    # The committed notebooks are not copied: a page must never show the outputs of another run.
    ignored = shutil.ignore_patterns("*.ipynb", "assignments", ".ipynb_checkpoints", "_build")
    shutil.copytree(BOOK, STAGE / "book", ignore=ignored)
    for name in ("_static", "_ext"):
        shutil.copytree(CHECKOUT / name, STAGE / name)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(CHECKOUT / name, STAGE / name)
    for task in tasks:
        shutil.copy(task.copy, STAGE / "book" / task.chapter.name)
    # --all: an incremental build keeps old numbers on pages that quote another chapter.
    start = time.perf_counter()
    if subprocess.run([program, "build", STAGE, "--all", "-n", "-W", "--keep-going"], check=False).returncode:
        raise Failed("jupyter-book reported errors or warnings, see above")
    spent["pages"] = time.perf_counter() - start
    print("\nseconds\n" + "\n".join(f"{seconds:8.1f}  {name}" for name, seconds in spent.items()))
    return STAGE / "_build" / "html" / "index.html"


def _check_run(chapter: Path, checked: Mapping[str, Any]) -> None:
    from advfeat.pages.preflight import check_run

    cell_timeout()
    for warning in check_run(chapter, checked):
        print(f"warning: {warning}", file=sys.stderr)


def run_chapter(arguments: argparse.Namespace) -> None:
    """The commands ``run`` and ``record``."""
    chapter = find_chapter(arguments.chapter)
    given: dict[str, str | bool] = {}
    for name, text in arguments.parameters:
        if name in given:
            raise Refused(f"{name} is given twice: {given[name]} and {text}")
        given[name] = text
    if arguments.profile and "profile" in given:
        raise Refused("the profile is given twice: `make` takes it as PROFILE=..., not with -p")
    if arguments.profile:
        given["profile"] = arguments.profile
    if arguments.command == "record":
        given["record"] = True
    checked = check_parameters(chapter, {"profile": DEFAULT_PROFILE, **given})
    _check_run(chapter, checked)
    defaults = {name: default_of(parameter) for name, parameter in parameters_of(chapter).items()}
    execute(chapter, RUNS / profile_name(checked["profile"]) / file_name(chapter, checked, defaults), checked)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advfeat.pages", description="Run the chapters of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="chapters with their parameters, and profiles")
    for name, text in (
        ("run", "run one chapter; the executed copy goes to runs/<profile>/, with its parameters in the name"),
        ("record", "the same with record=True: the chapter saves its numbers to book/results/"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter", help="05, 5, the file name or its path")
        command.add_argument("--profile", help=f"scale of the run, or its file (default {DEFAULT_PROFILE})")
        command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    commands.add_parser("refresh", help="run in place, on the defaults").add_argument("chapter", help="or: all")
    commands.add_parser("again", help="write the expected result of another run, with the solutions, to runs/again/")
    book = commands.add_parser("book", help="run all, build pages")
    book.add_argument("--profile", default=DEFAULT_PROFILE)
    book.add_argument("--fresh", action="store_true", help="also run the chapters that are up to date")
    book.add_argument("--jobs", type=int, choices=range(1, 65), default=1, metavar="N", help="chapters at a time")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _arguments(argv)
    before = end_orderly()
    try:
        prepare_environment()
        _run_command(arguments)
    except (Refused, Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed; {_EXTRA}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as asked:
        with suppress(OSError):  # the terminal may be gone
            print("\nEnded on request: finished work is kept; the same command continues.", file=sys.stderr)
        return asked.code if isinstance(asked, SystemExit) and isinstance(asked.code, int) else 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _run_command(arguments: argparse.Namespace) -> None:
    if not chapters():
        raise Refused(_without_checkout())
    if arguments.command == "list":
        for chapter in chapters():
            print(f"{chapter.stem}\n{listing(chapter)}")
        print(f"profiles\n{profile_listing()}")
    elif arguments.command == "again":
        for chapter in chapters():
            print(expectation(chapter))
    elif arguments.command == "book":
        print(f"\n{build_book(arguments.profile, jobs=arguments.jobs, fresh=arguments.fresh)}")
    elif arguments.command == "refresh":
        for chapter in chapters() if arguments.chapter == "all" else [find_chapter(arguments.chapter)]:
            refresh(chapter)
    else:
        run_chapter(arguments)


def _without_checkout() -> str:
    """The message for a package that is installed without the book beside it."""
    address = "<its repository>"
    with suppress(importlib.metadata.PackageNotFoundError):
        links = importlib.metadata.metadata("advfeat").get_all("Project-URL") or []
        address = next((link.split(", ")[1] for link in links if link.startswith("Homepage")), address)
    return (
        f"There are no chapters: {BOOK} does not exist, or holds none. Only the library is installed (import advfeat), "
        "with its benchmark (python -m advfeat.bench). Chapters, records and pages need a checkout:\n"
        f'  git clone {address} && cd advfeat && pip install -e ".[book]" -c constraints.txt'
    )
