"""A whole round by the command line: a class in a folder of an odd name, and students whom editors trouble."""

from __future__ import annotations

import copy
import csv
import json
import os
import subprocess
import sys
import tempfile
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from handing_in import CLASS_SEED, answered, hand_in, made_class

from advfeat.classroom import grade as grading
from advfeat.classroom import marks, pages, rehearse, scratch
from advfeat.classroom.__main__ import main
from advfeat.classroom.collect import gather
from advfeat.classroom.collected import Submission
from advfeat.classroom.executor import NOT_RUN, Executor, mark_id, mark_unexecuted
from advfeat.classroom.grade import check_reference, grade, maximum
from advfeat.classroom.limits import Limits
from advfeat.classroom.release import Classroom
from advfeat.classroom.repair import ids, remark, repair
from advfeat.classroom.sandbox import Outcome
from advfeat.classroom.validate import validate

ASSIGNMENT = "ps4-theory"
MACHINE, WRITTEN = 21, "ps4-inflate-why"
FORMULA = "\t=1+1"
ACTIVE = (
    "Because <script>document.title = 1</script><img src=x onerror='document.title = 1'> "
    "[here](javascript:void(0)) <iframe src='page.html'></iframe> <form action='/'></form> "
    "$a < b$ and `<script>` in **code**.\n\n| a | b |\n|--:|---|\n| 1 | 2 |"
)


def cell(notebook, name):
    """The cell of a mark."""
    return next(cell for cell in notebook.cells if mark_id(cell) == name)


def copied(classroom):
    """As JupyterLab leaves cells that are split or pasted: two answers, a test, and a mark of nobody's."""
    notebook = answered(classroom, ASSIGNMENT)
    test = cell(notebook, "ps4-price-range").source
    halves = {
        "ps4-robust": ("half = 0.5", cell(notebook, "ps4-robust").source),
        WRITTEN: ("One half.", "The other."),
        "ps4-price-range": (test, test),
    }
    for name, pieces in halves.items():
        first = cell(notebook, name)
        second = copy.deepcopy(first)
        first.source, second.source = pieces
        second.id += "-copy"
        notebook.cells.insert(notebook.cells.index(first) + 1, second)
    stray = copy.deepcopy(cell(notebook, "ps4-mle-count"))
    stray.metadata.nbgrader["grade_id"], stray.id = "ps9-extra", "stray"
    notebook.cells.append(stray)
    return notebook


def tagged(classroom):
    """Tags that keep cells from being executed, or their errors from counting, on every marked cell."""
    notebook = answered(classroom, ASSIGNMENT, [("ps4-robust", "", "# nothing")])
    for one in notebook.cells:
        if mark_id(one):
            one.metadata["tags"] = ["skip-execution", "raises-exception"]
    return notebook


def troubled(classroom):
    """Kinds of cells changed, marks without some of their entries, and widgets without their state."""
    notebook = answered(classroom, ASSIGNMENT)
    del cell(notebook, "ps4-mle-visible").metadata.nbgrader["schema_version"]
    cell(notebook, "ps4-mle-count").metadata.nbgrader.update(points=0, grade=False)
    answer = cell(notebook, "ps4-angles")
    answer.cell_type = "markdown"
    del answer["outputs"], answer["execution_count"]
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"abc": {}}}
    notebook.cells.append(nbformat.v4.new_raw_cell("<script>document.title = 1</script>"))
    shows = "from IPython.display import HTML\nHTML(\"<b onclick='x()'>bold</b><script>x()</script>\")"
    notebook.cells.append(nbformat.v4.new_code_cell(shows))
    return notebook


