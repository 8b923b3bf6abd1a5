"""The steps of grading that nbgrader does, with the reason where one fails."""

from __future__ import annotations

import warnings

from nbgrader.converters import Autograde, GenerateFeedback
from nbgrader.converters.base import BaseConverter, NbGraderException
from nbgrader.preprocessors import CheckCellMetadata, LimitOutput, SaveAutoGrades

from advfeat.classroom.downloads import one_line
from advfeat.classroom.pages import FeedbackPage
from advfeat.classroom.release import Classroom


class GradingStep(BaseConverter):
    """A step of nbgrader. ``problem`` is the reason of a failure, which nbgrader itself only logs."""

    failed = ""
    problem = ""

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """nbgrader's own step, and the reason where it fails."""
        if isinstance(self, Autograde):
            self._init_preprocessors()
        try:
            BaseConverter.convert_single_notebook(self, notebook_filename)
        except Exception as error:
            self.problem = one_line(error)
            raise


class Sanitise(GradingStep, Autograde):
    """The first half of grading: restores the tests, adds the hidden ones, removes outputs."""

    failed = "nbgrader could not read it"


class Save(GradingStep, Autograde):
    """The second half of grading, after the run: writes points and outputs to the grade book."""

    failed = "nbgrader could not take its points"
    _sanitizing = False

    def init_destination(self, assignment_id: str, student_id: str) -> bool:  # noqa: ARG002
        """The notebook is there already."""
        return True

    def init_assignment(self, assignment_id: str, student_id: str) -> None:
        """Nothing is copied: the notebook is changed in place."""


class Feedback(GradingStep, GenerateFeedback):
    """The feedback page for the student."""

    failed = "no feedback page"


def convert(kind: type[GradingStep], classroom: Classroom, assignment: str, student: str) -> str:
    """Run one of nbgrader's steps; returns the reason of a failure, or an empty text."""
    settings = classroom.config()
    settings.BaseConverter.permissions = 644
    settings.Autograde.autograde_preprocessors = [LimitOutput, SaveAutoGrades, CheckCellMetadata]
    settings.HTMLExporter.template_name = "feedback"
    settings.GenerateFeedback.exporter_class = FeedbackPage
    course = classroom.course()
    course.assignment_id, course.student_id = assignment, student
    converter = kind(coursedir=course, config=settings)
    converter.force = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nbgrader's own warnings about its database
            converter.start()
    except NbGraderException as error:
        return f"{kind.failed}: {converter.problem or one_line(error)}"
    return ""
