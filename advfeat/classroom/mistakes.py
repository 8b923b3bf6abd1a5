"""Wrong solutions of the problem sets, and whether the tests of a class tell them from the right one.

Most tests compare with a closed form. A few depend on the world of the class and its trained networks, and therefore on
the processor. So every wrong solution is tried when a class is made, on the computer that will grade it. The wrong
solutions are in ``book/assignments/mistakes``, which no student gets and no submission can read.
"""

from __future__ import annotations

import copy
import os
import shutil
import time
import tomllib
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

import nbformat
from nbformat import NotebookNode

from advfeat.checkout import CHECKOUT
from advfeat.classroom import release
from advfeat.classroom.course import class_world
from advfeat.classroom.grade import ReferenceFailed, check_reference, lost
from advfeat.classroom.limits import Limits
from advfeat.classroom.rehearse import answers
from advfeat.classroom.release import Classroom
from advfeat.classroom.sandbox import run
from advfeat.classroom.submission_kernel import readable
from advfeat.progress import progress

SEEDS_TRIED = 3
"""Number of seeds that are tried for a class."""

_SEED_STEP = 1_000_003  # from one seed to the next; large, so that no other class is likely to have chosen the next
_LIMITS = Limits(cell=900, total=1800)  # as for the reference: this code is trusted


@dataclass(frozen=True)
class Mistake:
    """A change of one answer: ``old`` becomes ``new``; without ``old``, the whole answer is ``new``.

    Attributes:
        name: the mistake in words.
        answer: the name of the changed cell.
        loses: test → points that the mistake must lose; it must lose no others.
        alone: the mistake must not be combined with others, because they would change the points that it loses.
    """

    name: str
    answer: str
    old: str
    new: str
    loses: Mapping[str, float]
    alone: bool = False

    def clashes(self, other: Mistake) -> bool:
        """Whether the two mistakes cannot be in one notebook."""
        return self.answer == other.answer or bool(self.loses.keys() & other.loses.keys()) or self.alone or other.alone


