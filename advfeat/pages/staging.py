"""The folder that pages are built from, and the program that builds them.

``python -m advfeat.pages.staging`` builds the pages from the outputs that are committed with the chapters: no chapter
is run, and PyTorch need not be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

from advfeat.checkout import CHECKOUT

STAGED_FOLDERS = ("_static", "_ext")
STAGED_FILES = ("_config.yml", "_toc.yml")


def jupyter_book_program() -> str | None:
    """The path of ``jupyter-book`` beside this Python, or on the path; None if there is none."""
    scripts = sysconfig.get_path("scripts")
    return shutil.which("jupyter-book", path=scripts) or shutil.which("jupyter-book")


def fill(stage: Path, notebooks: Iterable[Path]) -> None:
    """Make a folder of all that pages are built from, with these notebooks as its chapters; an older one is removed.

    The committed notebooks are among them only if they are given: a page must never show the outputs of another run.
    """
    shutil.rmtree(stage, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.ipynb", "assignments", ".ipynb_checkpoints", "_build")
    shutil.copytree(CHECKOUT / "book", stage / "book", ignore=ignored)
    for name in STAGED_FOLDERS:
        shutil.copytree(CHECKOUT / name, stage / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in STAGED_FILES:
        shutil.copy(CHECKOUT / name, stage / name)
    for notebook in notebooks:
        shutil.copy(notebook, stage / "book" / notebook.name)


def build_pages(program: str, stage: Path) -> Path | None:
    """Build the pages strictly from a filled folder; the path of the first page, or None if there was a warning."""
    # --all: an incremental build keeps old numbers on pages that quote another chapter.
    command = [program, "build", str(stage), "--all", "-n", "-W", "--keep-going"]
    # The parts of pages that code makes import the library, which need not be installed.
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    return None if done.returncode else stage / "_build" / "html" / "index.html"


def main() -> None:
    """Build the pages from the committed outputs, in runs/read."""
    argparse.ArgumentParser(prog="python -m advfeat.pages.staging", description=main.__doc__).parse_args()
    program = jupyter_book_program()
    if program is None:
        sys.exit("jupyter-book is not installed: make read installs it")
    stage = CHECKOUT / "runs" / "read"
    fill(stage, sorted((CHECKOUT / "book").glob("[0-9]*.ipynb")))
    first = build_pages(program, stage)
    if first is None:
        sys.exit("jupyter-book reported errors or warnings, see above")
    sys.stdout.write(f"\n{first}\n")


if __name__ == "__main__":
    main()
