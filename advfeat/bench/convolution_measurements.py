"""The benchmark of the library's own convolutions: layer by layer, and in whole tasks beside an earlier build."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median

from advfeat.bench import builds, layers
from advfeat.bench.builds import BuildUnavailableError
from advfeat.bench.findings import Findings
from advfeat.bench.plans import Plan
from advfeat.engine.convolution_code import engine
from advfeat.models import build_model

TIMED_NETWORKS = ("resnet18", "resnet9", "vgg16")
"""Whose layers are measured, the most informative first."""


def layer_by_layer(findings: Findings, plan: Plan) -> None:
    """Every convolution of ``TIMED_NETWORKS``, alone and in float32: PyTorch's, the library's, the machine's rate."""
    if engine().name != "winograd":
        findings.report("", f"Layer by layer: nothing to compare, everything is PyTorch's ({engine().why})")
        return
    networks = ((name, build_model(name, width=plan.width, seed=0).eval()) for name in TIMED_NETWORKS)
    rows = layers.rows_of(networks, batch=plan.layer_batch, rounds=plan.rounds)
    findings.tables["layers"] = list(rows)
    rate = median(row["machine_gflops"] for row in rows)
    findings.report(
        "",
        f"Layer by layer: batch {plan.layer_batch}, float32; the machine's rate is {rate:.0f} GFLOP/s",
        f"{'network':9s}{'layer':30s}{'pass':9s} PyTorch ms  ours ms  ratio  GFLOP/s  of the rate: PyTorch  ours",
    )
    for row in rows:
        shape = layers.Shape(*(row[name] for name in layers.Shape.__dataclass_fields__))
        findings.report(
            f"{row['network']:9s}{row['count']}× {shape!s:27s}{row['pass']:9s} {row['direct_ms']:10.2f} "
            f"{row['ours_ms']:8.2f}  {row['ratio']:5.2f}  {row['gflops']:7.0f}  {row['direct_share']:20.2f} "
            f"{row['ours_share']:5.2f}"
        )


def beside_earlier_build(findings: Findings, plan: Plan) -> None:
    """Attacks and training steps of this build and the earlier one, in time and memory; and where their time goes."""
    findings.report("", f"Beside the earlier build {builds.EARLIER[:7]}: its time and its added memory over this one's")
    with tempfile.TemporaryDirectory(prefix="advfeat-earlier-") as folder:
        try:
            earlier = builds.unpacked(Path(folder))
        except BuildUnavailableError as error:
            findings.report(f"  not measured: {error}")
            findings.tables["builds"] = [{"task": "", "words": "", "void": str(error)}]
            return
        _tasks(findings, plan.tasks, earlier)
        _parts(findings, plan.profiled, earlier)


def _tasks(findings: Findings, tasks: Iterable[builds.BuildTask], earlier: Path) -> None:
    rows: list[dict[str, object]] = []
    memory: dict[str, float] = {}
    for task in tasks:
        row: dict[str, object] = {"task": task.name, "kind": task.kind, "network": task.network, "words": task.words}
        try:
            found = builds.beside(task, earlier)
        except BuildUnavailableError as error:
            rows.append(row | {"void": str(error)})
            findings.report(f"  {task.name:28s} void: {error}")
            continue
        time = found.time
        rows.append(row | {"void": "", "ratio": time.median, "lower": time.lower, "upper": time.upper,
                           "pairs": time.pairs, "memory": found.memory})  # fmt: skip
        shown = "not reported" if found.memory is None else f"{found.memory:.2f}"
        findings.report(f"  {task.name:28s} time {time} of {time.pairs}, memory {shown}  ({task.words})")
        findings.keep(f"earlier/{task.name}", time, task.network, f"{task.words}, {builds.EARLIER[:7]} over ours")
        if found.memory is not None:
            memory[task.network] = min(found.memory, memory.get(task.network, found.memory))
    findings.tables["builds"] = list(rows)
    findings.keep_least("earlier/memory", memory, f"added memory of a task, {builds.EARLIER[:7]} over ours, the least")


def _parts(findings: Findings, task: builds.BuildTask, earlier: Path) -> None:
    try:
        found = builds.parts(task, earlier)
    except BuildUnavailableError as error:
        findings.report(f"  where the time goes: not measured: {error}")
        return
    findings.tables["parts"] = [{"part": part, **{name: found[name][part] for name in found}} for part in found["now"]]
    findings.report("", f"Where the time of {task.name} goes, as shares of the time of the earlier build: before, now")
    for part in found["now"]:
        findings.report(f"  {part:14s} {found['before'][part]:7.1%} {found['now'][part]:7.1%}")
    findings.report(*(f"  {name:14s} {sum(found[name].values()):7.1%}" for name in found))
