"""A plugin for nbval, ``-p nbval_patience``: it waits without a time limit, but not for a dead kernel.

Of itself nbval waits five seconds for the output of a cell that has ended, which a busy machine may miss, and for a
dead kernel as long as a cell may take.
"""

from __future__ import annotations

import time
from queue import Empty

import pytest
from nbval.kernel import RunningKernel

PATIENCE = 7 * 24 * 3600  # seconds
SLICE = 5.0  # seconds between two looks at whether the kernel lives

_at_once = RunningKernel.get_message


def get_message(kernel: RunningKernel, stream: str, timeout: float | None = None) -> dict:
    """The next message of a stream within ``timeout`` seconds, or ``Empty``, as soon as the kernel has died."""
    end = time.monotonic() + (PATIENCE if timeout is None else float(timeout))
    while True:
        left = end - time.monotonic()
        try:
            return _at_once(kernel, stream, timeout=max(0.0, min(SLICE, left)))
        except Empty:
            if left <= SLICE or not kernel.is_alive():
                raise


RunningKernel.get_message = get_message


def pytest_itemcollected(item: pytest.Item) -> None:
    """Called for each cell."""
    if hasattr(item, "output_timeout"):
        item.output_timeout = PATIENCE
