"""A chapter runs to its end, or an error gives the reason; a finished run is not repeated, a partial one not kept."""

from __future__ import annotations

import ast
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest

from advfeat import image_files
from advfeat.classroom import release
from advfeat.experiments import record_writing, records, store
from advfeat.pages import (
    build,
    chapter_files,
    environment,
    executed_copy,
    execution,
    notebook,
    readme,
    runner,
    staging,
    verdicts,
)
from advfeat.pages.executed_copy import file_name, incomplete, normalise
from advfeat.pages.execution import Failed, Task, cell_timeout, execute, execute_all
from advfeat.pages.parameters import Refused
from advfeat.progress import progress

pytestmark = pytest.mark.filterwarnings("default")

ROOT = build.CHECKOUT
MODULES = sorted((ROOT / "advfeat").rglob("*.py"))
PARAMETERS = 'profile: str = "planted"  # scale\nseed: int = 0  # seed\noverrides: dict = {}  # other numbers'


def write_chapter(path, *cells, tags=()):
    """A chapter with a parameters cell and cells of the given code, the last of them tagged."""
    code = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]}, id="first")]
    code += [nbformat.v4.new_code_cell(cell, id=f"cell-{number}") for number, cell in enumerate(cells)]
    if tags:
        code[len(cells)].metadata["tags"] = list(tags)
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=code), path)
    return path


@pytest.fixture
def book(empty_book, tmp_path, monkeypatch):
    """An empty book in a folder of its own."""
    monkeypatch.setenv("ADVFEAT_RESULTS", str(tmp_path / "results"))
    return empty_book


@pytest.mark.parametrize(
    ("code", "tags", "named"),
    [
        ("import sys\nsys.exit(0)", (), "SystemExit: 0"),
        ("sum([1)", ("raises-exception",), "SyntaxError"),
        ("print(1 / 0)", ("raises-exception",), "ZeroDivisionError: division by zero"),
        ("print('left out')", ("skip-execution",), "The cell was not executed."),
        ("import os\nos._exit(0)", (), "The kernel died"),
    ],
    ids=["exit", "no Python", "tagged for an exception", "skipped", "dead kernel"],
)
def test_a_run_is_whole_only_if_every_cell_was_executed_without_an_error(book, capsys, code, tags, named):
    chapter = write_chapter(book / "42-tiny.ipynb", "print('fine')", code, tags=tags)
    nb = nbformat.read(chapter, as_version=4)
    nb.cells += [nbformat.v4.new_markdown_cell("Words."), nbformat.v4.new_code_cell("print('after')")]
    nbformat.write(nb, chapter)
    before = chapter.read_bytes()
    assert runner.main(["refresh", "42"]) == 1
    message = capsys.readouterr().err
    assert "42-tiny (planted) failed in cell 3 of 4" in message
    assert f"    {code.splitlines()[-1]}\n" in message
    assert named in message
    assert chapter.read_bytes() == before, "the committed file stays"
    left = [path.name for path in (chapter_files.RUNS / "refresh").iterdir()]
    assert left == ["42-tiny.failed.ipynb"]


def test_an_error_in_the_last_cell_counts_even_if_it_ends_the_notebook(book, capsys):
    write_chapter(book / "42-tiny.ipynb", "raise SystemExit")
    assert runner.main(["run", "42"]) == 1
    assert "failed in cell 3 of 3" in capsys.readouterr().err


def test_a_cell_that_takes_too_long_is_named_and_the_limit_is_the_persons(book, capsys, monkeypatch):
    write_chapter(book / "42-tiny.ipynb", "print('fine')", "import time\ntime.sleep(60)")
    monkeypatch.setenv("ADVFEAT_CELL_TIMEOUT", "4")
    assert runner.main(["run", "42"]) == 1
    message = capsys.readouterr().err
    assert "failed in cell 4 of 4" in message
    assert "    time.sleep(60)" in message
    assert "longer than the 4 s that ADVFEAT_CELL_TIMEOUT allows" in message


