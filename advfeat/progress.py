"""A progress bar with rate and time left, written where a person can see it and never into a notebook.

The environment variable ``ADVFEAT_PROGRESS`` says where: a path (a terminal such as ``/dev/pts/3``, or a log file),
``off``, or unset, which means the standard error of an interactive terminal. A notebook kernel has no terminal, so
bars stay out of the cell outputs; the chapter runner points the variable at its own terminal.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tqdm import tqdm


@contextmanager
def progress(*, total: int, unit: str, description: str, initial: int = 0) -> Iterator[tqdm]:
    """Yield a bar whose ``update(k)`` advances it by ``k`` of ``total`` units, starting at ``initial``."""
    place = os.environ.get("ADVFEAT_PROGRESS", "")
    silent = place == "off" or (not place and not sys.stderr.isatty())
    with ExitStack() as stack:
        stream = stack.enter_context(Path(place).open("a", buffering=1)) if place and not silent else None
        yield stack.enter_context(
            tqdm(
                total=total,
                initial=initial,
                unit=unit,
                desc=description,
                disable=silent,
                file=stream,
                # A log file gets a line every half minute, a terminal a smooth bar.
                mininterval=0.5 if stream is None or stream.isatty() else 30.0,
                dynamic_ncols=True,
            )
        )
