"""The ways in and out of a class: the command line, the archive, collecting, validating, marks by hand."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest
from handing_in import CLASS_SEED, answered, hand_in, made_class

from advfeat.checkout import CHECKOUT
from advfeat.classroom import marks, rehearse
from advfeat.classroom.__main__ import main
from advfeat.classroom.collect import collect
from advfeat.classroom.grade import grade, write_feedback
from advfeat.classroom.limits import Limits
from advfeat.classroom.release import assignments, for_class, leaks
from advfeat.classroom.validate import changed

ASSIGNMENT = "ps4-theory"


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """The folder of a class, with every problem set made."""
    return made_class(tmp_path_factory)


@pytest.fixture
def archive(classroom, tmp_path):
    """The students' files, unpacked."""
    assert main(["zip", "--folder", str(classroom.folder), "--to", str(tmp_path / "ours.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "ours.zip") as bundle:
        bundle.extractall(tmp_path)
    return tmp_path / "ours"


def test_the_archive_holds_what_students_need_and_no_more(classroom, archive):
    names = {path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file()}
    assert {f"{name}/{name}.ipynb" for name in assignments()} <= names
    assert {"README.md", "environment.yml", "pyproject.toml", "constraints.txt", "advfeat/attacks.py"} <= names
    assert not [name for name in names if "source/" in name or "tests/" in name]
    assert [name for name in names if name.endswith(".toml")] == ["pyproject.toml"], "no file of mistakes"
    assert f"seed {CLASS_SEED}" in (archive / "README.md").read_text()
    for name in assignments():
        source = nbformat.read(classroom.notebook("source", name), as_version=4)
        assert leaks(source, (archive / name / f"{name}.ipynb").read_text()) == []


def test_validate_needs_no_file_of_the_instructor(classroom, archive):
    """In the unpacked archive, where nbgrader and psutil cannot be imported."""
    right = answered(classroom, ASSIGNMENT)
    nbformat.write(right, archive / ASSIGNMENT / f"{ASSIGNMENT}.ipynb")
    hide = "import sys; sys.modules.update(nbgrader=None, psutil=None); from advfeat.classroom.__main__ import main; "
    call = f"{hide}sys.exit(main(['validate', '{ASSIGNMENT}/{ASSIGNMENT}.ipynb']))"
    settings = {**os.environ, "PYTHONPATH": str(archive)}
    done = subprocess.run([sys.executable, "-c", call], cwd=archive, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    ps4-mle-visible: 1 point: the mean" in done.stdout
    assert (
        "open tests: 5 points; 16 more are decided by tests that run when your work is graded, 4 by a person"
        in done.stdout
    )
    assert "Ready to hand in." in done.stdout
    assert done.stderr == "", "students see nothing that is not about their work"


def test_a_changed_test_is_seen_and_an_untouched_one_is_not(classroom):
    notebook = answered(classroom, ASSIGNMENT)
    assert changed(notebook) == []
    cell = next(
        cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") == "ps4-mle-visible"
    )
    cell.source = "assert True"
    assert changed(notebook) == [cell]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["grade", "ps9-none", "."], "ps1-attacks"),
        (["grade", ASSIGNMENT, "no-such-folder"], "no-such-folder"),
        (["marks", ASSIGNMENT, "--folder", "no-such-class"], "no-such-class"),
        (["assignments", "--class-seed", "-1"], "seed"),
    ],
)
def test_a_mistake_in_the_call_is_named(classroom, capsys, arguments, said):
    where = [] if "--folder" in arguments else ["--folder", str(classroom.folder)]
    assert main([*arguments, *where]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["grade", ASSIGNMENT, ""], ["assignments", "--folder", ""]])