def test_without_a_person_s_limit_there_is_none(book, monkeypatch):
    asked = {}

    def remember(chapter, partial, **options):
        asked.update(options)
        nb = nbformat.read(chapter, as_version=4)
        for cell in nb.cells:
            cell.execution_count = 1
        nbformat.write(nb, partial)

    monkeypatch.setattr("papermill.execute_notebook", remember)
    monkeypatch.delenv("ADVFEAT_CELL_TIMEOUT", raising=False)
    execute(write_chapter(book / "42-tiny.ipynb", "1"), chapter_files.RUNS / "42-tiny.ipynb", {})
    assert asked["execution_timeout"] is None
    # A kernel's start and the last output of a cell: late on a busy machine, and not for that reason an error.
    assert min(asked["start_timeout"], asked["iopub_timeout"]) > 24 * 3600


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "fast", "٣"])
def test_a_limit_that_is_none_is_refused_before_the_first_cell(book, capsys, monkeypatch, text):
    write_chapter(book / "42-tiny.ipynb", "1")
    monkeypatch.setenv("ADVFEAT_CELL_TIMEOUT", text)
    assert runner.main(["run", "42"]) == 2
    assert "ADVFEAT_CELL_TIMEOUT must be a whole number of seconds" in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()
    monkeypatch.setenv("ADVFEAT_CELL_TIMEOUT", "")
    assert cell_timeout() is None


def test_a_run_prints_its_two_lines_and_nothing_of_its_kernel(book, capfd):
    chapter = write_chapter(book / "42-tiny.ipynb", "print(1)")
    execute(chapter, chapter_files.RUNS / chapter.name, {})
    said = capfd.readouterr()
    assert said.err == ""
    assert [line.split()[0] for line in said.out.splitlines()] == ["42-tiny", "42-tiny"]


def test_saved_statuses_are_not_relied_on(book, monkeypatch):
    """As papermill leaves a notebook whose kernel died: every cell is called completed, also those that never ran."""
    chapter = write_chapter(book / "42-tiny.ipynb", "first", "second")

    def die(chapter, partial, **_):
        nb = nbformat.read(chapter, as_version=4)
        for cell in nb.cells:
            cell.metadata["papermill"] = {"status": "completed", "exception": None}
        nb.cells[0].execution_count = 1
        nbformat.write(nb, partial)

    monkeypatch.setattr("papermill.execute_notebook", die)
    with pytest.raises(Failed, match=r"(?s)failed in cell 2 of 3.*first.*not executed"):
        execute(chapter, chapter_files.RUNS / chapter.name, {})
    assert incomplete(chapter_files.RUNS / "42-tiny.failed.ipynb").source == "first"


def test_a_kernel_that_cannot_start_is_said(book, monkeypatch):
    def refuse(*args, **_):
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr("papermill.execute_notebook", refuse)
    with pytest.raises(Failed, match=r"(?s)failed before its first cell.*Kernel died before replying"):
        execute(write_chapter(book / "42-tiny.ipynb", "1"), chapter_files.RUNS / "42-tiny.ipynb", {})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_copy_that_cannot_be_written_is_named(book, monkeypatch, number):
    """A full disk, say: papermill writes the copy after every cell."""

    def full(self, buffer, path):
        raise OSError(number, os.strerror(number))

    chapter = write_chapter(book / "42-tiny.ipynb", "1")
    monkeypatch.setattr("papermill.iorw.LocalHandler.write", full)
    with pytest.raises(Failed, match=rf"42-tiny\..*partial\.ipynb cannot be written: {os.strerror(number)}") as failed:
        execute(chapter, chapter_files.RUNS / chapter.name, {})
    assert ("MB are free there; make room" in str(failed.value)) == (number == errno.ENOSPC)
    assert list(chapter_files.RUNS.iterdir()) == []


def test_a_place_for_copies_that_is_no_folder_is_named(book, capsys):
    write_chapter(book / "42-tiny.ipynb", "1")
    chapter_files.RUNS.write_text("a file")
    assert runner.main(["run", "42"]) == 1
    assert f"{chapter_files.RUNS}" in capsys.readouterr().err


def wait_for(path, seconds=300):
    for _ in range(seconds * 10):
        if path.exists():
            return
        time.sleep(0.1)
    raise TimeoutError(path)


def when_begun(book, number):
    """Send this process a signal as soon as the chapter has reached its long cell."""

    def send():
        wait_for(book / "begun")
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


LONG = "from pathlib import Path\nimport time\nPath('begun').write_text(str(seed))\ntime.sleep(600)"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_scheduler_s_signal_ends_a_run_in_order(book, capsys, number, code):
    write_chapter(book / "42-tiny.ipynb", LONG)
    # Whoever started the tests may ignore it, as ``nohup`` and a shell's background do.
    before = signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    at_first = signal.getsignal(number)
    try:
        thread = when_begun(book, number)
        assert runner.main(["run", "42"]) == code
        thread.join()
        assert signal.getsignal(number) == at_first
    finally:
        signal.signal(number, before)
    assert list((chapter_files.RUNS / "planted").iterdir()) == []
    assert "Ended on request" in capsys.readouterr().err


