"""Submissions that would hurt the grader or their classmates: they fail within their limits, and nobody else does."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import nbformat
import psutil
import pytest
from handing_in import answered, hand_in, made_class
from nbformat.v4 import new_code_cell, new_notebook

from advfeat.checkout import CHECKOUT
from advfeat.classroom import (
    forkserver,
    isolation,
    landlock,
    marks,
    namespaces,
    sandbox,
    scratch,
    seccomp,
    submission_kernel,
)
from advfeat.classroom import grade as grading
from advfeat.classroom.__main__ import main
from advfeat.classroom.collect import collect
from advfeat.classroom.grade import check_reference, grade, maximum
from advfeat.classroom.limits import Limits, disk_used
from advfeat.classroom.mistakes import mistakes

ASSIGNMENT = "ps4-theory"
REPLACED = "ps4-robust"  # the answer that hostile code takes the place of; the answers before it keep their points
LIMITS = Limits(cell=10, total=40, memory=2, output=1_000_000, processes=40)
# The seven others of the class, and the fault in their work; each loses the points of that, and nothing else.
OTHERS = {
    "honest": "",
    "honest-too": "",
    "around-zero": "covariance around zero",
    "n-minus-1": "divided by n - 1",
    "entrywise": "root of each entry",
    "half": "half of each eigenvector",
    "radians": "angles in radians",
}

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
    "nests-folders": (
        "import os\n"
        "for _ in range(1500):\n    os.mkdir('d')\n    os.chdir('d')\n"
        "def robust_covariance(covariance, price):\n    return covariance"
    ),
    "kills-itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "starts-60-others": (
        "import subprocess, time\nsleepers = [subprocess.Popen(['sleep', '600']) for _ in range(60)]\ntime.sleep(5)"
    ),
}
STOPPED = {
    "ignores-interrupts": "more than 40 seconds",
    "prints-100-MB": "printed or showed",
    "dies": "kernel died",
    "kills-itself": "kernel died",
    "starts-60-others": "more than 40 processes",
}
# Which of two limits such a cell meets first, its own or that of its time, depends on how fast the machine is.
STOPPED_OR_LATE = {"shows-one-huge-value": "printed or showed", "takes-all-memory": "GiB of memory"}
# Reports its reach beyond its own files: nothing, where it has namespaces of its own. Every attempt is harmless.
REACHES = """
import os, resource, socket

done = []
def attempt(name, act):
    try:
        act()
    except OSError:
        return
    done.append(name)

for who, process in (("the parent", os.getppid()), ("the grader", {grader})):
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    attempt("limits of " + who, lambda: resource.prlimit(process, resource.RLIMIT_NOFILE, limit))
    attempt("priority of " + who, lambda: os.setpriority(os.PRIO_PROCESS, process, 1))
    attempt("processors of " + who, lambda: os.sched_setaffinity(process, os.sched_getaffinity(0)))
    attempt("signals to " + who, lambda: os.kill(process, 0))