@pytest.fixture(scope="module")
def round_trip(tmp_path_factory):
    """The class, the command line's output and exit code, after grading everybody once; temporary files lie deep."""
    folder = tmp_path_factory.mktemp("courses") / "Kurs [WS 2026] 100% #1"
    classroom = Classroom(folder)
    long = tmp_path_factory.mktemp("temporary") / ("t" * 112)
    long.mkdir()
    call = [sys.executable, "-m", "advfeat.classroom"]
    settings = {**os.environ, "TMPDIR": str(long)}
    where = ["--folder", str(folder)]
    # That its tests are fair is shown elsewhere, and takes minutes.
    made = [*call, "assignments", "--class-seed", str(CLASS_SEED), "--no-check", *where]
    subprocess.run(made, check=True, capture_output=True, env=settings)
    downloads = folder.parent / "downloads"
    written = answered(classroom, ASSIGNMENT)
    cell(written, WRITTEN).source = ACTIVE
    cell(written, "ps4-relaxed-why").source = FORMULA
    for student, notebook in {
        "ada": written,
        "ben": copied(classroom),
        "cleo": tagged(classroom),
        "dana": troubled(classroom),
        "emil": nbformat.read(classroom.notebook("release", ASSIGNMENT), as_version=4),
    }.items():
        hand_in(notebook, downloads, student, ASSIGNMENT)
    (downloads / "emil" / "notes.pdf").write_text("%PDF")
    patient = ["--cell", "300", "--total", "900", "--jobs", "2"]  # none of this is about time
    done = subprocess.run(
        [*call, "grade", ASSIGNMENT, str(downloads), *where, *patient], capture_output=True, text=True, env=settings
    )
    return classroom, done


def table(classroom):
    """Student → row of the table of grades."""
    text = marks.grades_path(classroom, ASSIGNMENT).read_text(encoding="utf-8")
    return {row["student"]: row for row in csv.DictReader(text.splitlines())}


def active(text):
    """Elements, event handlers and addresses in a page that a browser would act on."""
    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(
                [tag] if tag in ("script", "style", "iframe", "form", "object", "embed", "svg", "base") else []
            )
            found.extend(name for name, _ in attrs if name.startswith("on"))
            found.extend(value for _, value in attrs if (value or "").strip().lower().startswith("javascript:"))

    Reader().feed(text)
    return found


