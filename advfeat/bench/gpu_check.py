"""All checks that need a GPU, in one command: ``python -m advfeat.bench.gpu_check``, or ``make gpu-check``.

The command compares compiled kernels with their float64 twins and recorded steps with plain ones, then runs the gate
and the benchmark. It takes at most eight minutes and writes everything into one folder. It needs PyTorch with CUDA and
Triton, torchvision, SciPy, Pillow, tqdm, filelock and jaxtyping, and for the tests pytest and hypothesis. It needs no
network, no notebook tools and no other attack library; those that are installed are compared with the engine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from advfeat.bench import gate, suite
from advfeat.bench.plans import PLANS
from advfeat.checkout import CHECKOUT
from advfeat.experiments import records

MINUTES = 7.5
TESTS = ("tests/test_fused_steps.py", "tests/test_replay.py")
TEST_SECONDS = 180


def run_tests(folder: Path) -> bool:
    """Run the tests whose subject differs on a GPU; write ``tests.txt`` and return whether all passed."""
    # Warnings are errors where all versions are known; here they are only reported.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-o", "filterwarnings=default", *TESTS]
    path = folder / "tests.txt"
    with path.open("w", encoding="utf-8") as log:
        try:
            done = subprocess.run(
                command, cwd=CHECKOUT, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=TEST_SECONDS
            )
        except subprocess.TimeoutExpired:
            print(f"tests: not finished after {TEST_SECONDS} s, see {path}", flush=True)
            return False
    lines = path.read_text(encoding="utf-8").splitlines() or ["no output"]
    print(f"tests: {lines[-1].strip('= ')}, see {path}", flush=True)
    return done.returncode == 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 if a test or the gate failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m advfeat.bench.gpu_check", description="Tests, gate, benchmark on a GPU."
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "gpu-check", help="folder for everything")
    given = parser.parse_args(argv)
    if not torch.cuda.is_available():
        print("gpu-check needs a GPU: PyTorch sees no CUDA device here, so nothing was checked", file=sys.stderr)
        return 2
    start = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    passed = run_tests(given.out)
    try:
        with records.results_in(given.out / "results"):
            suite.benchmark(torch.device("cuda"), given.out, PLANS["cuda"], deadline=start + 60 * MINUTES)
    except gate.GateFailed as error:
        (given.out / "gate.txt").write_text(f"{error}\n", encoding="utf-8")
        print(error, file=sys.stderr)
        return 1
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