attempt("name of the grader", lambda: open("/proc/{grader}/cmdline").read())
attempt("datagrams", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(("127.0.0.1", 9)))
attempt("abstract socket", lambda: socket.socket(socket.AF_UNIX).connect("\\0" + {local!r}))
attempt("local socket", lambda: socket.socket(socket.AF_UNIX).connect({local!r}))
attempt("modes", lambda: os.chmod({outside!r}, 0o644))
attempt("times", lambda: os.utime({outside!r}, (1, 1)))
attempt("owner", lambda: os.chown({outside!r}, os.getuid(), os.getgid()))
attempt("modes of the system's files", lambda: os.chmod("/usr", 0o755))
attempt("settings of the system", lambda: open("/proc/sys/kernel/domainname", "a").close())
print(done)
"""
# The isolation left where a system forbids namespaces, but has seccomp and a Landlock that knows signals.
LEFT_OPEN = ["name of the grader", "local socket", "modes", "times", "owner", "modes of the system's files"]
FENCED = {
    # Where files are fenced in, these cells report their reach.
    "reads-the-solution": "print(open({solution!r}).read())",
    "deletes-the-class": "import shutil\nshutil.rmtree({folder!r})",
    "calls-home": "import socket\nsocket.create_connection(('127.0.0.1', 9), timeout=5)",
}
BROKEN = {
    # Their remains cannot be graded: their code, and the status that says so.
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
    """The class, the points of each test, and the grades: one hostile student of every kind beside the seven others."""
    classroom = made_class(tmp_path_factory)
    downloads = tmp_path_factory.mktemp("hostile")
    names = {
        "solution": str(classroom.notebook("source", ASSIGNMENT)),
        "folder": str(classroom.folder / "submitted" / "honest"),
    }
    codes = {**HOSTILE, **{student: code for student, (code, _) in BROKEN.items()}}
    codes |= {k: v.format(**names) for k, v in FENCED.items()} if landlock.edition() else {}
    hand_in_the_others(classroom, downloads)
    with local_socket() as address, pytest.MonkeyPatch.context() as patch:
        reaches = REACHES.format(grader=os.getpid(), local=address, outside=str(downloads / "outside"))
        codes["reaches-for-others-and-is-killed"] = f"{reaches}\n{HOSTILE['kills-itself']}"
        for student, code in codes.items():
            hand_in(answered(classroom, ASSIGNMENT, [(REPLACED, "", code)]), downloads, student, ASSIGNMENT)
        submissions = collect(classroom, ASSIGNMENT, downloads)
        # As `python -m` does it in the folder that holds the class.
        patch.setattr(sys, "path", [str(classroom.folder.parent), *sys.path])
        check_reference(classroom, ASSIGNMENT)
        grades = grade(classroom, ASSIGNMENT, submissions, limits=LIMITS, jobs=2)
    return classroom, maximum(classroom, ASSIGNMENT), {found.student: found for found in grades}


def hand_in_the_others(classroom, downloads):
    """The seven others of the class, with the mistakes that ``OTHERS`` names."""
    wrong = {one.name: (one.answer, one.old, one.new) for one in mistakes(ASSIGNMENT)}
    for student, mistake in OTHERS.items():
        changes = [wrong[mistake]] if mistake else []
        hand_in(answered(classroom, ASSIGNMENT, changes), downloads, student, ASSIGNMENT)


def test_the_seven_others_get_exactly_their_points(graded):
    _, worth, grades = graded
    costs = {one.name: one.loses for one in mistakes(ASSIGNMENT)}
    for student, mistake in OTHERS.items():
        assert grades[student].status == "graded"
        got = {name: points for name, points in grades[student].points.items() if points is not None}
        assert got == {name: worth[name] - costs.get(mistake, {}).get(name, 0) for name in got}
        assert set(worth) - set(got) == set(grades[student].to_mark)
    assert "kernel died" in grades["reaches-for-others-and-is-killed"].status


@pytest.mark.parametrize("student", HOSTILE)
def test_a_hostile_submission_fails_within_its_limits(graded, student):
    _, worth, grades = graded
    found = grades[student]
    # The limit counts from when the kernel has started; every whole run of the others took longer than that start.
    starting = max(grades[other].seconds for other in OTHERS)
    assert found.seconds < LIMITS.total + max(10, starting)
    assert found.points["ps4-robust-matrix"] == 0
    assert found.points["ps4-mle-count"] == worth["ps4-mle-count"], "its earlier points stay its own"
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
    assert len(text) < 5_000_000, "its output is not on the page"


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
    # In namespaces of its own, the files of the class do not exist for it; the filter of calls refuses the network.
    readable = submission_kernel.readable([CHECKOUT, classroom.folder])
    hidden = not isolation.missing(tuple(readable)) and student != "calls-home"
    network_is_fenced = landlock.edition() >= 4 or seccomp.known()
    refused = "FileNotFoundError" if hidden else "PermissionError"
    assert errors == [refused if student != "calls-home" or network_is_fenced else "ConnectionRefusedError"]
    assert classroom.notebook("submitted", ASSIGNMENT, "honest").exists()


def test_what_may_be_read_neither_holds_a_hidden_folder_nor_lies_in_one(tmp_path, monkeypatch):
    hidden, here, packages = (tmp_path / name for name in ("parent/class", "downloads", "packages"))
    for folder in (hidden / "source", here, packages):
        folder.mkdir(parents=True)
    path = ["", *map(str, (here, hidden, hidden / "source", hidden.parent, packages, tmp_path / "absent"))]
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", path)
    monkeypatch.setattr(submission_kernel, "_EXTRA", (str(tmp_path),))
    found = submission_kernel.readable([submission_kernel.LIBRARY.parent, hidden])
    assert [folder for folder in found if folder.is_relative_to(tmp_path)] == [packages]
    assert submission_kernel.LIBRARY in found
    assert not [folder for folder in found if submission_kernel.LIBRARY.parent.is_relative_to(folder)]
    monkeypatch.setattr(submission_kernel, "_SYSTEM", (str(hidden.parent),))
    with pytest.raises(ValueError, match=f"could read {hidden}.* need {hidden.parent};"):
        submission_kernel.readable([hidden])


def test_threads_that_start_kernels_start_one_server_and_leave_the_environment_as_it_was(monkeypatch, tmp_path):
    """Without a lock each would start one, and read the other's answers."""
    started = []
    popen = forkserver.subprocess.Popen

    def counted(*arguments, **settings):
        started.append(settings["env"])
        return popen(*arguments, **settings)

    monkeypatch.setattr(forkserver.subprocess, "Popen", counted)
    for name in forkserver.LOADED_WITH:
        monkeypatch.delenv(name, raising=False)
    server = forkserver.ForkServer()
    job = submission_kernel.Job(str(tmp_path), "", None, {}, sys.path, [], isolated=False)
    with ThreadPoolExecutor(4) as pool:
        trials = list(pool.map(lambda _: server.start(job), range(8)))
    assert [trial.wait() for trial in trials] == [0] * 8
    assert len({trial.pid for trial in trials}) == 8
    assert [environment.items() >= forkserver.LOADED_WITH.items() for environment in started] == [True]
    assert not forkserver.LOADED_WITH.keys() & os.environ.keys()
    server.end()
    assert server.pid is None


