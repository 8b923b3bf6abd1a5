"""Submissions that would hurt the grader or their classmates: they fail within their limits, and nobody else does."""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from handing_in import answered, hand_in, made_class

from advfeat.classroom import kernel, landlock, marks, sandbox
from advfeat.classroom.collect import collect
from advfeat.classroom.grade import check_reference, grade, maximum
from advfeat.classroom.sandbox import Limits

ASSIGNMENT = "ps4-theory"
REPLACED = "ps4-robust"  # the answer that hostile code takes the place of; what stands before it keeps its points
LIMITS = Limits(cell=6, total=20, memory=2, output=1_000_000)

fenced = pytest.mark.skipif(not landlock.edition(), reason="this system has no Landlock, so files are not fenced")

HOSTILE = {
    "loops-forever": "while True:\n    pass",
    "ignores-interrupts": (
        "while True:\n    try:\n        while True:\n            pass\n    except BaseException:\n        pass"
    ),
    "prints-100-MB": "for _ in range(100_000):\n    print('x' * 1000)",
    "shows-one-huge-value": "'x' * 100_000_000",
    "deletes-its-files": (
        "import os, shutil\n"
        "for folder in ('.', '..', os.path.expanduser('~')):\n"
        "    shutil.rmtree(folder, ignore_errors=True)\n"
        "raise SystemExit"
    ),
    "raises-at-import": "import a_module_that_is_not_there",
    "dies": "import os\nos._exit(0)",
    "takes-all-memory": "hoard = []\nwhile True:\n    hoard.append(torch.ones(25_000_000))",
    "leaves-others-running": (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "def robust_covariance(covariance, price):\n    return covariance"
    ),
}
STOPPED = {
    "ignores-interrupts": "more than 20 seconds",
    "prints-100-MB": "printed or showed",
    "dies": "kernel died",
}
# Which of two limits such a cell meets first, its own or that of its time, depends on how fast the machine is.
STOPPED_OR_LATE = {"shows-one-huge-value": "printed or showed", "takes-all-memory": "GiB of memory"}
FENCED = {
    # Where files are fenced in, these cells say what they could do.
    "reads-the-solution": "print(open({solution!r}).read())",
    "deletes-the-class": "import shutil\nshutil.rmtree({folder!r})",
    "calls-home": "import socket\nsocket.create_connection(('127.0.0.1', 9), timeout=5)",
}
BROKEN = {
    # What these leave cannot be graded: their code, and the status that says so.
    "gives-itself-99-points": (
        "def robust_covariance(covariance, price):\n    get_ipython().displayhook(99)\n    return covariance",
        "partial credit cannot be greater",
    ),
    "prints-a-number-as-text": (
        "kernel = get_ipython().kernel\n"
        "content = {'name': 'stdout', 'text': 5}\n"
        "kernel.session.send(kernel.iopub_socket, 'stream', content, parent=kernel.get_parent())",
        "it could not be run: TypeError",
    ),
}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """The class, what each test is worth, and the grades of all of them beside one honest student."""
    classroom = made_class(tmp_path_factory)
    downloads = tmp_path_factory.mktemp("hostile")
    names = {
        "solution": str(classroom.notebook("source", ASSIGNMENT)),
        "folder": str(classroom.folder / "submitted" / "honest"),
    }
    codes = {**HOSTILE, **{student: code for student, (code, _) in BROKEN.items()}}
    codes |= {k: v.format(**names) for k, v in FENCED.items()} if landlock.edition() else {}
    hand_in(answered(classroom, ASSIGNMENT), downloads, "honest", ASSIGNMENT)
    for student, code in codes.items():
        hand_in(answered(classroom, ASSIGNMENT, [(REPLACED, "", code)]), downloads, student, ASSIGNMENT)
    submissions = collect(classroom, ASSIGNMENT, downloads)
    with pytest.MonkeyPatch.context() as patch:
        # As `python -m` does it in the folder that holds the class.
        patch.setattr(sys, "path", [str(classroom.folder.parent), *sys.path])
        check_reference(classroom, ASSIGNMENT)
        grades = grade(classroom, ASSIGNMENT, submissions, limits=LIMITS, jobs=2)
    return classroom, maximum(classroom, ASSIGNMENT), {found.student: found for found in grades}