def page(classroom, student):
    """The feedback page."""
    return (classroom.folder / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html").read_text(encoding="utf-8")


def test_everybody_gets_what_the_answers_are_worth(round_trip):
    classroom, done = round_trip
    assert "Traceback" not in done.stderr, done.stderr
    rows = table(classroom)
    scores = {student: float(row["score"]) for student, row in rows.items()}
    assert {name: scores[name] for name in ("ada", "ben", "dana", "emil")} == {
        "ada": MACHINE,
        "ben": MACHINE,
        "dana": MACHINE,
        "emil": 0,
    }, done.stdout
    assert float(rows["cleo"]["ps4-robust-visible"]) == 0
    assert float(rows["cleo"]["ps4-mle-count"]) == 1
    assert {rows[student]["status"] for student in ("ada", "ben", "cleo", "dana")} == {"graded"}


def test_what_was_not_used_is_told_in_words_in_the_table_and_by_the_exit_code(round_trip):
    classroom, done = round_trip
    assert done.returncode == 1
    assert "files that were not used (1): emil/notes.pdf" in done.stderr
    assert "emil/notes.pdf: no notebook" in done.stdout
    assert table(classroom)["emil"]["status"] == "graded; not used: emil/notes.pdf (no notebook)"
    assert "emil/notes.pdf,emil,no notebook,no" in marks.unused_path(classroom, ASSIGNMENT).read_text()


def test_marks_come_off_copies_and_unknown_cells(round_trip):
    classroom, done = round_trip
    for name in ("ps4-robust", WRITTEN, "ps4-price-range"):
        assert f"ben: {name} is the mark of 2 cells; it stays on one" in done.stdout
    assert "ben: ps9-extra is no cell of this problem set" in done.stdout
    notebook = nbformat.read(classroom.notebook("submitted", ASSIGNMENT, "ben"), as_version=4)
    release = nbformat.read(classroom.notebook("release", ASSIGNMENT), as_version=4)
    assert ids(notebook) == ids(release)
    assert cell(notebook, WRITTEN).source == "One half.\n\nThe other."
    assert "half = 0.5" in [one.source for one in notebook.cells if not mark_id(one)]


def test_tags_of_marked_cells_do_not_come_along(round_trip):
    classroom, _ = round_trip
    notebook = nbformat.read(classroom.notebook("submitted", ASSIGNMENT, "cleo"), as_version=4)
    assert not [one for one in notebook.cells if mark_id(one) and "tags" in one.metadata]


@pytest.mark.parametrize("student", ["ada", "dana"])
def test_a_page_holds_nothing_active(round_trip, student):
    text = page(round_trip[0], student)
    body = text.partition("<body>")[2]
    assert body
    assert active(body) == []
    if student == "ada":
        assert "<strong>code</strong>" in body
        assert "<code>&lt;script&gt;</code>" in body
        assert "$a &lt; b$" in body
        assert "text-align" in body, "a table keeps its columns"
        assert active(f"<p>{ACTIVE}</p>"), "the search finds something where there is something"
    else:
        assert "<b>bold</b>" in body


def test_an_answer_is_no_formula_on_the_sheet(round_trip):
    text = marks.marks_path(round_trip[0], ASSIGNMENT).read_text(encoding="utf-8")
    (answer,) = [row["answer"] for row in csv.DictReader(text.splitlines(True)) if row["answer"].endswith("=1+1")]
    assert answer == "'\t'=1+1"


@pytest.mark.parametrize(
    "text",
    [
        "=1",
        "+1",
        "-1",
        "@x",
        "\t=1",
        "\r=1",
        "\n =1",
        " =1",
        "\u00a0=1",
        "\u200b=1",
        "\ufeff=1",
        "＝1",
        "＋1",
        "－1",
        "＠x",
    ],
)
def test_formulas_are_guarded_wherever_a_cell_may_begin(text):
    assert marks._FORMULA.sub("'", text).startswith("'")
    for before in (";", "\t", "\n"):
        guarded = marks._FORMULA.sub("'", f"a{before}{text}")
        assert "'" in guarded
        assert guarded.replace("'", "") == f"a{before}{text}"


@pytest.mark.parametrize("text", ["a = b", "1 - 2", "me@home", "", "'=1"])
def test_other_answers_stay_as_they_are(text):
    assert marks._FORMULA.sub("'", text) == text


def test_validate_names_copies_and_unknown_cells_and_runs_every_marked_cell(round_trip, tmp_path, capsys):
    """The points that the grader takes off; and tags do not keep a test from being run."""
    classroom, _ = round_trip
    nbformat.write(copied(classroom), tmp_path / "copied.ipynb")
    assert validate(tmp_path / "copied.ipynb") == 1
    said = capsys.readouterr().out
    assert "ps4-robust is the mark of 2 cells" in said
    assert "ps9-extra is no cell of this problem set" in said
    assert "FAIL" not in said
    assert "Ready to hand in" not in said
    notebook = tagged(classroom)
    notebook.cells.remove(cell(notebook, "ps4-mle-count"))
    nbformat.write(notebook, tmp_path / "tagged.ipynb")
    assert validate(tmp_path / "tagged.ipynb") == 1
    said = capsys.readouterr().out
    assert "FAIL  ps4-robust-visible" in said
    assert "ok    ps4-mle-visible" in said
    assert "the cell ps4-mle-count is gone; the grader puts it back" in said


def test_points_that_were_typed_stay_when_a_late_student_is_graded(round_trip, tmp_path, capsys):
    """And points of a student whose second submission is of no use; the sheet of a late student's answers joins."""
    classroom, _ = round_trip
    sheet = marks.marks_path(classroom, ASSIGNMENT)
    rows = list(csv.DictReader(sheet.read_text(encoding="utf-8").splitlines(True)))
    for row in rows:
        if row["student"] == "ada" and row["part"] == WRITTEN:
            row.update(points="1.5", comment="Not yet entered.")
        if row["student"] == "ben" and row["part"] == "ps4-relaxed-why":
            row["comment"] = "Only a comment."
    rows.append({"student": "gone", "part": WRITTEN, "points": "2", "comment": ""})
    with sheet.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, rows[0], restval="")
        writer.writeheader()
        writer.writerows(rows)
    late = tmp_path / "late"
    hand_in(answered(classroom, ASSIGNMENT), late, "zoe", ASSIGNMENT)
    hand_in(answered(classroom, ASSIGNMENT, [(WRITTEN, "", "Another answer.")]), late, "ben", ASSIGNMENT)
    hand_in(answered(classroom, "ps1-attacks"), late, "dana", ASSIGNMENT)
    assert (
        main(["grade", ASSIGNMENT, str(late), "--folder", str(classroom.folder), "--cell", "300", "--total", "900"])
        == 1
    )
    said = capsys.readouterr()
    assert "dana" in said.err
    found = {(row["student"], row["part"]): row for row in marks._read(sheet, ("student",))}
    assert found["ada", WRITTEN]["points"] == "1.5"
    assert found["ada", WRITTEN]["comment"] == "Not yet entered."
    assert found["ben", "ps4-relaxed-why"]["comment"] == "Only a comment."
    assert found["gone", WRITTEN]["points"] == "2"
    assert found["zoe", WRITTEN]["points"] == ""
    dana = table(classroom)["dana"]
    assert float(dana["score"]) == MACHINE
    assert "no cell of ps4-theory in it, but of ps1-attacks; the points are those of an earlier" in dana["status"]
    assert classroom.notebook("submitted", ASSIGNMENT, "dana").exists()
    with pytest.raises(ValueError, match="'gone' has handed in no 'ps4-inflate-why'"):
        marks.enter_marks(classroom, ASSIGNMENT)
    kept = [row for row in found.values() if row["student"] != "gone"]
    marks._write(sheet, marks._SHEET, kept)
    marks.enter_marks(classroom, ASSIGNMENT)
    assert float(table(classroom)["ada"]["score"]) == MACHINE + 1.5
    assert float(table(classroom)["dana"]["score"]) == MACHINE
    hand_in(answered(classroom, ASSIGNMENT, [(WRITTEN, "", "A third.")]), tmp_path / "again", "ada", ASSIGNMENT)
    grade(classroom, ASSIGNMENT, gather(classroom, ASSIGNMENT, tmp_path / "again").submissions, limits=Limits(300, 900))
    marks.write_sheet(classroom, ASSIGNMENT)
    (row,) = [row for row in marks._read(sheet, ("student",)) if (row["student"], row["part"]) == ("ada", WRITTEN)]
    assert row["points"] == "1.5"
    assert row["note"] == "the answer has changed since points were given"