def test_a_signal_that_is_ignored_stays_ignored():
    """``nohup`` lets a run go on when its terminal is closed."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        replaced = execution.end_orderly()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        for number, handler in replaced.items():
            signal.signal(number, handler)
        assert set(replaced) == {signal.SIGTERM}
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_ends_chapters_that_run_side_by_side(book, capfd):
    paths = [write_chapter(book / f"4{k}-tiny.ipynb", LONG.replace("begun", f"begun{k}")) for k in range(3)]
    tasks = [Task(path, chapter_files.RUNS / path.name, {"seed": 1}) for path in paths]
    replaced = execution.end_orderly()

    def send():
        for name in ("begun0", "begun1"):
            wait_for(book / name)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        with pytest.raises(SystemExit, match="143"):
            execute_all(tasks, 2)
    finally:
        thread.join()
        for number, handler in replaced.items():
            signal.signal(number, handler)
    assert list(chapter_files.RUNS.iterdir()) == []
    assert not (book / "begun2").exists(), "a third chapter began after the end was asked for"


def test_partial_files_of_killed_runs_are_swept_and_those_of_living_runs_are_not(book, monkeypatch):
    chapter = write_chapter(book / "42-tiny.ipynb", "1")
    copy, node = chapter_files.RUNS / chapter.name, execution.platform.node()
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        f"42-tiny.{node}-{gone.pid}.partial.ipynb": False,
        f"42-tiny.{node}-{os.getppid()}.partial.ipynb": True,
        f"42-tiny.elsewhere-{gone.pid}.partial.ipynb": True,  # another machine, a shared drive
        f"42-tiny.seed=1.{node}-{gone.pid}.partial.ipynb": True,
    }
    copy.parent.mkdir()
    for name in names:
        (copy.parent / name).write_text("half")

    def run(chapter, partial, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", run)
    with pytest.raises(KeyboardInterrupt):
        execute(chapter, copy, {})
    assert {path.name for path in copy.parent.iterdir()} == {name for name, stays in names.items() if stays}


def test_two_runs_of_one_chapter_have_copies_of_their_own():
    defaults = {
        "profile": "planted",
        "seed": 0,
        "rate": 0.1,
        "record": False,
        "overrides": {},
        "released": "",
        "old": None,
    }
    given = [
        {},
        {"seed": 1},
        {"seed": 12},
        {"seed": 1, "rate": 2.0},
        {"rate": 12.0},
        {"record": True},
        {"overrides": {"eps": 0.25}},
        {"overrides": {"eps": 0.5}},
        {"released": "/data/Sets"},
        {"released": "/data/sets"},
        {"old": "x"},
        {"old": "null"},
        {"rate": -0.5},
    ]
    names = [file_name(Path("42-tiny.ipynb"), one, defaults) for one in given]
    assert len({name.lower() for name in names}) == len(names)  # some file systems know no capitals
    assert (
        names[0]
        == file_name(Path("42-tiny.ipynb"), {**defaults, "profile": "cifar10-cpu"}, defaults)
        == "42-tiny.ipynb"
    )
    assert names[1] == "42-tiny.seed=1.ipynb"
    assert names[3] == "42-tiny.rate=2.0.seed=1.ipynb"
    assert names[5] == "42-tiny.record=true.ipynb"
    assert not set("".join(names)) & set('<>:"/\\|?* '), "no name for a file everywhere"


def test_two_seeds_leave_two_notebooks(book, monkeypatch):
    write_chapter(book / "42-tiny.ipynb", "print(seed)")
    copies = []
    monkeypatch.setattr(runner, "execute", lambda _, copy, given: copies.append((copy.name, given["seed"])))
    for seed in (0, 1, 2):
        assert runner.main(["run", "42", "-p", "seed", str(seed)]) == 0
    assert copies == [("42-tiny.ipynb", 0), ("42-tiny.seed=1.ipynb", 1), ("42-tiny.seed=2.ipynb", 2)]
    assert runner.main(["run", "42", "-p", "seed", "1", "-p", "seed", "2"]) == 2


def test_a_wrong_device_is_refused_before_the_first_cell(book, capsys):
    chapter = write_chapter(book / "42-tiny.ipynb", "run = Run(profile, device=device)")
    nb = nbformat.read(chapter, as_version=4)
    nb.cells[0].source += '\ndevice: str = "auto"  # where\nreleased: str = ""  # sets'
    nbformat.write(nb, chapter)
    assert runner.main(["run", "42", "-p", "device", "gpu"]) == 2
    assert "device must be auto, cpu or cuda, got 'gpu'" in capsys.readouterr().err
    assert runner.main(["run", "42", "--profile", "cifar10-small", "-p", "released", "nowhere"]) == 2
    assert "released must be a folder" in capsys.readouterr().err
    assert not chapter_files.RUNS.exists()


# Finished work is not done again.


@pytest.fixture
def building(book, monkeypatch):
    """Two chapters and a stand-in for Jupyter Book; gives the chapters that a build has run."""
    for name in ("41-one", "42-two"):
        write_chapter(book / f"{name}.ipynb", f"print({name[:2]!r}, seed)")
    for name in ("_static", "_ext"):
        (build.CHECKOUT / name).mkdir()
    for name in ("_config.yml", "_toc.yml"):
        (build.CHECKOUT / name).write_text("")
    ran = []

    def stand_in(chapter, partial, *, parameters, on_cell_execute, **_):
        nb = nbformat.read(chapter, as_version=4)
        for number, cell in enumerate(nb.cells, 1):
            on_cell_execute(cell=cell, cell_index=number)
            if "ended" in cell.source:
                raise SystemExit(143)
            cell.execution_count = number
        ran.append(chapter[-9:-6])
        nbformat.write(nb, partial)

    monkeypatch.setattr("papermill.execute_notebook", stand_in)
    real = subprocess.run

    def no_pages(command, **options):
        pages = Path(command[0]).name.startswith("jupyter-book")
        return subprocess.CompletedProcess(command, 0) if pages else real(command, **options)

    monkeypatch.setattr(staging.subprocess, "run", no_pages)

    def built(*arguments):
        ran.clear()
        code = runner.main(["book", "--jobs", "1", *arguments])
        return code, list(ran)

    return built


@pytest.mark.parametrize(
    ("asked", "cores", "gpu", "jobs", "threads"),
    [(None, 2, False, 2, "1"), (None, 16, False, 4, "4"), (None, 1, False, 1, None), (None, 16, True, 1, None),
     (3, 8, False, 3, "2"), (8, 4, False, 8, "1"), (1, 8, False, 1, None)],
)  # fmt: skip
def test_chapters_that_run_at_a_time_share_the_cores(monkeypatch, asked, cores, gpu, jobs, threads):
    monkeypatch.setattr(environment, "cores", lambda: cores)
    monkeypatch.setattr(environment.torch.cuda, "is_available", lambda: gpu)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert environment.share_cores(asked) == jobs
    assert os.environ.get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment.share_cores(asked) == jobs
    assert os.environ["OMP_NUM_THREADS"] == "5", "the caller's choice stands"


def test_a_build_goes_on_after_the_chapters_that_are_done(book, building):
    two = book / "42-two.ipynb"
    source = two.read_text()
    two.write_text(source.replace("print('42', seed)", "ended = 1"))
    assert building() == (143, ["one"])
    two.write_text(source)
    assert building() == (0, ["two"])
    staged = {path.name for path in (chapter_files.STAGE / "book").glob("*.ipynb")}
    assert staged == {"41-one.ipynb", "42-two.ipynb"}
    assert building() == (0, []), "nothing has changed"
    assert {path.name for path in (chapter_files.STAGE / "book").glob("*.ipynb")} == staged
    assert building("--fresh") == (0, ["one", "two"])


def test_a_chapter_is_run_again_when_anything_has_changed_that_it_depends_on(book, building, monkeypatch, tmp_path):
    assert building() == (0, ["one", "two"])
    one = nbformat.read(book / "41-one.ipynb", as_version=4)
    one.cells[1].outputs = [nbformat.v4.new_output("stream", text="refreshed")]
    nbformat.write(one, book / "41-one.ipynb")
    assert building() == (0, []), "its committed outputs are no input"
    one.cells[1].source += "  # changed"
    nbformat.write(one, book / "41-one.ipynb")
    assert building() == (0, ["one"])
    changes = itertools.count()

    def everything(change):
        change()
        assert building() == (0, ["one", "two"]), change
        assert building() == (0, [])

    (tmp_path / "results" / "42-two").mkdir(parents=True)
    everything(lambda: (tmp_path / "results" / "42-two" / "record.json").write_text("{}"))
    everything(lambda: (book / "paper.json").write_text("{}"))
    everything(lambda: monkeypatch.setenv("OMP_NUM_THREADS", str(100 + next(changes))))
    everything(lambda: monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "another")))
    room = tmp_path / "library" / "advfeat" / "engine"
    room.mkdir(parents=True)
    (room / "loops.c").write_text("one")
    everything(lambda: monkeypatch.setattr(environment, "CHECKOUT", tmp_path / "library"))
    everything(lambda: (room / "loops.c").write_text("two"))
    everything(lambda: monkeypatch.setattr(environment, "distributions", list))
    assert building("--profile", "cifar10-small") == (0, ["one", "two"])
    assert building() == (0, []), "each profile keeps its own"


def test_a_copy_that_is_not_whole_is_not_kept(building):
    assert building() == (0, ["one", "two"])
    copy = chapter_files.RUNS / "book" / "planted" / "41-one.ipynb"
    whole = json.loads(copy.read_text())
    for break_it in (
        lambda nb: nb["cells"][1].update(execution_count=None),
        lambda nb: nb["cells"][1]["outputs"].append(
            {"output_type": "error", "ename": "A", "evalue": "", "traceback": []}
        ),
        lambda nb: nb["metadata"].pop("advfeat"),
    ):
        nb = json.loads(json.dumps(whole))
        break_it(nb)
        copy.write_text(json.dumps(nb))
        assert building() == (0, ["one"])
    copy.write_text(copy.read_text()[:100])
    assert building() == (0, ["one"])


def test_two_builds_at_once_do_not_mix(building, capsys):
    chapter_files.RUNS.mkdir()
    with build.FileLock(chapter_files.RUNS / ".book.lock"):
        assert building() == (1, [])
    assert "another build of the book is under way" in capsys.readouterr().err


def test_a_missing_jupyter_book_is_said_before_the_chapters_run(building, capsys, monkeypatch):
    monkeypatch.setattr(staging.shutil, "which", lambda *_, **__: None)
    assert building() == (2, [])
    assert 'pip install -e ".[book]"' in capsys.readouterr().err


# Without the checkout, and on other systems.


@pytest.mark.parametrize(
    "arguments", [["list"], ["run", "05"], ["record", "05"], ["refresh", "all"], ["book"], ["again"]]
)
def test_without_a_checkout_the_commands_say_what_there_is(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.setenv("ADVFEAT_PROGRESS", "off")
    for module in (chapter_files, runner):
        monkeypatch.setattr(module, "BOOK", tmp_path / "site-packages" / "book")
    assert runner.main(arguments) == 2
    message = capsys.readouterr().err
    assert "There are no chapters" in message
    assert "git clone https://github.com/advfeat/advfeat" in message


def test_without_the_extra_the_commands_name_it(book, monkeypatch, capsys):
    write_chapter(book / "42-tiny.ipynb", "1")
    monkeypatch.setitem(sys.modules, "papermill", None)
    assert runner.main(["list"]) == 0, "no notebook is run"
    assert "42-tiny\n  profile: str" in capsys.readouterr().out
    assert runner.main(["refresh", "42"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("papermill is not installed; the packages that run and build the book are installed by: ")
    assert 'pip install -e ".[book]"' in message


def test_without_a_checkout_nothing_lands_beside_the_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "site-packages" / "advfeat"
    package.mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for name in ("ADVFEAT_RESULTS", "ADVFEAT_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(records, "BOOK", package.parent / "book")
    monkeypatch.setattr(image_files, "CHECKOUT", package.parent)
    assert records.results_root() == tmp_path / "work" / "results"
    assert image_files.data_root() == tmp_path / "work" / "data"
    monkeypatch.setattr(notebook, "PAPER", package.parent / "book" / "paper.json")
    with pytest.raises(FileNotFoundError, match="published numbers come with a checkout"):
        notebook.paper_values()


def test_a_terminal_without_a_name_has_no_progress_bar(book, monkeypatch):
    """Windows has terminals, but neither ``os.ttyname`` nor /proc."""
    write_chapter(book / "42-tiny.ipynb", "1")
    monkeypatch.delattr(os, "ttyname")
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.setattr(os, "getpid", lambda: 2**31 - 2)  # no process has that folder in /proc
    monkeypatch.delenv("ADVFEAT_PROGRESS")
    assert runner.main(["list"]) == 0
    assert os.environ["ADVFEAT_PROGRESS"] == "off"


def test_a_terminal_whose_name_is_not_to_be_had_has_no_progress_bar(book, monkeypatch):
    """In a container that was given the terminal of another."""

    def unknown(number):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))

    write_chapter(book / "42-tiny.ipynb", "1")
    monkeypatch.setattr(os, "ttyname", unknown)
    monkeypatch.setattr(os, "isatty", lambda _: True)
    monkeypatch.delenv("ADVFEAT_PROGRESS")
    assert runner.main(["list"]) == 0
    assert os.environ["ADVFEAT_PROGRESS"] == "off"


def test_a_process_without_standard_error_works_in_silence(monkeypatch):
    monkeypatch.delenv("ADVFEAT_PROGRESS")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    monkeypatch.setattr(sys, "stderr", None)
    with progress(total=2, unit="img", description="x") as bar:
        assert bar.disable


def test_without_sighup_sigterm_still_ends_a_run(monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    replaced = execution.end_orderly()
    for number, handler in replaced.items():
        signal.signal(number, handler)
    assert set(replaced) == {signal.SIGTERM}


POSIX_MODULES = {"crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {
    "os": "chown fork forkpty getegid geteuid getgid getgroups getloadavg getpgid getpgrp getpriority getuid killpg "
    "mkfifo nice openpty sched_getaffinity sched_setaffinity setpgid setpriority setsid setuid sysconf ttyname "
    "uname wait4",
    "signal": "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGUSR1 SIGUSR2 alarm pthread_kill setitimer",
}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_what_only_posix_has_is_asked_for_where_it_may_be_missing(path):
    """A module can be imported everywhere; only the classroom's grading, which is refused on Windows, uses more."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & POSIX_MODULES, f"{path.name}:{node.lineno}"
    if path.parent.name == "classroom":
        return
    text = path.read_text()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            only_there = node.attr in POSIX_NAMES.get(node.value.id, "").split()
            assert not only_there or f'hasattr({node.value.id}, "{node.attr}")' in text, f"{path.name}:{node.lineno}"


