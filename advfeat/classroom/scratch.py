"""The parent of scratch folders, which hold sockets, so that their paths must be short."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LONGEST = 60
"""The most characters of a folder for temporary files: the path of a socket has at most 107, on macOS 103, and kernels
and the processes that start them append up to 40."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


def short_folder() -> str:
    """The folder for temporary files, or another one if its path is too long for sockets or contains a pattern.

    Raises:
        ValueError: no folder with a short path can be written to.
    """
    usual = tempfile.gettempdir()
    for folder in (usual, *_OTHERS):
        short = len(os.fsencode(str(Path(folder).resolve()))) <= LONGEST and not set("*?[") & set(folder)
        if short and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise ValueError(
        f"TMPDIR must name a folder of at most {LONGEST} characters for sockets, got {usual} with {len(usual)}; "
        "set it to a shorter one that can be written to"
    )
