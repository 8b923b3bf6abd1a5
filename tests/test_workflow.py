"""The toy grid with the real Snakemake: killed in the middle, it goes on and ends as if nothing had happened."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from advfeat.checkout import CHECKOUT
from advfeat.experiments.records import load_record, results_in
from advfeat.paper.grid import read_grid

pytestmark = pytest.mark.workflow


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A copy of the toy grid under a name of its own, so that nothing of another run is there; its command."""
    if not os.environ.get("ADVFEAT_SNAKEMAKE"):
        pytest.fail("ADVFEAT_SNAKEMAKE must name Snakemake; `make test` does so")
    monkeypatch.setenv("ADVFEAT_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("ADVFEAT_PROGRESS", "off")
    for name in ("toy.toml", "toy-profile.toml"):
        (tmp_path / name.replace("toy.toml", f"toy-{os.getpid()}.toml")).write_text(
            (CHECKOUT / "workflow" / name).read_text()
        )
    grid = tmp_path / f"toy-{os.getpid()}.toml"
    yield grid, [sys.executable, "-m", "advfeat.paper", "run", str(grid)]
    shutil.rmtree(read_grid(grid).folder, ignore_errors=True)


def notes(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*.done")}


def test_killed_in_the_middle_it_goes_on(toy, tmp_path):
    path, command = toy
    grid = read_grid(path)
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 300
        while len(notes(grid.folder)) < 3:
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    before = notes(grid.folder)
    models = {path: path.stat().st_mtime_ns for path in (tmp_path / "store" / "models").rglob("*.safetensors")}

    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stdout + second.stderr
    assert before.items() <= notes(grid.folder).items()  # nothing that was finished was run again
    assert all(path.stat().st_mtime_ns == when for path, when in models.items())
    with results_in(grid.results):
        for chapter in grid.chapters:
            assert list(load_record(chapter, "toy-profile").runs) == [0, 1]

    third = subprocess.run([*command, "--dry-run"], capture_output=True, text=True, check=True)
    there, jobs = map(int, re.search(r"(\d+) of (\d+) are there", third.stdout).groups())
    assert there == jobs - len(grid.chapters) > 8  # joining takes no time, and is not looked for
