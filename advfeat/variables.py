"""An environment variable, set for a while."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from advfeat import inputs


@contextmanager
def variable(name: str, value: str) -> Iterator[None]:
    """Set an environment variable inside the block; after it, it is what it was, or is not there."""
    inputs.text("name", name)
    inputs.text("value", value)
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before
