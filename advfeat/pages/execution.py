"""Chapters, run from the first cell to the last, and the orderly end of a run.

papermill injects the parameters and runs the cells; ``executed_copy`` says whether the run is whole.
"""

from __future__ import annotations

import errno
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
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from advfeat.experiments.profiles import profile_name
from advfeat.pages.executed_copy import incomplete, normalise
from advfeat.pages.parameters import DEFAULT_PROFILE, Refused, code_cells

# A week in seconds, in effect no limit. By default papermill gives a kernel a minute to start and the last output of a
# cell four seconds to arrive, and a busy machine takes longer. If the kernel dies, the wait ends at once.
_UNLIMITED = 7 * 24 * 3600

_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_UNWRITABLE = _FULL | {errno.EACCES, errno.EFBIG, errno.EIO, errno.EPERM, errno.EROFS}


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


def check_first(chapter: Path, checked: Mapping[str, Any]) -> None:
    """Refuse a run that cannot end well, see ``preflight``; print its warnings."""
    from advfeat.pages.preflight import check_run

    cell_timeout()
    for warning in check_run(chapter, checked):
        print(f"warning: {warning}", file=sys.stderr)


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
