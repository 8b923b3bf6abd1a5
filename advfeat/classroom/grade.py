"""Grade the submissions of a class: run every notebook under limits, keep the grade book, write feedback pages."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from nbgrader.utils import determine_grade, is_grade

from advfeat.checkout import CHECKOUT
from advfeat.classroom.collected import Submission
from advfeat.classroom.downloads import one_line
from advfeat.classroom.executor import mark_id, mark_unexecuted
from advfeat.classroom.isolation import missing
from advfeat.classroom.limits import Limits
from advfeat.classroom.nbgrader_steps import Feedback, Sanitise, Save, convert
from advfeat.classroom.release import Classroom
from advfeat.classroom.sandbox import Outcome, run
from advfeat.classroom.submission_kernel import readable
from advfeat.progress import progress


class ReferenceFailed(RuntimeError):
    """The problem set's own solution does not get full marks on this machine, so nobody can be graded."""


@dataclass(frozen=True)
class Grade:
    """The grade of one student for one problem set.

    Attributes:
        student: name in the grade book.
        points: graded cell → points; None for an answer that a person has yet to mark.
        status: ``graded``, or why the run was stopped, or why the submission could not be graded.
        seconds: run time of the notebook.
    """

    student: str
    points: dict[str, float | None]
    status: str
    seconds: float

    @property
    def graded(self) -> bool:
        """Whether the notebook was run, to its end or to a limit, and has its points."""
        return self.seconds > 0

    @property
    def complete(self) -> bool:
        """Whether the notebook was graded and has a feedback page."""
        return self.graded and Feedback.failed not in self.status

    @property
    def score(self) -> float:
        """Points so far."""
        return sum(points or 0 for points in self.points.values())

    @property
    def to_mark(self) -> list[str]:
        """Cells that a person has yet to mark."""
        return [cell for cell, points in self.points.items() if points is None]


def maximum(classroom: Classroom, assignment: str) -> dict[str, float]:
    """The points of each graded cell, in the order of the notebook."""
    notebook = nbformat.read(classroom.notebook("source", assignment), as_version=4)
    marks = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    return {mark["grade_id"]: float(mark["points"]) for mark in marks if "points" in mark}


def check_reference(classroom: Classroom, assignment: str) -> tuple[NotebookNode, Outcome]:
    """Run the problem set's own solution, and keep its trained networks for the submissions.

    Returns:
        The notebook that was run, and the outcome.

    Raises:
        ReferenceFailed: the solution does not get full marks.
        ValueError: the sources or the class cannot be kept from submissions where they are.
    """
    source = classroom.notebook("source", assignment)
    notebook = nbformat.read(source, as_version=4)
    limits = Limits(cell=900, total=1800)  # training takes its time on a busy machine, and this code is trusted
    outcome = run(
        notebook, files=source.parent, limits=limits, read=_readable(classroom), store=classroom.store, keep_store=True
    )
    missed = lost(notebook)
    failed = [f"{mark_id(cell)}: {_first_error(cell)}" for cell in notebook.cells if mark_id(cell) in missed]
    if failed or outcome.stopped:
        raise ReferenceFailed(f"{assignment}: its own solution fails here. {outcome.stopped} " + "; ".join(failed))
    return notebook, outcome


def lost(notebook: NotebookNode) -> dict[str, float]:
    """Test → lost points, for a notebook that was run; written answers do not count."""
    _settle(notebook)
    tests = [cell for cell in notebook.cells if is_grade(cell) and cell.cell_type == "code"]
    points = {mark_id(cell): determine_grade(cell) for cell in tests}
    return {name: worth - got for name, (got, worth) in points.items() if got != worth}