def test_the_honest_student_loses_nothing(graded):
    _, worth, grades = graded
    points = grades["honest"].points
    assert {name: worth[name] for name, got in points.items() if got is not None} == {
        name: got for name, got in points.items() if got is not None
    }
    assert grades["honest"].status == "graded"


@pytest.mark.parametrize("student", HOSTILE)
def test_a_hostile_submission_fails_within_its_limits(graded, student):
    _, worth, grades = graded
    found = grades[student]
    assert found.seconds < LIMITS.total + 10
    assert found.points["ps4-robust-matrix"] == 0
    assert found.points["ps4-mle-count"] == worth["ps4-mle-count"], "what it had done before stays its own"
    if student in STOPPED_OR_LATE:
        assert STOPPED_OR_LATE[student] in found.status or found.status == "graded"
    else:
        assert STOPPED.get(student, "graded") in found.status


@pytest.mark.parametrize("student", HOSTILE)
def test_its_page_says_what_happened(graded, student):
    classroom = graded[0]
    page = classroom.folder / "feedback" / student / ASSIGNMENT / f"{ASSIGNMENT}.html"
    text = page.read_text()
    assert "Error" in text or "Stopped" in text or "TooSlow" in text
    assert len(text) < 5_000_000, "what it printed is not on the page"


@pytest.mark.parametrize("student", BROKEN)
def test_what_cannot_be_graded_stops_nobody_else(graded, student):
    classroom, _, grades = graded
    assert BROKEN[student][1] in grades[student].status
    assert grades[student].score == 0
    assert not grades[student].to_mark
    assert not classroom.notebook("autograded", ASSIGNMENT, student).exists()


def test_the_sheet_names_who_is_not_on_it(graded):
    sheet, missing = marks.write_sheet(graded[0], ASSIGNMENT)
    assert set(BROKEN) <= set(missing)
    assert "honest" not in missing
    text = sheet.read_text()
    assert "honest,ps4-inflate-why," in text
    assert not [student for student in BROKEN if student in text]


@fenced
@pytest.mark.parametrize("student", FENCED)
def test_files_and_network_outside_are_refused(graded, student):
    classroom = graded[0]
    path = classroom.notebook("autograded", ASSIGNMENT, student)
    cell = next(c for c in nbformat.read(path, 4).cells if c.metadata.get("nbgrader", {}).get("grade_id") == REPLACED)
    errors = [output.ename for output in cell.outputs if output.output_type == "error"]
    network_is_fenced = landlock.edition() >= 4
    expected = "ConnectionRefusedError" if student == "calls-home" and not network_is_fenced else "PermissionError"
    assert errors == [expected]
    assert classroom.notebook("submitted", ASSIGNMENT, "honest").exists()


def test_what_may_be_read_neither_holds_a_hidden_folder_nor_lies_in_one(tmp_path, monkeypatch):
    hidden, here, packages = (tmp_path / name for name in ("parent/class", "downloads", "packages"))
    for folder in (hidden / "source", here, packages):
        folder.mkdir(parents=True)
    path = ["", *map(str, (here, hidden, hidden / "source", hidden.parent, packages, tmp_path / "absent"))]
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setattr(kernel, "_EXTRA", (str(tmp_path),))
    found = kernel.readable([kernel.LIBRARY.parent, hidden])
    assert [folder for folder in found if folder.is_relative_to(tmp_path)] == [packages]
    assert kernel.LIBRARY in found
    assert not [folder for folder in found if kernel.LIBRARY.parent.is_relative_to(folder)]
    monkeypatch.setattr(kernel, "_SYSTEM", (str(hidden.parent),))
    with pytest.raises(ValueError, match=f"could read {hidden}.* need {hidden.parent};"):
        kernel.readable([hidden])


def test_threads_that_start_kernels_leave_the_environment_as_it_was(monkeypatch):
    """Without a lock one takes what another has set for what was there before."""
    running = []

    def slow_start():
        running.append(None)
        time.sleep(0.02)
        assert len(running) == 1
        running.pop()

    monkeypatch.setattr("multiprocessing.forkserver.ensure_running", slow_start)
    for name in sandbox._LOADED_WITH:
        monkeypatch.delenv(name, raising=False)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: sandbox._server(), range(8)))
    assert not sandbox._LOADED_WITH.keys() & os.environ.keys()