@contextmanager
def local_socket():
    """The path of a socket that listens, by that name and as an abstract one."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as one:
        path = f"{folder}/listens"
        one.bind(path)
        one.listen()
        with socket.socket(socket.AF_UNIX) as other:
            if sys.platform == "linux":
                other.bind(f"\0{path}")
                other.listen()
            yield path


@pytest.fixture(params=["namespaces", "forbidden"])
def isolated(request, monkeypatch):
    """Whether submissions get namespaces of their own; the second time as on a system that forbids them."""
    if request.param == "forbidden":
        monkeypatch.setattr(isolation, "why_not_isolated", lambda _: "PermissionError: not here")
    elif isolation.why_not_isolated(tuple(submission_kernel.readable([]))):
        pytest.skip("this system gives no namespaces to its users")
    return request.param == "namespaces"


def run_cells(files, *codes, limits=LIMITS, meanwhile=None):
    """The outcome of a notebook with these cells, and the output of each, or the name of its error.

    ``meanwhile`` is called once the first cell has printed something.
    """
    notebook = new_notebook(cells=[new_code_cell(code) for code in codes])
    files.mkdir(exist_ok=True)

    def wait_and_act():
        while not notebook.cells[0].outputs:
            time.sleep(0.1)
        meanwhile()

    if meanwhile:
        threading.Thread(target=wait_and_act, daemon=True).start()
    outcome = sandbox.run(notebook, files=files, limits=limits, read=submission_kernel.readable([]))
    said = [[output.get("text") or output.get("ename") for output in cell.outputs] for cell in notebook.cells]
    return outcome, ["".join(filter(None, texts)) for texts in said]


@fenced
@pytest.mark.skipif(not seccomp.known(), reason="no filter of system calls here")
@pytest.mark.skipif(landlock.edition() < landlock.SIGNALS, reason="this Landlock does not know signals")
def test_a_submission_reaches_nothing_but_its_own(isolated, tmp_path):
    outside = tmp_path / "outside"
    outside.touch(mode=0o600)
    before = outside.stat()
    mine = (resource.getrlimit(resource.RLIMIT_NOFILE), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0))
    with local_socket() as address:
        code = REACHES.format(grader=os.getpid(), local=address, outside=str(outside))
        if not isolated:  # they succeed there, and are not to change anything
            code = code.replace('os.chmod("/usr", 0o755)', 'os.chmod("/usr", os.stat("/usr").st_mode & 0o7777)')
        own = "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99)); os.nice(1); print(os.nice(0))"
        outcome, said = run_cells(tmp_path / "files", code, own)
    assert outcome.stopped == ""
    assert said[0] == f"{[] if isolated else LEFT_OPEN}\n"
    assert said[1] == f"{mine[1] + 1}\n", "its own it may change"
    assert mine == (
        resource.getrlimit(resource.RLIMIT_NOFILE),
        os.getpriority(os.PRIO_PROCESS, 0),
        os.sched_getaffinity(0),
    )
    if isolated:
        assert outside.stat() == before


def test_a_submission_cannot_have_a_process_forked_outside_of_its_fence(isolated, tmp_path):
    """Python's own fork server would do that for whoever knows its address."""
    code = (
        "import gc, os, socket\n"
        "from multiprocessing import forkserver\n"
        "print(forkserver._forkserver._forkserver_address, forkserver._forkserver._forkserver_alive_fd)\n"
        "print([one for one in gc.get_objects() if type(one) is socket.socket and one.fileno() >= 0\n"
        "       and one.family == socket.AF_UNIX and one.getsockname()])"
    )
    assert run_cells(tmp_path / "files", code)[1] == ["None None\n[]\n"]


