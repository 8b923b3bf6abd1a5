"""The kernel in which a submission runs: an IPython kernel that gives up rights before it runs the first cell.

It may read the Python installation and this library, and write below its scratch folder, as far as the system can hold
it to that (see ``landlock``). Time, memory and output are watched from outside, by ``sandbox``.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from advfeat.classroom.landlock import fence

LIBRARY = Path(__file__).resolve().parents[1]
LARGEST_FILE = 256 * 1024**2
"""Bytes that a submission may write to one file."""

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc", "/opt", "/proc", "/sys")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER


def readable() -> list[Path]:
    """What a submission may read besides its scratch folder: Python, its packages, this library.

    The checkout around the library holds the sources of the problem sets, and often the submissions; it is left out
    even where it is on Python's path.
    """
    python = [Path(place) for place in (sys.prefix, sys.base_prefix, *sys.path) if place]
    checkout = LIBRARY.parent
    outside = [path for path in python if path.is_dir() and not checkout.is_relative_to(path.resolve())]
    return [LIBRARY, *outside, *map(Path, _SYSTEM)]


def serve(scratch: Path, connection: Path, work: Path, environment: Mapping[str, str]) -> None:
    """Turn this process, a fresh fork, into a kernel for ``connection`` in the folder ``work``; never returns."""
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
    fence(read=readable(), write=[scratch], devices=map(Path, _DEVICES))
    launch_new_instance(["-f", str(connection), "--HistoryManager.enabled=False"])
