"""How a kernel is kept apart: its scratch folder, its environment, and the kinds of isolation that this system has."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from advfeat.classroom import landlock, seccomp
from advfeat.classroom.forkserver import LOADED_WITH, ForkServer
from advfeat.classroom.scratch import short_folder
from advfeat.classroom.submission_kernel import Job

CONNECTION = "kernel.json"
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
# Restrictions of the processor's instructions hold for submissions, too: some tests compare numbers that depend on it.
_INSTRUCTIONS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
_FOLDERS = {"HOME": "home", "TMPDIR": "tmp", "ADVFEAT_STORE": "store", "IPYTHONDIR": "ipython"}
SERVER = ForkServer()


class Lost(RuntimeError):
    """The process that guards a kernel ended, which is no fault of the notebook's."""


def missing(read: Sequence[Path]) -> list[str]:
    """The kinds of isolation that this system lacks, in sentences; ``read`` as for ``run``."""
    lacks, reason = [], why_not_isolated(tuple(read))
    if reason:
        lacks.append(
            f"This system gives submissions no namespaces of their own ({reason}): they can see other processes, "
            "change modes and times of your files, and reach local sockets (see the guide)."
        )
        if not landlock.edition():
            lacks.append(
                "This system cannot fence submissions in: their code could read and change your files (see the guide)."
            )
        if landlock.edition() < landlock.SIGNALS or not seccomp.known():
            lacks.append(
                "A submission can disturb the others, or the grader, by signals or limits; a disturbed submission is "
                "graded again (see the guide)."
            )
    return lacks


@functools.cache
def why_not_isolated(read: Sequence[Path]) -> str:
    """Why submissions that may read ``read`` get no namespaces of their own; empty if they do."""
    with scratch_folder() as scratch:
        trial = SERVER.start(job(scratch, read, work=None, isolated=True))
        code = trial.wait()
        if code and not trial.problem:
            raise Lost(f"a trial of how submissions can be isolated ended with exit code {code}")
        return trial.problem


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that is removed at the end, with a path that is short enough for the sockets in it."""
    folder = Path(tempfile.mkdtemp(prefix="advfeat-", dir=Path(short_folder()).resolve()))
    try:
        for name in (*_FOLDERS.values(), "root"):
            (folder / name).mkdir()
        yield folder
    finally:
        # Nested folders can be too deep for Python: Python 3.11 may crash. So programs of the system remove them.
        for command in (["rm", "-rf"], ["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            if folder.exists():
                subprocess.run([*command, str(folder)], check=False, stderr=subprocess.DEVNULL)


def job(scratch: Path, read: Sequence[Path], *, work: Path | None, isolated: bool) -> Job:
    """The order for a kernel in a scratch folder; ``work``, below that folder, is where it runs."""
    kept = {name: os.environ[name] for name in (*_PASSED_ON, *_INSTRUCTIONS) if name in os.environ}
    places = {name: str(scratch / folder) for name, folder in _FOLDERS.items()}
    return Job(
        scratch=str(scratch),
        connection=str(scratch / CONNECTION),
        work=None if work is None else str(work),
        environment={**kept, **places, **LOADED_WITH, "ADVFEAT_PROGRESS": "off"},
        path=sys.path,
        read=[str(folder) for folder in read],
        isolated=isolated,
    )
