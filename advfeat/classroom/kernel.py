"""The kernel in which a submission runs: an IPython kernel that gives up rights before it runs the first cell.

It may read Python, this library and the system's folders, and write below its scratch folder, as far as the system can
hold it to that (see ``landlock``). Time, memory and output are watched from outside, by ``sandbox``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from advfeat.classroom.landlock import fence

LIBRARY = Path(__file__).resolve().parents[1]
LARGEST_FILE = 256 * 1024**2
"""Bytes that a submission may write to one file."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys")
_EXTRA = ("/opt",)
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


def readable(hidden: Iterable[Path]) -> list[Path]:
    """What a submission may read besides its scratch folder: Python, its packages, this library, the system.

    Of Python's path, folders that hold a hidden one or lie in one are left out. So is the working folder, which
    ``python -m`` puts there, and which often holds the submissions.

    Args:
        hidden: folders that must not be read: the checkout, with the sources of the problem sets, and the class's.

    Raises:
        ValueError: one of them lies where nothing runs unless it can be read.
    """
    places = [place.resolve() for place in hidden]
    needed = {Path(path).resolve() for path in (LIBRARY, sys.prefix, sys.base_prefix, *_SYSTEM)}
    for path in needed:
        for place in places:
            if place.is_relative_to(path):
                raise ValueError(
                    f"submissions could read {place}, because their kernels need {path}; move it somewhere else"
                )
    extra = {Path(path).resolve() for path in (*sys.path, *_EXTRA)} - {Path.cwd()}
    apart = [
        path for path in extra if not any(path.is_relative_to(place) or place.is_relative_to(path) for place in places)
    ]
    return [path for path in (*needed, *apart) if path.is_dir()]


def serve(scratch: Path, connection: Path, work: Path, environment: Mapping[str, str], read: Iterable[Path]) -> None:
    """Turn this process, a fresh fork, into a kernel for ``connection`` in the folder ``work``; never returns.

    It may read below ``read``, and write below ``scratch``.
    """
    import resource  # not on Windows, where nothing is graded

    from ipykernel.kernelapp import launch_new_instance

    os.setsid()
    if sys.platform == "linux":
        # What the submission starts and abandons stays below this process, where it can be found.
        ctypes.CDLL(None).prctl(_ADOPT_ORPHANS, 1, 0, 0, 0)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(work)
    sys.path.insert(0, "")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))
    fence(read=read, write=[scratch], devices=map(Path, _DEVICES))
    launch_new_instance(["-f", str(connection), "--HistoryManager.enabled=False"])
