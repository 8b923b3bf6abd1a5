"""How much a benchmark measures: the cases, rounds, images and steps of a run on a CPU, on a GPU, or in a hurry."""

from __future__ import annotations

from dataclasses import dataclass

from advfeat.bench.builds import BuildTask
from advfeat.bench.compare import TimedCase

FULL_IMAGES, FULL_STEPS = 50_000, 100
PROFILED = BuildTask("attack", "resnet18", 128, 2, rounds=3)


@dataclass(frozen=True)
class Plan:
    """The extent of a benchmark.

    Attributes:
        cases: cases of the contests, the most informative first; when the time is up, the rest are named and left out.
        minutes: time for the contests.
        rounds: rounds of every other measurement.
        part: images and steps of the attack on resnet18 whose parts are timed.
        lines: numbers of steps and numbers of images at which the cost is measured; the first number of images is also
            the batch size.
        drops: numbers of PGD steps at which robust accuracy is timed with and without early drop.
        few: images for the early drop and for the comparison with a plain loop.
        layer_batch: images at which single layers are timed.
        tasks: what this build and the earlier one do, in turns.
        profiled: the one of them that is taken apart by PyTorch's profiler.
        subset: images and steps from which the construction of 50,000 images is projected.
        width: width of the networks in the contests; None for the default of each.
        epochs: epochs of the ordinary network of the planted world; None for those of its profile.
    """

    cases: tuple[TimedCase, ...]
    minutes: float = 8
    rounds: int = 3
    part: tuple[int, int] = (128, 2)
    lines: tuple[tuple[int, ...], tuple[int, ...]] = ((2, 4, 8, 16), (128, 256, 512, 896))
    drops: tuple[int, ...] = (20, 50)
    few: int = 1000
    layer_batch: int = 128
    tasks: tuple[BuildTask, ...] = ()
    profiled: BuildTask = PROFILED
    subset: tuple[int, int] = (128, 2)
    width: int | None = None
    epochs: int | None = None


TASKS = (
    BuildTask("attack", "resnet18", 128, 2),
    BuildTask("attack", "resnet18", 1, 20, rounds=7),
    BuildTask("attack", "vgg16", 128, 2),
    BuildTask("attack", "resnet9", 128, 5),
    BuildTask("attack", "resnet9", 1, 20, rounds=7),
    BuildTask("train", "resnet9", 128, 2),
    BuildTask("train", "resnet18", 128, 1),
    BuildTask("adversarial", "resnet9", 128, 5),
    BuildTask("adversarial", "resnet18", 128, 5, rounds=3),
)
"""What an attack, a training step and an adversarial training step cost now and in the earlier build."""

PLANS = {
    # A case has few steps where one step takes seconds: the benchmark should take a quarter of an hour on two cores.
    "cpu": Plan(
        (
            TimedCase("resnet18", 128, 2, rounds=10, weight=5),
            TimedCase("resnet18", 1, 20),
            TimedCase("resnet9", 128, 5),
            TimedCase("resnet9", 1, 20),
            TimedCase("vgg16", 128, 2),
            TimedCase("resnet9", 1000, 1, rounds=4),
            TimedCase("resnet18", 1000, 1, rounds=2, all_peers=False),
        ),
        minutes=6,
        tasks=TASKS,
    ),
    "cuda": Plan(
        tuple(TimedCase(network, batch, 20) for network in ("resnet18", "resnet9") for batch in (1000, 16, 128, 1)),
        minutes=2.5,
        rounds=5,
        part=(1000, 20),
        lines=((10, 20, 40, 80), (128, 256, 512, 896)),
        drops=(20, 100),
        subset=(1000, FULL_STEPS),
    ),
    "full": Plan(
        tuple(
            TimedCase(network, batch, 20) for network in ("resnet18", "resnet9", "vgg16") for batch in (128, 1, 1000)
        ),
        minutes=1e9,
        tasks=TASKS,
    ),
    "quick": Plan(
        (TimedCase("resnet18", 8, 2, rounds=2), TimedCase("resnet9", 1, 2, rounds=2)),
        rounds=2,
        part=(4, 1),
        lines=((1, 2, 3), (8, 16, 24)),
        drops=(10,),
        few=100,
        layer_batch=2,
        tasks=tuple(BuildTask(kind, "resnet9", 4, 1, rounds=2, width=8) for kind in ("attack", "train", "adversarial")),
        profiled=BuildTask("attack", "resnet9", 4, 1, rounds=2, width=8),
        subset=(8, 1),
        width=8,
        epochs=1,
    ),
}