def test_a_call_with_nothing_of_the_set_changes_nothing(round_trip, tmp_path, capsys):
    classroom, _ = round_trip
    before = {path: path.read_bytes() for path in classroom.folder.rglob("*") if path.is_file()}
    hand_in(answered(classroom, "ps1-attacks"), tmp_path, "ada", ASSIGNMENT)
    assert main(["grade", ASSIGNMENT, str(tmp_path), "--folder", str(classroom.folder)]) == 2
    assert "ada: no cell of ps4-theory in it, but of ps1-attacks" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in classroom.folder.rglob("*") if path.is_file()} == before


def test_a_sheet_that_could_not_be_merged_is_refused_before_anything_is_graded(round_trip, tmp_path, capsys):
    classroom, _ = round_trip
    sheet = marks.marks_path(classroom, ASSIGNMENT)
    text = sheet.read_bytes()
    sheet.write_text("name;points\nada;2\n")
    hand_in(answered(classroom, ASSIGNMENT), tmp_path, "ada", ASSIGNMENT)
    before = classroom.notebook("submitted", ASSIGNMENT, "ada").stat().st_mtime_ns
    assert main(["grade", ASSIGNMENT, str(tmp_path), "--folder", str(classroom.folder)]) == 2
    assert "must begin with a line that names student, part" in capsys.readouterr().err
    assert classroom.notebook("submitted", ASSIGNMENT, "ada").stat().st_mtime_ns == before
    assert sheet.read_text() == "name;points\nada;2\n"
    sheet.write_bytes(text)


