"""Tables of a problem set: grades for the instructor, and a sheet on which marks for written answers are entered."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import nbformat
from nbgrader.api import Gradebook, MissingEntry

from advfeat.classroom.collected import Unused
from advfeat.classroom.grade import Grade, maximum, read_grades, write_feedback
from advfeat.classroom.release import Classroom
from advfeat.files import write_whole

_SHEET = ("student", "part", "points", "of", "comment", "answer", "note")
_ENTERED = ("student", "part", "points", "comment")
LONGEST_ANSWER = 5000
"""Characters of an answer on the sheet; the feedback page has all of it."""
_CHANGED = "the answer has changed since points were given"
# A spreadsheet takes a cell for a formula if it begins with one of these characters, even after blanks; and if it
# separates columns at semicolons or tabs, it takes the pieces of a cell for cells.
_FORMULA = re.compile(r"(?:\A|(?<=[;\t\r\n]))(?=[\s\x00-\x20\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠﹦﹢﹣﹫])")


def grades_path(classroom: Classroom, assignment: str) -> Path:
    """Path of the table of grades: one row per student."""
    return classroom.folder / "grades" / f"{assignment}.csv"


def marks_path(classroom: Classroom, assignment: str) -> Path:
    """Path of the sheet for marks: one row per written answer, with empty cells for points and comment."""
    return classroom.folder / "marks" / f"{assignment}.csv"


def write_grades(classroom: Classroom, assignment: str, grades: Sequence[Grade]) -> Path:
    """Write the table of grades; rows of students who are not in ``grades`` stay."""
    cells = maximum(classroom, assignment)
    path = grades_path(classroom, assignment)
    rows = {row["student"]: row for row in _read(path, ("student",))}
    for grade in grades:
        points = {cell: "" if value is None else f"{value:g}" for cell, value in grade.points.items()}
        rows[grade.student] = {
            "student": grade.student,
            "score": f"{grade.score:g}",
            "maximum": f"{sum(cells.values()):g}",
            "to mark": str(len(grade.to_mark)),
            "status": _FORMULA.sub("'", grade.status),
            "seconds": f"{grade.seconds:.1f}",
            **points,
        }
    columns = ["student", "score", "maximum", "to mark", "status", "seconds", *cells]
    return _write(path, columns, [rows[student] for student in sorted(rows)])


def unused_path(classroom: Classroom, assignment: str) -> Path:
    """Path of the table of unused files: one row per file of the last download that was not taken."""
    return classroom.folder / "grades" / f"{assignment}-not-used.csv"


def write_unused(classroom: Classroom, assignment: str, unused: Sequence[Unused]) -> Path:
    """Write the table of files that were not taken, with the reasons."""
    columns = ("file", "student", "reason", "expected")
    rows = [(one.path, one.student, one.why, "yes" if one.expected else "no") for one in unused]
    guarded = [dict(zip(columns, (_FORMULA.sub("'", text) for text in row), strict=True)) for row in rows]
    return _write(unused_path(classroom, assignment), columns, guarded)


def keep_earlier(classroom: Classroom, assignment: str, grades: Iterable[Grade]) -> list[Grade]:
    """``grades``, in which a student whose new submission could not be graded keeps the points of an earlier one."""
    rows = {row["student"]: row for row in _read(grades_path(classroom, assignment), ("student", "seconds"))}
    kept = []
    for grade in grades:
        seconds = _number(rows[grade.student]["seconds"] or "0") if grade.student in rows else 0.0
        if not grade.graded and seconds and classroom.notebook("autograded", assignment, grade.student).exists():
            status = f"{grade.status}; the points are those of an earlier submission"
            kept += read_grades(classroom, assignment, {grade.student: status}, {grade.student: seconds})
        else:
            kept.append(grade)
    return kept


def with_unused(grades: Iterable[Grade], unused: Iterable[Unused]) -> list[Grade]:
    """``grades``, in which the status of a student names the student's files that were unexpectedly not used."""
    lost: dict[str, list[str]] = {}
    for one in unused:
        if one.student and not one.expected:
            lost.setdefault(one.student, []).append(f"{one.path} ({one.why})")
    return [
        replace(grade, status=f"{grade.status}; not used: {', '.join(lost[grade.student])}"[:1000])
        if grade.graded and grade.student in lost
        else grade
        for grade in grades
    ]


def check_sheet(classroom: Classroom, assignment: str) -> None:
    """Refuse a sheet that could not be merged into the next one, before anything is graded.

    Raises:
        ValueError: as in ``enter_marks``.
    """
    _read(marks_path(classroom, assignment), _ENTERED)


