"""The command line of the classroom: ``python -m advfeat.classroom COMMAND``.

``validate`` is for students; ``assignments``, ``zip``, ``grade``, ``rehearse`` and ``marks`` are for
instructors.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m advfeat.classroom", description="Problem sets of a class.")
    commands = parser.add_subparsers(dest="command", required=True)

    command = commands.add_parser("validate", help="for students: does a notebook run, and pass the tests it shows?")
    command.add_argument("notebook", type=_path)

    command = commands.add_parser("assignments", help="make the notebooks of a class")
    command.add_argument("--class-seed", type=int, default=0, help="another seed, another planted world (default 0)")
    command.add_argument("--jobs", type=int, help="notebooks tried at a time (default: one per core)")
    command.add_argument(
        "--no-check", dest="check", action="store_false", help="do not try the tests on mistakes first"
    )
    _folder(command)

    command = commands.add_parser("zip", help="pack the archive for students")
    command.add_argument("--to", type=_path, help="the archive (default: in the folder of the class)")
    _folder(command)

    command = commands.add_parser("grade", help="grade a folder, or a ZIP, of submissions")
    command.add_argument("assignment")
    command.add_argument("submissions", type=_path, help="the folder or ZIP")
    _limits(command)
    _folder(command)

    command = commands.add_parser("rehearse", help="grade a class of simulated students")
    command.add_argument("assignment")
    command.add_argument("--students", type=int, default=40, help="how many (default 40)")
    _limits(command)
    _folder(command)

    command = commands.add_parser("marks", help="enter the marks for written answers")
    command.add_argument("assignment")
    _folder(command)
    return parser.parse_args(argv)


def _path(text: str) -> Path:
    """A path. An empty text, from a variable without a value, is refused instead of naming the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a folder or file, got ''")
    return Path(text)


def _folder(command: argparse.ArgumentParser) -> None:
    command.add_argument("--folder", type=_path, default=Path("class"), help="the folder of the class (default: class)")


def _limits(command: argparse.ArgumentParser) -> None:
    command.add_argument("--jobs", type=int, help="how many at a time (default: one per core)")
    command.add_argument("--cell", type=float, default=60, help="seconds for one cell (default 60)")
    command.add_argument("--total", type=float, default=180, help="seconds for one notebook (default 180)")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 1 if a notebook fails or not all was graded, 2 for a mistake."""
    arguments = _arguments(argv)
    if arguments.command == "validate":
        from advfeat.classroom.validate import validate  # late, as below: students need no nbgrader

        return validate(arguments.notebook)
    try:
        for line in _instruct(arguments):
            print(line, flush=True)
    except (FileNotFoundError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _instruct(arguments: argparse.Namespace) -> Iterator[str]:
    """Carry out an instructor's command; yields the lines to print."""
    from advfeat.classroom import marks, mistakes, rehearse, release
    from advfeat.classroom.collect import gather
    from advfeat.classroom.collected import first_five
    from advfeat.classroom.grade import check_reference, grade, isolation
    from advfeat.classroom.limits import Limits

    classroom = release.Classroom(arguments.folder.resolve())
    if arguments.command == "assignments":
        settings = {"class_seed": arguments.class_seed, "check": arguments.check, "jobs": arguments.jobs}
        yield from mistakes.make_class(classroom, **settings)
        yield from (str(classroom.notebook("release", name)) for name in release.assignments())
        return
    if arguments.command == "zip":
        default = classroom.folder / f"advfeat-class-{classroom.class_seed}.zip"
        yield str(release.pack(classroom, arguments.to or default))
        return

    name = arguments.assignment
    if name not in release.assignments():
        raise ValueError(f"no problem set {name!r}; there are {', '.join(release.assignments())}")
    if arguments.command == "marks":
        waiting = sum(len(found.to_mark) for found in marks.enter_marks(classroom, name))
        yield f"{waiting} written answers have no marks yet"
        yield str(marks.grades_path(classroom, name))
        return

    if arguments.command == "rehearse":
        # The rehearsal is a class of its own, so that simulated students never enter the real grade book.
        class_seed, classroom = classroom.class_seed, release.Classroom(classroom.folder / "rehearsal")
        release.make(classroom, class_seed=class_seed)
        arguments.submissions = classroom.folder / "downloads"
        rehearse.simulate(classroom, name, arguments.submissions, students=arguments.students)
    start = time.monotonic()
    limits = Limits(cell=arguments.cell, total=arguments.total)
    marks.check_sheet(classroom, name)
    collected = gather(classroom, name, arguments.submissions)
    submissions = collected.submissions
    yield f"{len(submissions)} submissions of {name}, class {classroom.class_seed}"
    yield from isolation(classroom)
    _, reference = check_reference(classroom, name)
    yield f"its own solution: full marks in {reference.seconds:.0f} s"
    graded = grade(classroom, name, submissions, limits=limits, jobs=arguments.jobs)
    grades = marks.with_unused(marks.keep_earlier(classroom, name, graded), collected.unused)
    for found in grades:
        yield f"  {found.student:24} {found.score:5g}  {found.seconds:5.0f} s  {found.status}"
    yield f"graded in {time.monotonic() - start:.0f} s"
    yield str(marks.write_grades(classroom, name, grades))
    sheet, missing = marks.write_sheet(classroom, name)
    if missing:
        yield f"no graded notebook, so no answers to mark: {', '.join(missing)}"
    if sheet:
        yield f"written answers wait for marks: fill in {sheet}, then run `marks {name}`"
    yield f"feedback pages: {classroom.folder / 'feedback'}"
    yield from collected.remarks()
    table = marks.write_unused(classroom, name, collected.unused)
    if collected.unused:
        yield f"files of the download that were not used, with reasons: {table}"
    lost = [one.path for one in collected.unused if not one.expected]
    left = [found.student for found in graded if not found.complete]
    if arguments.command == "grade" and (lost or left):
        raise RuntimeError(
            f"submissions without a grade or a page ({len(left)} of {len(graded)}){first_five(left)}; "
            f"files that were not used ({len(lost)}){first_five(lost)}"
        )


if __name__ == "__main__":
    sys.exit(main())