def test_a_test_without_an_execution_gets_no_points(round_trip, monkeypatch):
    """A run that executes nothing leaves no error; every test of the right solution would count as passed."""
    classroom, _ = round_trip
    monkeypatch.setattr(grading, "run", lambda *_, **__: Outcome("", 1.0))
    (found,) = grade(classroom, ASSIGNMENT, [Submission("ada")], limits=Limits(), jobs=1)
    by_hand = {"ps4-inflate-why", "ps4-relaxed-why"}
    assert {name: points for name, points in found.points.items() if points and name not in by_hand} == {}
    assert NOT_RUN in page(classroom, "ada")
    with pytest.raises(grading.ReferenceFailed, match=NOT_RUN):
        check_reference(classroom, ASSIGNMENT)
    assert sum(maximum(classroom, ASSIGNMENT).values()) == MACHINE + 4


def test_what_has_an_execution_or_an_error_is_left_alone():
    def test_cell(**named):
        one = nbformat.v4.new_code_cell("assert True", **named)
        one.metadata["nbgrader"] = {"grade": True, "solution": False, "grade_id": "t", "points": 1}
        return one

    error = nbformat.v4.new_output("error", ename="E", evalue="e", traceback=[])
    cells = [test_cell(), test_cell(execution_count=3), test_cell(outputs=[error]), nbformat.v4.new_code_cell("1")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    assert mark_unexecuted(notebook) == ["t"]
    assert [len(one.outputs) for one in cells] == [1, 0, 1, 0]


def test_the_executor_starts_from_nothing_and_runs_tagged_tests(tmp_path):
    """Outputs that a notebook brings along do not count, whether its cells run or not."""
    shown = nbformat.v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=1)
    cells = [nbformat.v4.new_code_cell(source, outputs=[shown], execution_count=1) for source in ("", "1/0", "2")]
    for one, tags in zip(cells, (["skip-execution"], ["skip-execution"], ["raises-exception"]), strict=True):
        one.metadata.update(tags=tags, nbgrader={"grade": True, "solution": False, "grade_id": "t", "points": 1})
    free = nbformat.v4.new_code_cell("3", outputs=[shown], execution_count=1, metadata={"tags": ["skip-execution"]})
    notebook = nbformat.v4.new_notebook(cells=[*cells, free])
    place = {"metadata": {"path": str(tmp_path)}}
    Executor(notebook, seconds=60, kernel_name="python3", resources=place).execute()
    mark_unexecuted(notebook)
    names = [[output.get("ename", output.output_type) for output in one.outputs] for one in notebook.cells]
    assert names == [["NotRun"], ["ZeroDivisionError"], ["execute_result"], []]


def test_repairing_an_intact_notebook_changes_nothing(tmp_path_factory):
    classroom = made_class(tmp_path_factory)
    notebook = answered(classroom, ASSIGNMENT)
    before = nbformat.writes(notebook)
    assert repair(notebook, nbformat.read(classroom.notebook("release", ASSIGNMENT), as_version=4)) == []
    assert nbformat.writes(notebook) == before