SLEEPS = """
import ctypes, os, time
for _ in range(25):
    if not os.fork():
        ctypes.CDLL(None).prctl(15, b"{name}")
        time.sleep(600)
        os._exit(0)
if not os.fork():
    os.setsid()
    if not os.fork():
        ctypes.CDLL(None).prctl(15, b"{name}")
        time.sleep(600)
    os._exit(0)
time.sleep(2)
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="proportional memory and names of processes are Linux's")
@pytest.mark.parametrize("ending", ["'by itself'", "os._exit(3)", "os.kill(os.getpid(), 9)", "while True: pass"])
def test_children_that_sleep_share_their_memory_and_end_with_their_notebook(isolated, tmp_path, ending):
    name = f"sleeps-{os.getpid() % 10**7}"
    limits = Limits(cell=60, total=8 if "while" in ending else 60, memory=2, processes=40)
    outcome, said = run_cells(tmp_path / "files", SLEEPS.format(name=name), ending, limits=limits)
    assert said[0] == "done\n"
    assert "GiB" not in outcome.stopped
    assert bool(outcome.stopped) == (ending != "'by itself'")
    assert outcome.killed == ("kill" in ending)
    left = [process.pid for process in psutil.process_iter(["name"]) if process.info["name"] == name]
    assert left == []


def test_what_children_do_not_share_counts(isolated, tmp_path):
    code = (
        "import os, time\n"
        "for _ in range(3):\n"
        "    if not os.fork():\n"
        "        hoard = bytearray(os.urandom(1 << 20)) * 400\n"
        "        time.sleep(600)\n"
        "time.sleep(60)"
    )
    outcome, _ = run_cells(tmp_path / "files", code, limits=Limits(cell=60, total=90, memory=1))
    assert outcome.stopped == "It used more than 1 GiB of memory."


def test_a_submission_cannot_fill_the_disk(tmp_path):
    code = "import time\nfor number in range(3):\n    open(f'{number}', 'wb').write(bytes(1 << 24))\ntime.sleep(60)"
    outcome, _ = run_cells(tmp_path / "files", code, limits=Limits(cell=60, total=90, disk=0.03125))
    assert outcome.stopped == "It wrote more than 0.03125 GiB of files."


def test_a_run_whose_server_is_lost_says_so_and_the_next_one_has_a_new_server(isolated, tmp_path):
    ended = []

    def kill_the_server():
        ended.append(isolation.SERVER.pid)
        os.kill(isolation.SERVER.pid, signal.SIGKILL)

    outcome, _ = run_cells(tmp_path / "files", "print(1)", "import time; time.sleep(9)", meanwhile=kill_the_server)
    assert outcome.killed
    outcome, said = run_cells(tmp_path / "files", "print(2)")
    assert (outcome.stopped, outcome.killed, said) == ("", False, ["2\n"])
    assert ended
    assert isolation.SERVER.pid != ended[0]


def test_a_guard_that_is_lost_is_no_fault_of_the_notebook(isolated, tmp_path):
    def kill_the_guard():
        for guard in psutil.Process(isolation.SERVER.pid).children():
            guard.kill()

    with pytest.raises(isolation.Lost, match="guarded its kernel"):
        run_cells(tmp_path / "files", "print(1)", "import time; time.sleep(9)", meanwhile=kill_the_guard)


@pytest.mark.parametrize("always", [False, True])
def test_who_is_lost_is_graded_again_and_the_exit_code_tells(graded, monkeypatch, capsys, tmp_path, always):
    classroom, worth, _ = graded
    right_run, lost = grading.run, []

    def sometimes_lost(notebook, **settings):
        if not settings.get("keep_store") and (always or not lost):
            lost.append(notebook)
            raise isolation.Lost("the process that guarded its kernel was lost")
        return right_run(notebook, **settings)

    monkeypatch.setattr(grading, "run", sometimes_lost)
    hand_in(answered(classroom, ASSIGNMENT), tmp_path, "honest", ASSIGNMENT)
    code = main(["grade", ASSIGNMENT, str(tmp_path), "--folder", str(classroom.folder)])
    said = capsys.readouterr()
    honest = grading.read_grades(classroom, ASSIGNMENT, {"honest": ""}, {} if always else {"honest": 1.0})[0]
    assert code == (1 if always else 0), said.err
    if always:
        assert "could not be run: Lost: the process that guarded its kernel was lost" in said.out
        assert "submissions without a grade or a page (1 of 1): honest" in said.err
        assert len(lost) == 2
        assert honest.score == 0
    else:
        got = {name: points for name, points in honest.points.items() if points is not None}
        assert got == {name: worth[name] for name in got}


def test_what_the_system_lacks_is_said(monkeypatch):
    monkeypatch.setattr(isolation, "why_not_isolated", lambda _: "PermissionError: not here")
    monkeypatch.setattr(landlock, "edition", lambda: 0)
    said = isolation.missing([])
    assert "no namespaces of their own (PermissionError: not here)" in said[0]
    assert "cannot fence submissions in" in said[1]
    assert "by signals or limits" in said[2]
    monkeypatch.setattr(landlock, "edition", lambda: 7)
    monkeypatch.setattr(seccomp, "known", lambda: True)
    assert len(isolation.missing([])) == 1
    monkeypatch.setattr(isolation, "why_not_isolated", lambda _: "")
    assert isolation.missing([]) == []


def test_nothing_is_left_of_a_scratch_folder_however_deep(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path) if len(str(tmp_path)) < scratch.LONGEST else "/tmp")
    with isolation.scratch_folder() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            for _ in range(1500):
                Path("d").mkdir()
                os.chdir("d")
            Path("file").write_bytes(bytes(1 << 16))
        assert disk_used(folder) >= 1 << 16
        (folder / "d").chmod(0o000)
    assert not folder.exists()


def test_a_notebook_that_cannot_be_watched_is_stopped(tmp_path, monkeypatch):
    def blind(processes, limit):
        raise RecursionError

    monkeypatch.setattr(sandbox, "memory_used", blind)
    outcome, _ = run_cells(tmp_path / "files", "import time; time.sleep(60)", limits=Limits())
    assert outcome.stopped == "Its use of time, memory and disk could not be measured: RecursionError."
    assert outcome.seconds < 50


def test_a_long_temporary_folder_is_no_hindrance(isolated, tmp_path, monkeypatch):
    """The path of a socket has about a hundred characters at most."""
    long = tmp_path / ("x" * 112)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert run_cells(tmp_path / "files", "print(1)")[1] == ["1\n"]


def test_a_submission_computes_with_the_instructions_that_the_grader_is_restricted_to(tmp_path, monkeypatch):
    """Otherwise a trial of another processor's arithmetic would not be one."""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    code = "import os\nprint(torch.backends.cpu.get_cpu_capability(), os.environ['ONEDNN_MAX_CPU_ISA'])"
    monkeypatch.setattr(isolation, "SERVER", forkserver.ForkServer())  # as started by a grader who is restricted
    try:
        assert run_cells(tmp_path / "files", f"import torch\n{code}")[1] == ["DEFAULT SSE41\n"]
    finally:
        isolation.SERVER.end()


def test_submissions_share_one_library_of_convolutions(tmp_path):
    """It is loaded before a submission starts: compiling takes seconds, of which each submission would pay its own."""
    code = "from advfeat.engine import convolution_code\nprint(convolution_code._library.cache_info().currsize)"
    assert run_cells(tmp_path / "files", code)[1] == ["1\n"]


def test_programs_are_found_through_links_in_the_new_tree(tmp_path):
    """A virtual environment names its Python by links, some of them to folders."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "python").touch()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "folder")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    found = list(namespaces._links([str(tmp_path / "absolute" / "python"), str(tmp_path / "round")]))
    here = tmp_path.resolve()
    assert [(link, str(target)) for link, target in found if link.is_relative_to(here)][:2] == [
        (here / "absolute", str(tmp_path / "folder")),
        (here / "folder", "real"),
    ]
    assert len(found) < 200, "a link to itself ends"