def write_sheet(classroom: Classroom, assignment: str) -> tuple[Path | None, list[str]]:
    """Write the sheet for marks: every written answer that was handed in, with its marks so far.

    Marks and comments that were typed into the sheet but not yet entered are kept, even if their answer no longer
    exists. If an answer has changed since, a note says so.

    Returns:
        The path of the sheet, or None if there is no written answer; and the students of the grade book who have no
        graded notebook, and therefore no row.

    Raises:
        ValueError: as in ``enter_marks``.
    """
    worth = maximum(classroom, assignment)
    path = marks_path(classroom, assignment)
    typed = {(row["student"], row["part"]): row for row in _read(path, _ENTERED)}
    rows = []
    missing = []
    with Gradebook(classroom.course().db_url, "advfeat") as book:
        for submission in sorted(book.assignment_submissions(assignment), key=lambda found: found.student_id):
            student = submission.student_id
            notebook = classroom.notebook("autograded", assignment, student)
            if not notebook.exists():
                missing.append(student)
                continue
            for part, answer in _answers(notebook).items():
                grade = book.find_grade(part, assignment, assignment, student)
                if grade.manual_score is None and grade.auto_score is not None:
                    continue  # the answer was left open, so it has no points
                points = "" if grade.manual_score is None else f"{grade.manual_score:g}"
                comment = book.find_comment(part, assignment, assignment, student).manual_comment or ""
                row = typed.pop((student, part), {})
                points, comment = row.get("points", "").strip() or points, row.get("comment", "") or comment
                note = row.get("note", "") if points else ""
                if points and _without_blanks(row.get("answer", answer)) != _without_blanks(answer):
                    note = _CHANGED
                elif grade.manual_score is not None and _number(points or "nan") != grade.manual_score:
                    note = f"the grade book has {grade.manual_score:g} points"
                values = (student, part, points, f"{worth[part]:g}", comment, answer, note)
                rows.append(dict(zip(_SHEET, values, strict=True)))
    rows += [row for row in typed.values() if row["points"].strip() or row["comment"].strip()]
    return _write(path, _SHEET, rows) if rows else None, missing


def enter_marks(classroom: Classroom, assignment: str) -> list[Grade]:
    """Take the marks from the sheet into the grade book; renew feedback pages and grades.

    Raises:
        FileNotFoundError: there is no sheet.
        ValueError: a mark is not a number from 0 to the points of the answer, or the sheet lacks a column; then nothing
            has been entered.
        RuntimeError: some feedback pages could not be written; all marks have been entered nevertheless.
    """
    path = marks_path(classroom, assignment)
    if not path.exists():
        raise FileNotFoundError(f"no sheet of written answers at {path}; run `grade` first")
    worth = maximum(classroom, assignment)
    marked = [row for row in _read(path, _ENTERED) if row["points"].strip()]
    for number, row in enumerate(marked, 1):
        try:
            fits = 0 <= _number(row["points"]) <= worth[row["part"]]
        except (KeyError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                f"{path.name}, marked answer {number} ({row['student']}, {row['part']}): points must be a number "
                f"from 0 to {worth.get(row['part'], '?')}, got {row['points']!r}"
            )
    with Gradebook(classroom.course().db_url, "advfeat") as book:
        for row in marked:
            where = (row["part"], assignment, assignment, row["student"])
            try:
                grade, comment = book.find_grade(*where), book.find_comment(*where)
            except MissingEntry as error:
                student, part = row["student"], row["part"]
                raise ValueError(f"{path.name}: {student!r} has handed in no {part!r} ({error})") from error
            grade.manual_score, grade.needs_manual_grade = _number(row["points"]), False
            comment.manual_comment = row["comment"] or None
        book.db.commit()
    table = _read(grades_path(classroom, assignment), ("student", "status", "seconds"))
    statuses = {row["student"]: row["status"] for row in table}
    seconds = {row["student"]: _number(row["seconds"]) for row in table if _number(row["seconds"] or "0")}
    pageless = write_feedback(classroom, assignment, sorted({row["student"] for row in marked}))
    grades = read_grades(classroom, assignment, statuses, seconds)
    write_grades(classroom, assignment, grades)
    if pageless:
        raise RuntimeError("\n".join(f"{student}: {problem}" for student, problem in pageless.items()))
    return grades


def _answers(notebook: Path) -> dict[str, str]:
    """Part → text of the answer, for the cells that a person marks."""
    found = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        mark = cell.metadata.get("nbgrader", {})
        if mark.get("grade") and mark.get("solution"):
            found[mark["grade_id"]] = _FORMULA.sub("'", cell.source[:LONGEST_ANSWER])
    return found


def _without_blanks(text: str) -> str:
    """An answer without blanks and quotes, which a spreadsheet program may change."""
    return re.sub(r"[\s']+", "", text)


def _number(text: str) -> float:
    """A number with a decimal point or a decimal comma."""
    return float(text.replace(",", "."))


def _read(path: Path, needed: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table, if it exists; the missing cells of a short row are empty.

    Raises:
        ValueError: the table lacks a ``needed`` column, or is not in UTF-8.
    """
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8 ({error}); save it as CSV in UTF-8") from error
    header = text.partition("\n")[0]
    # In languages with a decimal comma, spreadsheet programs separate columns by semicolons.
    rows = csv.DictReader(io.StringIO(text), delimiter=max(",;\t", key=header.count), restval="")
    if not set(needed) <= set(rows.fieldnames or ()):
        raise ValueError(f"{path} must begin with a line that names {', '.join(needed)}; it begins with {header!r}")
    return list(rows)


def _write(path: Path, columns: Iterable[str], rows: Iterable[dict[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, list(columns), extrasaction="ignore")
    table.writeheader()
    table.writerows(rows)
    write_whole(path, stream.getvalue())
    return path