@pytest.mark.parametrize(
    "module",
    [
        build,
        chapter_files,
        environment,
        executed_copy,
        execution,
        runner,
        notebook,
        readme,
        records,
        record_writing,
        release,
        store,
        verdicts,
    ],
    ids=lambda module: module.__name__,
)
def test_files_are_read_and_written_as_utf8_whatever_the_system_s_own_encoding_is(module):
    """Windows would take a code page, and the book is full of letters that it lacks."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            in_bytes = node.func.attr == "open" and any("b" in ast.literal_eval(a) for a in node.args)
            named = in_bytes or any(word.arg == "encoding" for word in node.keywords)
            assert named or node.func.attr not in ("read_text", "write_text", "open"), node.lineno


def test_an_executed_copy_has_one_form_whatever_the_system(book):
    chapter = write_chapter(book / "42-tiny.ipynb", "print('ℓ2 → ∞')")
    normalise(chapter, "inputs")
    raw = chapter.read_bytes()
    assert "ℓ2 → ∞".encode() in raw
    assert b"\r" not in raw
    assert json.loads(raw)["metadata"]["advfeat"] == {"inputs": "inputs"}
    chapter.write_bytes(b"{")
    with pytest.raises(Refused, match="damaged"):
        incomplete(chapter)


def test_nbval_waits_for_a_slow_machine_and_not_for_a_dead_kernel(monkeypatch):
    """The second run of the chapters, in `make test`, knows no clock either."""
    patience = pytest.importorskip("nbval_patience")
    asked = []

    class Kernel:
        alive = True

        def is_alive(self):
            return self.alive

    def late(kernel, stream, timeout):
        asked.append(timeout)
        kernel.alive = len(asked) < 5
        if stream == "shell" and len(asked) == 3:
            return {"msg_type": "execute_reply"}
        raise patience.Empty

    monkeypatch.setattr(patience, "_at_once", late)
    assert patience.get_message(Kernel(), "shell", timeout=patience.PATIENCE) == {"msg_type": "execute_reply"}
    assert asked == [patience.SLICE] * 3
    with pytest.raises(patience.Empty):
        patience.get_message(Kernel(), "iopub", timeout=patience.PATIENCE)
    assert len(asked) == 5, "the kernel had died"
    asked.clear()
    with pytest.raises(patience.Empty):
        patience.get_message(Kernel(), "iopub", timeout=1)
    assert len(asked) == 1, "a person's own limit holds"
    cell = type("Cell", (), {"output_timeout": 5})()
    patience.pytest_itemcollected(cell)
    assert cell.output_timeout == patience.PATIENCE
