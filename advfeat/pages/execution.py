"""One chapter, run from its first cell to its last: environment, execution, orderly end, and whether the run is whole.

papermill injects the parameters and runs the cells. Its notes about the cells are ignored: after a dead kernel, a
timeout or ``sys.exit(0)`` papermill reports cells as completed that never ran. A run is whole if every code cell was
executed and none of them shows an error.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from glob import escape
from importlib.metadata import distributions
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

import torch

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import get_profile, profile_name
from advfeat.experiments.provenance import provenance
from advfeat.experiments.records import results_root
from advfeat.pages.parameters import DEFAULT_PROFILE, Refused, absolute, code_cells

# glibc returns large activations to the system at every free, and page faults then dominate. A process reads these
# settings at its start. The Makefile exports the same settings for programs that are not started from here.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}

# Folders that may be given relative to the working folder; a chapter itself runs in the folder of the book.
FOLDERS = ("ADVFEAT_DATA", "ADVFEAT_STORE", "ADVFEAT_RESULTS")

# A week in seconds, in effect no limit. By default papermill gives a kernel a minute to start and the last output of a
# cell four seconds to arrive, and a busy machine takes longer. If the kernel dies, the wait ends at once.
_UNLIMITED = 7 * 24 * 3600

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_UNWRITABLE = _FULL | {errno.EACCES, errno.EFBIG, errno.EIO, errno.EPERM, errno.EROFS}

# Variables that can change the numbers or outputs of a chapter, by prefix, and exceptions that cannot.
_RELEVANT = ("ADVFEAT_", "ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TORCH")
_IRRELEVANT = {"ADVFEAT_PROGRESS", "ADVFEAT_CELL_TIMEOUT"}


class Failed(RuntimeError):
    """A chapter or the build of the pages did not finish."""


class Task(NamedTuple):
    """A chapter to run: the path of the executed copy, checked parameters, and a digest of the run's dependencies."""

    chapter: Path
    copy: Path
    given: Mapping[str, object]
    inputs: str = ""


