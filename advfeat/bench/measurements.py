"""The measurements of the benchmark: contests with other libraries, and where the time of the engine goes."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch

from advfeat.attacks import pgd
from advfeat.bench import scaling, timing
from advfeat.bench.compare import BARE, EPS, OURS, CaseResult, Contest
from advfeat.bench.plans import FULL_IMAGES, FULL_STEPS, Plan
from advfeat.bench.timing import Ratio
from advfeat.construct import random_target_dataset
from advfeat.data import Dataset
from advfeat.estimates import Measured
from advfeat.experiments.profiles import get_profile
from advfeat.experiments.provenance import provenance
from advfeat.models import Classifier, build_model, freeze
from advfeat.planted import PlantedWorld, planted
from advfeat.threats import L2
from advfeat.train import train

TITLES = {"user": "As a user calls them", "engine": "Engine only: everyone attacks our frozen network"}


class Findings:
    """The measurements so far: printed at once, kept for the record.

    Args:
        folder: folder of ``bench.txt``, a copy of everything that is printed.
    """

    def __init__(self, device: torch.device, folder: Path) -> None:
        self.device = device
        self.made = provenance(device)
        self.values: dict[str, Measured] = {}
        self.series: dict[str, list[float]] = {}
        self.seconds: dict[str, float] = {}
        self.rows: list[Mapping[str, object]] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "bench.txt"
        self.log.write_text("", encoding="utf-8")

    def report(self, *lines: str) -> None:
        """Print the lines, and append them to ``bench.txt``."""
        print(*lines, sep="\n", flush=True)
        with self.log.open("a", encoding="utf-8") as stream:
            print(*lines, sep="\n", file=stream)

    def keep(self, key: str, ratio: Ratio, network: str, what: str) -> None:
        """Keep a ratio with the range of its pairs, under an id below ``bench/<device>/``."""
        measured = Measured(ratio.median, ratio.pairs, network, what, low=ratio.least, high=ratio.most)
        self.values[f"bench/{self.device.type}/{key}"] = measured

    def keep_time(self, key: str, value: float) -> None:
        """Keep a time in seconds if it was measured on a GPU."""
        if self.device.type == "cuda":
            self.seconds[key] = value


def run_contests(contest: Contest, findings: Findings, plan: Plan, versions: Mapping[str, str]) -> None:
    """Both comparisons of every case; each case gets a share of the time by its weight."""
    deadline, left = time.monotonic() + 60 * plan.minutes, 2 * sum(case.weight for case in plan.cases)
    for comparison, title in TITLES.items():
        findings.report(
            "", title, "network  batch steps contender     robust  time over ours: median [quartiles] of pairs"
        )
        ranking = list(versions)
        for case in plan.cases:
            now = time.monotonic()
            if now > deadline:
                findings.report(f"{case.network:8s} {case.batch:5d} {case.steps:5d} not measured: the time was up")
                continue
            peers = list(versions) if case.all_peers else ranking[:1]
            row = contest.compare(comparison, case, peers, deadline=now + (deadline - now) * case.weight / left)
            left -= case.weight
            ranking = row.ranking or ranking
            for line in row.lines():
                findings.report(format_row(line))
                findings.rows.append({**line, "version": versions.get(str(line["contender"]), "")})
            keep_ratios(row, findings, versions)


def keep_ratios(row: CaseResult, findings: Findings, versions: Mapping[str, str]) -> None:
    """Keep two ratios of one row: the fastest peer over ours, and ours over the bare forward pass and gradient."""
    case, name = row.case, f"{row.comparison}/{row.case.name}"
    about = f"l2 PGD-{case.steps}, batch {case.batch}"
    if OURS in row.times:
        findings.keep_time(f"{name}/step", median(row.times[OURS]) / case.steps)
    if row.ranking:
        fastest = row.ranking[0]
        findings.keep(name, row.against(fastest), case.network, f"{about}, {fastest} {versions[fastest]} over ours")
    if BARE in row.times:
        findings.keep(f"{name}-bare", row.over_bare(), case.network, f"{about}, ours over forward and gradient")


def format_row(line: Mapping[str, Any]) -> str:
    """One line of the printed table."""
    robust = "" if line["robust"] is None else f"{line['robust']:.1%}"
    start = f"{line['network']:8s} {line['batch']:5d} {line['steps']:5d} {line['contender']:12s} {robust:>7s}  "
    if line["void"]:
        return f"{start}void: {line['void']}"
    if "ratio" not in line:
        return start.rstrip()
    spread = f"{line['ratio']:.2f} [{line['lower']:.2f}, {line['upper']:.2f}] of {line['pairs']}"
    return start + (f"ours over it {spread}" if line["contender"] == BARE else spread)


def where_time_goes(contest: Contest, findings: Findings, plan: Plan) -> None:
    """The parts of one step on resnet18 beside the rates of the machine, and the update beside a copy and its twin."""
    (batch, steps), (model, data) = plan.part, contest.network("resnet18")
    frozen, threat, data = freeze(model), L2(EPS["resnet18"]), data.subset(slice(0, batch))

    def attack(many: int) -> None:
        pgd(frozen, data.images, data.labels, threat, steps=many, step_size=threat.eps / 10)

    found = timing.breakdown(frozen, data.images, data.labels, attack, steps=steps, rounds=plan.rounds)
    rates = timing.machine_rates(contest.device, frozen.dtype)
    update = scaling.update_beside_copy(contest.device, count=None if plan.width is None else 16)
    shares = {
        "convolutions": found.convolutions / found.total,
        "rest of the network": (found.network - found.convolutions) / found.total,
        "update of the images": found.step / found.total,
    }
    # Both axes of the roofline are in units of its ridge point, where computing takes as long as moving the data.
    corner = rates.matrix / rates.copy
    convolutions = (found.operations / found.bytes / corner, found.operations / found.convolutions / rates.matrix)
    updating = (found.step_operations / found.step_bytes / corner, found.step_operations / found.step / rates.matrix)
    whole = found.operations / found.total / rates.matrix
    findings.report("", f"Where one step goes: resnet18, batch {batch}, {str(frozen.dtype).removeprefix('torch.')}")
    findings.report(*(f"  {name:22s} {share:6.1%} of the step" for name, share in shares.items()))
    findings.report(
        f"  {whole:.1%} of the machine's rate for a matrix product; its convolutions alone {convolutions[1]:.1%}",
        f"  the update moves its bytes at {update['copy']} of the rate of a copy",
        f"  the lines of PyTorch that specify the update take {update['twin']} times as long",
    )
    findings.series |= {"shares": list(shares.values()), "roofline": [*convolutions, *updating, whole]}
    findings.keep_time("step/resnet18", found.total)
    findings.keep("step/l2-copy", update["copy"], "none", "l2_step, time of a copy of the same bytes over its time")
    findings.keep("step/l2-twin", update["twin"], "none", "l2_step, time of its lines of PyTorch over its time")


def ordinary(device: torch.device, epochs: int | None) -> tuple[Classifier, Dataset, Dataset]:
    """An ordinary network of the planted world, as chapter 1 has it, with training and test images."""
    profile = get_profile("planted", {} if epochs is None else {"standard": {"epochs": epochs}})
    data, test = (
        planted(PlantedWorld(), count, seed=seed).to(device)
        for count, seed in ((profile.data.train_images, 1), (profile.data.test_images, 2))
    )
    model = build_model(profile.network.name, width=profile.network.width, seed=0).to(device)
    train(model, data, profile.training.standard, seed=0)
    return model.eval(), data, test


def lines_and_drop(contest: Contest, findings: Findings, plan: Plan) -> None:
    """Whether cost is linear and memory constant, the saving of early drop, and the engine beside a plain loop."""
    device, (steps, images) = contest.device, plan.lines
    model, data = contest.network("resnet9")
    found = scaling.cost_lines(model, data, L2(EPS["resnet9"]), steps=steps, images=images, batch_size=images[0],
                             rounds=plan.rounds, device=device)  # fmt: skip
    findings.series |= found
    findings.report("", "Cost: resnet9, multiples of the first value")
    for axis in ("steps", "images"):
        off = timing.from_a_line(found[axis], found[f"time_by_{axis}"])
        pairs = (f"{int(x)}: {y:.2f}" for x, y in zip(found[axis], found[f"time_by_{axis}"], strict=True))
        findings.report(f"  time by {axis:6s}  {', '.join(pairs)}; at most {off:.0%} from a line")
    if "memory_by_images" in found:
        findings.report(f"  memory by images  {', '.join(f'{value:.3f}' for value in found['memory_by_images'])}")
    model, data, test = ordinary(device, plan.epochs)
    findings.report("", "The ordinary network of the planted world: cnn4")
    for many in plan.drops:
        some = test.subset(slice(0, plan.few))
        ratio, stands = scaling.early_drop(model, some, L2(0.5), steps=many, rounds=plan.rounds, device=device)
        robust = float(stands.float().mean())
        findings.report(
            f"  l2 PGD-{many}: robust accuracy {robust:.1%} with early drop and without, {ratio} times as long without"
        )
        about = f"l2 PGD-{many}, robust_accuracy without early drop over with"
        findings.keep(f"early-drop/cnn4-pgd{many}", ratio, "cnn4", about)
    some, profile = data.subset(slice(0, plan.few)), get_profile("planted")
    towards = some.replace(labels=(some.labels + 1) % some.num_classes)
    ratio, made = scaling.beside_plain(
        model, towards, L2(profile.targeting.eps), steps=profile.targeting.steps, step_size=profile.targeting.step_size,
        rounds=plan.rounds, device=device,
    )  # fmt: skip
    off = float((made["plain"] - made["engine"]).flatten(1).norm(dim=1).median())
    findings.report(f"  the construction of chapter 5 as a plain loop takes {ratio} times as long; distance {off:.0e}")
    about = f"l2 PGD-{profile.targeting.steps} towards a class, plain float32 loop over engine"
    findings.keep("plain/cnn4-construct", ratio, "cnn4", about)


def construction(contest: Contest, findings: Findings, plan: Plan, deadline: float) -> None:
    """The time to construct D_rand with resnet18: 50,000 images and 100 steps, projected from a subset."""
    images, steps = plan.subset
    model, data = contest.network("resnet18")

    def build(some: Dataset, many: int) -> None:
        random_target_dataset(model, some, L2(0.5), steps=many, step_size=0.1, seed=0, batch_size=min(len(some), 1000))

    some = data.subset(slice(0, images))
    device = contest.device
    times = timing.interleaved({"build": functools.partial(build, some, steps)}, rounds=plan.rounds, device=device)
    projected = [value / (images * steps) * FULL_IMAGES * FULL_STEPS for value in times["build"]]
    about = f"l2 PGD-{FULL_STEPS} of {FULL_IMAGES:,} images, projected from {images:,} images and {steps} steps"
    if device.type == "cuda" and time.monotonic() + 1.2 * median(projected) < deadline:
        # The same thousand images fifty times over cost the same as 50,000 different ones.
        whole = torch.arange(FULL_IMAGES, device=device) % len(data)
        projected = [timing.clock(functools.partial(build, data.subset(whole), FULL_STEPS), device)]
        about = f"l2 PGD-{FULL_STEPS} of {FULL_IMAGES:,} images, measured"
    findings.report("", f"D_rand with resnet18, {about}: {median(projected):,.0f} s on {findings.made['device']}")
    findings.values[f"time/{device.type}/D_rand"] = Measured(
        median(projected), len(projected), "resnet18", about, low=min(projected), high=max(projected)
    )
