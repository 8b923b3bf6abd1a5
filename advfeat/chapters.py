"""Run the chapters of the book: one at any profile, all of them for the pages, or in place before a commit.

``python -m advfeat.chapters list|run|record|refresh|book|again``; ``make`` has a target for each. papermill only
warns about an unknown parameter and takes a value of any type, so everything is checked here before the first cell
runs. A wrong chapter, profile or parameter ends with exit code 2 and the list of what exists, a failing cell with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nbformat
import yaml

from advfeat.profiles import PROFILES, get_profile

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
RUNS, STAGE = ROOT / "runs", ROOT / "runs" / "stage"
DEFAULT_PROFILE = "planted"

# Seconds that one cell may take. Only the default profile has a known scale; the others run for hours by design.
TIMEOUTS: dict[str, int | None] = {DEFAULT_PROFILE: 600}

KINDS = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "dict": (dict,), "list": (list,)}

# glibc returns large activations to the system at every free, and page faults then dominate; a kernel reads these at
# its start. The Makefile exports the same, for whatever does not come through here.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}

# Folders that a person may name relative to where the command was typed; a chapter runs in the folder of the book.
FOLDERS = ("ADVFEAT_DATA", "ADVFEAT_STORE", "ADVFEAT_RESULTS")


class Refused(ValueError):
    """A wrong chapter, profile or parameter. The message lists what exists."""


class Failed(RuntimeError):
    """A chapter or the build of the pages did not finish."""


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


def parameters_of(chapter: Path) -> dict[str, tuple[str, str, str]]:
    """Name → (type, default, comment) of what the chapter's parameters cell takes."""
    import papermill

    try:
        found = papermill.inspect_notebook(str(chapter))
    except ValueError as error:
        raise Refused(f"{chapter.stem}: {error} Run `refresh` on it once.") from error
    return {name: (p["inferred_type_name"].split("[")[0], p["default"], p["help"]) for name, p in found.items()}


def _listing(chapter: Path) -> str:
    rows = parameters_of(chapter).items()
    return "\n".join(f"  {name}: {kind} = {default}  # {text}" for name, (kind, default, text) in rows)


def _profiles() -> str:
    return "\n".join(f"  {profile.name}: {profile.description}" for profile in PROFILES.values())


def check_parameters(chapter: Path, given: Mapping[str, str | bool]) -> dict[str, Any]:
    """The values for papermill: text is read as YAML, and every value must have the type that the chapter declares.

    ``released`` names a folder, and becomes absolute: the chapter runs in another one.

    Raises:
        Refused: unknown name, wrong type, unknown profile, or overrides that the profile does not take.
    """
    known = parameters_of(chapter)
    checked: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            raise Refused(f"{chapter.stem} has no parameter {name!r}; there are\n{_listing(chapter)}")
        kind = known[name][0]
        if kind not in KINDS:
            raise Refused(f"{chapter.stem}: {name} must be annotated with one of {', '.join(KINDS)}, not {kind}")
        value = _parse(text, kind)
        if not isinstance(value, KINDS[kind]) or (kind != "bool" and isinstance(value, bool)):
            raise Refused(f"{chapter.stem}: {name} must be {kind}, got {text!r}; there are\n{_listing(chapter)}")
        checked[name] = _absolute(str(value)) if name == "released" and value else value
    if checked.get("profile", DEFAULT_PROFILE) not in PROFILES:
        raise Refused(f"no profile {checked['profile']!r}; there are\n{_profiles()}")
    try:
        get_profile(checked.get("profile", DEFAULT_PROFILE), checked.get("overrides", {}))
    except (TypeError, ValueError) as error:
        raise Refused(f"{chapter.stem}: {error}") from error
    return checked


def _check_record(chapter: Path, checked: Mapping[str, Any]) -> None:
    from advfeat.notebook import check_record

    of_run = {"profile", "seed", "device", "overrides", "released"}
    others = {
        name: checked.get(name, _parse(default.strip("\"'"), kind))
        for name, (kind, default, _) in parameters_of(chapter).items()
        if name not in of_run
    }
    try:
        check_record(chapter.stem, parameters=others, **{name: checked[name] for name in checked.keys() & of_run})
    except ValueError as error:
        raise Refused(f"{chapter.stem}: {error}") from error


def _absolute(folder: str) -> str:
    return str(Path(folder).expanduser().absolute())


def _parse(text: str | bool, kind: str) -> object:
    if not isinstance(text, str) or kind == "str":
        return text
    try:
        # YAML takes 1e-3 for text, because it has no decimal point.
        return float(text) if kind == "float" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def normalise(copy: Path) -> None:
    """Take out of an executed notebook what differs between two equal runs: times, paths, versions, random ids."""
    notebook = json.loads(copy.read_text())
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
    }
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        for key in ("papermill", "execution"):
            metadata.pop(key, None)
        if "injected-parameters" in metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            metadata["tags"].append("hide-input")  # tags of the parameters cell are not handed on
        if not metadata.get("tags", True):
            del metadata["tags"]
    copy.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n")


