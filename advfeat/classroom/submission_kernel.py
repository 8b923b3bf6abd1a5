"""The kernel in which a submission runs: an IPython kernel that gives up rights before it runs the first cell.

The kernel may read Python, this library and the system's folders, may write below its scratch folder, and reaches no
processes but its own, as far as the system can enforce that (see ``namespaces``, ``landlock`` and ``seccomp``).
``sandbox`` watches time, memory and output from outside.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from advfeat.classroom import namespaces, seccomp
from advfeat.classroom.landlock import fence

LIBRARY = Path(__file__).resolve().parents[1]
LARGEST_FILE = 256 * 1024**2
"""Bytes that a submission may write to one file."""

MOST_THREADS = 1024
"""The limit for all processes of a submission together, if they can be told from those of the grader's user."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys")
_EXTRA = ("/opt",)
_DEVICES = [Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom")]
_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
_LONGEST_SWEEP = 10  # seconds


@dataclass(frozen=True)
class Job:
    """The settings of a new kernel, in JSON types.

    Attributes:
        scratch: the folder below which the kernel may write, with an empty folder ``root`` in it.
        connection: the kernel's connection file.
        work: the folder that the kernel starts in; None only tries whether a kernel can be isolated.
        environment: all environment variables.
        path: Python's search path for modules.
        read: folders that the kernel may read.
        isolated: whether the kernel gets namespaces of its own.
    """

    scratch: str
    connection: str
    work: str | None
    environment: Mapping[str, str]
    path: Sequence[str]
    read: Sequence[str]
    isolated: bool


def readable(hidden: Iterable[Path]) -> list[Path]:
    """Folders that a submission may read besides its scratch folder: Python, its packages, this library, the system.

    Folders of Python's path that contain a hidden folder or lie in one are left out. So is the working folder, which
    ``python -m`` puts on the path, and which often holds the submissions.

    Args:
        hidden: folders that must not be read: the checkout, with the sources of the problem sets, and the class folder.

    Raises:
        ValueError: a hidden folder lies in a folder that every kernel must read.
    """
    kept_out = [folder.resolve() for folder in hidden]
    needed = {Path(path).resolve() for path in (LIBRARY, sys.prefix, sys.base_prefix, *_SYSTEM)}
    for path in needed:
        for folder in kept_out:
            if folder.is_relative_to(path):
                raise ValueError(
                    f"submissions could read {folder}, because their kernels need {path}; move it somewhere else"
                )
    extra = {Path(path).resolve() for path in (*sys.path, *_EXTRA)} - {Path.cwd()}
    apart = [
        path for path in extra if not any(path.is_relative_to(one) or one.is_relative_to(path) for one in kept_out)
    ]
    return [path for path in (*needed, *apart) if path.is_dir()]


def serve(job: Job, report: int) -> NoReturn:
    """Turn this process, a fresh fork, into the guard of a kernel that does ``job``, and the kernel into its child.

    The guard stays outside. It passes interrupts on, ends the kernel on SIGTERM or when its own parent dies, ends the
    processes that the kernel leaves behind, and then writes a zero byte and the kernel's exit code to ``report``. If
    the kernel cannot start, the reason is written to ``report`` first, in words.
    """
    os.setsid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
        with suppress(OSError):  # makes this process the first to be killed when the machine runs out of memory
            Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        if job.isolated:
            namespaces.leave()
        _guard(report, outermost=True)
        if job.isolated:
            folders, names = map(Path, job.read), (*_SYSTEM, *_EXTRA, *job.path, sys.executable, sys.prefix)
            root = Path(job.scratch, "root")
            namespaces.settle(root, read=folders, write=Path(job.scratch), devices=_DEVICES, names=names)
            _guard(report, outermost=False)
        _give_up_rights(job)
    except BaseException as error:  # noqa: BLE001 - every failure is reported to the grader
        os.write(report, f"{type(error).__name__}: {error}".encode())
        os._exit(1)
    os.close(report)
    if job.work is None:
        os._exit(0)
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance(["-f", job.connection, "--HistoryManager.enabled=False"])
    os._exit(0)


def _give_up_rights(job: Job) -> None:
    import resource  # not on Windows, where nothing is graded

    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    os.environ.clear()
    os.environ.update(job.environment)
    os.chdir(job.work or job.scratch)
    sys.path[:] = ["", *job.path]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    if job.isolated:  # without namespaces all processes of this user would count
        limit = resource.getrlimit(resource.RLIMIT_NPROC)[1]
        most = MOST_THREADS if limit == resource.RLIM_INFINITY else min(MOST_THREADS, limit)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
    namespaces.surrender(keep_overrides=not job.isolated)
    fence(read=map(Path, job.read), write=[Path(job.scratch)], devices=_DEVICES)
    seccomp.refuse()


def _guard(report: int, *, outermost: bool) -> None:
    """Fork. The child returns; the parent guards it and ends with its exit code. The ``outermost`` guard reports it."""
    signals = (signal.SIGINT, signal.SIGTERM)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if not child:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        return
    if sys.platform == "linux":
        # Processes that the submission abandons become children of this process, so that they can be found.
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    if not outermost:
        os.close(report)

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGINT if number == signal.SIGINT else signal.SIGKILL)

    for number in signals:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    code = 1
    with suppress(BaseException):
        code = _wait(child)
        _end_the_rest(child)
    with suppress(OSError):
        if outermost:
            os.write(report, bytes([0, code]))
    os._exit(code)


def _wait(child: int) -> int:
    while True:
        process, status = os.waitpid(-1, 0)
        if process == child:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _end_the_rest(child: int) -> None:
    """Kill the processes that the child has left: on Linux all descendants of this process, elsewhere its group."""
    if os.getpid() == 1:
        return  # the system ends the whole namespace with its first process
    import psutil

    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    deadline = time.monotonic() + _LONGEST_SWEEP
    while time.monotonic() < deadline:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)
