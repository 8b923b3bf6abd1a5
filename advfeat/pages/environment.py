"""The environment of a chapter's run: variables that its kernel inherits, and a digest of all that it depends on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path

import torch

from advfeat.checkout import CHECKOUT
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.provenance import provenance
from advfeat.experiments.records import results_root
from advfeat.pages.parameters import absolute

# glibc returns large activations to the system at every free, and page faults then dominate. A process reads these
# settings at its start. The Makefile exports the same settings for programs that are not started from here.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "268435456",
}

# Folders that may be given relative to the working folder; a chapter itself runs in the folder of the book.
FOLDER_VARIABLES = ("ADVFEAT_DATA", "ADVFEAT_STORE", "ADVFEAT_RESULTS")

# Variables that can change the numbers or outputs of a chapter, by prefix, and exceptions that cannot.
_RELEVANT = ("ADVFEAT_", "ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "MKL_", "OMP_", "ONEDNN_", "OPENBLAS_", "TORCH")
_IRRELEVANT = {"ADVFEAT_PROGRESS", "ADVFEAT_CELL_TIMEOUT"}


def prepare_environment() -> None:
    """Set the variables that kernels inherit; the caller's own values are kept, with folders made absolute."""
    for name, value in ALLOCATOR.items():
        os.environ.setdefault(name, value)
    for name in FOLDER_VARIABLES:
        if os.environ.get(name):
            os.environ[name] = absolute(os.environ[name])
    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this Python, not one of the user's account
    os.environ.setdefault("PYTHONUTF8", "1")  # Windows would read the book's own files in a code page
    os.environ.setdefault("ADVFEAT_PROGRESS", _terminal_for_progress())


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_cores(jobs: int | None) -> int:
    """Let ``jobs`` chapters that run at a time share the cores: ``OMP_NUM_THREADS``, unless the caller has set it.

    By default as many chapters as cores run at a time, at most four, since small networks gain little from a second
    thread; on a GPU one, since its memory may be too small for two. Returns the number.
    """
    jobs = jobs or (1 if torch.cuda.is_available() else min(4, cores()))
    if jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // jobs)))
    return jobs


def _terminal_for_progress() -> str:
    """Path of this process's terminal for the progress bars of kernels, which have none of their own; or ``off``."""
    try:
        # Windows has terminals, but no names for them.
        named = os.isatty(2) and hasattr(os, "ttyname")
        terminal = Path(os.ttyname(2) if named else f"/proc/{os.getpid()}/fd/2")
        with terminal.open("ab"):
            return str(terminal)
    except OSError:  # a socket, a terminal of another user, or a system that does not tell
        return "off"


def surroundings(book: Path) -> str:
    """A digest of all chapters' dependencies: library, records, published numbers, packages, machine, settings."""
    library = sorted(path for path in (CHECKOUT / "advfeat").rglob("*") if path.suffix in (".py", ".c"))
    results = sorted(path for path in results_root().rglob("*") if path.is_file() and not path.name.startswith("."))
    files = (*library, *results, *sorted(book.glob("*.json")))
    made = provenance("cuda" if torch.cuda.is_available() else "cpu")
    facts = {
        "files": [[*path.parts[-3:], hashlib.sha256(path.read_bytes()).hexdigest()] for path in files],
        "packages": sorted({f"{one.name}=={one.version}" for one in distributions()}),
        "machine": [made[key] for key in ("device", "engine", "threads", "platform")] + [sys.version],
        "variables": sorted((k, v) for k, v in os.environ.items() if k.startswith(_RELEVANT) and k not in _IRRELEVANT),
    }
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def inputs_of(chapter: Path, given: Mapping[str, object], around: str) -> str:
    """A digest of the dependencies of one run of a chapter: its cells (not their outputs), parameters, surroundings.

    A profile's file may change and keep its name, so its contents count.
    """
    cells = [{**cell, "outputs": [], "execution_count": None} for cell in json.loads(chapter.read_bytes())["cells"]]
    scale = repr(get_profile(str(given["profile"]))) if given.get("profile") else ""
    return hashlib.sha256(json.dumps([cells, dict(given), scale, around]).encode()).hexdigest()