def cell_timeout() -> int | None:
    """Seconds that one cell may take, from ``ADVFEAT_CELL_TIMEOUT``; None, the default, for no limit.

    Raises:
        Refused: the variable is not a whole number of seconds, 1 or more.
    """
    text = os.environ.get("ADVFEAT_CELL_TIMEOUT", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise Refused(f"ADVFEAT_CELL_TIMEOUT must be a whole number of seconds, 1 or more, or unset, got {text!r}")
    return int(text)


def execute(chapter: Path, copy: Path, given: Mapping[str, object], inputs: str = "") -> float:
    """Run ``chapter`` with checked parameters, write the executed ``copy``, return the seconds that the run took.

    ``copy`` is written when the run is complete, with ``inputs`` noted in it. While the chapter runs, its state is in
    ``<copy>.<machine>-<process>.partial.ipynb``; after a failing cell the state is kept as ``<copy>.failed.ipynb``.

    Raises:
        Failed: a cell failed, was skipped or took longer than ``cell_timeout`` allows, the kernel died, or the copy
            cannot be written.
    """
    import papermill
    from jupyter_client.kernelspec import NoSuchKernel
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    about, limit = f"{chapter.stem} ({profile_name(str(given.get('profile', DEFAULT_PROFILE)))})", cell_timeout()
    # Two runs of one chapter may go on at once: each process writes a file of its own.
    partial = copy.with_suffix(f".{platform.node()}-{os.getpid()}.partial.ipynb")
    failed = copy.with_suffix(".failed.ipynb")
    with _writing(copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        _sweep(copy)
        failed.unlink(missing_ok=True)
    print(f"{about} ...", flush=True)
    begun: list[str] = []
    start = time.perf_counter()

    def stopped(why: str) -> Failed:
        """The error that says where the run ended and why; the notebook up to there is kept."""
        source, where, kept = "", "before its first cell", ""
        if begun:
            cells = [text for text, _ in code_cells(chapter) if text.strip()]
            where, source = f"in cell {len(begun)} of {len(cells) + bool(given)}", begun[-1]
        with suppress(OSError, Refused):
            if not begun and (found := incomplete(partial)):
                where, source = found.where, found.source
            partial.replace(failed)
            kept = f"\n\nThe notebook up to there: {failed}"
        seconds = time.perf_counter() - start
        shown = textwrap.indent(source, "    ")
        return Failed(f"{about} failed {where} after {seconds:.0f} s\n\n{shown}\n\n{why}{kept}")

    try:
        papermill.execute_notebook(
            str(chapter),
            str(partial),
            parameters=dict(given),
            kernel_name="python3",
            language="python",
            cwd=str(chapter.parent),
            execution_timeout=limit,
            start_timeout=_UNLIMITED,
            iopub_timeout=_UNLIMITED,
            progress_bar=False,
            # Critical errors only: it warns of TCP on this machine, and sometimes reports its own end as an error.
            extra_arguments=["--IPKernelApp.log_level=50"],
            # An error ends the run even in a cell that is tagged ``raises-exception``.
            force_raise_errors=True,
            on_cell_execute=lambda cell, **_: begun.append(cell.source),
        )
        if found := incomplete(partial):
            begun.clear()
            raise stopped(found.why)
        with _writing(partial):
            normalise(partial, inputs)
            partial.replace(copy)
    except papermill.PapermillExecutionError as error:
        raise stopped(f"{error.ename}: {error.evalue}") from error
    except CellTimeoutError as error:
        raise stopped(f"The cell took longer than the {limit} s that ADVFEAT_CELL_TIMEOUT allows.") from error
    except DeadKernelError as error:
        raise stopped(
            "The kernel died: the cell ended its own process, or the system killed it, most often for lack of memory."
        ) from error
    except Failed:
        raise
    except (NoSuchKernel, RuntimeError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise stopped(_unwritable(partial, error)) from error
        raise stopped(f"{type(error).__name__}: {error}") from error
    finally:
        # After an interrupt nobody else would delete the file: the next process uses another name.
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    seconds = time.perf_counter() - start
    print(f"{about} {seconds:.1f} s -> {_near(copy)}", flush=True)
    return seconds


class Incomplete(NamedTuple):
    """The first code cell of a notebook that was not executed, or shows an error."""

    where: str
    source: str
    why: str


def incomplete(notebook: Path) -> Incomplete | None:
    """The first cell without an execution count or with an error; None if the run is whole.

    Raises:
        Refused: the file is not a notebook.
    """
    code_cells(notebook)
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    for number, cell in enumerate(cells, 1):
        source = "".join(cell["source"])
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        if not source.strip() or (cell["execution_count"] is not None and not errors):
            continue
        why = f"{errors[0]['ename']}: {errors[0]['evalue']}" if errors else "The cell was not executed."
        return Incomplete(f"in cell {number} of {len(cells)}", source, why)
    return None


def normalise(copy: Path, inputs: str = "") -> None:
    """Remove all differences between two equal runs from an executed notebook: times, paths, versions, random ids.

    ``inputs``, the digest of the run's dependencies, is noted in the metadata.
    """
    notebook = json.loads(copy.read_text(encoding="utf-8"))
    notebook["metadata"] = {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "file_extension": ".py", "pygments_lexer": "ipython3"},
        **({"advfeat": {"inputs": inputs}} if inputs else {}),
    }
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        for key in ("papermill", "execution"):
            metadata.pop(key, None)
        if "injected-parameters" in metadata.get("tags", []):
            cell["id"] = "injected-parameters"
            metadata["tags"].append("hide-input")  # papermill does not copy the tags of the parameters cell
        if not metadata.get("tags", True):
            del metadata["tags"]
    copy.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def execute_all(tasks: Sequence[Task], jobs: int) -> dict[str, float]:
    """``execute`` on each task, ``jobs`` at a time; tasks that have not begun when one fails are skipped."""
    if jobs == 1:
        return {task.chapter.stem: execute(*task) for task in tasks}
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"), initializer=end_orderly)
    running = {task.chapter.stem: pool.submit(_execute_or_leave, task) for task in tasks}
    try:
        return {stem: future.result() for stem, future in running.items()}
    except BrokenProcessPool as error:
        raise Failed("a process that ran chapters was killed from outside, perhaps for lack of memory") from error
    except (KeyboardInterrupt, SystemExit):
        for future in running.values():
            future.cancel()
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _execute_or_leave(task: Task) -> float:
    try:
        return execute(*task)
    except (KeyboardInterrupt, SystemExit):
        # The pool would take the exception for a result, and give its process the next chapter.
        os._exit(1)


def end_orderly() -> dict[int, Any]:
    """Let SIGTERM, which schedulers send, and SIGHUP end this process as Ctrl-C does, with its kernel and partial file.

    A signal that is ignored, as under ``nohup``, stays ignored. Returns the previous handlers.
    """

    def end(number: int, _: FrameType | None) -> NoReturn:
        for other in ends:  # another signal would interrupt the orderly end
            signal.signal(other, signal.SIG_IGN)
        # The running cell ends with its kernel, and asyncio would report that as an unhandled error.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        return {}  # Python sets handlers in the main thread only
    ends = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows has no SIGHUP
    ends = [number for number in ends if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, end) for number in ends}


def prepare_environment() -> None:
    """Set the variables that kernels inherit; the caller's own values are kept, with folders made absolute."""
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    for name in FOLDERS:
        if os.environ.get(name):
            os.environ[name] = absolute(os.environ[name])
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one of the user's account
    os.environ.setdefault("PYTHONUTF8", "1")  # Windows would read the book's own files in a code page
    os.environ.setdefault("ADVFEAT_PROGRESS", _terminal_for_progress())


def _terminal_for_progress() -> str:
    """Path of this process's terminal for the progress bars of kernels, which have none of their own; or ``off``."""
    try:
        # Windows has terminals, but no names for them.
        named = os.isatty(2) and hasattr(os, "ttyname")
        terminal = Path(os.ttyname(2) if named else f"/proc/{os.getpid()}/fd/2")
        with terminal.open("ab"):
            return str(terminal)
    except OSError:  # a socket, a terminal of another user, or a system that does not tell
        return "off"


def surroundings(book: Path) -> str:
    """A digest of all chapters' dependencies: library, records, published numbers, packages, machine, settings."""
    library = sorted(path for path in (CHECKOUT / "advfeat").rglob("*") if path.suffix in (".py", ".c"))
    results = sorted(path for path in results_root().rglob("*") if path.is_file() and not path.name.startswith("."))
    files = (*library, *results, *sorted(book.glob("*.json")))
    made = provenance("cuda" if torch.cuda.is_available() else "cpu")
    facts = {
        "files": [[*path.parts[-3:], hashlib.sha256(path.read_bytes()).hexdigest()] for path in files],
        "packages": sorted({f"{one.name}=={one.version}" for one in distributions()}),
        "machine": [made[key] for key in ("device", "threads", "platform")] + [sys.version],
        "variables": sorted((k, v) for k, v in os.environ.items() if k.startswith(_RELEVANT) and k not in _IRRELEVANT),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def inputs_of(chapter: Path, given: Mapping[str, object], around: str) -> str:
    """A digest of what one run of a chapter depends on: its cells (not their outputs), parameters, surroundings.

    A profile's file may change and keep its name, so what it says counts.
    """
    cells = [{**cell, "outputs": [], "execution_count": None} for cell in json.loads(chapter.read_bytes())["cells"]]
    scale = repr(get_profile(str(given["profile"]))) if given.get("profile") else ""
    return hashlib.sha256(json.dumps([cells, dict(given), scale, around]).encode()).hexdigest()


def finished_with(copy: Path) -> str:
    """The ``inputs`` noted in a whole copy; "" if there is no whole copy."""
    try:
        return "" if incomplete(copy) else json.loads(copy.read_bytes())["metadata"]["advfeat"]["inputs"]
    except (OSError, Refused, KeyError, TypeError):
        return ""


def file_name(chapter: Path, given: Mapping[str, object], defaults: Mapping[str, object]) -> str:
    """Name of the executed copy: the chapter's own, with every parameter but the profile that is not at its default.

    An example is ``05-non-robust-features.seed=1.ipynb``; a long value is replaced by the first digits of its hash.
    """
    parts = [chapter.stem]
    for name, value in sorted(given.items()):
        if name == "profile" or (value == defaults.get(name) and type(value) is type(defaults.get(name))):
            continue
        text = value if isinstance(value, str) and value != "null" else json.dumps(value, sort_keys=True)
        short = len(text) <= 20 and text == text.lower() and text.replace("_", "").replace(".", "").isalnum()
        parts.append(f"{name}={text if short else hashlib.sha256(text.encode()).hexdigest()[:8]}")
    return ".".join(parts) + ".ipynb"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(_unwritable(path, error)) from error


def _unwritable(path: Path, error: OSError) -> str:
    cure = ""
    if error.errno in _FULL:
        with suppress(OSError):
            cure = f" ({shutil.disk_usage(path.parent).free / 1e6:.0f} MB are free there; make room and start again)"
    return f"{error.filename or path} cannot be written: {error.strerror or error}{cure}"


def _sweep(copy: Path) -> None:
    """Remove partial files of ``copy`` that killed processes of this machine have left."""
    import psutil

    pattern = f"{escape(copy.stem)}.{escape(platform.node())}-*.partial.ipynb"
    for path in copy.parent.glob(pattern):
        process = path.name.removesuffix(".partial.ipynb").rpartition("-")[2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def _near(path: Path) -> str:
    try:
        return os.path.relpath(path)
    except ValueError:  # another drive, on Windows
        return str(path)
