"""The cost of an attack: by steps and images, in memory, with early drop, beside a plain loop; and its update alone."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from advfeat import inputs
from advfeat.attacks import pgd
from advfeat.bench import timing
from advfeat.bench.timing import Ratio
from advfeat.data import Dataset
from advfeat.engine import fused_steps
from advfeat.models import Classifier, freeze
from advfeat.onednn import check_trainable
from advfeat.robustness import withstands
from advfeat.threats import L2, Threat


def cost_lines(
    model: Classifier, data: Dataset, threat: Threat, *, steps: Sequence[int], images: Sequence[int], batch_size: int,
    rounds: int, device: torch.device,
) -> dict[str, list[float]]:  # fmt: skip
    """The time of PGD against its steps (on one batch) and against images (with the fewest steps), and the memory.

    Every series is a multiple of its first value; times are the best of ``rounds``. Memory is left out if the system
    does not report it.
    """
    frozen = freeze(model)

    def attack(count: int, many: int) -> None:
        for start in range(0, count, batch_size):
            part = data.subset(slice(start, min(start + batch_size, count)))
            pgd(frozen, part.images, part.labels, threat, steps=many, step_size=threat.eps / 10)

    runs = {("steps", many): functools.partial(attack, batch_size, many) for many in steps}
    runs |= {("images", count): functools.partial(attack, count, steps[0]) for count in images}
    times = timing.interleaved({str(key): run for key, run in runs.items()}, rounds=rounds, device=device)
    found = {"steps": [float(many) for many in steps], "images": [float(count) for count in images]}
    for axis in ("steps", "images"):
        best = [min(times[str((axis, int(value)))]) for value in found[axis]]
        found[f"time_by_{axis}"] = [value / best[0] for value in best]
    try:
        memory = [timing.peak_memory(runs["images", count], device) for count in images]
    except OSError:
        return found
    return found | {"memory_by_images": [value / memory[0] for value in memory]}


def early_drop(
    model: Classifier, data: Dataset, threat: Threat, *, steps: int, rounds: int, device: torch.device
) -> tuple[Ratio, Tensor]:
    """Time of ``withstands`` without early drop of fooled images over its time with early drop, and the answers.

    Raises:
        RuntimeError: the two answers differ for an image.
    """
    answers: dict[bool, Tensor] = {}

    def measure(drop: bool) -> None:
        answers[drop] = withstands(model, data, threat, steps=steps, early_drop=drop)

    runs = {str(drop): functools.partial(measure, drop) for drop in (False, True)}
    times = timing.interleaved(runs, rounds=rounds, device=device)
    if not torch.equal(answers[False], answers[True]):
        raise RuntimeError(f"dropping fooled images changed {int((answers[False] != answers[True]).sum())} answers")
    return Ratio.of(times["False"], times["True"]), answers[True]


def update_beside_copy(device: torch.device, *, count: int | None = None, rounds: int = 7) -> dict[str, Ratio]:
    """The cost of the ℓ2 update of ``count`` images, beside a copy and beside its twin.

    ``copy``: time to copy as many bytes as an update moves over the time of the update, which is the share of the copy
    rate that the update reaches. ``twin``: time of the PyTorch lines that specify the update over the time of the
    update; 1 where the twin itself is the update.
    """
    count = count or (8192 if device.type == "cuda" else 512)
    generator = torch.Generator().manual_seed(0)
    origin = torch.rand(count, 3, 32, 32, generator=generator).to(device).to(memory_format=torch.channels_last)
    gradient, adv = origin.flip(0), origin.clone()
    # An update reads three arrays and writes one; a copy of two arrays reads two and writes two, as many bytes.
    source = torch.cat([origin.flatten(), gradient.flatten()])
    target = torch.empty_like(source)

    def update() -> None:
        fused_steps.l2_step(adv, origin, gradient, eps=0.5, step_size=0.1, out=adv)

    def twin() -> None:
        with fused_steps.twins_only():
            update()

    times = timing.interleaved(
        {"update": update, "twin": twin, "copy": lambda: target.copy_(source)}, rounds=rounds, device=device
    )
    return {name: Ratio.of(times[name], times["update"]) for name in ("copy", "twin")}


def plain_pgd(
    model: nn.Module,
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    threat: L2,
    *,
    steps: int,
    step_size: float,
    targeted: bool = False,
) -> Float[Tensor, "n c h w"]:
    """``attacks.pgd`` in ℓ2 as a first version is written: the loss of the whole network, ``backward()``, a step.

    This is the baseline of the engine. ``backward()`` also computes the gradients of the weights, which are dropped.

    Raises:
        TypeError: another threat than an ``L2``.
        ValueError: weight gradients of the model cannot be trusted on a CPU, see ``onednn.check_trainable``.
    """
    inputs.instance("threat", threat, L2, "an L2, the only one that is written out here")
    check_trainable(model)
    ascent = -1 if targeted else 1
    adv = images.clone()
    for _ in range(steps):
        adv.requires_grad_()
        loss = ascent * F.cross_entropy(model(adv), labels, reduction="sum")
        loss.backward()
        with torch.no_grad():
            gradient = adv.grad
            if gradient is None:
                raise ValueError("model does not differentiate with respect to the images")
            length = gradient.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
            moved = adv + step_size * gradient / length - images
            distance = moved.flatten(1).norm(dim=1).clamp(min=1e-30).view(-1, 1, 1, 1)
            adv = (images + moved * (threat.eps / distance).clamp(max=1)).clamp(0, 1)
    model.zero_grad(set_to_none=True)
    return adv.detach()


def beside_plain(
    model: Classifier, data: Dataset, threat: L2, *, steps: int, step_size: float, rounds: int, device: torch.device
) -> tuple[Ratio, dict[str, Tensor]]:
    """Time of ``plain_pgd`` on ``model`` over that of the engine, freezing included, and the images of each.

    Both attacks are targeted at the labels of ``data``, as in the construction of chapter 5.
    """
    made: dict[str, Tensor] = {}

    def plain() -> None:
        made["plain"] = plain_pgd(
            model, data.images, data.labels, threat, steps=steps, step_size=step_size, targeted=True
        )

    def engine() -> None:
        made["engine"] = pgd(
            freeze(model), data.images, data.labels, threat, steps=steps, step_size=step_size, targeted=True
        )

    times = timing.interleaved({"plain": plain, "engine": engine}, rounds=rounds, device=device)
    return Ratio.of(times["plain"], times["engine"]), made
