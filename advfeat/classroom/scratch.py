"""Where scratch folders go that hold sockets, whose paths must be short."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

LONGEST = 60
"""Characters of a folder for temporary files: a path of a socket has 107 at most, 103 on macOS, and kernels and the
processes that start them put up to 40 behind the folder."""
_OTHERS = ("/tmp", "/var/tmp", "/dev/shm")


def short_folder() -> str:
    """The folder for temporary files, or another one if its path is too long for sockets, or is a pattern.

    Raises:
        ValueError: there is no other one that can be written to.
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