def grade(
    classroom: Classroom, assignment: str, submissions: Sequence[Submission], *, limits: Limits, jobs: int | None = None
) -> list[Grade]:
    """Grade collected submissions, ``jobs`` at a time (default: one per core), and write feedback pages.

    Marks that a person has given stay. A failure with one student's work becomes that student's status. Unless only the
    feedback page failed, the student then has no points and no notebook in ``autograded``.

    A run that failed, or whose kernel was killed other than at a limit, is repeated after the others and alone, because
    another submission may have been the cause.

    Raises:
        ValueError: the sources or the class cannot be kept from submissions where they are.
    """
    read = _readable(classroom)
    statuses = {submission.student: submission.problem for submission in submissions}
    seconds: dict[str, float] = {}
    fine = [submission.student for submission in submissions if not submission.problem]

    def finish(student: str, done: Future[Outcome]) -> None:
        failure = done.exception()
        if failure:
            statuses[student] = f"it could not be run: {one_line(failure)}"
            # A test that has not been run holds no error, and would count as passed.
            shutil.rmtree(classroom.notebook("autograded", assignment, student).parent)
        else:
            statuses[student] = convert(Save, classroom, assignment, student)
        if not statuses[student]:
            outcome = done.result()
            seconds[student] = outcome.seconds
            pageless = write_feedback(classroom, assignment, [student])
            statuses[student] = "; ".join(filter(None, [outcome.stopped, *pageless.values()]))
        bar.update(1)

    with (
        progress(total=len(fine), unit="notebook", description=assignment) as bar,
        ThreadPoolExecutor(jobs or os.cpu_count()) as pool,
    ):
        running: dict[Future[Outcome], str] = {}
        try:
            # Only this thread uses the grade book; the notebooks run meanwhile.
            for student in fine:
                statuses[student] = convert(Sanitise, classroom, assignment, student)
                if statuses[student]:
                    bar.update(1)
                else:
                    running[pool.submit(_run, classroom, assignment, student, limits, read)] = student
            disturbed = []
            for done in as_completed(running):
                if done.exception() or done.result().killed:
                    disturbed.append(running[done])
                else:
                    finish(running[done], done)
            for student in disturbed:
                finish(student, pool.submit(_run, classroom, assignment, student, limits, read))
        except BaseException:
            _cancel(running)
            raise
    return read_grades(classroom, assignment, statuses, seconds)


def _cancel(running: Iterable[Future[Outcome]]) -> None:
    for future in running:
        future.cancel()


def isolation(classroom: Classroom) -> list[str]:
    """The kinds of isolation of submissions, from each other and from your files, that this system lacks, in sentences.

    Raises:
        ValueError: the sources or the class cannot be kept from submissions where they are.
    """
    return missing(_readable(classroom))


def _readable(classroom: Classroom) -> list[Path]:
    return readable([CHECKOUT, classroom.folder])


def _run(classroom: Classroom, assignment: str, student: str, limits: Limits, read: Sequence[Path]) -> Outcome:
    path = classroom.notebook("autograded", assignment, student)
    notebook = nbformat.read(path, as_version=4)
    outcome = run(notebook, files=path.parent, limits=limits, read=read, store=classroom.store)
    _settle(notebook)
    nbformat.write(notebook, path)
    return outcome


def _settle(notebook: NotebookNode) -> None:
    """Make nbgrader count the points of a notebook that was run correctly.

    nbgrader gives points to a test that was not executed. It gives no points to a cell that wrote to stderr, even if
    the test passed; but a warning is not a mistake.
    """
    mark_unexecuted(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                output.name = "stdout"


def _first_error(cell: NotebookNode) -> str:
    errors = [output.evalue for output in cell.outputs if output.output_type == "error"]
    return errors[0] if errors else "lost points without an error"


def write_feedback(classroom: Classroom, assignment: str, students: Iterable[str]) -> dict[str, str]:
    """Write the feedback pages, ``feedback/STUDENT/ASSIGNMENT/ASSIGNMENT.html``.

    Returns:
        Student → why there is no page, for students without a page.
    """
    problems = {student: convert(Feedback, classroom, assignment, student) for student in students}
    return {student: problem for student, problem in problems.items() if problem}


def read_grades(
    classroom: Classroom, assignment: str, statuses: Mapping[str, str], seconds: Mapping[str, float]
) -> list[Grade]:
    """The grades in the grade book of the students in ``statuses``; students without ``seconds`` have no points."""
    cells = maximum(classroom, assignment)
    grades = []
    with Gradebook(classroom.course().db_url, "advfeat") as book:
        for student, problem in sorted(statuses.items()):
            points: dict[str, float | None] = dict.fromkeys(cells, 0.0)
            for cell in cells if student in seconds else ():
                try:
                    found = book.find_grade(cell, assignment, assignment, student)
                except MissingEntry:
                    continue
                waits = found.manual_score is None and found.auto_score is None
                points[cell] = None if waits else float(found.score)
            grades.append(Grade(student, points, problem or "graded", seconds.get(student, 0.0)))
    return grades
