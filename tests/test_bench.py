"""``make bench`` and ``make gpu-check``: the gate before any number, a record that loads, one line without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advfeat.bench import gpu_check, measurements, suite
from advfeat.bench.compare import Contest, TimedCase
from advfeat.bench.peers import PEERS
from advfeat.bench.plans import PLANS
from advfeat.engine import convolution_code, fused_steps
from advfeat.experiments import records
from advfeat.models import build_model
from advfeat.planted import PlantedWorld, planted

ROOT = Path(__file__).resolve().parent.parent
REAL_L2 = fused_steps.l2_step


def without_projection(adv, origin, gradient, *, eps, **named):
    return REAL_L2(adv, origin, gradient, eps=float("inf"), **named)


@pytest.fixture(autouse=True)
def small_gate(monkeypatch):
    """The gate on small images: on large ones it is tested elsewhere."""
    monkeypatch.setattr(suite, "GATE_SHAPES", ((3, 7, 5),))


def test_with_a_broken_kernel_no_number_is_printed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(fused_steps, "l2_step", without_projection)
    monkeypatch.setattr(suite, "run_contests", lambda *_: pytest.fail("timed in spite of the gate"))
    assert suite.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no time is measured" in printed.err
    assert "FAIL L2" in printed.err
    assert list(tmp_path.iterdir()) == []


def test_with_a_broken_transform_no_number_is_printed(monkeypatch, capsys, tmp_path):
    if convolution_code.engine().name != "winograd":
        pytest.skip(convolution_code.engine().why)
    wrong = tmp_path / "winograd.c"
    text = convolution_code.SOURCE.read_text()
    wrong.write_text(text.replace("(d4 - d2) - 2.0f * (d3 - d1)", "(d4 - d2) + 2.0f * (d3 - d1)"))
    assert wrong.read_text() != text
    monkeypatch.setattr(convolution_code, "SOURCE", wrong)
    monkeypatch.setattr(suite, "run_contests", lambda *_: pytest.fail("timed in spite of the gate"))
    convolution_code._library.cache_clear()
    try:
        assert suite.main(["--quick", "--device", "cpu", "--out", str(tmp_path / "out")]) == 1
    finally:
        convolution_code._library.cache_clear()
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "FAIL 3×3: outputs" in printed.err
    assert "ok   3×3 of stride 2: outputs" in printed.err
    assert not (tmp_path / "out").exists()


def test_a_quick_run_prints_the_tables_and_records_them_aside(monkeypatch, capsys, tmp_path):
    def failing(setting):
        raise ImportError("no module of that name")

    def untrained(device, epochs):
        data = planted(PlantedWorld(), 40, seed=1)
        return build_model("cnn4", width=8, seed=0).eval(), data, data

    monkeypatch.setattr(suite, "presence", lambda: ({"art": "1.0"}, {"foolbox": "not installed"}))
    monkeypatch.setitem(PEERS, "art", ("adversarial-robustness-toolbox", failing))
    monkeypatch.setattr(measurements, "ordinary", untrained)
    plan = replace(PLANS["quick"], cases=(TimedCase("resnet18", 4, 2, rounds=2),), few=40, lines=((1, 2), (4, 8)))
    monkeypatch.setitem(PLANS, "quick", plan)
    book = records.results_root()
    before = sorted(book.rglob("*"))
    assert suite.main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    assert records.results_root() == book
    assert sorted(book.rglob("*")) == before, "a trial is no record of the book"
    out = capsys.readouterr().out
    for text in (*measurements.TITLES.values(), "absent foolbox: not installed", "The gate", "early drop"):
        assert text in out
    assert out.count("void: did not run: ImportError: no module of that name") == 2
    assert (tmp_path / "bench.txt").read_text() == out
    with records.results_in(tmp_path / "results"):
        record = records.load_record(suite.CHAPTER, "cpu")
    assert {"bench/cpu/engine/resnet18-l2-b4-bare", "bench/cpu/step/l2-twin", "bench/cpu/early-drop/cnn4-pgd10",
            "bench/cpu/plain/cnn4-construct", "time/cpu/D_rand"} <= set(record.ids())  # fmt: skip
    run = record.runs[0]
    assert run["seconds"] == {}, "on a CPU no times are kept"
    assert {row["contender"] for row in run["tables"]["contests"]} == {"advfeat", "art", "bare"}
    assert len(run["series"]["roofline"]) == 5
    assert json.loads((tmp_path / "results" / "index.json").read_text())


def test_cases_for_which_no_time_is_left_are_named(capsys, tmp_path):
    findings = measurements.Findings(torch.device("cpu"), tmp_path)
    plan = replace(PLANS["cpu"], minutes=-1)
    measurements.run_contests(Contest(torch.device("cpu")), findings, plan, {})
    assert capsys.readouterr().out.count("not measured: the time was up") == 2 * len(plan.cases)
    assert findings.rows == []
    assert findings.values == {}


def test_results_go_elsewhere_for_a_while(monkeypatch, tmp_path):
    monkeypatch.setenv("ADVFEAT_RESULTS", "before")
    with records.results_in(tmp_path):
        assert records.results_root() == tmp_path
    assert records.results_root() == Path("before")
    monkeypatch.delenv("ADVFEAT_RESULTS")
    with records.results_in(tmp_path):
        pass
    assert "ADVFEAT_RESULTS" not in os.environ


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which the check would use")
def test_without_a_gpu_the_check_ends_with_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_check, "run_tests", lambda _: pytest.fail("went on"))
    assert gpu_check.main(["--out", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "gpu-check needs a GPU" in printed.err
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, which the check would use")
def test_make_gpu_check_ends_with_one_line(tmp_path):
    for name in ("python", "python3"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    names = ["PYTHON=none", f"BENCH={tmp_path}/bench", f"VENV={tmp_path}/venv"]
    done = subprocess.run(
        ["make", "-s", "gpu-check", *names],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert [line for line in done.stderr.splitlines() if not line.startswith("make")] == [
        "gpu-check needs a GPU: no Python here has a PyTorch that sees a CUDA device, and pytest, hypothesis and "
        "what advfeat.bench.gpu_check imports, so nothing was checked"
    ]


def test_make_gpu_check_passes_over_a_python_that_cannot_run_the_tests(tmp_path):
    for name, line in {"bench": 'case "$*" in *hypothesis*) exit 1;; esac; echo wrong', "venv": "echo right"}.items():
        python = tmp_path / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(f"#!/bin/sh\n{line}\n")
        python.chmod(0o755)
    command = ["make", "-s", "gpu-check", "PYTHON=none", f"BENCH={tmp_path}/bench", f"VENV={tmp_path}/venv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "right\n"


def test_the_check_keeps_tests_gate_and_benchmark_in_one_folder(monkeypatch, capsys, tmp_path):
    """With a stand-in for the GPU: the calls, where it writes, the exit code."""
    asked = {}

    def benchmark(device, folder, plan, *, deadline):
        asked.update(device=device, folder=folder, plan=plan, results=records.results_root())

    def run(command, *, stdout, timeout, **named):
        assert all((ROOT / path).exists() for path in command[-2:])
        if timeout == 0:
            raise subprocess.TimeoutExpired(command, timeout)
        print("=== 7 passed in 1.0s ===", file=stdout)
        return subprocess.CompletedProcess(command, asked["status"])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(suite, "benchmark", benchmark)
    monkeypatch.setattr(gpu_check.subprocess, "run", run)
    asked["status"] = 0
    assert gpu_check.main(["--out", str(tmp_path)]) == 0
    assert asked["device"] == torch.device("cuda")
    assert asked["plan"] is PLANS["cuda"]
    assert asked["results"] == tmp_path / "results"
    assert "tests: 7 passed in 1.0s, see " in capsys.readouterr().out
    asked["status"] = 1
    assert gpu_check.main(["--out", str(tmp_path)]) == 1, "the benchmark runs all the same, and reports its findings"
    monkeypatch.setattr(gpu_check, "TEST_SECONDS", 0)
    assert not gpu_check.run_tests(tmp_path)
    assert "not finished after" in capsys.readouterr().out


def test_the_check_needs_no_tools_of_the_book():
    """A machine that is lent for its GPU has PyTorch and the packages of the tests, not the rest."""
    missing = ["papermill", "IPython", "jupyter_client", "nbformat", "myst_nb", "yaml", "pandas", "platformdirs",
               "beartype", "pyautoattack", "matplotlib", "safetensors"]  # fmt: skip
    program = f"import sys\nfor name in {missing}: sys.modules[name] = None\nimport advfeat.bench.gpu_check"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