def mistakes(assignment: str) -> list[Mistake]:
    """The wrong solutions of a problem set; an empty list if it has none.

    Raises:
        ValueError: the file that holds them cannot be read.
    """
    path = release.ASSIGNMENTS / "mistakes" / f"{assignment}.toml"
    if not path.exists():
        return []
    try:
        return [Mistake(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mistake"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} must hold tables [[mistake]] with name, answer, old, new, loses and perhaps alone: {error}"
        ) from None


def shared_out(wrong: Sequence[Mistake]) -> list[list[Mistake]]:
    """Wrong solutions of one problem set, shared among few students: each mistake is in an answer of its own."""
    students: list[list[Mistake]] = []
    for one in wrong:
        student = next((dealt for dealt in students if not any(one.clashes(other) for other in dealt)), None)
        if student is None:
            students.append(student := [])
        student.append(one)
    return students


def make_mistakes(notebook: NotebookNode, dealt: Sequence[Mistake]) -> NotebookNode:
    """A copy of ``notebook``, which holds the right answers, with some of them changed.

    Raises:
        ValueError: a mistake does not fit this notebook.
    """
    notebook = copy.deepcopy(notebook)
    cells = answers(notebook)
    for one in dealt:
        found = cells[one.answer].source.count(one.old) if one.old and one.answer in cells else one.answer in cells
        if found != 1:
            raise ValueError(f"mistake {one.name!r}: the answer {one.answer} must hold, exactly once, {one.old!r}")
        cell = cells[one.answer]
        cell.source = cell.source.replace(one.old, one.new) if one.old else one.new
    return notebook


def seeds_from(asked_for: int) -> list[int]:
    """The seeds to try for a class, beginning with the seed that was asked for."""
    return [asked_for, *((asked_for + attempt * _SEED_STEP) % 2**32 for attempt in range(1, SEEDS_TRIED))]


def make_class(classroom: Classroom, *, class_seed: int, check: bool = True, jobs: int | None = None) -> Iterator[str]:
    """Make every problem set for a class, as ``release.make`` does, once its tests have told every mistake apart.

    If the tests cannot do so in the world of ``class_seed``, the class gets another seed. A class that already has its
    notebooks keeps its seed.

    Args:
        check: whether to try the mistakes.
        jobs: notebooks that run at a time (default: one per core).

    Yields:
        Lines of a report for the teacher.

    Raises:
        ValueError: as in ``release.make_sources``.
        RuntimeError: the tests do not tell every mistake apart, in none of the worlds tried; or as in ``release.make``.
    """
    class_world(class_seed)  # refuses a seed before anything is written
    if (classroom.folder / "class.json").exists():
        class_seed = classroom.seed_for(class_seed)
        release.make(classroom, class_seed=class_seed)
        if check and (problems := (yield from _checked(classroom, jobs))):
            raise RuntimeError(
                f"class {class_seed} keeps its notebooks, but its tests fail to do their work here: "
                + "; ".join(problems)
            )
        return
    asked_for, trial = class_seed, Classroom(classroom.folder / "trial")
    for class_seed in seeds_from(asked_for) if check else ():
        shutil.rmtree(trial.folder, ignore_errors=True)
        release.make_sources(trial, class_seed=class_seed)
        problems = yield from _checked(trial, jobs)
        if not problems:
            break
        yield from (f"  {problem}" for problem in problems)
        yield f"so the tests would not be fair in the world of seed {class_seed}"
    else:
        if check:
            tried = f"tried {SEEDS_TRIED} seeds from {asked_for} on"
            raise RuntimeError(f"no class made: {tried}, and none was fair, see above")
    release.make(classroom, class_seed=class_seed, asked_for=asked_for)
    if trial.store.exists():
        shutil.copytree(trial.store, classroom.store, dirs_exist_ok=True)
    shutil.rmtree(trial.folder, ignore_errors=True)
    if class_seed != asked_for:
        yield f"THE CLASS HAS THE SEED {class_seed}, not {asked_for}"


def _checked(classroom: Classroom, jobs: int | None) -> Generator[str, None, list[str]]:
    """Try every problem set's own solution and its mistakes; returns the failures of the tests."""
    start, names = time.monotonic(), release.assignments()
    dealt = [(name, group) for name in names for group in shared_out(mistakes(name))]
    problems: list[str] = []
    yield f"class {classroom.class_seed}: trying the tests on {len(names)} right and {len(dealt)} wrong notebooks ..."
    with progress(total=len(names) + len(dealt), unit="notebook", description="fair tests?") as bar:
        for name in names:  # one after the other, because later solutions use the networks of earlier ones
            try:
                _, outcome = check_reference(classroom, name)
            except ReferenceFailed as error:
                return [str(error)]
            bar.update(1)
            yield f"  {name}: its own solution gets full marks, in {outcome.seconds:.0f} s"
        with ThreadPoolExecutor(jobs or os.cpu_count()) as pool:
            running = {pool.submit(_problems, classroom, *student): student[0] for student in dealt}
            waiting = Counter(running.values())
            try:
                for done in as_completed(running):
                    problems += done.result()
                    bar.update(1)
                    waiting[name := running[done]] -= 1
                    if not waiting[name]:
                        yield f"  {name}: its {len(mistakes(name))} wrong solutions were tried"
            except BaseException:
                for future in running:
                    future.cancel()
                raise
    if not problems:
        count = sum(len(group) for _, group in dealt)
        yield f"  {count} wrong solutions lose the points that they should ({time.monotonic() - start:.0f} s in all)"
    return sorted(problems)


def _problems(classroom: Classroom, assignment: str, dealt: Sequence[Mistake]) -> list[str]:
    """Run a problem set with some mistakes in it; returns the mistakes that lose other points than they should."""
    path = classroom.notebook("source", assignment)
    notebook = make_mistakes(nbformat.read(path, as_version=4), dealt)
    read = readable([CHECKOUT, classroom.folder])
    outcome = run(notebook, files=path.parent, limits=_LIMITS, read=read, store=classroom.store)
    if outcome.stopped:
        raise RuntimeError(f"{assignment}, tried with mistakes: {outcome.stopped}")
    meant = {test: (points, one.name) for one in dealt for test, points in one.loses.items()}
    missed = lost(notebook)
    found = [
        f"{assignment}: {name!r} loses {missed.get(test, 0):g} and not {points:g} points at {test}"
        for test, (points, name) in meant.items()
        if missed.get(test, 0) != points
    ]
    names = " and ".join(repr(one.name) for one in dealt)
    return found + [
        f"{assignment}: {names} loses {points:g} points at {test}, which is about something else"
        for test, points in missed.items()
        if test not in meant
    ]
