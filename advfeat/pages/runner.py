"""Run the chapters of the book: one at any profile, all of them for the pages, or in place before a commit.

``python -m advfeat.pages list|run|record|refresh|book|again|pdf``; ``make`` has a target for each. Everything that can
be checked is checked before the first cell runs. A wrong chapter, profile or parameter, and any other condition under
which a run is bound to fail, gives exit code 2 and a message with the accepted values; a failing cell gives 1.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from advfeat.experiments.profiles import profile_name
from advfeat.experiments.records import BOOK
from advfeat.pages.build import INSTALL_BOOK, build_book, expectation
from advfeat.pages.chapter_files import LABELS, RUNS, chapters, find_chapter
from advfeat.pages.environment import prepare_environment, share_cores
from advfeat.pages.executed_copy import file_name
from advfeat.pages.execution import Failed, check_first, end_orderly, execute
from advfeat.pages.exercises import publish_labels
from advfeat.pages.parameters import (
    DEFAULT_PROFILE,
    Refused,
    check_parameters,
    default_of,
    listing,
    parameters_of,
    profile_listing,
)
from advfeat.pages.printing import build_pdf, check_programs


def refresh(chapter: Path) -> None:
    """Run a chapter on its defaults and put the outputs into the committed file: no parameters, so no injected cell.

    The labels of its exercises are published with it.
    """
    copy = RUNS / "refresh" / chapter.name
    check_first(chapter, {})
    execute(chapter, copy, {})
    copy.replace(chapter)
    for label in publish_labels(chapter, LABELS):
        print(f"{label} is new, and listed in {LABELS.name}")


def run_chapter(arguments: argparse.Namespace) -> None:
    """The commands ``run`` and ``record``."""
    chapter = find_chapter(arguments.chapter)
    given: dict[str, str | bool] = {}
    for name, text in arguments.parameters:
        if name in given:
            raise Refused(f"{name} is given twice: {given[name]} and {text}")
        given[name] = text
    if arguments.profile and "profile" in given:
        raise Refused("the profile is given twice: `make` takes it as PROFILE=..., not with -p")
    if arguments.profile:
        given["profile"] = arguments.profile
    if arguments.command == "record":
        given["record"] = True
    checked = check_parameters(chapter, {"profile": DEFAULT_PROFILE, **given})
    check_first(chapter, checked)
    defaults = {name: default_of(parameter) for name, parameter in parameters_of(chapter).items()}
    execute(chapter, RUNS / profile_name(checked["profile"]) / file_name(chapter, checked, defaults), checked)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advfeat.pages", description="Run the chapters of the book.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="chapters with their parameters, and profiles")
    for name, text in (
        ("run", "run one chapter; the executed copy goes to runs/<profile>/, with its parameters in the name"),
        ("record", "the same with record=True: the chapter saves its numbers to book/results/"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("chapter", help="05, 5, the file name or its path")
        command.add_argument("--profile", help=f"scale of the run, or its file (default {DEFAULT_PROFILE})")
        command.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"))
    commands.add_parser("refresh", help="run in place, on the defaults").add_argument("chapter", help="or: all")
    commands.add_parser("again", help="write the expected result of another run, with the solutions, to runs/again/")
    at_a_time = "chapters at a time (default: as many as cores, at most 4; 1 on a GPU)"
    for name, text in (("book", "run all, build pages"), ("pdf", "the same, then print them, with LaTeX")):
        book = commands.add_parser(name, help=text)
        book.add_argument("--profile", default=DEFAULT_PROFILE)
        book.add_argument("--fresh", action="store_true", help="also run the chapters that are up to date")
        book.add_argument("--jobs", type=int, choices=range(1, 65), metavar="N", help=at_a_time)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    arguments = _arguments(argv)
    before = end_orderly()
    try:
        prepare_environment()
        _run_command(arguments)
    except (Refused, Failed, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Refused) else 1
    except ModuleNotFoundError as error:
        print(f"{error.name} is not installed; {INSTALL_BOOK}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, SystemExit) as asked:
        with suppress(OSError):  # the terminal may be gone
            print("\nEnded on request: finished work is kept; the same command continues.", file=sys.stderr)
        return asked.code if isinstance(asked, SystemExit) and isinstance(asked.code, int) else 130
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


def _run_command(arguments: argparse.Namespace) -> None:
    if not chapters():
        raise Refused(_without_checkout())
    if arguments.command == "list":
        for chapter in chapters():
            print(f"{chapter.stem}\n{listing(chapter)}")
        print(f"profiles\n{profile_listing()}")
    elif arguments.command == "again":
        for chapter in chapters():
            print(expectation(chapter))
    elif arguments.command in ("book", "pdf"):
        if arguments.command == "pdf":
            check_programs()  # first, so that nobody waits for the chapters in vain
        built = build_book(arguments.profile, jobs=share_cores(arguments.jobs), fresh=arguments.fresh)
        print(f"\n{build_pdf() if arguments.command == 'pdf' else built}")
    elif arguments.command == "refresh":
        for chapter in chapters() if arguments.chapter == "all" else [find_chapter(arguments.chapter)]:
            refresh(chapter)
    else:
        run_chapter(arguments)


def _without_checkout() -> str:
    """The message for a package that is installed without the book beside it."""
    address = "<its repository>"
    with suppress(importlib.metadata.PackageNotFoundError):
        links = importlib.metadata.metadata("advfeat").get_all("Project-URL") or []
        address = next((link.split(", ")[1] for link in links if link.startswith("Homepage")), address)
    return (
        f"There are no chapters: {BOOK} does not exist, or holds none. Only the library is installed (import advfeat), "
        "with its benchmark (python -m advfeat.bench). Chapters, records and pages need a checkout:\n"
        f'  git clone {address} && cd advfeat && pip install -e ".[book]" -c constraints.txt'
    )