def test_of_copies_the_one_that_was_worked_on_keeps_the_mark(tmp_path_factory):
    classroom = made_class(tmp_path_factory)
    release = nbformat.read(classroom.notebook("release", ASSIGNMENT), as_version=4)
    notebook = answered(classroom, ASSIGNMENT)
    for name in ("ps4-robust", WRITTEN):
        for place in (0, len(notebook.cells)):
            notebook.cells.insert(place, copy.deepcopy(cell(release, name)))
    right = {name: one.source for name, one in rehearse.answers(answered(classroom, ASSIGNMENT)).items()}
    assert len(remark(notebook, ids(release))) == 2
    assert {name: one.source for name, one in rehearse.answers(notebook).items()} == right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<a href='https://a.org' onclick='x'>a</a>", '<a href="https://a.org">a</a>'),
        ("<a href='JavaScript:x'>a</a>", "<a>a</a>"),
        ("<a href=' java\nscript:x'>a</a>", "<a>a</a>"),
        ("<a href='data:text/html,x'>a</a>", "<a>a</a>"),
        ("<img src='data:image/png;base64,AAAA' alt='a'>", '<img src="data:image/png;base64,AAAA" alt="a">'),
        ("<img src='https://a.org/b.png'>", "<img>"),
        ("<img src='data:image/svg+xml;base64,AAAA'>", "<img>"),
        ("<p style='position: fixed; text-align: right'>a</p>", '<p style="text-align: right;">a</p>'),
        ("a<style>p {color: red}</style><script>x</script>b", "ab"),
        ("<svg onload=x><a>b</a></svg>", "&lt;svg onload=x&gt;<a>b</a>&lt;/svg&gt;"),
        ("<p>1 &lt; 2 &amp; 3</p>", "<p>1 &lt; 2 &amp; 3</p>"),
        ("<!-- a -->b", "b"),
    ],
)
def test_html_is_cleaned(text, expected):
    assert pages.clean(text) == expected


def test_outputs_are_shown_without_active_content():
    """Kinds that run in a browser go, and with them metadata that a template would copy into attributes."""
    data = {
        "application/javascript": "x()",
        "application/vnd.jupyter.widget-view+json": {"model_id": "a"},
        "image/svg+xml": "<svg onload='x()'/>",
        "text/html": "<b onmouseover='x()'>a</b>",
        "image/png": 'AAAA" onerror="x()',
        "text/plain": "<b>",
    }
    output = nbformat.v4.new_output("display_data", data=data, metadata={"image/png": {"width": '1" onload="x()'}})
    code = nbformat.v4.new_code_cell("1", outputs=[output], metadata={"tags": ['a" onclick="x()']})
    raw = nbformat.v4.new_raw_cell("<script>x()</script>")
    notebook = nbformat.v4.new_notebook(cells=[code, raw], metadata={"widgets": {"a": {}}, "title": "<b>"})
    shown = pages.harmless(notebook)
    assert set(shown.cells[0].outputs[0].data) == {"text/html", "image/png", "text/plain"}
    assert shown.cells[0].outputs[0].data["text/html"] == "<b>a</b>"
    assert '"' not in shown.cells[0].outputs[0].data["image/png"]
    assert shown.cells[0].outputs[0].metadata == {}
    assert shown.cells[0].metadata == {}
    assert shown.metadata == {}
    text, _ = pages.FeedbackPage(template_name="basic").from_notebook_node(notebook)
    assert active(text) == []
    assert notebook.cells[0].outputs[0].data == data, "the notebook itself stays"


def test_the_folder_for_sockets_is_short(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("t" * 112)))
    assert scratch.short_folder() in scratch._OTHERS
    monkeypatch.setattr(scratch, "_OTHERS", ())
    with pytest.raises(ValueError, match=r"TMPDIR must name a folder of at most 60 characters .* set it to a shorter"):
        scratch.short_folder()
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "/tmp")
    assert scratch.short_folder() == "/tmp"


def test_a_class_remembers_whose_numbers_are_whose(round_trip):
    """Nothing is remembered where no system gave numbers."""
    classroom, _ = round_trip
    assert not (classroom.folder / "students.json").exists()
    assert json.loads((classroom.folder / "class.json").read_text())["class_seed"] == CLASS_SEED
    assert Path(classroom.config().CourseDirectory.root).resolve() == classroom.folder.resolve()