def execute(chapter: Path, copy: Path, given: Mapping[str, object]) -> float:
    """Run ``chapter`` with checked parameters, write the executed ``copy``, return the seconds it took.

    ``copy`` appears when it is complete. While the chapter runs, its state is in ``<copy>.<process>.partial.ipynb``;
    after a failing cell it stays, as ``<copy>.failed.ipynb``.

    Raises:
        Failed: a cell failed or took too long, or the kernel died.
    """
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    profile = str(given.get("profile", DEFAULT_PROFILE))
    # Two seeds of one chapter may run at once: each process writes a file of its own.
    partial, failed = copy.with_suffix(f".{os.getpid()}.partial.ipynb"), copy.with_suffix(".failed.ipynb")
    copy.parent.mkdir(parents=True, exist_ok=True)
    failed.unlink(missing_ok=True)
    print(f"{chapter.stem} ({profile}) ...", flush=True)
    start = time.perf_counter()
    try:
        papermill.execute_notebook(
            str(chapter),
            str(partial),
            parameters=dict(given),
            kernel_name="python3",
            language="python",
            cwd=str(BOOK),
            execution_timeout=TIMEOUTS.get(profile),
            progress_bar=False,
        )
    except (papermill.PapermillExecutionError, CellTimeoutError, DeadKernelError) as error:
        seconds = time.perf_counter() - start
        where, source = _last_cell(partial)
        partial.replace(failed)
        what = f"{error.ename}: {error.evalue}" if isinstance(error, papermill.PapermillExecutionError) else str(error)
        raise Failed(
            f"{chapter.stem} ({profile}) failed in cell {where} after {seconds:.0f} s\n\n{source}\n\n{what}\n\n"
            f"The notebook up to there: {failed}"
        ) from error
    else:
        normalise(partial)
        partial.replace(copy)
    finally:
        partial.unlink(missing_ok=True)  # interrupted, it would stay for good: the next process has another name
    seconds = time.perf_counter() - start
    print(f"{chapter.stem} ({profile}) {seconds:.1f} s -> {os.path.relpath(copy, ROOT)}", flush=True)
    return seconds


def _last_cell(notebook: Path) -> tuple[str, str]:
    """Number and indented source of the cell that did not complete."""
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        status = cell["metadata"].get("papermill", {})
        if status.get("exception") or status.get("status") != "completed":
            return f"{number} of {len(cells)}", textwrap.indent("".join(cell["source"]), "    ")
    return "?", ""


def refresh(chapter: Path) -> None:
    """Run a chapter on its defaults and put the outputs into the committed file: no parameters, so no injected cell."""
    copy = RUNS / "refresh" / chapter.name
    execute(chapter, copy, {})
    copy.replace(chapter)


def solutions(markdown: str) -> dict[str, str]:
    """Label of an exercise → the code of its folded solution, its blocks one after the other; "" where it has none."""
    found = re.findall(r"^:::+\{solution\} (\S+)\n(.*?)^:::+$", markdown, re.MULTILINE | re.DOTALL)
    blocks = {label: re.findall(r"^```python\n(.*?)^```$", body, re.MULTILINE | re.DOTALL) for label, body in found}
    return {label: "\n".join(code) for label, code in blocks.items()}


def expectation(chapter: Path) -> Path:
    """Write to ``runs/again`` what another run of a chapter should give, for nbval; return the path.

    It is the copy that the pages were built from, but with the committed outputs in the cells that are to be the same
    on every machine (``nbval-check-output``), and with the code of the folded solutions behind the last cell. They run
    in the state in which the chapter ends, one after the other, as for a reader who tries them all, and nothing that
    they show is compared.

    Raises:
        Refused: the chapter has not been run for the pages, or has been changed since.
    """
    staged = STAGE / "book" / chapter.name
    committed = nbformat.read(chapter, as_version=4)
    notebook = nbformat.read(staged, as_version=4) if staged.exists() else nbformat.v4.new_notebook()
    if [cell.source for cell in notebook.cells] != [cell.source for cell in committed.cells]:
        name = os.path.relpath(staged, ROOT)
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


