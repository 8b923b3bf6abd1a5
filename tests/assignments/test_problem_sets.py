"""Every problem set, from its source to grades: handed in right, empty and wrong."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass

import nbformat
import pytest
from handing_in import answered, hand_in, made_class
from right_solutions import RIGHT

from advfeat.classroom import marks
from advfeat.classroom.collect import collect
from advfeat.classroom.grade import Grade, check_reference, grade, maximum
from advfeat.classroom.limits import Limits
from advfeat.classroom.mistakes import mistakes, shared_out
from advfeat.classroom.release import Classroom, assignments, leaks, make_sources

CLASS_SEED_OF_THE_BOOK = 0
PATIENT = Limits(cell=300, total=900)  # points are compared here, whatever else the machine does meanwhile

each_assignment = pytest.mark.parametrize("assignment", assignments())
WRONG = {name: mistakes(name) for name in assignments()}
STUDENTS = {
    name: {f"wrong-{number}": dealt for number, dealt in enumerate(shared_out(wrong), 1)}
    for name, wrong in WRONG.items()
}
OTHERWISE = {
    name: {f"right-{number}": answers for number, answers in enumerate(RIGHT[name].values(), 1)} for name in RIGHT
}
each_wrong = pytest.mark.parametrize(
    ("assignment", "student", "wrong"),
    [
        pytest.param(name, student, wrong, id=f"{name}-{wrong.name.replace(' ', '-')}")
        for name in STUDENTS
        for student, dealt in STUDENTS[name].items()
        for wrong in dealt
    ],
)


@dataclass(frozen=True)
class Graded:
    """A problem set that was graded: the class, the points of each test, and the points of each student."""

    classroom: Classroom
    worth: dict[str, float]
    grades: dict[str, Grade]

    def lost(self, student):
        """Test → points that the student did not get; written answers do not count."""
        points = self.grades[student].points
        return {
            name: self.worth[name] - got for name, got in points.items() if got is not None and got < self.worth[name]
        }


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """The folder of a class, with every problem set made."""
    return made_class(tmp_path_factory)


@pytest.fixture(scope="module")
def graded(classroom, tmp_path_factory):
    """A function: the problem set of a name, graded for a class of right, empty and wrong solutions."""

    @functools.cache
    def of(assignment):
        downloads = tmp_path_factory.mktemp("downloads")
        hand_in(answered(classroom, assignment), downloads, "right", assignment)
        empty = nbformat.read(classroom.notebook("release", assignment), as_version=4)
        hand_in(empty, downloads, "empty", assignment)
        for student, dealt in STUDENTS[assignment].items():
            changes = [(wrong.answer, wrong.old, wrong.new) for wrong in dealt]
            hand_in(answered(classroom, assignment, changes), downloads, student, assignment)
        for student, answers in OTHERWISE[assignment].items():
            changes = [(name, "", text) for name, text in answers.items()]
            hand_in(answered(classroom, assignment, changes), downloads, student, assignment)
        submissions = collect(classroom, assignment, downloads)
        check_reference(classroom, assignment)
        grades = grade(classroom, assignment, submissions, limits=PATIENT)
        marks.write_grades(classroom, assignment, grades)
        return Graded(classroom, maximum(classroom, assignment), {found.student: found for found in grades})

    return of


def test_every_problem_set_has_wrong_solutions():
    assert set(WRONG) == set(assignments())
    assert all(len(wrong) >= 3 for wrong in WRONG.values())


@each_assignment
def test_the_right_solution_gets_every_point_that_a_machine_can_give(graded, assignment):
    found = graded(assignment).grades["right"]
    assert graded(assignment).lost("right") == {}
    assert found.status == "graded"
    by_hand = {name for name, points in found.points.items() if points is None}
    assert by_hand == set(found.to_mark)


@pytest.mark.parametrize(
    ("assignment", "student"),
    [
        pytest.param(name, student, id=f"{name}-{how.replace(' ', '-')}")
        for name in RIGHT
        for student, how in zip(OTHERWISE[name], RIGHT[name], strict=True)
    ],
)
def test_a_right_solution_that_is_written_otherwise_loses_nothing(graded, assignment, student):
    assert graded(assignment).lost(student) == {}
    assert graded(assignment).grades[student].status == "graded"


@each_assignment
def test_the_empty_notebook_gets_nothing_and_runs_to_the_first_task(graded, assignment):
    found = graded(assignment).grades["empty"]
    assert found.score == 0
    assert found.status == "graded"
    assert not found.to_mark, "an answer that was not touched needs no reading"
    path = graded(assignment).classroom.notebook("autograded", assignment, "empty")
    before = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.metadata.get("nbgrader", {}).get("solution"):
            break
        before += [output for output in cell.get("outputs", []) if output.output_type == "error"]
    assert not before


@each_wrong
def test_a_wrong_solution_loses_the_points_meant(graded, assignment, student, wrong):
    """A student makes one mistake in each of several parts, and none costs points in a part that is not its own."""
    dealt = STUDENTS[assignment][student]
    meant = {test: points for other in dealt for test, points in other.loses.items()}
    lost = graded(assignment).lost(student)
    assert {test: lost.get(test) for test in wrong.loses} == wrong.loses
    assert lost == meant


@pytest.mark.parametrize(
    ("assignment", "student"), [(name, student) for name in STUDENTS for student in STUDENTS[name]]
)
def test_feedback_says_what_is_wrong(graded, assignment, student):
    page = graded(assignment).classroom.folder / "feedback" / student / assignment / f"{assignment}.html"
    text = page.read_text()
    assert "Error" in text
    assert "Traceback" in text


@each_assignment
def test_students_get_no_line_of_a_solution_or_a_hidden_test(classroom, assignment):
    release = classroom.notebook("release", assignment).read_text()
    full = classroom.notebook("source", assignment)
    source = nbformat.read(full, as_version=4)
    assert leaks(source, release) == []
    assert len(leaks(source, full.read_text())) > 20, "the search finds nothing where there is something"
    assert not any(cell.get("outputs") for cell in json.loads(release)["cells"])


@each_assignment
def test_points_add_up_to_what_the_notebook_says(classroom, assignment):
    """Students see the table at the top of the notebook."""
    notebook = nbformat.read(classroom.notebook("release", assignment), as_version=4)
    rows = [line.strip("|").split("|") for line in notebook.cells[0].source.splitlines() if line.startswith("| ")]
    stated = sum(float(row[-1]) for row in rows[1:])
    marks = [cell.metadata.get("nbgrader", {}) for cell in notebook.cells]
    assert stated == sum(mark["points"] for mark in marks if "points" in mark)


@pytest.fixture(scope="module")
def other_class(tmp_path_factory):
    """The class whose world is the book's own."""
    made = Classroom(tmp_path_factory.mktemp("other"))
    make_sources(made, class_seed=CLASS_SEED_OF_THE_BOOK)
    return made


def shown(notebook):
    """The texts that a notebook shows once it was run, but for the cell that names the class."""
    cells = [
        cell for cell in notebook.cells if not cell.metadata.get("nbgrader", {}).get("grade_id", "").endswith("-setup")
    ]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return {output.get("text") or output.get("data", {}).get("text/plain") for output in outputs}


@each_assignment
def test_another_class_sees_other_numbers_and_its_grader_agrees(graded, other_class, assignment):
    theirs, outcome = check_reference(other_class, assignment)  # raises unless it gets full marks
    assert outcome.stopped == ""
    ours = nbformat.read(graded(assignment).classroom.notebook("autograded", assignment, "right"), as_version=4)
    assert shown(theirs) - shown(ours), "the other class sees the same numbers"