def test_an_empty_path_is_not_the_working_folder(tmp_path, monkeypatch, capsys, arguments):
    """The rest of a call around a variable without a value."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "must name a folder or file, got ''" in capsys.readouterr().err


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
@pytest.mark.parametrize(("submissions", "code"), [([], 2), (["SUBMISSIONS=downloads"], 0)])
def test_make_grade_asks_for_submissions(submissions, code):
    call = ["make", "-n", "grade", f"ASSIGNMENT={ASSIGNMENT}", *submissions]
    done = subprocess.run(call, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == code
    assert ("grade needs SUBMISSIONS" in done.stderr) == bool(code)


def test_a_folder_stays_with_its_class(classroom, capsys):
    """Another seed in the same folder would mix the worlds of two classes."""
    assert main(["assignments", "--class-seed", "3", "--folder", str(classroom.folder)]) == 2
    assert f"seed {CLASS_SEED}" in capsys.readouterr().err


def test_the_seed_reaches_every_cell_of_code():
    code = nbformat.v4.new_code_cell("Course(class_seed=0)\nCourse( class_seed=0 )\nmy_class_seed=0")
    source = nbformat.v4.new_notebook(cells=[code])
    assert for_class(source, 5).cells[0].source == "Course(class_seed=5)\nCourse( class_seed=5 )\nmy_class_seed=0"


def test_submissions_are_found_in_any_form(classroom, tmp_path):
    """A folder, a loose notebook with a name in front, an archive; and three that cannot be graded."""
    downloads = tmp_path / "downloads"
    right = answered(classroom, ASSIGNMENT)
    hand_in(right, downloads, "anna", ASSIGNMENT)
    nbformat.write(right, downloads / f"bela_{ASSIGNMENT}.ipynb")
    with zipfile.ZipFile(downloads / "cleo.zip", "w") as bundle:
        bundle.write(downloads / "anna" / f"{ASSIGNMENT}.ipynb", f"work/{ASSIGNMENT}.ipynb")
    (downloads / "dana").mkdir()
    (downloads / "emil").mkdir()
    (downloads / "emil" / f"{ASSIGNMENT}.ipynb").write_text("{broken")
    hand_in(nbformat.v4.new_notebook(), downloads, "finn", ASSIGNMENT)
    found = {item.student: item.problem for item in collect(classroom, ASSIGNMENT, downloads)}
    assert [name for name, problem in found.items() if not problem] == ["anna", "bela", "cleo"]
    assert found["dana"] == "no notebook"
    assert found["emil"].startswith("cannot be opened: NotJSONError")
    assert found["finn"] == f"no cell of {ASSIGNMENT} in it"
    hand_in(right, downloads, f"anna_{ASSIGNMENT}", ASSIGNMENT)
    with pytest.raises(ValueError, match="two submissions of 'anna'"):
        collect(classroom, ASSIGNMENT, downloads)


def test_an_odd_file_is_one_students_problem(classroom, tmp_path, capsys):
    downloads = tmp_path / "downloads"
    right = answered(classroom, ASSIGNMENT)
    hand_in(right, downloads, "anna", ASSIGNMENT)
    with zipfile.ZipFile(tmp_path / "sound.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.write(downloads / "anna" / f"{ASSIGNMENT}.ipynb", "a.ipynb")
    data = (tmp_path / "sound.zip").read_bytes()
    central = data.index(b"PK\1\2")
    # Bit 0 of the flags, in both headers of the file: it is encrypted.
    locked = data[:6] + b"\1" + data[7 : central + 8] + b"\1" + data[central + 9 :]
    (downloads / "locked.zip").write_bytes(locked)
    start = 30 + len("a.ipynb")
    (downloads / "corrupt.zip").write_bytes(data[:start] + b"\xff" * 8 + data[start + 8 :])
    (downloads / "deep.ipynb").write_text("[" * 100_000)
    right.cells[3].metadata["nbgrader"] = 5
    nbformat.write(right, downloads / "mark.ipynb")
    found = {item.student: item.problem for item in collect(classroom, ASSIGNMENT, downloads)}
    assert found.pop("anna") == ""
    expected = {"locked": "password", "corrupt": "decompressing", "deep": "RecursionError", "mark": "AttributeError"}
    assert found.keys() == expected.keys()
    assert {student: word for student, word in expected.items() if word not in found[student]} == {}, found
    where = ["--folder", str(classroom.folder)]
    assert main(["grade", ASSIGNMENT, str(downloads / "locked.zip"), *where]) == 2
    assert "locked.zip is not a ZIP file that can be opened" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_one_students_problem(classroom):
    (problem,) = write_feedback(classroom, ASSIGNMENT, ["nobody"]).values()
    assert problem.startswith("no feedback page: ")


def test_a_sheet_without_a_column_is_refused(classroom):
    """Another problem set than that of the test that needs its sheet."""
    sheet = marks.marks_path(classroom, "ps5-project")
    sheet.parent.mkdir(exist_ok=True)
    for text in ("student,part,comment\nanna,ps5-claim,\n", ""):
        sheet.write_text(text)
        with pytest.raises(ValueError, match=r"ps5-project\.csv must begin with .* student, part, points, comment"):
            marks.enter_marks(classroom, "ps5-project")
    sheet.write_bytes("student;part;points;comment\nanna;;;schön\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"ps5-project\.csv is not in UTF-8"):
        marks.enter_marks(classroom, "ps5-project")
    sheet.unlink()


def test_a_rehearsal_has_students_of_every_kind(classroom, tmp_path):
    names = rehearse.simulate(classroom, ASSIGNMENT, tmp_path / "downloads", students=10)
    found = collect(classroom, ASSIGNMENT, tmp_path / "downloads")
    assert [item.student for item in found] == names
    assert [item.student for item in found if item.problem] == ["student-10"]

    def texts(student):
        notebook = nbformat.read(classroom.notebook("submitted", ASSIGNMENT, student), as_version=4)
        return {name: cell.source for name, cell in rehearse.answers(notebook).items()}

    right = texts("student-01")
    differing = {name: sum(texts(name)[part] != right[part] for part in right) for name in names[:-1]}
    assert [name for name, parts in differing.items() if parts] == [f"student-{k:02d}" for k in (2, 4, 6, 8, 9)]
    assert differing["student-08"] == differing["student-09"] == 1


def test_a_deleted_test_comes_back_and_marks_are_entered(classroom, tmp_path):
    notebook = answered(classroom, ASSIGNMENT)
    notebook.cells = [
        cell for cell in notebook.cells if cell.metadata.get("nbgrader", {}).get("grade_id") != "ps4-price-range"
    ]
    hand_in(notebook, tmp_path, "gina", ASSIGNMENT)
    (found,) = grade(classroom, ASSIGNMENT, collect(classroom, ASSIGNMENT, tmp_path), limits=Limits(), jobs=1)
    assert found.points["ps4-price-range"] == 1
    assert set(found.to_mark) == {"ps4-inflate-why", "ps4-relaxed-why"}
    marks.write_grades(classroom, ASSIGNMENT, [found])
    sheet, _ = marks.write_sheet(classroom, ASSIGNMENT)
    table = sheet.read_text()
    row = next(line for line in table.splitlines() if line.startswith("gina,ps4-inflate-why,"))
    sheet.write_text(table.replace(row, row.replace("why,,2", "why,2.5,2")))
    with pytest.raises(ValueError, match="from 0 to 2"):
        marks.enter_marks(classroom, ASSIGNMENT)
    # As a spreadsheet program saves it where decimals have a comma; the last row is cut short.
    rows = list(csv.reader(table.replace(row, row.replace("why,,2,", 'why,"1,5",2,Good.')).splitlines(keepends=True)))
    with sheet.open("w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream, delimiter=";").writerows([*rows, ["gina"]])
    (gina,) = [found for found in marks.enter_marks(classroom, ASSIGNMENT) if found.student == "gina"]
    assert gina.points["ps4-inflate-why"] == 1.5
    assert gina.score == 21 + 1.5
    page = classroom.folder / "feedback" / "gina" / ASSIGNMENT / f"{ASSIGNMENT}.html"
    assert "Good." in page.read_text()
    sheet.write_text("student,part,points,comment\ngina,ps4-inflate-why,2,\n")
    classroom.notebook("autograded", ASSIGNMENT, "gina").unlink()
    with pytest.raises(RuntimeError, match="gina: no feedback page"):
        marks.enter_marks(classroom, ASSIGNMENT)
    assert "gina,23," in marks.grades_path(classroom, ASSIGNMENT).read_text(), "the mark is entered all the same"