def build_book(profile: str, *, jobs: int = 1) -> Path:
    """Run every chapter into ``runs/stage``, build the pages there, return the path of the first page.

    Args:
        jobs: how many chapters run at a time, each in processes of its own.

    Raises:
        Refused: unknown profile, or a chapter that does not take one.
        Failed: a chapter failed, or the build warned about anything.
    """
    given = {"profile": profile} if profile != DEFAULT_PROFILE else {}
    plans = [(chapter, check_parameters(chapter, given)) for chapter in chapters()]
    shutil.rmtree(STAGE, ignore_errors=True)
    # The committed notebooks stay behind: a page must never show the outputs of another run.
    behind = shutil.ignore_patterns("*.ipynb", "assignments", ".ipynb_checkpoints", "_build")
    shutil.copytree(BOOK, STAGE / "book", ignore=behind)
    for name in ("_static", "_ext"):
        shutil.copytree(ROOT / name, STAGE / name)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, STAGE / name)
    spent = _execute_all([(chapter, STAGE / "book" / chapter.name, plan) for chapter, plan in plans], jobs)
    # --all: an incremental build keeps old numbers on pages that quote another chapter.
    program = str(Path(sys.executable).with_name("jupyter-book"))
    start = time.perf_counter()
    if subprocess.run([program, "build", STAGE, "--all", "-n", "-W", "--keep-going"], check=False).returncode:
        raise Failed("jupyter-book reported errors or warnings, see above")
    spent["pages"] = time.perf_counter() - start
    print("\nseconds\n" + "\n".join(f"{seconds:8.1f}  {name}" for name, seconds in spent.items()))
    return STAGE / "_build" / "html" / "index.html"


def _execute_all(tasks: Sequence[tuple[Path, Path, Mapping[str, object]]], jobs: int) -> dict[str, float]:
    """``execute`` on each task; what has not begun when one fails is left out."""
    if jobs == 1:
        return {chapter.stem: execute(chapter, copy, given) for chapter, copy, given in tasks}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {chapter.stem: pool.submit(execute, chapter, copy, given) for chapter, copy, given in tasks}
        try:
            return {stem: future.result() for stem, future in running.items()}
        finally:
            pool.shutdown(cancel_futures=True)


def _prepare_environment() -> None:
    """Set what the kernels inherit; what the caller has set stays, with folders made absolute."""
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    for name in FOLDERS:
        if os.environ.get(name):
            os.environ[name] = _absolute(os.environ[name])
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one of the user's account
    # A kernel has no terminal of its own; this is where its progress bars reach the person who waits.
    pipe = Path(f"/proc/{os.getpid()}/fd/2")
    place = os.ttyname(2) if os.isatty(2) else str(pipe) if pipe.exists() else "off"
    try:
        with Path("/dev/null" if place == "off" else place).open("a"):
            os.environ.setdefault("ADVFEAT_PROGRESS", place)
    except OSError:  # a socket, or a terminal of another user
        os.environ.setdefault("ADVFEAT_PROGRESS", "off")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advfeat.chapters", description="Run the chapters of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="chapters with their parameters, and profiles")
    for name, text in (
        ("run", "run one chapter; the executed copy goes to runs/<profile>/"),
        ("record", "the same with record=True: the chapter saves its numbers to book/results/"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter", help="05, 5, the file name or its path")
        command.add_argument("--profile", help=f"scale of the run (default {DEFAULT_PROFILE})")
        command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    commands.add_parser("refresh", help="run in place, on the defaults").add_argument("chapter", help="or: all")
    commands.add_parser("again", help="write what another run should give, with the solutions as cells, to runs/again/")
    book = commands.add_parser("book", help="run all, build pages")
    book.add_argument("--profile", default=DEFAULT_PROFILE)
    book.add_argument("--jobs", type=int, choices=range(1, 65), default=1, metavar="N", help="chapters at a time")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _arguments(argv)
    _prepare_environment()
    try:
        if arguments.command == "list":
            for chapter in chapters():
                print(f"{chapter.stem}\n{_listing(chapter)}")
            print(f"profiles\n{_profiles()}")
        elif arguments.command == "again":
            for chapter in chapters():
                print(expectation(chapter))
        elif arguments.command == "book":
            print(f"\n{build_book(arguments.profile, jobs=arguments.jobs)}")
        elif arguments.command == "refresh":
            for chapter in chapters() if arguments.chapter == "all" else [find_chapter(arguments.chapter)]:
                refresh(chapter)
        else:
            chapter = find_chapter(arguments.chapter)
            given: dict[str, str | bool] = dict(arguments.parameters)
            if arguments.profile and "profile" in given:
                raise Refused("the profile is given twice: `make` takes it as PROFILE=..., not with -p")
            if arguments.profile:
                given["profile"] = arguments.profile
            if arguments.command == "record":
                given["record"] = True
            checked = check_parameters(chapter, {"profile": DEFAULT_PROFILE, **given})
            if arguments.command == "record":
                _check_record(chapter, checked)
            execute(chapter, RUNS / str(checked["profile"]) / chapter.name, checked)
    except (Refused, Failed) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
