"""A progress bar with rate and time left, written where a person can see it.

The environment variable ``ADVFEAT_PROGRESS`` is ``off`` or a path: a terminal such as ``/dev/pts/3``, or a log file.
Without the variable, the bar appears on an interactive terminal, or in a notebook under the running cell, where it
disappears when the work is done. The chapter runner sets the variable to its own terminal, so that no bar gets into a
page. If that terminal is closed, the work goes on without a bar.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TextIO

from tqdm import tqdm


@contextmanager
def progress(*, total: int, unit: str, description: str, initial: int = 0) -> Iterator[tqdm]:
    """Yield a bar whose ``update(k)`` advances it by ``k`` of ``total`` units, starting at ``initial``."""
    path = os.environ.get("ADVFEAT_PROGRESS", "")
    in_notebook = not path and "ipykernel" in sys.modules
    silent = path == "off" or not (path or in_notebook or (sys.stderr and sys.stderr.isatty()))
    with ExitStack() as stack:
        stream = _opened(path) if path and not silent else None
        if stream is not None:
            stack.callback(_close, stream)
        yield stack.enter_context(
            tqdm(
                total=total,
                initial=initial,
                unit=unit,
                desc=description,
                disable=silent or bool(path and stream is None),
                leave=not in_notebook,
                file=stream,
                # A log file gets a line every half minute, a terminal a smooth bar.
                mininterval=0.5 if stream is None or stream.isatty() else 30.0,
                dynamic_ncols=not in_notebook,
            )
        )


def _opened(path: str) -> TextIO | None:
    try:
        return Path(path).open("a", buffering=1, encoding="utf-8")
    except OSError:  # the terminal is gone
        return None


def _close(stream: TextIO) -> None:
    # Closing flushes the buffer, which fails again if the terminal is gone.
    with suppress(OSError):
        stream.close()
