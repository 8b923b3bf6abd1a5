"""The limits of one notebook, and its use of them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Limits:
    """The limits of one notebook.

    Attributes:
        cell: seconds for a single cell; then the cell is interrupted, and the next one runs.
        total: seconds for the whole notebook.
        memory: GiB for the kernel and all processes that it starts.
        output: characters that all cells together may print or show.
        processes: number of processes at a time.
        disk: GiB in the scratch folder.
    """

    cell: float = 60
    total: float = 180
    memory: float = 4
    output: int = 10_000_000
    processes: int = 200
    disk: float = 2


def disk_used(folder: Path) -> int:
    """Bytes that files below ``folder`` take on the disk; files that vanish meanwhile do not count."""
    size, ahead = 0, [str(folder)]
    while ahead:
        with suppress(OSError), os.scandir(ahead.pop()) as entries:
            for entry in entries:
                size += entry.stat(follow_symlinks=False).st_blocks * 512
                if entry.is_dir(follow_symlinks=False):
                    ahead.append(entry.path)
    return size


def memory_used(processes: Sequence[psutil.Process], limit: float) -> int:
    """Bytes that ``processes`` use; if that may exceed ``limit``, with each shared page counted once.

    Forks share most of their pages, so the sum of their resident memory is far too large, but quick to get and never
    too small. The right number takes milliseconds a process, and Linux.
    """
    seen = own = 0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            seen += process.memory_info().rss
    if seen <= limit:
        return seen
    for process in processes:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            try:
                own += _proportional(process)
            except (psutil.AccessDenied, OSError):  # the process hides its maps
                own += process.memory_info().rss
    return own


def _proportional(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    # macOS has no proportional size; the memory that is freed at the end of the process ignores shared pages.
    return int(getattr(memory, "pss", memory.uss))
