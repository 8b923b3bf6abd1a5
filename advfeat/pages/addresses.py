"""The addresses of the project: its repository, and its published pages.

They stand in ``pyproject.toml``, and are copied from there into every other file that names them.
``python -m advfeat.pages.addresses https://github.com/me/fork`` changes them all, for a fork.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from advfeat.checkout import CHECKOUT

GITHUB = re.compile(r"https://github\.com/([\w.-]+)/([\w.-]+)")
NAMING_FILES = (".cff", ".ipynb", ".json", ".md", ".py", ".tex", ".toml", ".yml")
"""Endings of the files that name an address."""


class Addresses(NamedTuple):
    """The repository without a slash at its end, and the pages with one."""

    repository: str
    pages: str


def addresses(root: Path = CHECKOUT) -> Addresses:
    """The addresses in ``pyproject.toml``."""
    urls = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    return Addresses(urls["Homepage"], urls["Documentation"])


def pages_of(repository: str) -> str:
    """Where GitHub publishes the pages of a repository.

    Raises:
        ValueError: the address is not that of a repository on GitHub.
    """
    found = GITHUB.fullmatch(repository)
    if not found:
        raise ValueError(f"repository must be like https://github.com/OWNER/NAME, got {repository!r}")
    return f"https://{found[1].lower()}.github.io/{found[2]}/"


def readdress(root: Path, paths: Iterable[Path], new: Addresses) -> list[Path]:
    """Write new addresses in the place of the present ones; return the files that changed.

    Args:
        root: the checkout, whose ``pyproject.toml`` holds the present ones.
        paths: files to look through, from there.
        new: the new addresses.

    Raises:
        ValueError: the repository is not on GitHub, or the pages have no slash at their end.
    """
    pages_of(new.repository)
    if not new.pages.endswith("/"):
        raise ValueError(f"pages must end with a slash, got {new.pages!r}")
    old, changed = addresses(root), []
    # The name of another repository may begin like ours, and a page's address continues behind it.
    repository = re.compile(re.escape(old.repository) + r"(?![\w-])")
    for path in paths:
        text = (root / path).read_text(encoding="utf-8")
        written = repository.sub(new.repository, text).replace(old.pages, new.pages)
        if written != text:
            (root / path).write_text(written, encoding="utf-8")
            changed.append(path)
    return changed


def tracked(root: Path) -> list[Path]:
    """The files of the checkout that may name an address."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True, text=True).stdout
    return [Path(name) for name in listed.split("\0") if name.endswith(NAMING_FILES)]


def main() -> None:
    """Change the addresses of the project in all files of the checkout."""
    parser = argparse.ArgumentParser(prog="python -m advfeat.pages.addresses", description=main.__doc__)
    parser.add_argument("repository", help="such as https://github.com/me/advfeat")
    parser.add_argument("--pages", help="where the pages are published, with a slash at the end; default: GitHub Pages")
    given = parser.parse_args()
    repository = given.repository.rstrip("/").removesuffix(".git")
    try:
        new = Addresses(repository, given.pages or pages_of(repository))
        changed = readdress(CHECKOUT, tracked(CHECKOUT), new)
    except ValueError as error:
        parser.error(str(error))
    parser.exit(message="".join(f"{path}\n" for path in changed))


if __name__ == "__main__":
    main()
