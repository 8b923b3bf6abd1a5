"""The benchmark, ``python -m advfeat.bench``: the gate, contests with other libraries, and where the time goes.

``make bench`` runs the benchmark in an environment that holds the other libraries, ``make gpu-check`` on a machine with
a GPU and perhaps without a network. If the gate fails, nothing is timed. On a CPU only ratios and one projected time
are kept: other times would say more about the machine than about the program. On a GPU times are kept with its name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from advfeat.bench import convolutions, gate, reference
from advfeat.bench.compare import EPS, Contest
from advfeat.bench.measurements import Findings, construction, lines_and_drop, run_contests, where_time_goes
from advfeat.bench.peers import presence
from advfeat.bench.plans import PLANS, Plan
from advfeat.checkout import CHECKOUT
from advfeat.engine import fused_steps
from advfeat.experiments import records
from advfeat.experiments.record_writing import save_record

CHAPTER = "13-fast-attacks"
GATE_SHAPES = ((3, 7, 5), (3, 32, 32))
"""Image shapes in the gate: one that fills no block of a kernel, and that of CIFAR-10."""


def benchmark(device: torch.device, folder: Path, plan: Plan, *, deadline: float = float("inf")) -> Path:
    """Run the whole benchmark; everything printed also goes to ``folder``. Returns the path of the record.

    Args:
        deadline: a value of ``time.monotonic``; all 50,000 images are constructed only if that would end before it.

    Raises:
        gate.GateFailed: the engine computes something wrong; nothing is timed then.
    """
    verdicts = [verdict for shape in GATE_SHAPES for verdict in reference.check_engine(shape=shape, device=device)]
    attacks = len(verdicts) // len(GATE_SHAPES)
    verdicts += convolutions.check_convolutions() if device.type == "cpu" else []
    gate.require_all(verdicts)
    shown = verdicts[(len(GATE_SHAPES) - 1) * attacks :]
    findings = Findings(device, folder)
    findings.report("The gate: the engine against float64, largest error over all pixels", *map(str, shown))
    (versions, absent), made = presence(), findings.made
    findings.report(
        "",
        f"device {made['device']}, {made['threads']} threads, torch {made['versions']['torch']}",
        f"engine {made['engine']}",
        f"peers  {', '.join(f'{name} {known}' for name, known in versions.items()) or 'none'}",
        *(f"absent {name}: {why}" for name, why in absent.items()),
    )
    contest = Contest(device, width=plan.width)
    run_contests(contest, findings, plan, versions)
    where_time_goes(contest, findings, plan)
    lines_and_drop(contest, findings, plan)
    construction(contest, findings, plan, deadline)
    config = {
        "plan": asdict(plan),
        "eps": EPS,
        "peers": versions,
        "absent": absent,
        "dtype": str(fused_steps.fast_dtype(device.type)).removeprefix("torch."),
    }
    fingerprint = contest.network("resnet18")[1].fingerprint()
    path = save_record(
        CHAPTER, device.type, seed=0, values=findings.values, config=config, seconds=findings.seconds,
        series=findings.series, tables={"contests": findings.rows},
        provenance={**made, "data": "planted", "fingerprint": fingerprint},
    )  # fmt: skip
    findings.report("", f"Recorded in {path}")
    return path


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m advfeat.bench", description="Gate, contests, where the time goes.")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--out", type=Path, default=CHECKOUT / "runs" / "bench", help="folder for the printed tables")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="20 steps everywhere, however long that takes")
    size.add_argument("--quick", action="store_true", help="small networks: does it run? All into --out")
    given = parser.parse_args(argv)
    kind = "cuda" if given.device != "cpu" and torch.cuda.is_available() else "cpu"
    if given.device == "cuda" and kind == "cpu":
        parser.error("--device cuda, but PyTorch sees no CUDA device")
    plan = PLANS["quick" if given.quick else "full" if given.full else kind]
    try:
        if given.quick:
            with records.results_in(given.out / "results"):
                benchmark(torch.device(kind), given.out, plan)
        else:
            benchmark(torch.device(kind), given.out, plan)
    except gate.GateFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0
